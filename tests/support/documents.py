"""Make tables of the documents from the code, and run their examples as a reader would.

    python -m tests.support.documents

rewrites the tables and the outputs that have changed. `tests/project/test_documentation.py` compares, and fails.
"""

import ast
import configparser
import inspect
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final, NamedTuple, Self, get_args

from typer.models import OptionInfo

import crawler
from crawler.cli.flags import Flag, flags_of
from crawler.cli.main import app
from crawler.core.error_advice import ERROR_ADVICE
from crawler.core.error_types import ERROR_TYPES
from crawler.core.options import Options
from crawler.core.service_options import ServiceOptions
from crawler.server.metrics import TABLE as METRICS

ROOT: Final = Path(__file__).parents[2]
PACKAGE: Final = ROOT / "crawler"
README: Final = ROOT / "README.md"
# What a package index shows: the README without what only this repository can show.
LONG_DESCRIPTION: Final = ROOT / "docs/package-index.md"
PAGES: Final = [
    README,
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    ROOT / "bench/README.md",
    *sorted(set(ROOT.glob("docs/*.md")) - {LONG_DESCRIPTION}),
]

# --- Tables, between `<!-- made: name -->` and `<!-- end -->` ---

_MADE: Final = re.compile(r"(<!-- made: (\w+) -->\n).*?(<!-- end -->)", re.S)


