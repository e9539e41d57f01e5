"""Queues the items of one caller, and runs each when it gets a slot."""

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from itertools import takewhile
from typing import Any, Final, Generic, Protocol, Self, TypeVar

from crawler.probing.scheduling.fed_stream import FedStream
from crawler.probing.scheduling.host_limits import HostLimits
from crawler.probing.scheduling.host_slots import HostQueue
from crawler.probing.scheduling.scheduler import Scheduler
from crawler.probing.settings import DEFAULT_SETTINGS
from crawler.runtime.cancellation import cancel_and_wait

__all__ = ["RunItem", "WorkItem", "WorkQueue"]

# How far a work queue reads ahead. It stops once `_MAX_READY_HOSTS` hosts have an item that can run. It reads past
# full hosts until it holds `_MAX_ITEMS` items: this limits the memory that one hanging host can cost.
_MAX_READY_HOSTS: Final = 256
_MAX_ITEMS: Final = 20_000
_MAX_DEFERRED_ITEMS: Final = 10_000


class WorkItem(Protocol):
    """What a work queue runs; each run needs a slot of the item's host."""

    wants_deferral: bool  # whether the next run should wait until all other items are done
    wants_host_alone: bool  # whether the next run, at a host that refuses or fails requests, should be alone there

    @property
    def host(self) -> str:
        """The host whose slot the next run needs."""

    @property
    def not_before(self) -> float:
        """Loop time before which the item must not run; 0 for at once."""


T = TypeVar("T", bound=WorkItem)
RunItem = Callable[[T], Coroutine[Any, Any, bool]]


