"""What is known about one host that refuses requests or lets them fail: how long to leave it alone, and when to stop.

Two things go wrong at a host as a whole. It asks for fewer requests (429, 503), or it does not bear as many as it gets
(it resets, closes or hangs), which includes a server that restarts. Both pass when the host gets fewer requests, so
they are no answers about a URL. Each kind of waiting has a bound, because what a host does must not delay a Task
without end.
"""

from typing import Final

from crawler.probing.settings import RetryPolicy

__all__ = ["HostDistress"]

_MAX_PAUSES: Final = 2  # patience, in the longest pauses
_PAUSES_PER_ANSWER: Final = 1 / 30  # patience that a good answer gives back, in the longest pauses
_FAILURES_IN_A_ROW: Final = 8  # that make a host seem down: fewer can be the URLs' own, or due to a low limit
_MAX_STRIKES: Final = 3  # pauses of a host that seems down
_MAX_FAILED_LOOKS: Final = 3  # final requests that failed alone at the host, one after another


class HostDistress:
    """Decides pauses from refusals, failures and answers. Times are seconds; `now` is the loop's time.

    Args:
        policy: The first pause after a refusal is its back-off, the first one after failures half of that.
            Each further pause without a good answer is twice as long, up to its longest wait. Refusals can make up
            two of the longest waits in all; a good answer gives a thirtieth of one back.

    Attributes:
        has_been_crowded: Whether a request failed while another one was under way.
    """

    __slots__ = (
        "_failed_looks",
        "_failures",
        "_has_paused",
        "_next_pause",
        "_patience",
        "_paused_until",
        "_policy",
        "_strikes",
        "has_been_crowded",
    )

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._patience = _MAX_PAUSES * policy.max_wait_seconds
        self._next_pause = self._first_pause
        self._paused_until = 0.0
        self._has_paused = False  # for refusals, since the last good answer
        self._failures = 0
        self._strikes = 0
        self._failed_looks = 0
        self.has_been_crowded = False

    @property
    def seems_down(self) -> bool:
        """Whether the host kept failing through all pauses; a good answer ends that."""
        return self._strikes > _MAX_STRIKES

    @property
    def may_bear_less(self) -> bool:
        """Whether a failure can be due to the number of requests."""
        return not self.seems_down and self.looks_help

    @property
    def looks_help(self) -> bool:
        """Whether final requests that are alone at the host may do better than others."""
        return self._failed_looks < _MAX_FAILED_LOOKS

    def record_refusal(self, retry_after: float | None, now: float) -> float | None:
        """Return for how long to leave the host alone after a 429 or 503; None if it has been waited for enough.

        Args:
            retry_after: What the host asks for; None if it does not say.
            now: The loop's time.
        """
        left = max(0.0, self._paused_until - now)
        if left and retry_after is None:
            return left  # its request was in flight together with the one that began the pause
        pause = min(self._next_pause if retry_after is None else retry_after, self._policy.max_wait_seconds)
        if pause <= left:
            return left
        if pause - left > self._patience:
            return None
        self._patience -= pause - left
        self._paused_until = now + pause
        if retry_after is None:
            self._has_paused = True
            self._next_pause = min(pause * 2, self._policy.max_wait_seconds)
        return pause

    def record_failure(self, now: float) -> float:
        """Return for how long to leave the host alone after a connection that failed; 0 if the host does not seem down.

        Failures of requests that were in flight together count once: they come during the pause.
        """
        if now < self._paused_until or self.seems_down:
            return 0.0
        self._failures += 1
        if self._failures < _FAILURES_IN_A_ROW:
            return 0.0
        self._strikes += 1
        if self._strikes > _MAX_STRIKES:
            return 0.0
        pause = min(self._policy.backoff_seconds * 2.0 ** (self._strikes - 2), self._policy.max_wait_seconds)
        self._paused_until = now + pause
        return pause

    def record_answer(self, now: float) -> None:
        """The host has answered well. The next pause begins with half of the one that helped."""
        self._failures = self._strikes = 0
        self._patience = min(
            self._patience + _PAUSES_PER_ANSWER * self._policy.max_wait_seconds,
            _MAX_PAUSES * self._policy.max_wait_seconds,
        )
        if self._has_paused and now >= self._paused_until:
            self._has_paused = False
            self._next_pause = max(self._first_pause, self._next_pause / 4)

    def record_look(self, *, is_good: bool) -> None:
        """Record the final request for a URL, which was alone at the host."""
        self._failed_looks = 0 if is_good else self._failed_looks + 1

    @property
    def _first_pause(self) -> float:
        return min(self._policy.backoff_seconds, self._policy.max_wait_seconds)