def with_tables(text: str) -> str:
    """Return a document with its tables made from today's code."""
    return _MADE.sub(lambda place: place[1] + TABLES[place[2]]() + place[3], text)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([cell.replace("|", r"\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def service_options() -> str:
    """The options of the service, in the order of `ServiceOptions`."""
    return _options_of_records(ServiceOptions)


def probe_options() -> str:
    """The options of probing, in the order of `Options`."""
    return _options_of_records(Options)


def command_options() -> str:
    """The options that only commands have, by the commands' signatures."""
    rows: dict[str, list[str]] = {}
    fields = {flag.field for record in (ServiceOptions, Options) for flag in flags_of(record)}
    for name, option, kind in _command_parameters():
        if name not in fields:
            rows.setdefault(name, _of_command(kind, option))
    commands = _commands_by_option()
    return table(
        ["option", "environment", "commands", "meaning"],
        ([row[0], row[1], ", ".join(commands[name]), row[2]] for name, row in rows.items()),
    )


def _options_of_records(record: type[ServiceOptions] | type[Options]) -> str:
    commands = _commands_by_option()
    return table(
        ["option", "environment", "default", "commands", "meaning"],
        ([*_of_record(flag), ", ".join(commands[flag.field]), flag.help] for flag in flags_of(record)),
    )


def _commands_by_option() -> dict[str, list[str]]:
    commands: dict[str, list[str]] = {}
    for command in app.registered_commands:
        assert command.callback is not None
        for name in inspect.signature(command.callback).parameters:
            commands.setdefault(name, []).append(f"`{command.callback.__name__}`")
    return commands


def _command_parameters() -> Iterator[tuple[str, OptionInfo, Any]]:
    for command in app.registered_commands:
        assert command.callback is not None
        for name, parameter in inspect.signature(command.callback).parameters.items():
            kind, option = get_args(parameter.annotation)
            if isinstance(option, OptionInfo):
                yield name, option, kind


def _of_record(flag: Flag) -> list[str]:
    shown = f"`{flag.default:g}`" if isinstance(flag.default, float) else f"`{flag.default}`"
    default = "off" if flag.default is False else "none" if flag.default in (None, ()) else shown
    metavar = "" if isinstance(flag.default, bool) else f" {flag.metavar}"
    variables = ", ".join(f"`{name}`" for name in (flag.variable.name, flag.variable.list_name) if name)
    return [f"`{', '.join(flag.names)}{metavar}`", variables, default]


def _of_command(kind: Any, option: OptionInfo) -> list[str]:
    choices = [choice for part in get_args(kind) for choice in get_args(part)]
    names = ", ".join(
        [str(option.default), *(option.param_decls or ())]
    )  # in `Annotated`, typer's first argument is a name
    environment = f"`{option.envvar}`" if option.envvar else ""
    shown = f"{names} {option.metavar or '|'.join(choices)}".rstrip()
    return [f"`{shown}`", environment, option.help or ""]


def errors() -> str:
    return table(
        ["`errors.http`", "`error.type`", "phase", "transient", "meaning", "what to try"],
        (
            [
                f"`{error.group}`",
                f"`{name}`",
                error.phase,
                "yes" if error.transient else "no",
                error.meaning,
                ERROR_ADVICE[name],
            ]
            for name, error in ERROR_TYPES.items()
        ),
    )


def packages() -> str:
    """Packages and modules of `crawler/`, top down as imports run, each with the first sentence of its docstring."""
    return table(
        ["package or module", "what is in it"],
        ([f"`{_shown(path)}`", _summary(path)] for path in _top_down()),
    )


def maps() -> str:
    """The docstring of each package: what may be imported from it, and its modules."""
    return "".join(
        f"\n### {_shown(path)}\n\n```text\n{_docstring(path)}\n```\n" for path in _top_down() if path.is_dir()
    ).lstrip("\n")


def _top_down() -> Iterator[Path]:
    """Paths in the order of the layers in `setup.cfg`; packages inside a package follow it."""
    for name in _layers():
        package = PACKAGE / name
        if package.is_dir():
            yield from sorted(file.parent for file in package.rglob("__init__.py"))
        else:
            yield package.with_suffix(".py")


def _layers() -> list[str]:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return re.findall(r"\w+", parser["importlinter:contract:layers"]["layers"])


def _shown(path: Path) -> str:
    return f"{path.relative_to(PACKAGE)}{'/' if path.is_dir() else ''}"


def _summary(path: Path) -> str:
    """The first sentence of a docstring, in one line."""
    paragraph = " ".join(_docstring(path).partition("\n\n")[0].split())
    return re.split(r"(?<=[.!?]) (?=[A-Z`])", paragraph)[0]


def _docstring(path: Path) -> str:
    file = path / "__init__.py" if path.is_dir() else path
    return ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""


def routes() -> str:
    return table(
        ["request", "what it does"],
        (
            [f"`{route.method} {route.resource.canonical}`", (route.handler.__doc__ or "").partition("\n")[0]]
            for route in crawler.create_app().router.routes()
            if route.method != "HEAD" and route.resource is not None
        ),
    )


def metrics() -> str:
    return table(
        ["metric", "kind", "labels", "meaning"],
        (
            [f"`{name}`", row.kind, ", ".join(f"`{label}`" for label in row.labels), row.meaning]
            for name, row in METRICS.items()
        ),
    )


TABLES: Final[dict[str, Callable[[], str]]] = {
    "command_options": command_options,
    "errors": errors,
    "maps": maps,
    "metrics": metrics,
    "packages": packages,
    "probe_options": probe_options,
    "routes": routes,
    "service_options": service_options,
}

# --- What a package index shows ---

_PICTURE: Final = re.compile(r"^!\[[^\]]*\]\((?!https:)[^)]*\)\n\n", re.M)


def long_description() -> str:
    """The README without its picture, whose path exists only in the repository."""
    return _PICTURE.sub("", README.read_text(encoding="utf-8"))


# --- Examples: `console` has commands and their output, `text` has the output of the `python` block above it ---

_FENCE: Final = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
_COMMAND: Final = re.compile(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", re.M)
_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_RUNNING: Final = '"status":"running"'

# Commands that run until Ctrl-C: the arguments that make each listen on a free port, and the port in the document.
SERVERS: Final = {
    "crawler serve": (["-m", "crawler", "--port", "0"], "7777"),
    "make run": (["-m", "crawler", "--port", "0"], "7777"),
    "python examples/mounted.py 8080": (["examples/mounted.py", "0"], "8080"),
    # uvicorn prints its address on standard error.
    "python examples/several.py 8082": (["examples/several.py", "0"], "8082"),
    "python examples/hosted.py 8081": (
        [
            "-c",
            "import os, runpy, sys; os.dup2(1, 2); sys.argv = ['', '0']; runpy.run_path('examples/hosted.py')",
        ],
        "8081",
    ),
}


class Example(NamedTuple):
    """A command or program, and its documented output, which is `text[start:end]` of the document."""

    language: str
    command: str
    output: str
    start: int
    end: int


def examples(text: str) -> Iterator[Example]:
    fences = list(_FENCE.finditer(text))
    for fence, following in zip_longest(fences, fences[1:]):
        if fence[1] == "console":
            for command in _COMMAND.finditer(text, *fence.span(2)):
                yield Example("console", command[1], command[2], *command.span(2))
        elif fence[1] == "python":
            assert following is not None and following[1] == "text", "a program has its output below"
            yield Example("python", fence[2], following[2], *following.span(2))


class Reader:
    """Runs the examples of one document in a shell, in an empty folder, without settings of the user.

    Ports and ids differ in each run. They are replaced by those of the document in what is returned, because later
    commands name them.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._real: dict[str, str] = {}  # real port or id by the documented one
        self._servers: list[tuple[Example, subprocess.Popen[str], str]] = []
        self._environment = {
            "CRAWLER_LOG_LEVEL": "warning",  # documents show standard output only
            "HOME": str(folder),
            "LC_ALL": "C.UTF-8",
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYTHONPATH": str(ROOT),  # of this checkout, wherever the package is installed from
            "PYTHONUNBUFFERED": "1",
        }
        (folder / ".curlrc").write_text("silent\nshow-error\n")  # no progress bar in a pipe
        (folder / "examples").symlink_to(ROOT / "examples")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for _, process, _ in self._servers:  # empty unless an example failed
            process.kill()
            process.communicate()

    def follow(self, example: Example) -> str | None:
        """Run an example and return its output; None for a server, whose output `interrupt` returns."""
        if example.command in SERVERS:
            self._serve(example)
            return None
        command = ["sh", "-c", example.command] if example.language == "console" else ["python", "-c", example.command]
        while True:
            output = self._run([self._as_it_is(part) for part in command])
            if _RUNNING not in output or _RUNNING in example.output:
                break  # otherwise ask again, as a reader would
        self._real |= zip(_UUID.findall(example.output), _UUID.findall(output), strict=False)
        return self._as_documented(output)

    def interrupt(self) -> list[tuple[Example, str]]:
        """Send Ctrl-C to each server and return what it printed."""
        printed = []
        while self._servers:
            example, process, begun = self._servers[-1]
            process.send_signal(signal.SIGINT)
            assert process.stdout is not None
            begun += process.stdout.read()
            assert process.wait() == 0, begun
            printed.append((example, self._as_documented(begun)))
            process.stdout.close()
            self._servers.pop()
        return printed

    def _serve(self, example: Example) -> None:
        arguments, port = SERVERS[example.command]
        process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, text=True, **self._place())
        assert process.stdout is not None
        begun = ""
        while not (address := re.search(r"http://127\.0\.0\.1:(\d+)", begun)):
            line = process.stdout.readline()
            assert line, f"{example.command} ended: {begun}"
            begun += line
        self._real[f":{port}"] = f":{address[1]}"
        self._servers.append((example, process, begun))

    def _run(self, command: list[str]) -> str:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=30,
            check=False,
            **self._place(),
        )
        output: str = done.stdout
        return output if not output or output.endswith("\n") else output + "\n"

    def _place(self) -> dict[str, Any]:
        return {"cwd": self._folder, "env": self._environment}

    def _as_it_is(self, text: str) -> str:
        for documented, real in self._real.items():
            text = text.replace(documented, real)
        return text

    def _as_documented(self, text: str) -> str:
        for documented, real in self._real.items():
            text = text.replace(real, documented)
        return text


def replay(text: str) -> list[tuple[Example, str]]:
    """Run the examples of a document and return each with its output of today."""
    with tempfile.TemporaryDirectory() as folder, Reader(Path(folder)) as reader:
        printed = [(example, reader.follow(example)) for example in examples(text)]
        return [(example, output) for example, output in printed if output is not None] + reader.interrupt()


def essence(output: str) -> list[str]:
    """Return what two runs must have in common: no times, no versions, lines in sorted order."""
    try:
        lines = [json.dumps(json.loads(output), sort_keys=True)]
    except ValueError:
        lines = sorted(_canonical(line) for line in output.splitlines())
    return [_steady(line) for line in lines]


def _canonical(line: str) -> str:
    try:
        return json.dumps(json.loads(line), sort_keys=True)
    except ValueError:
        return " ".join(line.split())


def _steady(line: str) -> str:
    line = re.sub(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", "DATE", line)
    line = re.sub(r"process \[\d+\]", "process [PID]", line)
    line = line.replace("Unprocessable Content", "Unprocessable Entity")  # the reason phrase of Python 3.13
    line = re.sub(r"\b\d{10}(\.\d+)?\b", "SECONDS", line)
    line = re.sub(r"\(\d+/s\)(.*slowest host: )[^,]*", r"(RATE)\1HOST", line)
    line = re.sub(r"(?<=/)\d+(\.\d+)+", "VERSION", line)
    return re.sub(r"(?<![\w.])\d+\.\d+(?![\w.])", "MS", line)


def up_to_date(text: str) -> str:
    """Return a document with today's tables and outputs; an output that differs only in times is kept."""
    for example, output in sorted(replay(text), key=lambda pair: -pair[0].start):
        if essence(output) != essence(example.output):
            text = text[: example.start] + output + text[example.end :]
    return with_tables(text)


if __name__ == "__main__":
    texts = [page.read_text(encoding="utf-8") for page in PAGES]
    with ThreadPoolExecutor() as pool:
        for page, before, after in zip(PAGES, texts, pool.map(up_to_date, texts), strict=True):
            if after != before:
                page.write_text(after, encoding="utf-8")
                print(f"wrote {page.relative_to(ROOT)}")
    if not LONG_DESCRIPTION.exists() or LONG_DESCRIPTION.read_text(encoding="utf-8") != long_description():
        LONG_DESCRIPTION.write_text(long_description(), encoding="utf-8")
        print(f"wrote {LONG_DESCRIPTION.relative_to(ROOT)}")
