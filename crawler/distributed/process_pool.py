"""The processes that probe for this one: started, found again, replaced when they end, and never left behind."""

import asyncio
import logging
import os
import sys
import tempfile
from asyncio import StreamReader, StreamWriter
from asyncio.subprocess import PIPE, Process
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from zlib import crc32

import msgspec

from crawler.core.errors import ChildError
from crawler.core.options import Options
from crawler.runtime.logs import Settings, settings
from crawler.runtime.rlimits import many_descriptors

__all__ = ["ISOLATED", "ChildConfig", "ProcessPool", "child_of"]

log = logging.getLogger(__name__)

ISOLATED: Final = -1  # the child that probes whatever host, one target at a time
_START: Final = 60.0  # seconds in which a child has to listen: it imports, on a machine that may be busy
_STOP: Final = 5.0  # seconds in which it has to end once it may
_SOON: Final = 0.01  # seconds until a connection is tried again; doubled each time
_LATER: Final = 1.0  # at most
_STARTS: Final = 3  # that may fail before one has succeeded
_AGAIN: Final = 0.1  # seconds until a start is tried again; doubled each time, so often at most
_DOUBLED: Final = 8


class ChildConfig(msgspec.Struct):
    """What a child is told at its start: where to listen, how to probe and log, which of how many children it is."""

    path: str
    options: Options
    index: int
    size: int
    logs: Settings


def child_of(host: str, size: int) -> int:
    """Which of so many children probes a host; the same one always, so that its limits are one count."""
    return crc32(host.encode()) % size


class ProcessPool:
    """So many children; they live while its context lasts, and whoever ends is replaced.

    Args:
        options: How they probe; slots for requests are shared out among them.
        size: How many there are.
    """

    def __init__(self, options: Options, size: int) -> None:
        self.size = size
        share = -(-options.concurrency // size)
        self._options = msgspec.structs.replace(options, concurrency=share, processes=1)
        self.apart = asyncio.Lock()  # held by who asks the child that is alone with its target
        self._members: dict[int, _ChildProcess] = {}
        self._is_up = False

    async def __aenter__(self) -> Self:
        """Start them.

        Raises:
            ChildError: They do not start.
        """
        many_descriptors()  # each batch takes one of each child
        try:
            self._folder = tempfile.TemporaryDirectory(prefix="crawler-")
        except OSError as error:
            raise ChildError(f"the processes that probe have no place to listen: {error}") from None
        try:
            await asyncio.gather(*(self._member(index).address() for index in range(self.size)))
            self._is_up = True
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    @property
    def pids(self) -> list[int]:
        """The processes that run now."""
        return [member.process.pid for member in self._members.values() if member.process is not None]

    async def connect(self, index: int) -> tuple[StreamReader, StreamWriter]:
        """A connection for one batch with a child, once there is one."""
        patience = _SOON
        while True:
            path = await self._member(index).address()
            try:
                return await asyncio.open_unix_connection(path)
            except OSError:  # it has just ended, too many others want one, or this process has no descriptor left
                await asyncio.sleep(patience)
                patience = min(2 * patience, _LATER)

    def _member(self, index: int) -> "_ChildProcess":
        if index not in self._members:
            path = str(Path(self._folder.name) / f"{index}.sock")
            charge = ChildConfig(path, self._options, index, self.size, settings())
            self._members[index] = _ChildProcess(charge, gives_up=not self._is_up)
        return self._members[index]

    async def _close(self) -> None:
        await asyncio.gather(*(member.close() for member in self._members.values()))
        self._folder.cleanup()


class _ChildProcess:
    """The place of one child: whoever ends is followed by another."""

    def __init__(self, charge: ChildConfig, *, gives_up: bool) -> None:
        self.process: Process | None = None
        self._charge = charge
        self._gives_up = gives_up
        self._path = Path(charge.path)
        self._listens = asyncio.Event()
        self._keeping = asyncio.ensure_future(self._keep())

    async def address(self) -> str:
        """Where the child listens, once it does."""
        listens = asyncio.ensure_future(self._listens.wait())
        try:
            await asyncio.wait({listens, self._keeping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            listens.cancel()
        if self._keeping.done():
            self._keeping.result()
        return self._charge.path

    async def close(self) -> None:
        """End the child."""
        self._keeping.cancel()
        await asyncio.gather(self._keeping, return_exceptions=True)

    async def _keep(self) -> None:
        failed = 0
        while failed < _STARTS or not self._gives_up:
            if failed:
                await asyncio.sleep(_AGAIN * 2 ** min(failed, _DOUBLED))
            failed += 1
            try:
                process = self.process = await asyncio.create_subprocess_exec(
                    sys.executable, "-P", "-m", "crawler.distributed.child",
                    stdin=PIPE, stdout=PIPE, start_new_session=True, env=_environment(),
                )  # fmt: skip
            except OSError as error:  # there is no memory, process or descriptor left
                log.error("a process that probes cannot be started, which is tried again: %s", error)
                continue
            try:
                if await self._begin(process):
                    failed, self._gives_up = 0, False
                    self._listens.set()
                    await process.wait()
                else:
                    log.error("a process that probes does not start, which is tried again")
                    _kill(process)
            finally:
                self._listens.clear()
                await _end(process)
                self.process = None
        raise ChildError("the processes that probe do not start; see what they wrote")

    async def _begin(self, process: Process) -> bool:
        """Give a child its charge; true once it listens."""
        assert process.stdin is not None and process.stdout is not None
        self._path.unlink(missing_ok=True)
        charge = msgspec.msgpack.encode(self._charge)
        process.stdin.write(len(charge).to_bytes(4, "big") + charge)
        try:
            async with asyncio.timeout(_START):
                return bool(await process.stdout.readline())
        except TimeoutError:
            return False


async def _end(process: Process) -> None:
    """End a child: gently, by the end of its input, else by force."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        async with asyncio.timeout(_STOP):
            await process.wait()
    except TimeoutError:
        _kill(process)
        await process.wait()


def _kill(process: Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()


def _environment() -> dict[str, str]:
    """Ours, and in it where Python finds what it imports here."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
