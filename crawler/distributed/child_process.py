"""One child process: started, asked every second whether it answers, and replaced when it ends or stays silent.

The parent gives the child each connection over a socket pair that only the two have. So there is no socket file that
something else could remove or connect to, and the child ends when its end of the pair reports that the parent is gone.
"""

import asyncio
import logging
import os
import socket
import sys
from asyncio import IncompleteReadError, StreamReader, StreamWriter
from asyncio.subprocess import PIPE, Process
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from crawler.core.errors import ChildError
from crawler.core.options import Options
from crawler.distributed.messages import ChildReport, ChildRequest, encode_frame, receive_frame
from crawler.probing.settings import DEFAULT_SETTINGS, ProberSettings
from crawler.runtime.awake_clock import AwakeClock
from crawler.runtime.cancellation import cancel_and_wait, in_background
from crawler.runtime.logs import LogSettings

__all__ = ["CONNECTION_LOST", "ChildConfig", "ChildProcess", "PoolSettings"]

log = logging.getLogger(__name__)

CONNECTION_LOST: Final = (OSError, IncompleteReadError)
"""The exceptions of a connection that is lost, or that could not be made."""

_STOP_TIMEOUT_SECONDS: Final = 5.0  # for a child to end by itself
_FIRST_RECONNECT_SECONDS: Final = 0.01  # until a connection is tried again; doubled each time
_MAX_RECONNECT_SECONDS: Final = 1.0
_MAX_DOUBLINGS: Final = 8  # of the wait before a restart
_SILENT_PINGS: Final = 3.0  # unanswered for that many intervals, a child counts as silent
_MIN_CPU_SHARE: Final = 0.1  # a silent child that uses less was stopped; one that uses more may be stuck in a target


class PoolSettings(msgspec.Struct, frozen=True):
    """Constants that are not options. Tests shorten them.

    Attributes:
        start_timeout_seconds: How long a child may take until it listens; it imports, on a machine that may be busy.
        restart_seconds: The wait before a failed start is tried again; it doubles each time.
        max_first_starts: Failed starts after which a pool gives up, if none has succeeded.
        ping_seconds: From one question whether a child answers to the next.
        max_silence_seconds: How long a child may leave that question unanswered before it is killed and replaced.
    """

    start_timeout_seconds: float = 60.0
    restart_seconds: float = 0.1
    max_first_starts: int = 3
    ping_seconds: float = 1.0
    max_silence_seconds: float = 10.0


class ChildConfig(msgspec.Struct):
    """The configuration that a child gets at its start.

    Attributes:
        options: How to probe.
        index: Which child it is.
        size: How many children share the hosts.
        logs: How to log.
        prober_settings: Constants of probing.
    """

    options: Options
    index: int
    size: int
    logs: LogSettings
    prober_settings: ProberSettings = DEFAULT_SETTINGS


