"""The pauses of one host that refuses requests, or fails them: how long each is, and when there are no more.

A refusal is a 429 or 503: the host asks for fewer requests. A failure is a reset, a closed connection or a timeout: the
host may be overloaded, or may restart. Fewer requests help against both, so neither says anything about a URL. All
pauses of a host together are bounded, so that no host delays a Task for ever.
"""

from typing import Final

from crawler.probing.settings import RetryPolicy

__all__ = ["HostBackoff"]

_FIRST_PAUSE: Final = 1 / 8  # of the back-off
_SHARE_OF_LAST_WAIT: Final = 3 / 4  # the first pause, as a share of all pauses that it took the last time
_FEW_ANSWERS: Final = 2  # between two waits: no more come from a host that allows no bursts
_SLOWER: Final = 1.25  # factor of the interval after a refusal
_FASTER: Final = 0.98  # factor of the interval after a good answer
_FASTER_AT_FIRST: Final = 0.9  # the same, before the first refusal with an interval
_SHORTEST_INTERVAL: Final = 0.01
_REFUSAL_PAUSE_BUDGET: Final = 2  # of all pauses after refusals, in units of `max_wait_seconds`
_DOUBTFUL_PAUSE_BUDGET: Final = 0.5  # of these after 503, while no URL had a good answer later, in the same unit
_REGAINED_BUDGET: Final = 1 / 30  # per good answer, in the same unit
_FAILURES_BEFORE_PAUSE: Final = 8  # in a row: fewer can be due to their URLs, or to a limit that is still too high
_MAX_FAILURE_PAUSES: Final = 3
_MAX_FAILED_FINAL_RETRIES: Final = 3  # in a row, each alone at the host