class WorkQueue(FedStream[T], Generic[T]):
    """Runs the items that are `put` in, and gives them out in the order in which they are finished.

    Leaving the context cancels the items that run. Once the scheduler drains, the stream ends with the items that ran
    then and needed no further run.

    Args:
        scheduler: Its slots are used.
        run_item: Works on an item while it holds a slot; true when the item is finished. It must not raise.
        per_host: Items of this queue that run at once for one host, if fewer than the scheduler allows.
        interval: Seconds from one start to the next for one host, if more than the scheduler leaves.
        max_deferral_seconds: How long an item that wants deferral waits for the others.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        run_item: RunItem[T],
        per_host: int | None = None,
        interval: float = 0.0,
        *,
        max_deferral_seconds: float = DEFAULT_SETTINGS.max_deferral_seconds,
    ) -> None:
        super().__init__()
        self._scheduler = scheduler
        self._run_item = run_item
        self._max_deferral_seconds = max_deferral_seconds
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()  # of this caller; another caller's dispatch can start our items
        per_host = scheduler.per_host if per_host is None else per_host
        is_limited = per_host < scheduler.per_host or interval > scheduler.interval
        self._limits = HostLimits(scheduler, self, per_host, interval) if is_limited else None
        self._host_queues: dict[str, HostQueue[T]] = {}
        self._deferred: dict[T, float] = {}  # each with the loop time at which its deferral ends, the first one first
        self._deferral_timer: asyncio.TimerHandle | None = None
        self._running: set[asyncio.Task[bool]] = set()
        self._unfinished = 0
        self._expects_end = False
        self._is_closed = False
        self._is_cancelled = False
        scheduler.join(self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._is_closed = True
        self._scheduler.leave(self, self._host_queues.values())
        if self._deferral_timer is not None:
            self._deferral_timer.cancel()
        if self._limits is not None:
            self._limits.close()
        for queue in self._host_queues.values():
            queue.clear()
        await cancel_and_wait(*self._running)

    @property
    def is_draining(self) -> bool:
        """Whether no more items start."""
        return self._scheduler.is_draining

    def put(self, item: T) -> None:
        """Queue an item for its host."""
        self._unfinished += 1
        self._enqueue(item)
        self._scheduler.dispatch()

    def seal(self) -> None:
        """Mark the input as complete."""
        super().seal()
        self.expect_end()

    def expect_end(self) -> None:
        """Expect hardly any more items: deferred items do not wait for later ones."""
        self._expects_end = True
        self._run_deferred_if_alone()

    def _has_room(self) -> bool:
        return (
            self._scheduler.ready_count(self) < _MAX_READY_HOSTS and self._unfinished + len(self._results) < _MAX_ITEMS
        )

    def _is_over(self) -> bool:
        return (self.is_sealed and not self._unfinished) or (self.is_draining and not self._running)

    # What the scheduler calls

    @property
    def active(self) -> int:
        """The slots that this queue uses."""
        return len(self._running)

    def start_next(self, queue: HostQueue[T]) -> bool:
        """Run the first item of a host queue, whose slot is taken; true if the queue wants another slot at once."""
        item = queue.popleft()
        name = queue.host.name
        if self._limits is not None:
            self._limits.count_start(name)
        task = self._loop.create_task(self._run_item(item), context=self._context.copy())
        self._running.add(task)
        # A callback and not a `finally` in the task: a task cancelled before its first step never enters its `try`.
        task.add_done_callback(lambda task: self._end_run(task, item, queue))
        if queue:
            return self._admits(queue)
        del self._host_queues[name]
        self._scheduler.close_queue(queue)
        return False

    def notify_host_full(self) -> None:
        """Read on for other hosts: a ready host queue has to wait for its host."""
        self._notify_feeder()

    def notify_drain(self) -> None:
        """Check whether the stream is over: no more items start."""
        self._notify_reader()

    def cancel_running(self) -> None:
        """Cancel the items that run; they do not finish."""
        self._is_cancelled = True
        for task in self._running:
            task.cancel()

    # From `put` to the result

    def _enqueue(self, item: T) -> None:
        delay = item.not_before - self._loop.time() if item.not_before else 0.0
        if delay > 0:
            self._loop.call_later(delay, self._requeue, item)
            return
        name = item.host
        queue = self._host_queues.get(name)
        if queue is None:
            queue = self._host_queues[name] = self._scheduler.open_queue(self, name)
            if self._admits(queue):
                self._scheduler.make_ready(queue)
        queue.append(item)

    def _requeue(self, item: T) -> None:
        if not self._is_closed:
            self._enqueue(item)
            self._scheduler.dispatch()

    def _admits(self, queue: HostQueue[T]) -> bool:
        return self._limits is None or self._limits.admits(queue)

    def _end_run(self, task: asyncio.Task[bool], item: T, queue: HostQueue[T]) -> None:
        self._running.discard(task)
        self._scheduler.release(queue)
        if not self._is_closed and not self._is_cancelled:
            if self._limits is not None:
                self._limits.count_end(queue.host_name, has_more=queue.host_name in self._host_queues)
            if task.cancelled() or task.result():
                self._unfinished -= 1
                self.finish(item)
            elif item.wants_deferral:
                self._defer(item)
            else:
                self._enqueue(item)
            self._run_deferred_if_alone()
            self._notify_feeder()
        if self._scheduler.is_draining:
            self._notify_reader()
        self._scheduler.dispatch()

    # Deferred items wait for all others. Their time and their number are limited.

    def _defer(self, item: T) -> None:
        self._deferred[item] = self._loop.time() + self._max_deferral_seconds
        if len(self._deferred) > _MAX_DEFERRED_ITEMS:
            self._end_deferral(next(iter(self._deferred)))
        if self._deferral_timer is None:
            self._deferral_timer = self._loop.call_later(self._max_deferral_seconds, self._end_due_deferrals)

    def _end_due_deferrals(self) -> None:
        """End the deferrals that have lasted long enough. One timer for all: a timer each would keep its item alive."""
        self._deferral_timer = None
        now = self._loop.time()
        due = list(takewhile(lambda item: self._deferred[item] <= now, self._deferred))
        for item in due:
            self._end_deferral(item)
        if self._deferred:
            self._deferral_timer = self._loop.call_at(next(iter(self._deferred.values())), self._end_due_deferrals)

    def _run_deferred_if_alone(self) -> None:
        if self._expects_end and self._deferred and self._unfinished == len(self._deferred):
            for item in list(self._deferred):
                self._end_deferral(item)

    def _end_deferral(self, item: T) -> None:
        if item in self._deferred:
            del self._deferred[item]
            item.wants_deferral = False
            self._requeue(item)
