"""Who may go next: slots, over all hosts and for each.

The rule that everything here serves: *nobody waits while holding a slot*. Work is queued by lane (a lane is one
caller, say one Task) and within it by host. An item takes a slot only when its host has one free too, so a host that is
slow, full or in back-off holds up its own queue and nothing else. Lanes take turns, and within a lane hosts do, so
ten URLs behind a hundred thousand wait for about as long as ten.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final, Generic, Protocol, Self, TypeVar

__all__ = ["Item", "Lane", "Throttle"]

# How far a lane reads ahead. It stops once `_READY` hosts have something that could run, and reads on past hosts that
# are full until it holds `_WINDOW` items: what one stuck host may cost in memory before it holds up its own lane.
_READY: Final = 256
_WINDOW: Final = 50_000


class Item(Protocol):
    """What can wait in a lane."""

    @property
    def host(self) -> str:
        """The host of which its next turn needs a slot."""

    @property
    def not_before(self) -> float:
        """Loop time before which it must not run; 0 for at once."""


T = TypeVar("T", bound=Item)


class _Host:
    """The slots of one host, and the queues that wait for one."""

    __slots__ = ("active", "name", "queues", "waiting")

    def __init__(self, name: str) -> None:
        self.name = name
        self.active = 0
        self.queues = 0
        self.waiting: deque[_Queue[Any]] = deque()


class _Queue(Generic[T]):
    """The items of one lane for one host. It stands in the lane's `ready` or in the host's `waiting`."""

    __slots__ = ("host", "items", "lane")

    def __init__(self, lane: "Lane[T]", host: _Host) -> None:
        self.lane = lane
        self.host = host
        self.items: deque[T] = deque()


class Throttle:
    """All slots of a process, shared by its lanes.

    Args:
        concurrency: Slots in all.
        per_host: Slots of one host.
    """

    def __init__(self, concurrency: int, per_host: int) -> None:
        self.concurrency = concurrency
        self.per_host = per_host
        self.active = 0
        self._hosts: dict[str, _Host] = {}
        self._rota: deque[Lane[Any]] = deque()  # lanes with a ready queue, in the order of their turns

    def lane(self, turn: Callable[[T], Coroutine[Any, Any, bool]]) -> "Lane[T]":
        """A new lane. `turn` works on an item while it holds a slot; true when the item is finished.

        A turn must not raise: what goes wrong is the item's business.
        """
        return Lane(self, turn)

    def _pump(self) -> None:
        """Hand out every slot that can be."""
        while self._rota and self.active < self.concurrency:
            lane = self._rota.popleft()
            queue = lane.ready.popleft()
            if queue.host.active < self.per_host:
                lane._start(queue)
            else:
                queue.host.waiting.append(queue)
            if lane.ready:
                self._rota.append(lane)

    def _make_ready(self, queue: _Queue[Any]) -> None:
        lane = queue.lane
        if not lane.ready:
            self._rota.append(lane)
        lane.ready.append(queue)

    def _take(self, host: _Host) -> None:
        host.active += 1
        self.active += 1

    def _release(self, host: _Host) -> None:
        """Take a slot back and let the next queue of that host try."""
        host.active -= 1
        self.active -= 1
        while host.waiting:
            queue = host.waiting.popleft()
            if queue.items:  # else its lane is closed
                self._make_ready(queue)
                break
        self._forget(host)

    def _host(self, name: str) -> _Host:
        if (host := self._hosts.get(name)) is None:
            host = self._hosts[name] = _Host(name)
        return host

    def _forget(self, host: _Host) -> None:
        """Drop a host that nobody uses: memory must not grow with the number of hosts ever seen."""
        if not host.active and not host.queues:
            self._hosts.pop(host.name, None)


class Lane(Generic[T]):
    """One caller's items on their way through the slots.

    `put` items while there is `room`, `seal` after the last, and iterate over the lane for those that are finished, in
    the order in which they finish. Leaving the context stops what is in flight.
    """

    def __init__(self, throttle: Throttle, turn: Callable[[T], Coroutine[Any, Any, bool]]) -> None:
        self.ready: deque[_Queue[T]] = deque()
        self._throttle = throttle
        self._turn = turn
        self._loop = asyncio.get_running_loop()
        self._queues: dict[str, _Queue[T]] = {}
        self._running: set[asyncio.Task[bool]] = set()
        self._finished: deque[T] = deque()
        self._unfinished = 0
        self._sealed = False
        self._closed = False
        self._changed = asyncio.Event()  # for the reader of the lane
        self._has_room = asyncio.Event()  # for its feeder

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closed = True
        for queue in self._queues.values():
            queue.items.clear()
            queue.host.queues -= 1
            self._throttle._forget(queue.host)
        if self.ready:
            self.ready.clear()
            self._throttle._rota.remove(self)
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def put(self, item: T) -> None:
        """Queue an item for its host."""
        self._unfinished += 1
        self._queue(item)
        self._throttle._pump()

    def finish(self, item: T) -> None:
        """Pass on an item that needs no turn."""
        self._finished.append(item)
        self._changed.set()

    def seal(self) -> None:
        """Say that no more items come."""
        self._sealed = True
        self._changed.set()

    async def room(self) -> None:
        """Wait until the lane wants to read further ahead."""
        while not self._wants_more():
            self._has_room.clear()
            await self._has_room.wait()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        while not self._finished:
            if self._sealed and not self._unfinished:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        self._has_room.set()
        return self._finished.popleft()

    def _wants_more(self) -> bool:
        return len(self.ready) < _READY and self._unfinished + len(self._finished) < _WINDOW

    def _queue(self, item: T) -> None:
        delay = item.not_before - self._loop.time()
        if delay > 0:
            self._loop.call_later(delay, self._due, item)
            return
        queue = self._queues.get(item.host)
        if queue is None:
            host = self._throttle._host(item.host)
            host.queues += 1
            queue = self._queues[item.host] = _Queue(self, host)
            self._throttle._make_ready(queue)
        queue.items.append(item)

    def _due(self, item: T) -> None:
        if not self._closed:
            self._queue(item)
            self._throttle._pump()

    def _start(self, queue: _Queue[T]) -> None:
        """Begin the turn of a queue's first item; the slots are there."""
        host, item = queue.host, queue.items.popleft()
        if queue.items:
            self.ready.append(queue)
        else:
            del self._queues[host.name]
            host.queues -= 1
        self._throttle._take(host)
        task = self._loop.create_task(self._turn(item))
        self._running.add(task)
        # A callback and not a `finally` in the turn: a task cancelled before its first step never enters its `try`.
        task.add_done_callback(lambda task: self._ended(task, item, host))

    def _ended(self, task: asyncio.Task[bool], item: T, host: _Host) -> None:
        self._running.discard(task)
        self._throttle._release(host)
        if not self._closed:
            if task.cancelled() or task.result():
                self._unfinished -= 1
                self.finish(item)
            else:
                self._queue(item)
            self._has_room.set()
        self._throttle._pump()
