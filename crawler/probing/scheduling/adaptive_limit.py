"""How many requests one host may have in flight: fewer while it fails or slows down, more when it recovers."""

import math
from typing import Final

__all__ = ["AdaptiveLimit"]

_SMOOTHING: Final = 0.2  # weight of the newest answer's time
_SLOWDOWN_FACTOR: Final = 3.0  # a host slows down when answers take this many times its usual time
_SLOWDOWN_SECONDS: Final = 0.5  # and at least this much longer
_SLOW_SECONDS: Final = 0.25  # hosts with a shorter usual time are not checked for serial answers
_SERIAL_GAP: Final = 0.8  # share of the usual time: a longer gap between two answers means that they are serial
_MIN_SERIAL_REQUESTS: Final = 3  # in flight; with fewer, gaps say nothing
_ABANDONED_WORK: Final = 0.8  # share of the usual time that a host still works on a request after its timeout
_FIRST_TRIAL: Final = 10  # answers at the ceiling before one more request at once is tried
_LAST_TRIAL: Final = 640  # the same after many trials that failed
_MIN_BACKOFF_SECONDS: Final = 0.5  # refusals within this time count as one: their requests were in flight together


class AdaptiveLimit:
    """Additive increase, multiplicative decrease, as in TCP (RFC 5681). Times are seconds; `now` is the loop's time.

    The ceiling is one less than the number in flight at the last refusal or failure. After ten answers at the ceiling,
    one more request at once is tried. If it fails, the ceiling is as before, and the next trial comes after twice as
    many answers. So a host with a fixed limit seldom gets more, and one whose limit rises gets more soon.

    Args:
        slots: Requests in flight while the host answers as usual.
        interval: Seconds from one request's start to the next.

    Attributes:
        free_at: Loop time before which no request may start.
        has_answered: Whether the host has answered any request.
        pace: Seconds from one request's start to the next, where that is more than the interval.
    """

    __slots__ = (
        "_answered_at",
        "_answers_at_ceiling",
        "_ceiling",
        "_gaps",
        "_interval",
        "_limit",
        "_recent_time",
        "_reduced_at",
        "_slots",
        "_trial_answers",
        "_tries_more",
        "_usual_time",
        "_wants_interval",
        "free_at",
        "has_answered",
        "pace",
    )

    def __init__(self, slots: int, interval: float = 0.0) -> None:
        self.free_at = 0.0
        self.pace = 0.0
        self.has_answered = False
        self._slots = slots
        self._interval = interval
        self._wants_interval = False  # whether the host has asked for one (robots.txt)
        self._limit = float(slots)
        self._ceiling = float(slots)
        self._trial_answers = _FIRST_TRIAL
        self._answers_at_ceiling = 0
        self._tries_more = False  # whether a trial has raised the ceiling
        self._answered_at = -math.inf
        self._gaps = 0  # long ones between answers, in a row
        self._usual_time = self._recent_time = 0.0
        self._reduced_at = 0.0

    @property
    def limit(self) -> int:
        """Requests that may be in flight now."""
        return int(self._limit)

    def is_slowed(self, now: float) -> bool:
        """Whether the host gets fewer requests than a new limit would allow."""
        return self._limit < self._slots or self.free_at > now or self._wants_interval or self.pace > 0

    def start_request(self, now: float) -> None:
        """Count a request that starts."""
        if self._interval or self.pace:
            self.free_at = max(self.free_at, now + max(self._interval, self.pace))

    def record_answer(self, seconds: float, now: float, in_flight: int = 1) -> None:
        """Raise the limit a little after an answer, or lower it if answers take longer and longer.

        Args:
            seconds: How long the answer took.
            now: The loop's time.
            in_flight: Requests in flight, including this one.
        """
        if not self.has_answered:
            self.has_answered = True
            self._usual_time = self._recent_time = seconds
            if seconds >= _SLOW_SECONDS and in_flight > 1:
                self._limit = max(1.0, self._limit - 1.0)  # until a second answer shows whether they are serial
        is_serial = self._are_answers_serial(now, in_flight)
        self._recent_time += (seconds - self._recent_time) * _SMOOTHING
        # The usual time rises slowly, so that a host that stays slow gets all of its slots back in the end.
        self._usual_time = min(self._usual_time * 1.001, self._recent_time)
        if is_serial or self._recent_time > max(
            self._usual_time * _SLOWDOWN_FACTOR, self._usual_time + _SLOWDOWN_SECONDS
        ):
            self._reduce(now)
        elif self._limit < self._ceiling:
            self._limit = min(self._ceiling, self._limit + 1 / self._limit)
        elif self._ceiling < self._slots:
            self._approach_more()

    def record_refusal(self, wait: float, now: float, in_flight: int = 1) -> None:
        """Lower the limit after a sign of too many requests, and start no request for `wait` seconds."""
        self.free_at = max(self.free_at, now + wait)
        if self._tries_more and in_flight >= self._ceiling:
            self._trial_answers = min(self._trial_answers * 2, _LAST_TRIAL)
            self._reduced_at = now
        else:
            self._reduce(now)
        if in_flight > 1:
            self._ceiling = min(self._ceiling, in_flight - 1.0)
            self._tries_more = False
            self._answers_at_ceiling = 0
        self._limit = min(self._limit, self._ceiling)

    def record_timeout(self, now: float, in_flight: int = 1) -> None:
        """Lower the limit after a timeout, and start no request while the host may still work on this one."""
        work = self._usual_time * _ABANDONED_WORK if self._usual_time >= _SLOW_SECONDS else 0.0
        self.record_refusal(max(0.0, self.free_at - now) + work, now, in_flight)

    def reduce_to_one(self) -> None:
        """Let requests go one at a time, until answers raise the limit again."""
        self._limit = 1.0

    def forget_ceiling(self) -> None:
        """Let the limit rise to all slots: the overload was not due to the number of requests."""
        self._ceiling = float(self._slots)
        self._tries_more = False

    def restore(self) -> None:
        """Give all slots back: fewer requests did not help."""
        self._limit = self._ceiling = float(self._slots)

    def require_interval(self, interval: float) -> None:
        """Leave at least `interval` seconds between requests from now on."""
        self._wants_interval = self._wants_interval or interval > 0
        self._interval = max(self._interval, interval)

    def _are_answers_serial(self, now: float, in_flight: int) -> bool:
        """Whether the gaps between the last answers are so long that the host seems to work on one request at a time.

        By Little's law, a host that works on all requests at once sends an answer every `usual time / in_flight`.
        Requests that started together may end together, with a long gap before the first. So it takes two gaps.
        """
        has_gap = now - self._answered_at >= self._usual_time * _SERIAL_GAP
        self._answered_at = now
        if has_gap and in_flight >= _MIN_SERIAL_REQUESTS and self._usual_time >= _SLOW_SECONDS:
            self._gaps += 1
        else:
            self._gaps = 0
        return self._gaps > 1

    def _approach_more(self) -> None:
        self._answers_at_ceiling += 1
        if self._answers_at_ceiling >= self._trial_answers:
            if self._tries_more:
                self._trial_answers = max(_FIRST_TRIAL, self._trial_answers // 2)  # the last trial went well
            self._tries_more = True
            self._answers_at_ceiling = 0
            self._limit = self._ceiling = min(float(self._slots), self._ceiling + 1.0)

    def _reduce(self, now: float) -> None:
        # Failures of requests that were in flight together count as one.
        if now - self._reduced_at >= max(self._recent_time, _MIN_BACKOFF_SECONDS):
            self._limit = max(1.0, self._limit / 2)
            self._reduced_at = now
