"""Compare the documents with the code: tables, examples, links, paths and names."""

import ast
import asyncio
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import get_args
from xml.etree import ElementTree

import msgspec
import pytest

import crawler
from crawler.cli.main import main
from crawler.core.results import REPORTED_HEADERS, Outcome
from crawler.core.tasks import TRANSITIONS
from tests.support.documents import (
    LONG_DESCRIPTION,
    PACKAGE,
    PAGES,
    README,
    ROOT,
    SERVERS,
    TABLES,
    Example,
    essence,
    examples,
    long_description,
    replay,
    with_tables,
)
from tests.support.site import Site

STRUCTS = (crawler.ProbeResult, crawler.ProbeError, crawler.Hop, crawler.Timings, crawler.TLSInfo)

MAX_README_LINES = 150

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def first_column(text: str, *, after: str) -> list[str]:
    """Return the first cell of each row of the first table after some words."""
    rows = re.search(r"(?:^\|.*\n)+", text[text.index(after) :], re.M)
    assert rows, f"no table after {after!r}"
    return [line.split("|")[1].strip(" `") for line in rows[0].splitlines()[2:]]


# --- Tables ---


@pytest.mark.parametrize("name", TABLES)
def test_each_table_is_in_a_document(name: str) -> None:
    assert sum(page.read_text(encoding="utf-8").count(f"<!-- made: {name} -->") for page in PAGES) == 1


@pages
def test_tables_are_those_of_the_code(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text == with_tables(text), "run `python -m tests.support.documents`"


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda struct: struct.__name__)
def test_each_field_of_a_record_is_explained(struct: type[msgspec.Struct]) -> None:
    fields = first_column(read("docs/results.md"), after=f"<!-- fields: {struct.__name__} -->")
    assert fields == list(struct.__struct_fields__)


def test_each_public_name_is_explained() -> None:
    assert first_column(read("docs/library.md"), after="<!-- names: crawler -->") == crawler.__all__


def test_words_of_the_code_are_explained() -> None:
    assert first_column(read("docs/results.md"), after="## Outcomes") == list(get_args(Outcome))
    assert first_column(read("docs/service.md"), after="| status | meaning |") == list(TRANSITIONS)
    headers = re.findall(r"`(.*?)`", read("docs/results.md").partition("## headers")[2].partition("##")[0])
    assert set(headers) == REPORTED_HEADERS


def test_each_drawing_names_paths_that_exist() -> None:
    """The hand-made drawings, in blocks of text, of the page on architecture."""
    drawing = read("docs/architecture.md").partition("```text\n")[2].partition("```")[0]
    paths = re.findall(r"\w[\w/]*(?:\.py|/)", drawing)
    assert paths
    assert [path for path in paths if not any(PACKAGE.glob(f"**/{path}"))] == []


def definitions(file: Path) -> set[str]:
    """Return the classes, methods, functions and constants of a module."""
    names = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{item.name}" for item in node.body if hasattr(item, "name")}
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


def test_each_place_of_a_change_exists() -> None:
    """After a path in backticks, names in backticks are defined in that file."""
    places = read("docs/architecture.md").partition("<!-- places -->")[2].partition("\n## ")[0]
    missing, found = [], 0
    for row in places.splitlines():
        known: set[str] = set()
        for name in re.findall(r"`([^`]+)`", row.partition("|")[2].partition("|")[2]):
            if "/" in name or name.endswith(".py"):
                assert (PACKAGE / name).exists(), name
                known = definitions(PACKAGE / name) if name.endswith(".py") else set()
            elif re.fullmatch(r"[\w.]+", name) and not name.startswith("__"):
                found += 1
                missing += [] if name in known else [f"{name}: {row[:60]}"]
    assert found > 30
    assert missing == []


def test_the_readme_is_short_and_fits_a_package_index() -> None:
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_README_LINES
    assert re.findall(r"\]\((?!https://)([^)]*)\)", text) == ["docs/terminal.svg"]
    assert LONG_DESCRIPTION.read_text(encoding="utf-8") == long_description()
    assert "](docs/" not in long_description()
    assert f"long_description = file: {LONG_DESCRIPTION.relative_to(ROOT)}" in read("setup.cfg")


