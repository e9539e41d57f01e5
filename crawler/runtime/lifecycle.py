"""Stop a service by signals, and notify systemd of its state (sd_notify(3))."""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from crawler.runtime.cancellation import BackgroundJob

__all__ = ["SystemdNotifier", "stop_signals"]

log = logging.getLogger(__name__)

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_MICROSECONDS_PER_SECOND: Final = 1e6


@contextmanager
def stop_signals() -> Iterator[asyncio.Event]:
    """Yield an event that SIGINT or SIGTERM sets. A second signal ends the process at once."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def handle_signal() -> None:
        stop.set()
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)

    for number in _SIGNALS:
        loop.add_signal_handler(number, handle_signal)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)


class SystemdNotifier(BackgroundJob):
    """Notifies systemd of the state of this process; does nothing if systemd did not start it.

    While its context lasts, it notifies systemd's watchdog that the event loop still runs.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        path = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path  # @ stands for an abstract socket
        self._watchdog_seconds = _watchdog_seconds(environment)

    def notify(self, state: str) -> None:
        """Send a state such as `READY=1`. A failure is logged, and the service continues."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
                notify.setblocking(False)
                notify.sendto(state.encode(), self._address)
        except OSError as error:
            log.warning("systemd could not be notified of %s: %s", state, error)

    async def _run(self) -> None:
        while self._watchdog_seconds is not None:
            self.notify("WATCHDOG=1")
            await asyncio.sleep(self._watchdog_seconds / 2)


def _watchdog_seconds(environment: Mapping[str, str]) -> float | None:
    """Return within how many seconds systemd's watchdog needs a message; None if the watchdog is off."""
    usec = environment.get("WATCHDOG_USEC", "")
    if not usec.isdecimal() or environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(usec) / _MICROSECONDS_PER_SECOND or None
