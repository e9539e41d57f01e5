"""How many requests one host may have in flight: fewer while it fails or slows down, more when it recovers."""

from typing import Final

__all__ = ["AdaptiveLimit"]

_SMOOTHING: Final = 0.2  # weight of the newest answer's time
_SLOWDOWN_FACTOR: Final = 3.0  # a host slows down when answers take this many times its usual time
_SLOWDOWN_SECONDS: Final = 0.5  # and at least this much longer
_MIN_BACKOFF_SECONDS: Final = 0.5  # refusals within this time count as one: their requests were in flight together


class AdaptiveLimit:
    """Additive increase, multiplicative decrease, as in TCP (RFC 5681). Times are seconds; `now` is the loop's time.

    Args:
        slots: Requests in flight while the host answers as usual.
        interval: Seconds from one request's start to the next.

    Attributes:
        free_at: Loop time before which no request may start.
    """

    __slots__ = (
        "_interval",
        "_limit",
        "_recent_time",
        "_reduced_at",
        "_slots",
        "_usual_time",
        "_wants_interval",
        "free_at",
    )

    def __init__(self, slots: int, interval: float = 0.0) -> None:
        self.free_at = 0.0
        self._slots = slots
        self._interval = interval
        self._wants_interval = False  # the host itself has asked for one
        self._limit = float(slots)
        self._usual_time = self._recent_time = 0.0
        self._reduced_at = 0.0

    @property
    def limit(self) -> int:
        """Requests that may be in flight now."""
        return int(self._limit)

    def is_slowed(self, now: float) -> bool:
        """Whether the host gets fewer requests than a new limit would allow."""
        return self._limit < self._slots or self.free_at > now or self._wants_interval

    def start_request(self, now: float) -> None:
        """Count a request that starts."""
        if self._interval:
            self.free_at = max(self.free_at, now + self._interval)

    def record_answer(self, seconds: float, now: float) -> None:
        """Raise the limit a little after an answer, or lower it if answers take longer and longer."""
        if not self._usual_time:
            self._usual_time = self._recent_time = seconds
        self._recent_time += (seconds - self._recent_time) * _SMOOTHING
        # The usual time rises slowly, so that a host that stays slow gets all of its slots back some time.
        self._usual_time = min(self._usual_time * 1.001, self._recent_time)
        if self._recent_time > max(self._usual_time * _SLOWDOWN_FACTOR, self._usual_time + _SLOWDOWN_SECONDS):
            self._reduce(now)
        elif self._limit < self._slots:
            self._limit = min(self._slots, self._limit + 1 / self._limit)

    def record_refusal(self, wait: float, now: float) -> None:
        """Lower the limit after a 429 or 503, and start no request for `wait` seconds."""
        self.free_at = max(self.free_at, now + wait)
        self._reduce(now)

    def require_interval(self, interval: float) -> None:
        """Leave at least `interval` seconds between requests from now on."""
        self._wants_interval = self._wants_interval or interval > 0
        self._interval = max(self._interval, interval)

    def _reduce(self, now: float) -> None:
        # Failures of requests that were in flight together count as one.
        if now - self._reduced_at >= max(self._recent_time, _MIN_BACKOFF_SECONDS):
            self._limit = max(1.0, self._limit / 2)
            self._reduced_at = now
