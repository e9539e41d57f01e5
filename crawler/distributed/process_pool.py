"""The child processes that probe: starts them, connects to them, replaces those that end, and stops all of them."""

import asyncio
import logging
import os
import sys
import tempfile
from asyncio import StreamReader, StreamWriter
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final, Self
from zlib import crc32

import msgspec

from crawler.core.errors import ChildError
from crawler.core.options import Options
from crawler.runtime.cancellation import cancel_and_wait
from crawler.runtime.logs import LogSettings, current_log_settings
from crawler.runtime.resources import raise_open_files_limit

__all__ = ["ISOLATED", "ChildConfig", "PoolSettings", "ProcessPool", "child_of"]

log = logging.getLogger(__name__)

ISOLATED: Final = -1  # index of the child that probes targets of any host, one at a time
_STOP_TIMEOUT_SECONDS: Final = 5.0  # for a child to end by itself
_FIRST_RECONNECT_SECONDS: Final = 0.01  # until a connection is tried again; doubled each time
_MAX_RECONNECT_SECONDS: Final = 1.0
_MAX_DOUBLINGS: Final = 8  # of the wait before a restart


class PoolSettings(msgspec.Struct, frozen=True):
    """Constants that are not options. Tests shorten them.

    Attributes:
        start_timeout_seconds: How long a child may take until it listens; it imports, on a machine that may be busy.
        restart_seconds: The wait before a failed start is tried again; it doubles each time.
        max_first_starts: Failed starts after which a pool gives up, if none has succeeded.
    """

    start_timeout_seconds: float = 60.0
    restart_seconds: float = 0.1
    max_first_starts: int = 3


_DEFAULT_SETTINGS: Final = PoolSettings()


class ChildConfig(msgspec.Struct):
    """The configuration that a child gets at its start.

    Attributes:
        path: The Unix socket to listen on.
        options: How to probe.
        index: Which child it is.
        size: How many children share the hosts.
        logs: How to log.
    """

    path: str
    options: Options
    index: int
    size: int
    logs: LogSettings


def child_of(host: str, size: int) -> int:
    """Return the index of the child that owns a host: always the same one, so that one child counts its requests."""
    return crc32(host.encode()) % size


