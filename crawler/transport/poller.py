"""Readiness of many sockets, for the price of one.

An event loop's own `add_reader` makes libuv check, register and unregister each descriptor anew, which for a connection
of one request is a dozen system calls. Here an epoll of our own holds the sockets, edge-triggered: one call for each,
none to take it out (closing does that), and the loop watches nothing but that epoll.
"""

import asyncio
import select
from typing import Final

__all__ = ["Poller", "Readiness"]

_EVENTS: Final = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
_READABLE: Final = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
_WRITABLE: Final = select.EPOLLOUT | select.EPOLLHUP | select.EPOLLERR
_TICK: Final = 0.02  # seconds that a deadline may be late
_AT_ONCE: Final = 16  # events that one look takes: between two looks the loop serves others, such as the API's clients


class Poller:
    """Watches sockets for as long as they are open. `close` it in the end."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._epoll = select.epoll()
        self._watched: dict[int, Readiness] = {}
        self._waiting: dict[asyncio.Future[None], float] = {}  # with their deadlines
        self._clock: asyncio.TimerHandle | None = None
        self.loop.add_reader(self._epoll.fileno(), self._look)

    def watch(self, descriptor: int) -> "Readiness":
        """Watch a socket from now on, until `forget`."""
        self._epoll.register(descriptor, _EVENTS)
        readiness = self._watched[descriptor] = Readiness(self)
        return readiness

    def forget(self, descriptor: int, readiness: "Readiness") -> None:
        """Say that a socket is about to be closed, which takes it out of the epoll."""
        if self._watched.get(descriptor) is readiness:  # else it is closed, and the number another's by now
            del self._watched[descriptor]

    def close(self) -> None:
        """Watch nothing any more."""
        if self._clock is not None:
            self._clock.cancel()
        self.loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    async def wait(self, waiter: "asyncio.Future[None]", deadline: float) -> None:
        """Wait for what somebody else has to finish.

        Raises:
            TimeoutError: Nobody did until `deadline` (loop time), or a tick later.
        """
        self._waiting[waiter] = deadline
        if self._clock is None:
            self._clock = self.loop.call_later(_TICK, self._tick)
        try:
            await waiter
        finally:
            del self._waiting[waiter]

    def _look(self) -> None:
        for descriptor, events in self._epoll.poll(0, _AT_ONCE):
            # One that was closed meanwhile is not there; its number may be another's, who then looks once in vain.
            if (readiness := self._watched.get(descriptor)) is not None:
                readiness.happened(events)

    def _tick(self) -> None:
        """End the waits that took too long. One timer for all costs less than one for each."""
        now = self.loop.time()
        for waiter, deadline in self._waiting.items():
            if deadline <= now and not waiter.done():
                waiter.set_exception(TimeoutError())
        self._clock = self.loop.call_later(_TICK, self._tick) if self._waiting else None


class Readiness:
    """What is known of one socket: an edge comes once, so it is remembered until reading or writing says otherwise."""

    __slots__ = ("_poller", "_waiter", "_wants_to_write", "failed", "readable", "writable")

    def __init__(self, poller: Poller) -> None:
        self.readable = False
        self.writable = False
        self.failed = False  # the socket has an error to tell
        self._poller = poller
        self._waiter: asyncio.Future[None] | None = None
        self._wants_to_write = False

    def happened(self, events: int) -> None:
        """Note an edge, and wake who waits for it."""
        if events & _READABLE:
            self.readable = True
        if events & _WRITABLE:
            self.writable = True
        if events & select.EPOLLERR:
            self.failed = True
        waiter = self._waiter
        if waiter is not None and not waiter.done() and events & (_WRITABLE if self._wants_to_write else _READABLE):
            waiter.set_result(None)

    async def until_readable(self, deadline: float) -> None:
        """Wait for bytes, or the end of them.

        Raises:
            TimeoutError: Neither came until `deadline` (loop time).
        """
        if not self.readable:
            await self._wait(deadline, False)

    async def until_writable(self, deadline: float) -> None:
        """Wait until it is connected, and takes bytes.

        Raises:
            TimeoutError: It did not until `deadline` (loop time).
        """
        if not self.writable:
            await self._wait(deadline, True)

    async def _wait(self, deadline: float, wants_to_write: bool) -> None:
        self._wants_to_write = wants_to_write
        self._waiter = self._poller.loop.create_future()
        try:
            await self._poller.wait(self._waiter, deadline)
        finally:
            self._waiter = None
