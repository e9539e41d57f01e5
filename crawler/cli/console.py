"""What the commands share: flags, standard streams, exit codes."""

import asyncio
import errno
import os
import signal
import stat
import sys
from collections.abc import AsyncGenerator, Coroutine, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Annotated, Any, Final, TextIO, TypeAlias, TypeVar

import typer

from crawler.cli.url_files import CHOICES, Choice, read_lines
from crawler.core.errors import InputError
from crawler.core.tasks import Counts
from crawler.core.urls import Line
from crawler.formats.result_writers import Format
from crawler.runtime.event_loop import run_on_event_loop

__all__ = [
    "INTERRUPTED",
    "OK",
    "SOME_NOT_OK",
    "TERMINATED",
    "USAGE",
    "Column",
    "File",
    "Input",
    "Output",
    "Shape",
    "Urls",
    "check_given",
    "ended_well",
    "lines_of",
    "opened",
    "progress",
    "run",
    "tell",
]

T = TypeVar("T")

OK: Final = 0
SOME_NOT_OK: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130
TERMINATED: Final = 143

# --- What several commands take ---

Urls: TypeAlias = Annotated[list[str] | None, typer.Argument(metavar="URL...", help="URLs to probe.")]
File: TypeAlias = Annotated[
    str | None, typer.Option("--file", "-f", metavar="FILE", help="Read URLs from a file; - is stdin.")
]
Input: TypeAlias = Annotated[
    Choice,
    typer.Option(
        "--input",
        envvar="CRAWLER_INPUT",
        metavar="|".join(CHOICES),
        help="What the file is, packed with gzip or not. auto goes by its name, else it is text, a URL a line.",
    ),
]
Column: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--column",
        envvar="CRAWLER_COLUMN",
        metavar="NAME",
        help="Where the URL stands: a column of CSV by name or number, a key of NDJSON. Default: url.",
    ),
]
Shape: TypeAlias = Annotated[
    Format | None,
    typer.Option("--format", envvar="CRAWLER_FORMAT", help="Default: table on a terminal, else ndjson."),
]
Output: TypeAlias = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write results to a file, not to stdout.")
]


def check_given(urls: Sequence[str] | None, file: str | None) -> None:
    """Refuse a command that is given no URLs."""
    if not urls and file is None:
        raise typer.BadParameter("name URLs, or a file of them with --file", param_hint="URL")


async def lines_of(
    urls: Sequence[str], file: str | None, choice: Choice, column: str | None
) -> AsyncGenerator[Line, None]:
    """The URLs that a command is given, those of the file last."""
    for url in urls:
        yield os.fsencode(url)  # as the shell gave it, which may not be UTF-8
    if file is not None:
        async for line in read_lines(file, choice, column):
            yield line


# --- Standard streams ---


def tell(message: str) -> None:
    """Say something to whoever started the command; nothing if it was started with that closed."""
    if sys.stderr is not None:
        print(message, file=sys.stderr)


@contextmanager
def opened(output: Path | None) -> Iterator[TextIO]:
    """Where results go. On a terminal rich has to see what is printed above its bar; elsewhere it is UTF-8 always."""
    if output is None and sys.stdout is None:  # started with it closed
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    if output is None and sys.stdout.isatty():
        yield sys.stdout
        return
    target = sys.stdout.fileno() if output is None else output
    with open(target, "w", encoding="utf-8", newline="", closefd=output is not None) as stream:
        # To a file in blocks; to a pipe each line at once, for somebody may be waiting at its end.
        stream.reconfigure(line_buffering=not stat.S_ISREG(os.fstat(stream.fileno()).st_mode))
        yield stream


def progress(counts: Counts, total: int | None) -> AbstractContextManager[None]:
    """A bar, if standard error is a terminal."""
    if sys.stderr is None or not sys.stderr.isatty():
        return nullcontext()
    from crawler.cli.progress import show_progress  # with rich, which nobody needs in a pipe

    return show_progress(counts, total)


# --- How a command runs and ends ---


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run it to its end. SIGTERM ends it as Ctrl-C does: what is found is written out whole."""

    async def stoppable() -> T:
        task = asyncio.current_task()
        assert task is not None
        with suppress(ValueError):  # signals are the main thread's, and somebody may run this in another
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await work

    return run_on_event_loop(stoppable())


@contextmanager
def ended_well(output: Path | None = None) -> Iterator[None]:
    """Turn what ends a command early into its exit code, or into a message that names where it happened."""
    try:
        yield
    except asyncio.CancelledError:
        raise typer.Exit(TERMINATED) from None
    except BrokenPipeError:  # the reader has had enough, as `head` has
        raise typer.Exit(SOME_NOT_OK) from None
    except OSError as error:
        where = error.filename or output or "standard output"
        raise InputError(f"{where}: {error.strerror}") from None