def test_the_picture_of_the_terminal_asks_no_other_server() -> None:
    """It shows a run of the command, and has no link, font or style of another place."""
    text = read("docs/terminal.svg")
    shown = "".join(ElementTree.fromstring(text).itertext()).replace("\N{NO-BREAK SPACE}", " ")
    assert "crawler probe" in shown
    assert re.findall(r"(?:href|src|url)\W+http|@import", text) == []


def test_the_newest_change_is_of_this_version() -> None:
    assert re.findall(r"^## \[(.*?)\]", read("CHANGELOG.md"), re.M)[0] == crawler.__version__


# --- Examples ---


@pytest.fixture(scope="module")
def followed() -> Iterator[dict[Path, Future[list[tuple[Example, str]]]]]:
    """Run the examples of all documents side by side, each document in a shell of its own."""
    if shutil.which("curl") is None:
        pytest.fail("examples need curl")
    with ThreadPoolExecutor() as pool:
        yield {page: pool.submit(replay, page.read_text(encoding="utf-8")) for page in PAGES}


@pages
def test_examples_print_what_is_documented(page: Path, followed: dict[Path, Future[list[tuple[Example, str]]]]) -> None:
    done = followed[page].result()
    printed = [(example.command, essence(output)) for example, output in done]
    assert printed == [(example.command, essence(example.output)) for example, _ in done]


def test_each_example_program_is_followed() -> None:
    commands = [example.command for page in PAGES for example in examples(page.read_text(encoding="utf-8"))]
    programs = sorted((ROOT / "examples").glob("*.py"))
    assert programs
    for program in programs:
        assert any(f"examples/{program.name}" in command for command in commands)
        assert len(program.read_text(encoding="utf-8").splitlines()) <= 30


def test_make_run_is_what_the_examples_run() -> None:
    assert re.search(r"^run:.*\n\t\$\(BIN\)/python (-m crawler) \$\(ARGS\)$", read("Makefile"), re.M)
    assert SERVERS["make run"][0][:2] == ["-m", "crawler"]


async def test_exit_codes(site: Site, tmp_path: Path) -> None:
    async def exit_code(*arguments: str) -> int:
        return await asyncio.to_thread(main, ["probe", "--output", str(tmp_path / "results"), *arguments])

    async def exit_code_after(number: signal.Signals) -> int:
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", "crawler", "probe", site.url("/hang"))
        await site.until(lambda: site.active > 0)
        process.send_signal(number)
        code = await process.wait()
        await site.until(lambda: site.active == 0)
        return code

    codes = [
        await exit_code(site.url("/ok")),
        await exit_code(site.url("/ok"), site.url("/status/404")),
        await exit_code("--timeout", "0", site.url("/ok")),
        await exit_code_after(signal.SIGHUP),
        await exit_code_after(signal.SIGINT),
        await exit_code_after(signal.SIGTERM),
    ]
    assert first_column(read("docs/command.md"), after="| code | when |") == [str(code) for code in codes]


# --- Where documents point to ---


def anchors(page: Path) -> set[str]:
    headings = re.findall(
        r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S), re.M
    )
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pages
def test_links_have_existing_targets(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]*)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        if ":" not in path:
            file = (page.parent / path) if path else page
            assert file.exists(), target
            assert not anchor or anchor in anchors(file), target


@pages
def test_paths_exist(page: Path) -> None:
    paths = re.findall(r"`([\w][\w./-]*(?:/|\.(?:py|md|cfg|toml|txt)))`", page.read_text(encoding="utf-8"))
    assert [
        path for path in paths if not any((folder / path).exists() for folder in (ROOT, PACKAGE, page.parent))
    ] == []


@pages
def test_commands_of_make_exist(page: Path) -> None:
    commands = re.findall(r"(?:^|`|\$ )make ([a-z]+)", page.read_text(encoding="utf-8"), re.M)
    assert [command for command in commands if f"\n{command}: " not in read("Makefile")] == []


def test_every_document_is_in_the_index() -> None:
    index = ROOT / "docs/README.md"
    linked = {(index.parent / link).resolve() for link in re.findall(r"\]\(([^)#]*)", read("docs/README.md"))}
    assert set(PAGES) - {README, index} <= linked
