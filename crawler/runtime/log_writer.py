"""Write log lines on a thread of their own: a reader of standard error that stops must not stop the process.

A pipe that is not read accepts 64 KiB, and then blocks each write, also that of a process that wants to end. So the
event loop only queues lines, within a bound in bytes. Lines beyond it are dropped and counted, as journald and
Docker's non-blocking mode do, and the first line after them says how many are missing.
"""

import logging
import os
import select
import threading
import time
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Final, TextIO

__all__ = ["QUEUE_BYTES", "QueuedHandler", "dropped_lines", "flush_log"]

QUEUE_BYTES: Final = 2**20
"""Bytes of log lines that wait for the reader of standard error; further lines are dropped."""

_BATCH_BYTES: Final = 64 * 1024  # written at once
_FLUSH_SECONDS: Final = 1.0  # for the lines that still wait when the process ends
_POLL_SECONDS: Final = 0.01


class QueuedHandler(logging.Handler):
    """A handler of `logging` that formats a line at once, and writes it later on its thread.

    Args:
        stream: Where to write. If it has a descriptor, lines are written to that: a thread that is blocked in
            `stream` itself would keep the stream's lock, and the interpreter could not end.
        queue_bytes: The most bytes that wait.
        flush_seconds: How long `flush` waits for the lines to be written.

    Attributes:
        dropped: The number of lines that were dropped.
    """

    def __init__(
        self, stream: TextIO, *, queue_bytes: int = QUEUE_BYTES, flush_seconds: float = _FLUSH_SECONDS
    ) -> None:
        super().__init__()
        self.dropped = 0
        self._stream = stream
        self._queue_bytes = queue_bytes
        self._flush_seconds = flush_seconds
        self._reported = 0  # of the dropped lines
        self._process = 0
        self._start_writer()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record's line, or drop it. `logging` holds the handler's lock."""
        try:
            line = self._line(record)
        except Exception:  # `logging` would print the arguments of a malformed record unsanitized
            line = self._notice(record.levelno, f"a log line of {record.name} cannot be formatted")
        if self._process != os.getpid():  # after a fork no thread writes
            self._start_writer()
        writer = self._writer
        if writer.queued_bytes - writer.written_bytes + len(line) > self._queue_bytes:
            self.dropped += 1
            return
        if self.dropped > self._reported:
            missing = self.dropped - self._reported
            line = (
                self._notice(logging.WARNING, f"{missing} log lines are missing here: they were not read in time")
                + line
            )
            self._reported = self.dropped
        writer.queued_bytes += len(line)
        writer.lines.put(line)

    def flush(self) -> None:
        """Wait until the queued lines are written, for a limited time; `logging` calls this as the process ends."""
        end = time.monotonic() + self._flush_seconds
        writer = self._writer
        while writer.written_bytes < writer.queued_bytes and self._process == os.getpid() and time.monotonic() < end:
            time.sleep(_POLL_SECONDS)

    def _start_writer(self) -> None:
        self._process = os.getpid()
        self._writer = _Writer(self._stream)
        threading.Thread(target=self._writer.run, name="log", daemon=True).start()

    def _notice(self, level: int, message: str) -> bytes:
        return self._line(logging.LogRecord(__name__, level, __file__, 0, message, None, None))

    def _line(self, record: logging.LogRecord) -> bytes:
        return (self.format(record) + "\n").encode(errors="backslashreplace")


def dropped_lines() -> int:
    """Return how many log lines this process has dropped."""
    return sum(handler.dropped for handler in logging.getLogger().handlers if isinstance(handler, QueuedHandler))


def flush_log() -> None:
    """Wait, for a limited time, until all log lines so far are written: what is printed next stands after them."""
    for handler in logging.getLogger().handlers:
        handler.flush()


class _Writer:
    """The thread's part. Each count has one writer, so neither needs a lock.

    Attributes:
        lines: Lines that wait.
        queued_bytes: Bytes of all lines that were queued so far; the handler counts them.
        written_bytes: Bytes of those that the thread has dealt with.
    """

    def __init__(self, stream: TextIO) -> None:
        self.lines: SimpleQueue[bytes] = SimpleQueue()
        self.queued_bytes = 0
        self.written_bytes = 0
        self._stream = stream

    def run(self) -> None:
        while True:
            batch = self.lines.get()
            with suppress(Empty):
                while len(batch) < _BATCH_BYTES:
                    batch += self.lines.get_nowait()
            with suppress(OSError, ValueError):  # nobody can be told that standard error is closed
                self._write(batch)
            self.written_bytes += len(batch)

    def _write(self, data: bytes) -> None:
        descriptor = _descriptor(self._stream)
        if descriptor is None:
            self._stream.write(data.decode())
            self._stream.flush()
            return
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(descriptor, rest) :]
            except BlockingIOError:  # another process with the same terminal has made it non-blocking
                select.select([], [descriptor], [])


def _descriptor(stream: Any) -> int | None:
    try:
        return int(stream.fileno())
    except (AttributeError, OSError, ValueError):
        return None
