"""The child processes that probe: starts them, connects to them, and stops all of them."""

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Self
from zlib import crc32

import msgspec

from crawler.core.options import Options
from crawler.distributed.child_process import ChildConfig, ChildProcess, PoolSettings
from crawler.probing.settings import DEFAULT_SETTINGS, ProberSettings
from crawler.runtime.awake_clock import AwakeClock
from crawler.runtime.logs import current_log_settings
from crawler.runtime.resources import raise_open_files_limit

__all__ = ["ISOLATED", "ProcessPool", "child_of"]

ISOLATED: Final = -1  # index of the child that probes targets of any host, one at a time

_DEFAULT_SETTINGS: Final = PoolSettings()


def child_of(host: str, size: int) -> int:
    """Return the index of the child that owns a host: always the same one, so that one child counts its requests."""
    return crc32(host.encode()) % size


class ProcessPool:
    """A number of child processes, which live while the context lasts; a child that ends or hangs is replaced.

    Args:
        options: How they probe; they share the slots.
        size: How many there are.
        settings: Waits and bounds.
        prober_settings: Constants of probing.

    Attributes:
        isolation: The lock to hold while the isolated child has a target.
    """

    def __init__(
        self,
        options: Options,
        size: int,
        settings: PoolSettings = _DEFAULT_SETTINGS,
        *,
        prober_settings: ProberSettings = DEFAULT_SETTINGS,
    ) -> None:
        self.size = size
        self.isolation = asyncio.Lock()
        share = -(-options.concurrency // size)
        self._options = msgspec.structs.replace(options, concurrency=share, processes=1)
        self._settings = settings
        self._prober_settings = prober_settings
        self._clock = AwakeClock()
        self._children: dict[int, ChildProcess] = {}
        self._is_up = False

    async def __aenter__(self) -> Self:
        """Start the children.

        Raises:
            ChildError: They do not start.
        """
        raise_open_files_limit()  # each run takes one for each child
        self._clock.__enter__()
        try:
            starting = [asyncio.ensure_future(self._child(index).connect()) for index in range(self.size)]
            for _, writer in await asyncio.gather(*starting):
                writer.close()
            self._is_up = True
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close()

    @property
    def pids(self) -> list[int]:
        """The processes that run now."""
        return [child.process.pid for child in self._children.values() if child.process is not None]

    @property
    def silent(self) -> int:
        """How many children do not answer now."""
        return sum(child.is_silent for child in self._children.values())

    @property
    def replaced(self) -> int:
        """How many children were replaced because they did not answer."""
        return sum(child.replaced for child in self._children.values())

    def was_stopped(self, index: int) -> bool:
        """Whether the last child with this index was killed for a silence in which it did not run at all.

        Then no target is to blame.
        """
        child = self._children.get(index)
        return child is not None and child.was_stopped

    async def connect(self, index: int) -> tuple[StreamReader, StreamWriter]:
        """Connect to a child as soon as it listens. A connection carries one run.

        Raises:
            ChildError: The pool has stopped trying to start it.
        """
        return await self._child(index).connect()

    @asynccontextmanager
    async def connection(self, index: int) -> AsyncIterator[tuple[StreamReader, StreamWriter]]:
        """Connect to a child, and close the connection at the end of the context."""
        reader, writer = await self.connect(index)
        try:
            yield reader, writer
        finally:
            writer.close()

    def _child(self, index: int) -> ChildProcess:
        if index not in self._children:
            config = ChildConfig(self._options, index, self.size, current_log_settings(), self._prober_settings)
            self._children[index] = ChildProcess(config, self._settings, self._clock, may_give_up=not self._is_up)
        return self._children[index]

    async def _close(self) -> None:
        await asyncio.gather(*(child.close() for child in self._children.values()))
        self._clock.__exit__()