class ChildProcess:
    """Keeps one child running: when it ends or no longer answers, another takes its place.

    Args:
        config: Of the child.
        settings: Waits and bounds.
        clock: Measures its silence; while this process stands still, no child is silent.
        may_give_up: Whether to give up if the first starts fail.

    Attributes:
        process: The process that runs now.
        was_stopped: Whether the last child was killed because it did not answer, and had not run meanwhile.
        replaced: How many children were killed because they did not answer.
    """

    def __init__(self, config: ChildConfig, settings: PoolSettings, clock: AwakeClock, *, may_give_up: bool) -> None:
        self.process: Process | None = None
        self.was_stopped = False
        self.replaced = 0
        self._config = config
        self._settings = settings
        self._clock = clock
        self._may_give_up = may_give_up
        self._answered_at = clock.now()
        self._cpu = 0.0  # seconds that the child had used when it was last asked whether it answers
        self._control: socket.socket | None = None  # while the child listens
        self._listening = asyncio.Event()
        self._keeper = asyncio.ensure_future(self._keep_running())

    @property
    def is_silent(self) -> bool:
        """Whether it has answered nothing for some seconds; also while it is being replaced for that long."""
        return self._clock.now() - self._answered_at > (1 + _SILENT_PINGS) * self._settings.ping_seconds

    async def connect(self) -> tuple[StreamReader, StreamWriter]:
        """Open a connection as soon as the child listens.

        Raises:
            ChildError: The child does not start.
        """
        seconds = _FIRST_RECONNECT_SECONDS
        while True:
            await self._until_listening()
            with suppress(OSError):  # the child has just ended or has many to take, or no descriptor is left here
                return await self._hand_over_connection()
            await asyncio.sleep(seconds)
            seconds = min(2 * seconds, _MAX_RECONNECT_SECONDS)

    async def close(self) -> None:
        """End the child."""
        await cancel_and_wait(self._keeper)

    async def _until_listening(self) -> None:
        listening = asyncio.ensure_future(self._listening.wait())
        try:
            await asyncio.wait({listening, self._keeper}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            listening.cancel()
        if self._keeper.done():
            self._keeper.result()

    async def _hand_over_connection(self) -> tuple[StreamReader, StreamWriter]:
        if self._control is None:
            raise ConnectionError("the child has ended")
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                ours.setblocking(False)
                socket.send_fds(self._control, [b"\0"], [theirs.fileno()])
            except OSError:
                ours.close()
                raise
        return await asyncio.open_unix_connection(sock=ours)

    async def _keep_running(self) -> None:
        failures = 0
        while failures < self._settings.max_first_starts or not self._may_give_up:
            if failures:
                await asyncio.sleep(self._settings.restart_seconds * 2 ** min(failures, _MAX_DOUBLINGS))
            failures += 1
            try:
                process, control = await _start()
            except OSError as error:  # no memory, process or descriptor is left
                log.error("a child process cannot be started; trying again: %s", error)
                continue
            self.process = process
            try:
                if await self._wait_until_listening(process, control):
                    failures, self._may_give_up = 0, False
                    self._control, self._answered_at = control, self._clock.now()
                    self._cpu = _cpu_seconds(process.pid)
                    self._listening.set()
                    await self._watch(process)
                else:
                    log.error("a child process does not start; trying again")
                    _kill(process)
            finally:
                self._listening.clear()
                self._control = None
                await _complete(_stop(process, control))
                self.process = None
        raise ChildError("the child processes do not start; see their messages on standard error")

    async def _wait_until_listening(self, process: Process, control: socket.socket) -> bool:
        """Send a child its config; true once it listens, false if it ended or takes too long."""
        assert process.stdout is not None
        config = msgspec.msgpack.encode(self._config)
        try:
            async with asyncio.timeout(self._settings.start_timeout_seconds):
                await asyncio.get_running_loop().sock_sendall(control, len(config).to_bytes(4, "big") + config)
                return bool(await process.stdout.readline())
        except (TimeoutError, OSError):
            return False

    async def _watch(self, process: Process) -> None:
        """Return when the process has ended; kill it if it does not answer."""
        async with in_background(process.wait()) as end, in_background(self._ping()) as pings:
            while not end.done():
                await asyncio.wait({end}, timeout=self._settings.ping_seconds)
                if pings.done() and not end.done():
                    log.error("the connection to a child process is lost; it is replaced")
                    _kill(process)
                elif self._clock.now() - self._answered_at > self._settings.max_silence_seconds and not end.done():
                    self.was_stopped = _cpu_seconds(process.pid) - self._cpu < _MIN_CPU_SHARE * (
                        self._settings.max_silence_seconds
                    )
                    self.replaced += 1
                    log.error(
                        "a child process has not answered for %g s; it is replaced, and its targets are probed again",
                        self._settings.max_silence_seconds,
                    )
                    _kill(process)
                    await end

    async def _ping(self) -> None:
        """Ask again and again whether the child answers, until the connection ends."""
        assert self.process is not None
        with suppress(*CONNECTION_LOST, ChildError):
            reader, writer = await self.connect()
            try:
                while True:
                    self._cpu = _cpu_seconds(self.process.pid)
                    writer.write(encode_frame(ChildRequest(asks_load=True)))
                    await receive_frame(reader, ChildReport)
                    self._answered_at = self._clock.now()
                    self.was_stopped = False
                    await asyncio.sleep(self._settings.ping_seconds)
            finally:
                writer.close()


def _cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process; infinite where the platform does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return float("inf")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _start() -> tuple[Process, socket.socket]:
    """Start a child; return it and our end of its socket pair, which is the child's standard input.

    If this is cancelled meanwhile, the child is stopped: nothing else would stop it.
    """
    control, theirs = socket.socketpair()
    control.setblocking(False)
    with theirs:
        starting = asyncio.ensure_future(
            asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", "crawler.distributed.child",
                stdin=theirs.fileno(), stdout=PIPE, start_new_session=True, env=_environment(),
            )
        )  # fmt: skip
        try:
            return await asyncio.shield(starting), control
        except asyncio.CancelledError:
            with suppress(OSError):
                await _complete(_stop_when_started(starting, control))
            raise
        except OSError:
            control.close()
            raise


async def _stop_when_started(starting: asyncio.Future[Process], control: socket.socket) -> None:
    await _stop(await starting, control)


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


async def _stop(process: Process, control: socket.socket) -> None:
    """End a child: it ends when its input does; if not, kill it."""
    control.close()
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
