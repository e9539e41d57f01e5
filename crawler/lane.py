"""One caller's items on their way through the slots."""

import asyncio
from collections import deque
from typing import Final, Generic, Self

from crawler.throttle import Host, Queue, T, Throttle, Turn

__all__ = ["Lane"]

# How far a lane reads ahead. It stops once `_READY` hosts have something that could run, and reads on past hosts that
# are full until it holds `_WINDOW` items: what one stuck host may cost in memory before it holds up its own lane.
_READY: Final = 256
_WINDOW: Final = 50_000

# Last looks wait for all other items, but neither without end nor in any number.
_LATER: Final = 10_000
_LATER_SECONDS: Final = 30.0


class Lane(Generic[T]):
    """`put` items while there is `room`, `seal` after the last, and iterate for those that are finished.

    They come as they finish. Leaving the context stops what is in flight.

    Args:
        throttle: Whose slots to use.
        turn: Works on an item while it holds a slot; true when the item is finished. It must not raise: what goes wrong
            is the item's business.
    """

    def __init__(self, throttle: Throttle, turn: Turn[T]) -> None:
        self.ready: deque[Queue[T]] = deque()
        self._throttle = throttle
        self._turn = turn
        self._loop = asyncio.get_running_loop()
        self._queues: dict[str, Queue[T]] = {}
        self._later: dict[T, None] = {}
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
        self._throttle.leave(self)
        for queue in self._queues.values():
            queue.items.clear()
            queue.host.queues -= 1
            self._throttle.pass_on(queue.host)  # a turn that was ours is now another's
            self._throttle.forget(queue.host)
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
            if self._sealed and not self._unfinished:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        self._has_room.set()
        return self._finished.popleft()

    def parked(self) -> None:
        """A ready queue has found its host full: there is room to read on for others."""
        self._has_room.set()

    def start(self, queue: Queue[T]) -> None:
        """Begin the turn of a queue's first item; the throttle has taken its slot."""
        host, item = queue.host, queue.items.popleft()
        if queue.items:
            self.ready.append(queue)
        else:
            del self._queues[host.name]
            host.queues -= 1
        task = self._loop.create_task(self._turn(item))
        self._running.add(task)
        # A callback and not a `finally` in the turn: a task cancelled before its first step never enters its `try`.
        task.add_done_callback(lambda task: self._ended(task, item, host))

    def _ended(self, task: asyncio.Task[bool], item: T, host: Host) -> None:
        self._running.discard(task)
        self._throttle.release(host)
        if not self._closed:
            if task.cancelled() or task.result():
                self._unfinished -= 1
                self.finish(item)
            elif item.last_look:
                self._put_off(item)
            else:
                self._queue(item)
            self._look_again_if_alone()
            self._has_room.set()
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
            queue = self._queues[item.host] = Queue(self, host)
            self._throttle.make_ready(queue)
        queue.items.append(item)

    def _due(self, item: T) -> None:
        if not self._closed:
            self._queue(item)
            self._throttle.pump()

    # Last looks

    def _put_off(self, item: T) -> None:
        self._later[item] = None
        self._loop.call_later(_LATER_SECONDS, self._look_again, item)
        if len(self._later) > _LATER:
            self._look_again(next(iter(self._later)))

    def _look_again_if_alone(self) -> None:
        """Once only last looks are left, make them."""
        if self._sealed and self._later and self._unfinished == len(self._later):
            for item in list(self._later):
                self._look_again(item)

    def _look_again(self, item: T) -> None:
        if item in self._later:
            del self._later[item]
            item.last_look = False
            self._due(item)
