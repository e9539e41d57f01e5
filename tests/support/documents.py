"""The documents at work: tables made from the code, examples followed as a reader would.

    python -m tests.support.documents

writes into the documents what has changed. `test_documentation.py` compares, and fails instead.
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
from crawler.core.errors import ERROR_TYPES
from crawler.core.options import Options
from crawler.core.service_options import ServiceOptions
from crawler.server.metrics import TABLE as METRICS

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = [*(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG")), *ROOT.glob("docs/*.md")]

# --- Tables, between `<!-- made: name -->` and `<!-- end -->` ---

_MADE: Final = re.compile(r"(<!-- made: (\w+) -->\n).*?(<!-- end -->)", re.S)
_EVERYWHERE: Final = {"errors", "models", "options"}  # modules that most others use: the words, not the work


def with_tables(text: str) -> str:
    """A document with its tables as they should be."""
    return _MADE.sub(lambda place: place[1] + TABLES[place[2]]() + place[3], text)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([cell.replace("|", r"\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def options() -> str:
    """Every option of every command, once, by the commands' own signatures."""
    flags = {flag.field: flag for record in (ServiceOptions, Options) for flag in flags_of(record)}
    rows: dict[str, list[str]] = {}
    users: dict[str, list[str]] = {}
    for command in app.registered_commands:
        assert command.callback is not None
        for name, parameter in inspect.signature(command.callback).parameters.items():
            kind, option = get_args(parameter.annotation)
            if isinstance(option, OptionInfo):
                rows[name] = _of_record(flags[name]) if name in flags else _of_command(kind, option)
                users.setdefault(name, []).append(f"`{command.callback.__name__}`")
    assert flags.keys() <= rows.keys()
    commands = len(app.registered_commands)
    return table(
        ["option", "environment", "default", "of", "meaning"],
        (
            [*row[:3], "all" if len(users[name]) == commands else ", ".join(users[name]), row[3]]
            for name, row in rows.items()
        ),
    )


def _of_record(flag: Flag) -> list[str]:
    shown = f"`{flag.default:g}`" if isinstance(flag.default, float) else f"`{flag.default}`"
    default = "off" if flag.default is False else "none" if flag.default in (None, ()) else shown
    metavar = "" if isinstance(flag.default, bool) else f" {flag.metavar}"
    variables = ", ".join(f"`{name}`" for name in (flag.variable.name, flag.variable.list_name) if name)
    return [f"`{', '.join(flag.names)}{metavar}`", variables, default, flag.help]


def _of_command(kind: Any, option: OptionInfo) -> list[str]:
    choices = [choice for part in get_args(kind) for choice in get_args(part)]
    names = ", ".join(
        [str(option.default), *(option.param_decls or ())]
    )  # in `Annotated`, typer's first argument is a name
    environment = f"`{option.envvar}`" if option.envvar else ""
    shown = f"{names} {option.metavar or '|'.join(choices)}".rstrip()
    return [f"`{shown}`", environment, "", option.help or ""]


def errors() -> str:
    return table(
        ["`errors.http`", "`error.type`", "phase", "passes", "meaning"],
        (
            [f"`{error.group}`", f"`{name}`", error.phase, "yes" if error.transient else "no", error.meaning]
            for name, error in ERROR_TYPES.items()
        ),
    )


def modules() -> str:
    """Every module from the top down, by what its docstring and its imports say."""
    rows, layers = [], ["__init__", *_layers()]
    for name in sorted(module_names(), key=lambda name: layers.index(name) if name in layers else len(layers)):
        sources = [ast.parse(file.read_text(encoding="utf-8")) for file in _files(name)]
        summary = (ast.get_docstring(sources[0]) or "").partition("\n")[0]
        used = sorted({used for source in sources for used in _imports(source)} - _EVERYWHERE - {name})
        rows.append([f"`{name}`", summary, ", ".join(f"`{name}`" for name in used)])
    return table(["module", "what it does", "uses"], rows)


def module_names() -> set[str]:
    package = ROOT / "crawler"
    return {path.stem for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}


def _files(name: str) -> list[Path]:
    package = ROOT / "crawler" / name
    return (
        [package / "__init__.py", *sorted(package.glob("[!_]*.py"))]
        if package.is_dir()
        else [package.with_suffix(".py")]
    )


def _layers() -> list[str]:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return re.findall(r"\w+", parser["importlinter:contract:layers"]["layers"])


def _imports(source: ast.Module) -> Iterator[str]:
    for node in ast.walk(source):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("crawler."):
            yield str(node.module).split(".")[1]


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
    "errors": errors,
    "metrics": metrics,
    "modules": modules,
    "options": options,
    "routes": routes,
}

# --- Examples: `console` has commands and what they print, `text` what the `python` above it prints ---

_FENCE: Final = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
_COMMAND: Final = re.compile(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", re.M)
_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_RUNNING: Final = '"status":"running"'

# Commands that go on until Ctrl-C: the arguments that make each listen on a free port, and the port documented.
SERVERS: Final = {
    "make run": (["-m", "crawler", "--port", "0"], "7777"),
    "python examples/mounted.py 8080": (["examples/mounted.py", "0"], "8080"),
    # uvicorn tells on standard error where it listens.
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
    """One thing that a reader does, and what the document says it prints, from `start` to `end` of its text."""

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
    """Follows the examples of one document in a shell, in a new folder, with no settings of their own.

    Ports and ids are others each time. What is printed is given back with those of the document, which later commands
    may name.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._real: dict[str, str] = {}  # by what the document has instead
        self._servers: list[tuple[Example, subprocess.Popen[str], str]] = []
        self._environment = {
            "CRAWLER_LOG_LEVEL": "warning",  # what is shown is what is printed
            "HOME": str(folder),
            "LC_ALL": "C.UTF-8",
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYTHONUNBUFFERED": "1",
        }
        (folder / ".curlrc").write_text("silent\nshow-error\n")  # its progress bar is only for pipes
        (folder / "examples").symlink_to(ROOT / "examples")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for _, process, _ in self._servers:  # none, if all went well
            process.kill()
            process.communicate()

    def follow(self, example: Example) -> str | None:
        """Do it and give what it prints; a server prints until the interrupt."""
        if example.command in SERVERS:
            self._serve(example)
            return None
        command = ["sh", "-c", example.command] if example.language == "console" else ["python", "-c", example.command]
        while True:
            output = self._run([self._as_it_is(part) for part in command])
            if _RUNNING not in output or _RUNNING in example.output:
                break  # else poll on, as the reader would
        self._real |= zip(_UUID.findall(example.output), _UUID.findall(output), strict=False)
        return self._as_documented(output)

    def interrupt(self) -> list[tuple[Example, str]]:
        """Press Ctrl-C at every server, and give what it printed."""
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
    """Every example of a document with what it prints today."""
    with tempfile.TemporaryDirectory() as folder, Reader(Path(folder)) as reader:
        printed = [(example, reader.follow(example)) for example in examples(text)]
        return [(example, output) for example, output in printed if output is not None] + reader.interrupt()


def essence(output: str) -> list[str]:
    """What may not differ between two runs: no time, no version, and results in any order."""
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
    line = line.replace("Unprocessable Content", "Unprocessable Entity")  # as Python 3.13 has it
    line = re.sub(r"\b\d{10}(\.\d+)?\b", "SECONDS", line)
    line = re.sub(r"(?<=/)\d+(\.\d+)+", "VERSION", line)
    return re.sub(r"(?<![\w.])\d+\.\d+(?![\w.])", "MS", line)


def up_to_date(text: str) -> str:
    """A document as it should be: examples whose essence still holds keep what they say."""
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
