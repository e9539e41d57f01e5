"""The documents say what is: tables, examples, links and paths are held against the code."""

import asyncio
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import get_args

import msgspec
import pytest

import crawler
from crawler.cli.main import main
from crawler.core.results import REPORTED_HEADERS, Outcome
from crawler.core.tasks import TRANSITIONS
from tests.support.documents import (
    PAGES,
    ROOT,
    SERVERS,
    TABLES,
    Example,
    essence,
    examples,
    module_names,
    replay,
    with_tables,
)
from tests.support.site import Site

STRUCTS = (crawler.ProbeResult, crawler.ProbeError, crawler.Hop, crawler.Timings, crawler.TLSInfo)

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def first_column(text: str, *, after: str) -> list[str]:
    """What the rows of the first table after some words are about."""
    rows = re.search(r"(?:^\|.*\n)+", text[text.index(after) :], re.M)
    assert rows, f"no table after {after!r}"
    return [line.split("|")[1].strip(" `") for line in rows[0].splitlines()[2:]]


# --- Tables ---


@pytest.mark.parametrize("name", TABLES)
def test_each_table_stands_in_a_document(name: str) -> None:
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


def test_the_map_draws_modules_that_exist() -> None:
    drawing = re.search(r"## Architecture.*?^```\n(.*?)^```", read("README.md"), re.M | re.S)
    assert drawing
    assert set(re.findall(r"\w+", drawing[1])) <= module_names()


def test_a_probe_travels_through_modules_that_exist() -> None:
    way = read("CONTRIBUTING.md").partition("## How a probe travels")[2].partition("##")[0]
    assert set(re.findall(r"`([a-z_]+)`", way)) <= module_names()


def test_the_newest_change_is_of_this_version() -> None:
    assert re.findall(r"^## \[(.*?)\]", read("CHANGELOG.md"), re.M)[0] == crawler.__version__


# --- Examples ---


@pytest.fixture(scope="module")
def followed() -> Iterator[dict[Path, Future[list[tuple[Example, str]]]]]:
    """What the examples of each document print, each document read by another reader."""
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
        await exit_code_after(signal.SIGINT),
        await exit_code_after(signal.SIGTERM),
    ]
    assert first_column(read("README.md"), after="| code | when |") == [str(code) for code in codes]


# --- Where documents point to ---


def anchors(page: Path) -> set[str]:
    headings = re.findall(
        r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S), re.M
    )
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pages
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]*)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        if ":" not in path:
            file = (page.parent / path) if path else page
            assert file.exists(), target
            assert not anchor or anchor in anchors(file), target


@pages
def test_paths_exist(page: Path) -> None:
    paths = re.findall(r"`([\w][\w./-]*(?:/|\.(?:py|md|cfg|toml|txt)))`", page.read_text(encoding="utf-8"))
    assert [path for path in paths if not any((folder / path).exists() for folder in (ROOT, ROOT / "crawler"))] == []


@pages
def test_commands_of_make_exist(page: Path) -> None:
    commands = re.findall(r"(?:^|`|\$ )make ([a-z]+)", page.read_text(encoding="utf-8"), re.M)
    assert [command for command in commands if f"\n{command}: " not in read("Makefile")] == []


def test_every_document_is_linked() -> None:
    linked = set(re.findall(r"\]\(([^)#]*)", read("README.md")))
    assert {str(page.relative_to(ROOT)) for page in PAGES} - {"README.md"} <= linked
