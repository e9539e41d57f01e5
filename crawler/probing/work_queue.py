"""One caller's items on their way through the slots."""

import asyncio
import contextvars
from collections import OrderedDict, deque
from typing import Any, Final, Generic, Self

from crawler.probing.scheduler import HostQueue, HostSlots, RunItem, Scheduler, T

__all__ = ["WorkQueue"]

# How far a lane reads ahead. It stops once `_READY` hosts have something that could run, and reads on past hosts that
# are full until it holds `_WINDOW` items: what one stuck host may cost in memory before it holds up its own lane.
_READY: Final = 256
_WINDOW: Final = 20_000

# Last looks wait for all other items, but neither without end nor in any number.
_LATER: Final = 10_000
_LATER_SECONDS: Final = 30.0

_REMEMBERED: Final = 10_000  # hosts without work now, of which it is known from when on they may be asked again


class _HostShare:
    """What a lane with limits of its own has of one host."""

    __slots__ = ("active", "aside", "free_at", "timer")

    def __init__(self, free_at: float) -> None:
        self.active = 0
        self.free_at = free_at  # loop time
        self.aside: HostQueue[Any] | None = None  # waits for a turn to end, or for `free_at`
        self.timer: asyncio.TimerHandle | None = None


class WorkQueue(Generic[T]):
    """`put` items while there is `room`, `seal` after the last, and iterate for those that are finished.

    They come as they finish. Leaving the context stops what is in flight. Once the throttle drains, the lane ends with
    those whose turns were under way, and that did not need another.

    Args:
        throttle: Whose slots to use.
        turn: Works on an item while it holds a slot; true when the item is finished. It must not raise: what goes wrong
            is the item's business.
        per_host: Turns of this lane with one host at once, if fewer than the throttle allows.
        interval: Seconds from one of them to the next, if more than the throttle wants.
    """

    def __init__(
        self, throttle: Scheduler, turn: RunItem[T], per_host: int | None = None, interval: float = 0.0
    ) -> None:
        self.ready: deque[HostQueue[T]] = deque()
        self._throttle = throttle
        self._turn = turn
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()  # of turns, whoever it is whose end gives them their slots
        self._per_host = throttle.per_host if per_host is None else per_host
        self._interval = interval
        self._is_limited = self._per_host < throttle.per_host or interval > throttle.interval
        self._shares: dict[str, _HostShare] = {}  # of hosts with work, if the lane has limits of its own
        self._resting: OrderedDict[str, float] = OrderedDict()  # of the others, from when on they are free
        self._queues: dict[str, HostQueue[T]] = {}
        self._later: dict[T, None] = {}
        self._running: set[asyncio.Task[bool]] = set()
        self._finished: deque[T] = deque()
        self._unfinished = 0
        self._sealed = False
        self._hurries = False
        self._closed = False
        self._is_cut = False
        self._changed = asyncio.Event()  # for the reader of the lane
        self._has_room = asyncio.Event()  # for its feeder
        throttle.enter(self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closed = True
        self._throttle.leave(self)
        for queue in self._queues.values():
            queue.items.clear()
            queue.host.queues -= 1
            self._throttle.pass_on(queue.host)  # a turn that was ours is now another's
            self._throttle.forget(queue.host)
        for share in self._shares.values():
            if share.timer is not None:
                share.timer.cancel()
        self._throttle.pump()
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def put(self, item: T) -> None:
        """Queue an item for its host."""
        self._unfinished += 1
        self._queue(item)
        self._throttle.pump()

    def finish(self, item: T) -> None:
        """Pass on an item that needs no turn."""
        self._finished.append(item)
        self._changed.set()

    def seal(self) -> None:
        """Say that no more items come."""
        self._sealed = True
        self._changed.set()
        self.hurry()

    def hurry(self) -> None:
        """Say that hardly any more come: last looks need not wait for those."""
        self._hurries = True
        self._look_again_if_alone()

    async def room(self) -> None:
        """Wait until the lane wants to read further ahead."""
        while not self._wants_more():
            self._has_room.clear()
            await self._has_room.wait()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        while not self._finished:
            if (self._sealed and not self._unfinished) or (self._throttle.is_draining and not self._running):
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        self._has_room.set()
        return self._finished.popleft()

    def parked(self) -> None:
        """A ready queue has found its host full: there is room to read on for others."""
        self._has_room.set()

    def wake(self) -> None:
        """No more turns begin: the lane may be at its end."""
        self._changed.set()

    def cut(self) -> None:
        """End the turns that are under way; their items do not finish."""
        self._is_cut = True  # what a turn says when it is cut off is no verdict
        for task in self._running:
            task.cancel()

    def start(self, queue: HostQueue[T]) -> None:
        """Begin the turn of a queue's first item; the throttle has taken its slot."""
        host, item = queue.host, queue.items.popleft()
        if self._is_limited:
            self._count(host.name)
        if queue.items and self._may_try(queue):
            self.ready.append(queue)
        else:
            if not queue.items:
                del self._queues[host.name]
                host.queues -= 1
            self._throttle.pass_on(host)
        task = self._loop.create_task(self._turn(item), context=self._context.copy())
        self._running.add(task)
        # A callback and not a `finally` in the turn: a task cancelled before its first step never enters its `try`.
        task.add_done_callback(lambda task: self._ended(task, item, host))

    def _ended(self, task: asyncio.Task[bool], item: T, host: HostSlots) -> None:
        self._running.discard(task)
        self._throttle.release(host)
        if not self._closed and not self._is_cut:
            if self._is_limited:
                self._uncount(host.name)
            if task.cancelled() or task.result():
                self._unfinished -= 1
                self.finish(item)
            elif item.last_look:
                self._put_off(item)
            else:
                self._queue(item)
            self._look_again_if_alone()
            self._has_room.set()
        if self._throttle.is_draining:
            self.wake()
        self._throttle.pump()

    def _wants_more(self) -> bool:
        return len(self.ready) < _READY and self._unfinished + len(self._finished) < _WINDOW

    def _queue(self, item: T) -> None:
        delay = item.not_before - self._loop.time() if item.not_before else 0.0
        if delay > 0:
            self._loop.call_later(delay, self._due, item)
            return
        queue = self._queues.get(item.host)
        if queue is None:
            host = self._throttle.host(item.host)
            host.queues += 1
            queue = self._queues[item.host] = HostQueue(self, host)
            if self._may_try(queue):
                self._throttle.make_ready(queue)
        queue.items.append(item)

    def _due(self, item: T) -> None:
        if not self._closed:
            self._queue(item)
            self._throttle.pump()

    # The lane's own limits

    def _may_try(self, queue: HostQueue[T]) -> bool:
        """Whether a queue may try for a slot; if not, it is put aside until it may."""
        if not self._is_limited:
            return True
        share = self._share(queue.host.name)
        is_full = share.active >= self._per_host
        if not is_full and share.free_at <= self._loop.time():
            return True
        share.aside = queue
        if not is_full and share.timer is None:
            share.timer = self._loop.call_at(share.free_at, self._interval_over, share)
        self._has_room.set()
        return False

    def _share(self, name: str) -> _HostShare:
        if (share := self._shares.get(name)) is None:
            share = self._shares[name] = _HostShare(self._resting.pop(name, 0.0))
        return share

    def _count(self, name: str) -> None:
        """A turn with a host begins."""
        share = self._share(name)
        share.active += 1
        share.free_at = self._loop.time() + self._interval

    def _uncount(self, name: str) -> None:
        """A turn with a host has ended."""
        share = self._shares[name]
        share.active -= 1
        self._try_again(share)
        if not share.active and name not in self._queues:
            del self._shares[name]
            if share.free_at > self._loop.time():
                self._resting[name] = share.free_at
                if len(self._resting) > _REMEMBERED:
                    self._resting.popitem(last=False)

    def _try_again(self, share: _HostShare) -> None:
        queue, share.aside = share.aside, None
        if queue is not None and self._may_try(queue):
            self._throttle.make_ready(queue)

    def _interval_over(self, share: _HostShare) -> None:
        share.timer = None
        self._try_again(share)
        self._throttle.pump()

    # Last looks

    def _put_off(self, item: T) -> None:
        self._later[item] = None
        self._loop.call_later(_LATER_SECONDS, self._look_again, item)
        if len(self._later) > _LATER:
            self._look_again(next(iter(self._later)))

    def _look_again_if_alone(self) -> None:
        """Once only last looks are left, make them."""
        if self._hurries and self._later and self._unfinished == len(self._later):
            for item in list(self._later):
                self._look_again(item)

    def _look_again(self, item: T) -> None:
        if item in self._later:
            del self._later[item]
            item.last_look = False
            self._due(item)
