"""The processes of a fleet that is to be hurt: services and workers, started again when they have ended."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from typing import Final

__all__ = ["Member"]

# What a process is told in place of `-m crawler`, if it is to be quicker than those of users.
_HURRIED: Final = """
import sys
from datetime import timedelta
import crawler.distributed.fleet
import crawler.distributed.chunk_worker
import crawler.stores.redis.connection
crawler.distributed.chunk_worker._LEASE = timedelta(seconds={lease})
crawler.distributed.fleet._TEND, crawler.distributed.fleet._STILL = {lease} / 4, 2 * {lease}
crawler.stores.redis.connection._LEAD = {lease}
from crawler.cli.main import main
sys.argv[0] = "crawler"
sys.exit(main())
"""


class Member:
    """One process, or whoever follows it.

    Args:
        arguments: Of the command.
        log: A file for what it writes to standard error.
        lease: Seconds after which who is silent loses its chunks, or its lead; None for those of users.

    Attributes:
        url: Where it serves, if it does.
        ends: What it wrote last whenever it ended though nobody had killed it.
    """

    def __init__(self, arguments: list[str], log: Path, lease: float | None) -> None:
        told = ["-m", "crawler"] if lease is None else ["-c", _HURRIED.format(lease=lease)]
        self._command = [sys.executable, *told, *arguments]
        self._log = log
        self._is_killed = False
        self._process: Process | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._is_up = asyncio.Event()
        self.url = ""
        self.ends: list[str] = []

    @property
    def name(self) -> str:
        """By which a worker is known in Redis."""
        return f"{socket.gethostname()}-{self.pid}"

    @property
    def pid(self) -> int:
        """Of the process that runs now."""
        assert self._process is not None
        return self._process.pid

    @property
    def children(self) -> list[int]:
        """The processes that probe for it."""
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]
        return []

    async def up(self) -> None:
        """Wait until it works."""
        if self._keeping is None:
            self._keeping = asyncio.ensure_future(self._keep())
        waiting = asyncio.ensure_future(self._is_up.wait())
        await asyncio.wait({waiting, self._keeping}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if self._keeping.done():
            self._keeping.result()

    def kill(self) -> None:
        """Kill it, as nobody can refuse; another one follows."""
        self._is_killed = True
        self._is_up.clear()
        self.send(signal.SIGKILL)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    async def close(self) -> None:
        """End it for good."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)

    async def _keep(self) -> None:
        while True:
            self._is_killed = False
            with self._log.open("ab") as log:
                self._process = await asyncio.create_subprocess_exec(*self._command, stdout=PIPE, stderr=log)
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
                self.ends.append(f"{self._command[-1]}, exit code {self._process.returncode}: {last}")
