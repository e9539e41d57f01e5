"""When the service is to stop, and what systemd is told of it (sd_notify(3))."""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Final, Self

__all__ = ["Supervisor", "stop_signals"]

log = logging.getLogger(__name__)

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_PER_SECOND: Final = 1e6  # microseconds


@contextmanager
def stop_signals() -> Iterator[asyncio.Event]:
    """An event that SIGINT or SIGTERM sets. A second signal ends the process at once, by that signal."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def heed() -> None:
        stop.set()
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)

    for number in _SIGNALS:
        loop.add_signal_handler(number, heed)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)


class Supervisor:
    """Systemd, if it has started this process and wants to know; else what it is told goes nowhere.

    While its context lasts, its watchdog hears that the event loop lives.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        path = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path  # the former is an abstract name
        self._patience = _patience(environment)

    async def __aenter__(self) -> Self:
        self._watchdog = asyncio.ensure_future(self._live())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watchdog.cancel()
        await asyncio.gather(self._watchdog, return_exceptions=True)

    def tell(self, state: str) -> None:
        """Tell it something, such as `READY=1`; a service goes on though nobody listens."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
                notify.setblocking(False)
                notify.sendto(state.encode(), self._address)
        except OSError as error:
            log.warning("systemd could not be told %s: %s", state, error)

    async def _live(self) -> None:
        while self._patience is not None:
            self.tell("WATCHDOG=1")
            await asyncio.sleep(self._patience / 2)


def _patience(environment: Mapping[str, str]) -> float | None:
    """Seconds in which the watchdog wants to hear something; None if there is none, or it watches another process."""
    usec = environment.get("WATCHDOG_USEC", "")
    if not usec.isdecimal() or environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(usec) / _PER_SECOND or None
