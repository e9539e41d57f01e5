"""A reader of standard error that stops must not stop the process, nor its end.

The same fault elsewhere: moby/moby issue 22502 (a container hangs when its log driver blocks), which Docker solved by
`mode=non-blocking` and `max-buffer-size`: a bounded queue, from which lines are dropped. pipe(7): a full pipe holds
64 KiB, and blocks the writer.
"""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import aiohttp

from crawler.runtime.log_writer import QueuedHandler

ANSWER_SECONDS = 10


@contextmanager
def full_pipe() -> Iterator[tuple[int, TextIO]]:
    """A pipe that nobody reads and that is full: its end to read, and a stream that blocks."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    try:
        while True:
            os.write(writing, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(writing, True)
    stream = os.fdopen(writing, "w")
    try:
        yield reading, stream
    finally:
        os.close(reading)  # ends the write that blocks
        stream.close()


def read_lines(reading: int, until: str) -> list[str]:
    """Read a pipe until a text appears."""
    data = ""
    while until not in data:
        data += os.read(reading, 65536).decode()
    return data.lstrip("x").splitlines()


def record(message: str) -> logging.LogRecord:
    return logging.LogRecord("test", logging.INFO, "", 0, message, None, None)


def test_lines_that_nobody_reads_are_dropped_and_counted_and_their_number_is_logged() -> None:
    with full_pipe() as (reading, stream):
        handler = QueuedHandler(stream, queue_bytes=100, flush_seconds=0.05)
        for number in range(30):
            handler.handle(record(f"line {number:04}"))  # 10 bytes
        assert handler.dropped == 20
        began = time.monotonic()
        handler.flush()
        assert time.monotonic() - began < ANSWER_SECONDS
        assert read_lines(reading, "line 0009\n") == [f"line {number:04}" for number in range(10)]
        handler.flush()
        handler.handle(record("again"))
        assert read_lines(reading, "again\n") == [
            "20 log lines are missing here: they were not read in time", "again"
        ]  # fmt: skip


def test_the_end_of_a_process_waits_for_its_lines() -> None:
    """logging.shutdown, which runs at exit, calls flush."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream, os.fdopen(reading) as lines:
        handler = QueuedHandler(stream)
        for number in range(2_000):
            handler.handle(record(f"line {number}"))
            if number % 500 == 499:  # the pipe holds them
                handler.flush()
                assert [next(lines) for _ in range(500)][-1] == f"line {number}\n"
        assert handler.dropped == 0


def test_a_process_that_was_forked_logs_too() -> None:
    """fork(2): the child has one thread, so the thread that writes exists in the parent only."""
    program = (
        "import logging, os, sys\n"
        "from crawler.runtime.logs import LogSettings, configure_logging\n"
        "configure_logging(LogSettings(logging.INFO))\n"
        "logging.info('before')\n"
        "logging.getLogger().handlers[0].flush()\n"
        "if child := os.fork():\n"
        "    sys.exit(os.waitpid(child, 0)[1])\n"
        "logging.info('after')\n"
    )
    # Python 3.12 and later warn of a fork beside threads, which is what this is about.
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert [line.split()[-1] for line in done.stderr.splitlines()] == ["before", "after"]


async def test_a_service_whose_log_is_not_read_answers_and_stops() -> None:
    with full_pipe() as (_, stream):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "crawler", "serve", "--port", "0", "--registry", "memory",
            stdout=asyncio.subprocess.PIPE, stderr=stream,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            url = (await process.stdout.readline()).split()[3].rstrip(b".").decode()
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(ANSWER_SECONDS)) as client:
                for _ in range(20):
                    async with client.get(f"{url}/api/v1/tasks") as response:
                        assert response.status == 200
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(ANSWER_SECONDS):
                assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
