"""The slots of one host, what its answers and failures mean for them, and the queues that wait for one."""

import asyncio
from collections import deque
from typing import Any, Final, Generic, Protocol, TypeVar

from crawler.probing.scheduling.adaptive_limit import AdaptiveLimit
from crawler.probing.scheduling.host_distress import HostDistress
from crawler.probing.settings import RetryPolicy

__all__ = ["HostQueue", "HostSlots", "QueueOwner"]

T = TypeVar("T")

_MAX_QUICK_SECONDS: Final = 1.0  # a failure that takes longer costs too much to ask a silent host again and again


class HostSlots:
    """The slots of one host, and the queues that wait for one. Times are seconds; `now` is the loop's time.

    Attributes:
        active: Slots in use.
        adaptive_limit: How many there are.
        distress: What is known of its trouble; None for a host that has had none.
        held_until: Loop time; set while its robots.txt is fetched.
        open_queues: Host queues that are open for it.
        timer: Wakes the queues when the host is free.
        waiting: Host queues that wait for a slot; most hosts never have one.
    """

    __slots__ = ("active", "adaptive_limit", "distress", "held_until", "name", "open_queues", "timer", "waiting")

    def __init__(self, name: str, adaptive_limit: AdaptiveLimit) -> None:
        self.name = name
        self.adaptive_limit = adaptive_limit
        self.distress: HostDistress | None = None
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
        """Whether the host failed all requests for some time."""
        return self.distress is not None and self.distress.seems_down

    @property
    def seems_dead(self) -> bool:
        """Whether it has never done otherwise."""
        return self.seems_down and not self.adaptive_limit.has_answered

    def is_worth_remembering(self, now: float) -> bool:
        """Whether a fresh record would treat the host otherwise."""
        return self.distress is not None or self.adaptive_limit.is_slowed(now)

    def record_answer(self, seconds: float, now: float) -> None:
        """Take note of an answer that is no refusal."""
        self.adaptive_limit.record_answer(seconds, now, self.active)
        if self.distress is not None:
            self.distress.record_answer(now)

    @property
    def wants_final_looks_alone(self) -> bool:
        """Whether final requests go one at a time: the host answers, and has been in trouble."""
        return self.distress is not None and self.adaptive_limit.has_answered and self.distress.looks_help

    def record_refusal(self, status: int | None, retry_after: float | None, now: float, policy: RetryPolicy) -> bool:
        """Slow down after a 429 or 503; true if the host is left alone for a while."""
        pause = self._distress(policy).record_refusal(retry_after, now)
        in_flight = 1 if status == 429 else self.active  # 429 is about requests in a time, not at once
        self.adaptive_limit.record_refusal(pause or 0.0, now, in_flight)
        return pause is not None

    def record_failure(self, error_type: str, seconds: float, now: float, policy: RetryPolicy) -> bool:
        """Slow down after a request that failed; true if it may have failed because there were too many.

        A host that has never answered is only left alone after failures that came quickly. To wait out its timeouts
        one by one would take longer than to give them all.
        """
        limit = self.adaptive_limit
        is_timeout = error_type.endswith("timed_out")
        if not limit.has_answered and (is_timeout or seconds >= _MAX_QUICK_SECONDS):
            return False
        distress = self._distress(policy)
        distress.has_been_crowded |= self.active > 1
        pause = distress.record_failure(now)
        if not distress.may_bear_less:
            limit.restore()
        elif error_type == "tcp.refused":  # nothing listens: no sign of too many requests
            if pause:
                limit.record_refusal(pause, now)
        elif is_timeout:
            limit.record_timeout(now, self.active)
        else:
            limit.record_refusal(pause, now, self.active)
        return distress.has_been_crowded and limit.has_answered and distress.may_bear_less

    def record_final_look(self, *, is_good: bool) -> None:
        """Take note of the final request for a URL, which was alone here."""
        if self.distress is not None:
            self.distress.record_look(is_good=is_good)

    def _distress(self, policy: RetryPolicy) -> HostDistress:
        if self.distress is None:
            self.distress = HostDistress(policy)
        return self.distress


class QueueOwner(Protocol):
    """A work queue, as the scheduler sees it."""

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
