"""The processes of a fleet that faults are injected into: each is started again when it has ended."""

import asyncio
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from contextlib import suppress
from pathlib import Path

from crawler.runtime.cancellation import in_background

__all__ = ["RestartedProcess"]


class RestartedProcess:
    """One `crawler` process, and those that are started in its place.

    Args:
        arguments: Of the command.
        log: A file for its standard error.
        lease: Seconds of its leases, instead of the product's; needs the flags that `short_leases` knows.

    Attributes:
        url: Where it serves, if it does.
        unexpected_ends: The last log line each time it ended without having been killed.
    """

    def __init__(self, arguments: list[str], log: Path, lease: float | None) -> None:
        module = ["-m", "crawler"] if lease is None else ["-m", "tests.chaos.short_leases", "--lease", str(lease)]
        self._command = [sys.executable, *module, *arguments]
        self._log = log
        self._is_killed = False
        self._closing = asyncio.Event()
        self._process: Process | None = None
        self._supervision: asyncio.Task[None] | None = None
        self._is_up = asyncio.Event()
        self.url = ""
        self.unexpected_ends: list[str] = []

    @property
    def worker_name(self) -> str:
        """The name of this worker process in Redis."""
        return f"{socket.gethostname()}-{self.pid}"

    @property
    def pid(self) -> int:
        """Of the process that runs now."""
        assert self._process is not None
        return self._process.pid

    @property
    def children(self) -> list[int]:
        """The pids of its child processes."""
        with suppress(FileNotFoundError, ProcessLookupError):
            return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]
        return []

    async def wait_until_up(self) -> None:
        """Start it if it has not been started, and wait until it works."""
        if self._supervision is None:
            self._supervision = asyncio.ensure_future(self._supervise())
        async with in_background(self._is_up.wait()) as up:
            await asyncio.wait({up, self._supervision}, return_when=asyncio.FIRST_COMPLETED)
        if self._supervision.done():
            self._supervision.result()

    def kill(self) -> None:
        """Kill it; it is started again."""
        self._is_killed = True
        self._is_up.clear()
        self.send(signal.SIGKILL)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    async def close(self) -> None:
        """Kill it for good, and wait for its end.

        It is not cancelled: a second cancellation would leave behind a process that takes long to end, because its
        children still have its standard output.
        """
        self._closing.set()
        if self._supervision is not None:
            if self._process is not None:
                self.kill()
            await asyncio.gather(self._supervision, return_exceptions=True)

    async def _supervise(self) -> None:
        while not self._closing.is_set():
            self._is_killed = False
            with self._log.open("ab") as log:
                self._process = await asyncio.create_subprocess_exec(*self._command, stdout=PIPE, stderr=log)
            if self._closing.is_set():  # during the start
                self.kill()
            try:
                assert self._process.stdout is not None
                words = (await self._process.stdout.readline()).decode().split()
                if words[1:3] == ["serves", "on"]:
                    self.url = words[3].rstrip(".")
                if words:
                    self._is_up.set()
                await self._process.communicate()
            finally:
                self._is_up.clear()
                if self._process.returncode is None:
                    self._process.kill()
                    await self._process.communicate()
            if not self._is_killed:
                last = self._log.read_text().splitlines()[-1:]
                self.unexpected_ends.append(f"{self._command[-1]}, exit code {self._process.returncode}: {last}")
