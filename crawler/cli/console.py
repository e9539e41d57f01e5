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
    "USAGE",
    "Terminated",
    "exit_on_errors",
    "has_terminal",
    "open_standard_output",
    "print_message",
    "progress_bar",
    "run",
]

T = TypeVar("T")

OK: Final = 0
SOME_NOT_OK: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130

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
def open_standard_output() -> Iterator[TextIO]:
    """Open standard output for results. It is UTF-8 except on a terminal.

    Raises:
        OSError: It is closed.
    """
    if sys.stdout is None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    # Not `sys.stdout` itself: with PYTHONUNBUFFERED it drops the rest of a write that a signal cuts short.
    if sys.stdout.isatty():
        encoding = sys.stdout.encoding
        with open(sys.stdout.fileno(), "w", encoding=encoding, errors="backslashreplace", closefd=False) as stream:
            yield stream
        return
    with open(sys.stdout.fileno(), "w", encoding="utf-8", newline="", closefd=False) as stream:
        # Write blocks to a file, but each line at once to a pipe, whose reader may wait for it.
        stream.reconfigure(line_buffering=not stat.S_ISREG(os.fstat(stream.fileno()).st_mode))
        yield stream


def progress_bar(counts: Counts, total: int | None) -> AbstractContextManager[object]:
    """Return the context of a progress bar; it shows nothing if standard error is not a terminal."""
    if not has_terminal():
        return nullcontext()
    from crawler.cli.progress import ProgressDisplay
    from crawler.formats.table import open_console

    return ProgressDisplay(open_console(sys.stderr), counts, total)


# --- How a command runs and ends ---


class Terminated(Exception):
    """A signal has ended the work of a command.

    Attributes:
        exit_code: 128 and the number of the signal, as shells have it.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on an event loop. SIGTERM and SIGHUP cancel it, as Ctrl-C does, so that it keeps its results.

    Raises:
        Terminated: Such a signal came.
    """
    received: list[int] = []

    async def cancellable() -> T:
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()

        def stop(number: int) -> None:
            received.append(number)
            task.cancel()

        with suppress(ValueError):  # outside the main thread, signals cannot be handled
            for number in (signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                    loop.add_signal_handler(number, stop, number)
        return await work

    try:
        return run_on_event_loop(cancellable())
    except asyncio.CancelledError:
        if not received:
            raise
        raise Terminated(received[0]) from None


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
    except Terminated as end:
        raise typer.Exit(end.exit_code) from None
    except BrokenPipeError:  # as with `crawler probe ... | head`
        raise typer.Exit(SOME_NOT_OK) from None
    except OSError as error:
        place = error.filename or output or "standard output"
        raise InputError(f"{place}: {error.strerror}") from None
