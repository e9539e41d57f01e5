"""The slots of one host: how its answers and failures change them, and which queues wait for one."""

import asyncio
from collections import deque
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

from crawler.probing.scheduling.adaptive_limit import AdaptiveLimit
from crawler.probing.scheduling.host_backoff import HostBackoff
from crawler.probing.settings import RetryPolicy

__all__ = ["NO_OVERLOAD", "HostQueue", "HostSlots", "Overload", "QueueOwner"]

T = TypeVar("T")

_MAX_QUICK_FAILURE_SECONDS: Final = 1.0  # a host that never answered gets no pauses after slower failures


class Overload(NamedTuple):
    """What a refusal or failure says about its host, and not about its URL.

    Attributes:
        is_host_paused: Whether the scheduler starts no request to the host for a while.
        may_be_reason: Whether the request may have failed because the host got too many requests.
        was_concurrent: Whether other requests to the host are in flight, which may be the reason.
        is_temporary: Whether URLs that the host refused had good answers later.
    """

    is_host_paused: bool = False
    may_be_reason: bool = False
    was_concurrent: bool = False
    is_temporary: bool = False


NO_OVERLOAD: Final = Overload()


class HostSlots:
    """The slots of one host, and the queues that wait for one. Times are seconds; `now` is the loop's time.

    Attributes:
        active: Slots in use.
        adaptive_limit: How many slots there are.
        backoff: The host's pauses; None for a host that has refused and failed nothing.
        held_until: Loop time before which no request may start, because robots.txt is being fetched.
        open_queues: The number of host queues of this host.
        timer: Wakes the queues at `free_at`.
        waiting: Host queues that wait for a slot; None until the first one waits, which is rare.
    """

    __slots__ = ("active", "adaptive_limit", "backoff", "held_until", "name", "open_queues", "timer", "waiting")

    def __init__(self, name: str, adaptive_limit: AdaptiveLimit) -> None:
        self.name = name
        self.adaptive_limit = adaptive_limit
        self.backoff: HostBackoff | None = None
        self.held_until = 0.0
        self.active = 0
        self.open_queues = 0
        self.waiting: deque[HostQueue[Any]] | None = None
        self.timer: asyncio.TimerHandle | None = None

    @property
    def free_at(self) -> float:
        """Loop time before which no request may start."""
        return max(self.adaptive_limit.free_at, self.held_until)

    @property
    def seems_down(self) -> bool:
        """Whether the host fails all requests now."""
        return self.backoff is not None and self.backoff.seems_down

    @property
    def seems_dead(self) -> bool:
        """Whether the host fails all requests now, and has never answered one."""
        return self.backoff is not None and self.backoff.seems_down and not self.adaptive_limit.has_answered

    def is_worth_remembering(self, now: float) -> bool:
        """Whether a new record of this host would allow more requests than this one."""
        return self.backoff is not None or self.adaptive_limit.is_slowed(now)

    def record_answer(self, seconds: float, now: float, *, was_refused: bool = False) -> None:
        """Note an answer that is not a refusal; `was_refused` if its URL has been refused before."""
        self.adaptive_limit.record_answer(seconds, now, self.active)
        if self.backoff is not None:
            self.backoff.record_answer(now, was_refused=was_refused)
            self.adaptive_limit.pace = self.backoff.interval

    @property
    def wants_final_retries_alone(self) -> bool:
        """Whether final retries run one at a time: the host answers requests, and has refused or failed some."""
        return self.backoff is not None and self.adaptive_limit.has_answered and self.backoff.can_final_retries_help

    def record_refusal(
        self, status: int | None, retry_after: float | None, now: float, policy: RetryPolicy
    ) -> Overload:
        """Slow down after a 429 or 503, which can be due to the number of requests in flight or to their pace.

        Without Retry-After it counts as the former while other requests are in flight, else as the latter.
        """
        is_alone = self.active <= 1
        backoff, limit = self._open_backoff(policy), self.adaptive_limit
        pause = backoff.record_refusal(retry_after, now, is_alone=is_alone, is_about_pace=status == 429)
        limit.record_refusal(pause or 0.0, now, 1 if retry_after is not None else self.active)
        if pause and (is_alone or backoff.interval):
            limit.forget_ceiling()
        limit.pace = backoff.interval
        return Overload(
            is_host_paused=pause is not None,
            may_be_reason=limit.has_answered and not backoff.seems_down,
            was_concurrent=not is_alone and pause is None and retry_after is None and backoff.has_pauses_left,
            is_temporary=backoff.waiting_helps,
        )

    def record_failure(self, error_type: str, seconds: float, now: float, policy: RetryPolicy) -> Overload:
        """Slow down after a request that failed, perhaps because there were too many.

        A host that has never answered gets pauses only after quick failures. With fewer slots, its timeouts would run
        one after another, which takes longer than all at once.
        """
        limit = self.adaptive_limit
        is_timeout = error_type.endswith("timed_out")
        if not limit.has_answered and (is_timeout or seconds >= _MAX_QUICK_FAILURE_SECONDS):
            return NO_OVERLOAD
        backoff = self._open_backoff(policy)
        backoff.has_failed_in_parallel |= self.active > 1
        pause = backoff.record_failure(now)
        if not backoff.may_be_overloaded:
            limit.restore()
        elif error_type == "tcp.refused" and not limit.has_answered:  # no server listens
            if pause:
                limit.record_refusal(pause, now)
        elif is_timeout:
            limit.record_timeout(now, self.active)
        else:
            limit.record_refusal(pause, now, self.active)
            if self.active <= 1:
                limit.forget_ceiling()
        may_be_overloaded = backoff.may_be_overloaded
        return Overload(
            may_be_reason=backoff.has_failed_in_parallel and limit.has_answered and may_be_overloaded,
            was_concurrent=self.active > 1 and may_be_overloaded and not is_timeout and not pause,
        )

    def record_final_retry(self, *, is_good: bool) -> None:
        """Note the outcome of a final retry that was alone at the host."""
        if self.backoff is not None:
            self.backoff.record_final_retry(is_good=is_good)

    def _open_backoff(self, policy: RetryPolicy) -> HostBackoff:
        if self.backoff is None:
            self.backoff = HostBackoff(policy)
        return self.backoff


class QueueOwner(Protocol):
    """What the scheduler needs of a work queue."""

    @property
    def active(self) -> int:
        """The slots that it uses."""

    def start_next(self, queue: "HostQueue[Any]") -> bool:
        """Run the first item of a host queue, whose slot is taken; true if the queue wants another slot at once."""

    def notify_host_full(self) -> None:
        """Called when a ready host queue has to wait for its host."""

    def notify_drain(self) -> None:
        """Called when the scheduler starts no more items."""

    def cancel_running(self) -> None:
        """Cancel the items that run, and ignore how they end."""


class HostQueue(deque[T], Generic[T]):
    """The items of one work queue for one host: `Scheduler.open_queue` makes it, the work queue fills it.

    It is ready to take a slot, waits for its host, or is held back by its work queue. Only the scheduler uses the
    fields.
    """

    __slots__ = ("host", "is_open", "owner")

    def __init__(self, owner: QueueOwner, host: HostSlots) -> None:
        super().__init__()
        self.owner = owner
        self.host = host
        self.is_open = True

    @property
    def host_name(self) -> str:
        """The host's name."""
        return self.host.name
