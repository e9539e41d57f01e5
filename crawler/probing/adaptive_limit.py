"""How fast one host may be asked: slots that shrink when it is in trouble and grow back when it is not."""

from typing import Final

__all__ = ["AdaptiveLimit"]

_SMOOTHING: Final = 0.2  # weight of the newest answer's time
_RISE: Final = 3.0  # times its usual time, and
_NOTICEABLE: Final = 0.5  # seconds more than that: then it is slowing down
_BREATH: Final = 0.5  # seconds in which refusals count as one, at least: nobody knows how long those requests took


class AdaptiveLimit:
    """Additive increase, multiplicative decrease, as TCP does it (RFC 5681). Times are seconds, `now` the loop's time.

    Args:
        slots: Requests at once while all is well.
        interval: Seconds from one request's start to the next.
    """

    __slots__ = ("_hurt_at", "_interval", "_limit", "_slots", "_time", "_told", "_usual", "free_at")

    def __init__(self, slots: int, interval: float = 0.0) -> None:
        self.free_at = 0.0  # no request may start before
        self._slots = slots
        self._interval = interval
        self._told = False  # of an interval, by the host itself
        self._limit = float(slots)
        self._usual = self._time = 0.0
        self._hurt_at = 0.0

    @property
    def limit(self) -> int:
        """Requests at once, by now."""
        return int(self._limit)

    def is_hurt(self, now: float) -> bool:
        """Whether it is slower than it would be with all forgotten."""
        return self._limit < self._slots or self.free_at > now or self._told

    def start(self, now: float) -> None:
        """A request starts."""
        if self._interval:
            self.free_at = max(self.free_at, now + self._interval)

    def answered(self, seconds: float, now: float) -> None:
        """An answer came after so many seconds: a little faster, or slower if answers take longer and longer."""
        if not self._usual:
            self._usual = self._time = seconds
        self._time += (seconds - self._time) * _SMOOTHING
        self._usual = min(self._usual * 1.001, self._time)  # forgets, so that a host that became slow is no trouble
        if self._time > max(self._usual * _RISE, self._usual + _NOTICEABLE):
            self._slow_down(now)
        elif self._limit < self._slots:
            self._limit = min(self._slots, self._limit + 1 / self._limit)

    def refused(self, wait: float, now: float) -> None:
        """It says that there are too many requests, and to come back after so many seconds."""
        self.free_at = max(self.free_at, now + wait)
        self._slow_down(now)

    def keep_apart(self, interval: float) -> None:
        """Leave at least so many seconds between requests from now on."""
        self._told = self._told or interval > 0
        self._interval = max(self._interval, interval)

    def _slow_down(self, now: float) -> None:
        # Requests that were under way together tell of one trouble, not of several.
        if now - self._hurt_at >= max(self._time, _BREATH):
            self._limit = max(1.0, self._limit / 2)
            self._hurt_at = now
