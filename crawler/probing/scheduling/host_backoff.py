"""The pauses of one host that refuses requests, or fails them: how long each is, and when there are no more.

A refusal is a 429 or 503: the host asks for fewer requests. A failure is a reset, a closed connection or a timeout: the
host may be overloaded, or may restart. Fewer requests help against both, so neither says anything about a URL. All
pauses of a host together are bounded, so that no host delays a Task for ever.
"""

from typing import Final

from crawler.probing.settings import RetryPolicy

__all__ = ["HostBackoff"]

_REFUSAL_PAUSE_BUDGET: Final = 2  # of all pauses after refusals, in units of `max_wait_seconds`
_REGAINED_BUDGET: Final = 1 / 30  # per good answer, in the same unit
_FAILURES_BEFORE_PAUSE: Final = 8  # in a row: fewer can be due to their URLs, or to a limit that is still too high
_MAX_FAILURE_PAUSES: Final = 3
_MAX_FAILED_FINAL_RETRIES: Final = 3  # in a row, each alone at the host


class HostBackoff:
    """Decides pauses from refusals, failures and answers. Times are seconds; `now` is the loop's time.

    Args:
        policy: The first pause after a refusal is `backoff_seconds`; the first one after failures is half of that.
            Each further pause without a good answer is twice as long, up to `max_wait_seconds`. Pauses after refusals
            last two `max_wait_seconds` in all; each good answer adds a thirtieth of one.

    Attributes:
        has_failed_in_parallel: Whether a request failed while another one was in flight.
    """

    __slots__ = (
        "_failed_final_retries",
        "_failure_pauses",
        "_failures",
        "_has_paused",
        "_next_pause",
        "_pause_budget",
        "_paused_until",
        "_policy",
        "has_failed_in_parallel",
    )

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._pause_budget = _REFUSAL_PAUSE_BUDGET * policy.max_wait_seconds
        self._next_pause = self._first_pause
        self._paused_until = 0.0
        self._has_paused = False  # after a refusal, since the last good answer
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

    def record_refusal(self, retry_after: float | None, now: float) -> float | None:
        """Return the pause after a 429 or 503, in seconds; None if the host has used up all pauses.

        Args:
            retry_after: The seconds that the host asks for; None if it does not say.
            now: The loop's time.
        """
        left = max(0.0, self._paused_until - now)
        if left and retry_after is None:
            return left  # the request was in flight when the pause began
        pause = min(self._next_pause if retry_after is None else retry_after, self._policy.max_wait_seconds)
        if pause <= left:
            return left
        if pause - left > self._pause_budget:
            return None
        self._pause_budget -= pause - left
        self._paused_until = now + pause
        if retry_after is None:
            self._has_paused = True
            self._next_pause = min(pause * 2, self._policy.max_wait_seconds)
        return pause

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

    def record_answer(self, now: float) -> None:
        """Note a good answer. The next pause is half as long as the last one."""
        self._failures = self._failure_pauses = 0
        self._pause_budget = min(
            self._pause_budget + _REGAINED_BUDGET * self._policy.max_wait_seconds,
            _REFUSAL_PAUSE_BUDGET * self._policy.max_wait_seconds,
        )
        if self._has_paused and now >= self._paused_until:
            self._has_paused = False
            self._next_pause = max(self._first_pause, self._next_pause / 4)

    def record_final_retry(self, *, is_good: bool) -> None:
        """Note the outcome of a final retry that was alone at the host."""
        self._failed_final_retries = 0 if is_good else self._failed_final_retries + 1

    @property
    def _first_pause(self) -> float:
        return min(self._policy.backoff_seconds, self._policy.max_wait_seconds)
