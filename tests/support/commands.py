"""Run `crawler` as a process of its own, with pipes or a terminal as its streams."""

import asyncio
import errno
import json
import os
import sys
import termios
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pyte

__all__ = ["DEADLINE", "Ended", "Terminal", "end_of", "environment", "run_crawler", "screen", "started", "until"]

DEADLINE = 20.0
"""Seconds; every command here ends sooner."""


class Ended(NamedTuple):
    """The exit code and the output of a command that has ended."""

    code: int
    out: str
    err: str

    @property
    def records(self) -> list[dict[str, Any]]:
        assert not self.out or self.out.endswith("\n")
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def outcomes(self) -> list[str]:
        return [record["outcome"] for record in sorted(self.records, key=lambda record: int(record["seq"]))]


def environment(**more: str) -> dict[str, str]:
    """The environment of this process without options of the command, and with a wide terminal."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("CRAWLER_", "NO_COLOR"))}
    return {**ours, "COLUMNS": "200", "TERM": "xterm-256color", **more}


@asynccontextmanager
async def started(
    *arguments: str | bytes, env: dict[str, str] | None = None, **streams: Any
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start a command; its streams are pipes unless others are given. It is killed at the end if it still runs."""
    streams = {"stdin": asyncio.subprocess.DEVNULL, "stdout": asyncio.subprocess.PIPE, **streams}
    streams.setdefault("stderr", asyncio.subprocess.PIPE)
    command = [sys.executable, "-m", "crawler", *arguments]
    process = await asyncio.create_subprocess_exec(*command, env=environment(**(env or {})), **streams)
    try:
        async with asyncio.timeout(DEADLINE):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def end_of(process: asyncio.subprocess.Process) -> Ended:
    """Wait for a command to end."""
    out, err = await process.communicate()
    assert process.returncode is not None
    return Ended(process.returncode, (out or b"").decode(), (err or b"").decode())


async def run_crawler(*arguments: str | bytes, stdin: bytes | None = None, **more: Any) -> Ended:
    """Run a command to its end."""
    if stdin is not None:
        more["stdin"] = asyncio.subprocess.PIPE
    async with started(*arguments, **more) as process:
        if process.stdin:
            process.stdin.write(stdin or b"")
            process.stdin.close()
        return await end_of(process)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something outside this process is so; the deadline of the command ends the wait."""
    while not await asyncio.to_thread(condition):  # noqa: ASYNC110 - a file tells no one that it has changed
        await asyncio.sleep(0.02)


class Terminal:
    """A terminal that keeps everything written to it."""

    def __init__(self, columns: int = 200, rows: int = 24) -> None:
        self.columns = columns
        self._rows = rows
        self._master, self.slave = os.openpty()
        self.resize(columns)
        self._written = b""

    def resize(self, columns: int) -> None:
        """Change the number of columns, as a user who drags the window's edge does."""
        termios.tcsetwinsize(self._master, (self._rows, columns))

    def read_some(self) -> str:
        """Return what has been written since the last call; wait until there is something."""
        data = os.read(self._master, 65536)
        self._written += data
        return data.decode(errors="replace")

    def read(self) -> str:
        """Return everything written until the last process that has it open ends."""
        os.close(self.slave)
        while True:
            try:
                self._written += os.read(self._master, 65536)
            except OSError as error:
                assert error.errno == errno.EIO
                os.close(self._master)
                return self._written.decode(errors="replace")


def screen(written: str, columns: int = 200) -> list[str]:
    """Return the lines that a terminal shows in the end, with those that have scrolled away, up to the cursor's."""
    shown = pyte.HistoryScreen(columns, 24, history=100_000, ratio=0.5)
    pyte.Stream(shown).feed(written)
    above = ["".join(line[column].data for column in range(columns)) for line in shown.history.top]
    return [line.rstrip() for line in [*above, *shown.display[: shown.cursor.y + 1]]]
