"""A clock that stands still while this process does, so that deadlines count only time in which it could act.

A process misses time when another callback keeps its event loop busy, when it is stopped (SIGSTOP, a debugger, a frozen
container), when other machines take its CPU, and when its machine is suspended. Bytes of a peer wait in the kernel
meanwhile, and a peer with timeouts of its own may give up: neither is the peer's fault.
"""

import asyncio
import time
from collections.abc import Callable
from time import monotonic
from typing import Final, Self

__all__ = ["AwakeClock", "boot_seconds"]

_BEAT_SECONDS: Final = 0.25
_TOLERANCE_SECONDS: Final = 0.25  # a beat that is late by no more has missed nothing
_MIN_SUSPENSION_SECONDS: Final = 0.1  # two clocks are read one after the other, so they differ a little
# Goes on while the machine is suspended, unlike `time.monotonic`. On macOS that is what CLOCK_MONOTONIC does.
_BOOT_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))


def boot_seconds() -> float:
    """Return the time since the machine was started, with the time in which it was suspended, if it has that clock."""
    return monotonic() if _BOOT_CLOCK is None else time.clock_gettime(_BOOT_CLOCK)


class AwakeClock:
    """Counts the seconds in which the event loop runs. Its heartbeat runs while its context lasts.

    Between two heartbeats the clock advances by half a second at most. So nothing that runs after a pause and before
    the next heartbeat sees a jump. Without a heartbeat it is `time.monotonic`.

    Args:
        beat_seconds: From one heartbeat to the next.
        tolerance_seconds: How late a heartbeat may be.
        boot_seconds: The clock that goes on while the machine is suspended.

    Attributes:
        missed: All seconds so far in which this process stood still, as far as heartbeats have noticed.
    """

    def __init__(
        self,
        *,
        beat_seconds: float = _BEAT_SECONDS,
        tolerance_seconds: float = _TOLERANCE_SECONDS,
        boot_seconds: Callable[[], float] = boot_seconds,
    ) -> None:
        self.missed = 0.0
        self._beat_seconds = beat_seconds
        self._tolerance_seconds = tolerance_seconds
        self._lost = 0.0  # the part of `missed` that `monotonic` has counted
        self._horizon = float("inf")  # on the monotonic clock; this clock stops there until the next heartbeat
        self._boot_seconds = boot_seconds
        self._suspended = self._boot_seconds() - monotonic()
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        self._beat()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._timer is not None
        self._timer.cancel()

    def now(self) -> float:
        """Return the time of this clock in seconds; only differences have a meaning."""
        now = monotonic()
        return (now if now < self._horizon else self._horizon) - self._lost

    def missed_since(self, missed: float) -> float:
        """Return the seconds missed since `missed` had this value, including those that no heartbeat has noticed."""
        self._notice()
        return self.missed - missed

    def _beat(self) -> None:
        self._notice()
        self._timer = asyncio.get_running_loop().call_later(self._beat_seconds, self._beat)
        self._horizon = monotonic() + self._beat_seconds + self._tolerance_seconds

    def _notice(self) -> None:
        """Count what was missed since the last heartbeat."""
        now = monotonic()
        if (late := now - self._horizon) > 0:
            self._lost += late
            self.missed += late
            self._horizon = now + self._beat_seconds + self._tolerance_seconds
        suspended = self._boot_seconds() - now
        if (more := suspended - self._suspended) > _MIN_SUSPENSION_SECONDS:
            self.missed += more
        self._suspended = suspended