class HostBackoff:
    """Decides pauses from refusals, failures and answers. Times are seconds; `now` is the loop's time.

    Args:
        policy: The first pause after a refusal is an eighth of `backoff_seconds`; the first one after failures is half
            of it. Each further pause without a good answer is twice as long, up to `max_wait_seconds`. Pauses after
            refusals last two `max_wait_seconds` in all; each good answer adds a thirtieth of one.

    Attributes:
        has_failed_in_parallel: Whether a request failed while another one was in flight.
        interval: Seconds from one request to the next, for a host that allows no bursts; 0 for others.
        waiting_helps: Whether a URL that was refused has got a good answer later.
    """

    __slots__ = (
        "_answers",
        "_failed_final_retries",
        "_failure_pauses",
        "_failure_pauses",
        "_failures",
        "_faster",
        "_helped",
        "_next_pause",
        "_pause_budget",
        "_paused_until",
        "_policy",
        "_refusals",
        "_step",
        "_waited",
        "has_failed_in_parallel",
        "interval",
        "waiting_helps",
    )

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._pause_budget = _REFUSAL_PAUSE_BUDGET * policy.max_wait_seconds
        self._next_pause = self._first_pause
        self._step = 2 * self._next_pause
        self._refusals = 0  # since the last good answer
        self._waited = 0.0  # for them
        self._helped = 0.0  # the last such wait that ended with a good answer
        self._answers = 0  # since the last such wait began
        self.interval = 0.0
        self._faster = _FASTER_AT_FIRST
        self._paused_until = 0.0
        self.waiting_helps = False
        self._failures = 0
        self._failure_pauses = 0
        self._failed_final_retries = 0
        self.has_failed_in_parallel = False

    @property
    def seems_down(self) -> bool:
        """Whether requests failed after all pauses too; a good answer ends that."""
        return self._failure_pauses > _MAX_FAILURE_PAUSES

    @property
    def may_be_overloaded(self) -> bool:
        """Whether failures can be due to the number of requests."""
        return not self.seems_down and self.can_final_retries_help

    @property
    def can_final_retries_help(self) -> bool:
        """Whether final retries that are alone at the host may succeed where others fail."""
        return self._failed_final_retries < _MAX_FAILED_FINAL_RETRIES

    def record_refusal(
        self, retry_after: float | None, now: float, *, is_alone: bool = True, is_about_pace: bool = True
    ) -> float | None:
        """Return the pause after a 429 or 503, in seconds; None for none.

        Without Retry-After there is none while other requests are in flight, because they may have been too many. Nor
        is there one after a single 503, which can be due to its URL.

        Args:
            retry_after: The seconds that the host asks for; None if it does not say.
            now: The loop's time.
            is_alone: Whether no other request is in flight.
            is_about_pace: Whether the status says that there were too many requests (429).
        """
        left = max(0.0, self._paused_until - now)
        self._refusals += 1
        if retry_after is None:
            if left:
                return left  # the request was in flight when the pause began
            if not (is_alone or self.interval) or not (is_about_pace or self.waiting_helps or self._may_be_pace):
                return None
        pause = min(self._next_pause if retry_after is None else retry_after, self._policy.max_wait_seconds)
        if pause <= left:
            return left
        if pause - left > self._pause_budget:
            return None
        self._pause_budget -= pause - left
        self._paused_until = now + pause
        if retry_after is None:
            if not self._waited:
                self._adapt_interval()
            self._waited += pause
            self._next_pause, self._step = min(self._step, self._policy.max_wait_seconds), self._step * 2
        return pause

    def _adapt_interval(self) -> None:
        """Space requests to a host that refuses again after hardly any answers; more, if they are spaced already."""
        if self.interval:
            self.interval = min(self.interval * _SLOWER, self._policy.max_wait_seconds)
            self._faster = _FASTER
        elif self._answers <= _FEW_ANSWERS:
            self.interval = self._helped / max(1, self._answers)
        self._answers = 0

    def record_failure(self, now: float) -> float:
        """Return the pause after a failure, in seconds; 0 for none.

        Failures during a pause do not count: their requests were in flight when the pause began.
        """
        if now < self._paused_until or self.seems_down:
            return 0.0
        self._failures += 1
        if self._failures < _FAILURES_BEFORE_PAUSE:
            return 0.0
        self._failure_pauses += 1
        if self._failure_pauses > _MAX_FAILURE_PAUSES:
            return 0.0
        pause = min(self._policy.backoff_seconds * 2.0 ** (self._failure_pauses - 2), self._policy.max_wait_seconds)
        self._paused_until = now + pause
        return pause

    def record_answer(self, now: float, *, was_refused: bool = False) -> None:
        """Note a good answer. The next pause is most of the wait before it.

        Args:
            now: The loop's time.
            was_refused: Whether the URL has been refused before.
        """
        self.waiting_helps |= was_refused and self._paused_until > 0
        self._failures = self._failure_pauses = self._refusals = 0
        self._pause_budget = min(
            self._pause_budget + _REGAINED_BUDGET * self._policy.max_wait_seconds,
            _REFUSAL_PAUSE_BUDGET * self._policy.max_wait_seconds,
        )
        self._answers += 1
        self.interval = self.interval * self._faster if self.interval > _SHORTEST_INTERVAL else 0.0
        if self._waited and now >= self._paused_until:
            self._helped, self._waited = self._waited, 0.0
            pause = max(self._first_pause, self._helped * _SHARE_OF_LAST_WAIT)
            self._next_pause = min(pause, self._policy.max_wait_seconds)
            self._step = max(self._first_pause, self._helped * (1 - _SHARE_OF_LAST_WAIT))

    @property
    def has_pauses_left(self) -> bool:
        """Whether a further refusal without Retry-After would be waited for."""
        return self._pause_budget >= self._next_pause

    @property
    def _may_be_pace(self) -> bool:
        """Whether a 503 may be due to the pace of requests, though none has done better later."""
        waited = _REFUSAL_PAUSE_BUDGET * self._policy.max_wait_seconds - self._pause_budget
        return self._refusals > 1 and waited < _DOUBTFUL_PAUSE_BUDGET * self._policy.max_wait_seconds

    def record_final_retry(self, *, is_good: bool) -> None:
        """Note the outcome of a final retry that was alone at the host."""
        self._failed_final_retries = 0 if is_good else self._failed_final_retries + 1

    @property
    def _first_pause(self) -> float:
        return min(self._policy.backoff_seconds * _FIRST_PAUSE, self._policy.max_wait_seconds)
