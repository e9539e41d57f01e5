"""How old Tasks are, whatever the clock of this machine does.

A clock that is set wrong, or a machine that was off, must not make Tasks old: then all would be deleted at once. So the
registry keeps the time of the last use, and the periods that do not count as age.
"""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import msgspec

from crawler.core.errors import StoreError
from crawler.registry import Registry

__all__ = ["AgeClock"]

log = logging.getLogger(__name__)

_NOTE: Final = "last-use"
_JUMP_SECONDS: Final = 3_600.0  # a smaller jump of the clock counts as age
_STOP_SECONDS: Final = 86_400.0  # so does a shorter time without a service
_MOST_PERIODS: Final = 300


class _LastUse(msgspec.Struct):
    """What the registry keeps: the Unix time of the last use, and the periods (Unix times) that do not count as age."""

    time: float
    skipped: list[tuple[float, float]] = []


class AgeClock:
    """Measures the age of Tasks without the jumps of the clock, and without long times in which no service ran.

    Args:
        registry: Keeps the time of the last use for the next service.
        keep_seconds: Older Tasks are deleted.
        now: The time of this machine, in Unix seconds.
        steady: A clock that nobody sets, in seconds.
    """

    def __init__(
        self,
        registry: Registry,
        keep_seconds: float,
        now: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._keep_seconds = keep_seconds
        self._now = now
        self._steady = steady
        self._read_at: float | None = None  # by the steady clock; None until the last use is known
        self._last = _LastUse(now())

    def restart(self) -> None:
        """Read the last use from the registry again: another process may have used it meanwhile."""
        self._read_at = None

    async def advance(self) -> None:
        """Notice what the clock has done since the last use, and store the time.

        Raises:
            StoreError: The last use is not known, so neither is the age of any Task.
        """
        now, steady = self._now(), self._steady()
        if self._read_at is None:
            self._last = await self._read(now)
            passed, bound = 0.0, _STOP_SECONDS
        else:
            passed, bound = steady - self._read_at, _JUMP_SECONDS
        self._read_at = steady
        self._skip(self._last.time + passed, now, bound)
        self._last.time = now
        self._drop_old_periods()
        with suppress(StoreError):  # for example on a full disk; the next start then finds an earlier use
            await self._registry.write_note(_NOTE, msgspec.json.encode(self._last))

    def age(self, finished: float) -> float:
        """Return for how many seconds a Task has been kept, that ended at this Unix time, as of the last `advance`."""
        now = self._last.time
        return now - finished - sum(max(0.0, min(end, now) - max(start, finished)) for start, end in self._last.skipped)

    def _skip(self, expected: float, now: float, bound: float) -> None:
        """Let the time between two times not count if it is longer than `bound`."""
        if now < expected - bound:
            log.warning("the clock was set back by %.0f seconds", expected - now)
            # Periods that are yet to come would make the Tasks of that time younger than they are.
            self._last.skipped = [(start, min(end, now)) for start, end in self._last.skipped if start < now]
        elif now > expected + bound:
            log.warning("%.0f seconds are not age of Tasks: no service ran, or the clock was set", now - expected)
            self._last.skipped.append((expected, now))

    def _drop_old_periods(self) -> None:
        """Drop periods that ended so long ago that no Task from before can still be kept.

        Of too many, join the oldest: Tasks from between them are then kept for longer.
        """
        skipped = sorted(period for period in self._last.skipped if self.age(period[1]) <= self._keep_seconds)
        while len(skipped) > _MOST_PERIODS:
            skipped[:2] = [(skipped[0][0], max(skipped[0][1], skipped[1][1]))]
        self._last.skipped = skipped

    async def _read(self, now: float) -> _LastUse:
        note = await self._registry.read_note(_NOTE)
        if note is not None:
            with suppress(msgspec.MsgspecError):
                return msgspec.json.decode(note, type=_LastUse)
            log.error("the time of the last use cannot be read: that of the newest Task counts")
        times = [task.finished or task.created for task in self._registry.tasks.values()]
        return _LastUse(max(times, default=now))