class ProcessPool:
    """A number of child processes, which live while the context lasts; a child that ends is replaced.

    Args:
        options: How they probe; they share the slots.
        size: How many there are.
        settings: Waits and bounds.

    Attributes:
        isolation: The lock to hold while the isolated child has a target.
    """

    def __init__(self, options: Options, size: int, settings: PoolSettings = _DEFAULT_SETTINGS) -> None:
        self.size = size
        self.isolation = asyncio.Lock()
        share = -(-options.concurrency // size)
        self._options = msgspec.structs.replace(options, concurrency=share, processes=1)
        self._settings = settings
        self._children: dict[int, _ChildProcess] = {}
        self._is_up = False

    async def __aenter__(self) -> Self:
        """Start the children.

        Raises:
            ChildError: They do not start.
        """
        raise_open_files_limit()  # each run takes one for each child
        try:
            self._folder = tempfile.TemporaryDirectory(prefix="crawler-")
        except OSError as error:
            raise ChildError(f"no folder can be made for the sockets of the child processes: {error}") from None
        try:
            await asyncio.gather(*(self._child(index).address() for index in range(self.size)))
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

    async def connect(self, index: int) -> tuple[StreamReader, StreamWriter]:
        """Connect to a child as soon as it listens. A connection carries one run.

        Raises:
            ChildError: The pool has stopped trying to start it.
        """
        seconds = _FIRST_RECONNECT_SECONDS
        while True:
            path = await self._child(index).address()
            try:
                return await asyncio.open_unix_connection(path)
            except OSError:  # the child has just ended, its backlog is full, or no descriptor is left here
                await asyncio.sleep(seconds)
                seconds = min(2 * seconds, _MAX_RECONNECT_SECONDS)

    @asynccontextmanager
    async def connection(self, index: int) -> AsyncIterator[tuple[StreamReader, StreamWriter]]:
        """Connect to a child, and close the connection at the end of the context."""
        reader, writer = await self.connect(index)
        try:
            yield reader, writer
        finally:
            writer.close()

    def _child(self, index: int) -> "_ChildProcess":
        if index not in self._children:
            path = str(Path(self._folder.name) / f"{index}.sock")
            config = ChildConfig(path, self._options, index, self.size, current_log_settings())
            self._children[index] = _ChildProcess(config, self._settings, may_give_up=not self._is_up)
        return self._children[index]

    async def _close(self) -> None:
        await asyncio.gather(*(child.close() for child in self._children.values()))
        self._folder.cleanup()


class _ChildProcess:
    """Keeps one child running: when it ends, another takes its place."""

    def __init__(self, config: ChildConfig, pool_settings: PoolSettings, *, may_give_up: bool) -> None:
        self.process: Process | None = None
        self._config = config
        self._settings = pool_settings
        self._may_give_up = may_give_up
        self._path = Path(config.path)
        self._listening = asyncio.Event()
        self._keeper = asyncio.ensure_future(self._keep_running())

    async def address(self) -> str:
        """Return the socket's path once the child listens.

        Raises:
            ChildError: The child does not start.
        """
        listening = asyncio.ensure_future(self._listening.wait())
        try:
            await asyncio.wait({listening, self._keeper}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            listening.cancel()
        if self._keeper.done():
            self._keeper.result()
        return self._config.path

    async def close(self) -> None:
        """End the child."""
        await cancel_and_wait(self._keeper)

    async def _keep_running(self) -> None:
        failures = 0
        while failures < self._settings.max_first_starts or not self._may_give_up:
            if failures:
                await asyncio.sleep(self._settings.restart_seconds * 2 ** min(failures, _MAX_DOUBLINGS))
            failures += 1
            try:
                process = self.process = await _start()
            except OSError as error:  # no memory, process or descriptor is left
                log.error("a child process cannot be started; trying again: %s", error)
                continue
            try:
                if await self._wait_until_listening(process):
                    failures, self._may_give_up = 0, False
                    self._listening.set()
                    await process.wait()
                else:
                    log.error("a child process does not start; trying again")
                    _kill(process)
            finally:
                self._listening.clear()
                await _complete(_stop(process))
                self.process = None
        raise ChildError("the child processes do not start; see their messages on standard error")

    async def _wait_until_listening(self, process: Process) -> bool:
        """Send a child its config; true once it listens, false if it ended or takes too long."""
        assert process.stdin is not None and process.stdout is not None
        self._path.unlink(missing_ok=True)
        config = msgspec.msgpack.encode(self._config)
        process.stdin.write(len(config).to_bytes(4, "big") + config)
        try:
            async with asyncio.timeout(self._settings.start_timeout_seconds):
                return bool(await process.stdout.readline())
        except TimeoutError:
            return False


async def _start() -> Process:
    """Start a child. If this is cancelled meanwhile, the child is stopped: nothing else would stop it."""
    starting = asyncio.ensure_future(
        asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "crawler.distributed.child",
            stdin=PIPE, stdout=PIPE, start_new_session=True, env=_environment(),
        )
    )  # fmt: skip
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        with suppress(OSError):
            await _complete(_stop_when_started(starting))
        raise


async def _stop_when_started(starting: asyncio.Future[Process]) -> None:
    await _stop(await starting)


async def _complete(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine to its end although this is cancelled meanwhile; then raise the cancellation."""
    task = asyncio.ensure_future(coroutine)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    task.result()
    if cancelled is not None:
        raise cancelled


async def _stop(process: Process) -> None:
    """End a child: it ends when its input does; if not, kill it."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        async with asyncio.timeout(_STOP_TIMEOUT_SECONDS):
            await process.wait()
    except TimeoutError:
        _kill(process)
        await process.wait()


def _kill(process: Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()


def _environment() -> dict[str, str]:
    """Return the environment of a child: ours, and the path on which Python finds what is imported here."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
