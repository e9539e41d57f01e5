"""Standard streams, signals and exit codes of a command."""

import asyncio
import errno
import os
import signal
import stat
import sys
from collections.abc import Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Final, TextIO, TypeVar

import typer

from crawler.core.errors import InputError
from crawler.core.tasks import Counts
from crawler.runtime.event_loop import run_on_event_loop
from crawler.runtime.log_writer import flush_log

__all__ = [
    "INTERRUPTED",
    "OK",
    "SOME_NOT_OK",
    "TERMINATED",
    "USAGE",
    "exit_on_errors",
    "has_terminal",
    "open_output",
    "print_message",
    "progress_bar",
    "run",
]

T = TypeVar("T")

OK: Final = 0
SOME_NOT_OK: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130
TERMINATED: Final = 143

# --- Standard streams; Python has None for one that was closed when the process started ---


def print_message(message: str) -> None:
    """Print a message to standard error, if that is open."""
    if sys.stderr is not None:
        flush_log()
        print(message, file=sys.stderr)


def has_terminal() -> bool:
    """Whether standard error is a terminal."""
    return sys.stderr is not None and sys.stderr.isatty()


@contextmanager
def open_output(path: Path | None) -> Iterator[TextIO]:
    """Open the stream for results: the file, or standard output without one. It is UTF-8 except on a terminal.

    Raises:
        OSError: The file cannot be written, or standard output is closed.
    """
    if path is None and sys.stdout is None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    if path is None and sys.stdout.isatty():  # this very object: rich redirects it to print above the progress bar
        yield sys.stdout
        return
    target = sys.stdout.fileno() if path is None else path
    with open(target, "w", encoding="utf-8", newline="", closefd=path is not None) as stream:
        # Write blocks to a file, but each line at once to a pipe, whose reader may wait for it.
        stream.reconfigure(line_buffering=not stat.S_ISREG(os.fstat(stream.fileno()).st_mode))
        yield stream


def progress_bar(counts: Counts, total: int | None) -> AbstractContextManager[None]:
    """Return the context of a progress bar; it shows nothing if standard error is not a terminal."""
    if not has_terminal():
        return nullcontext()
    from crawler.cli.progress import show_progress

    return show_progress(counts, total)


# --- How a command runs and ends ---


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on an event loop. SIGTERM cancels it, as Ctrl-C does, so that it writes out its results."""

    async def cancellable() -> T:
        task = asyncio.current_task()
        assert task is not None
        with suppress(ValueError):  # outside the main thread, signals cannot be handled
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await work

    return run_on_event_loop(cancellable())


@contextmanager
def exit_on_errors(output: Path | None = None) -> Iterator[None]:
    """Turn an early end of a command into its exit code or its message.

    Args:
        output: The file that results go to: the place of an error that names no file.

    Raises:
        Exit: The command was terminated, or the reader of its output has closed the pipe.
        InputError: A file or a stream failed.
    """
    try:
        yield
    except asyncio.CancelledError:
        raise typer.Exit(TERMINATED) from None
    except BrokenPipeError:  # as with `crawler probe ... | head`
        raise typer.Exit(SOME_NOT_OK) from None
    except OSError as error:
        place = error.filename or output or "standard output"
        raise InputError(f"{place}: {error.strerror}") from None
