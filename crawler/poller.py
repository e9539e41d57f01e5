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
_AT_ONCE: Final = 1024  # events that one look takes; the rest are there at the next


class Poller:
    """Watches sockets for as long as they are open. `close` it in the end."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._epoll = select.epoll()
        self._watched: dict[int, Readiness] = {}
        self._loop.add_reader(self._epoll.fileno(), self._look)

    def watch(self, descriptor: int) -> "Readiness":
        """Watch a socket from now on, until `forget`."""
        self._epoll.register(descriptor, _EVENTS)
        readiness = self._watched[descriptor] = Readiness(self._loop)
        return readiness

    def forget(self, descriptor: int, readiness: "Readiness") -> None:
        """Say that a socket is about to be closed, which takes it out of the epoll."""
        if self._watched.get(descriptor) is readiness:  # else it is closed, and the number another's by now
            del self._watched[descriptor]

    def close(self) -> None:
        """Watch nothing any more."""
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def _look(self) -> None:
        for descriptor, events in self._epoll.poll(0, _AT_ONCE):
            # One that was closed meanwhile is not there; its number may be another's, who then looks once in vain.
            if (readiness := self._watched.get(descriptor)) is not None:
                readiness.happened(bool(events & _READABLE), bool(events & _WRITABLE))


class Readiness:
    """What is known of one socket: an edge comes once, so it is remembered until reading or writing says otherwise."""

    __slots__ = ("_loop", "_waiter", "_wants_to_write", "readable", "writable")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.readable = False
        self.writable = False
        self._loop = loop
        self._waiter: asyncio.Future[None] | None = None
        self._wants_to_write = False

    def happened(self, readable: bool, writable: bool) -> None:
        """Note an edge, and wake who waits for it."""
        self.readable = self.readable or readable
        self.writable = self.writable or writable
        if self._waiter is not None and not self._waiter.done() and (writable if self._wants_to_write else readable):
            self._waiter.set_result(None)

    async def until_readable(self, deadline: float) -> None:
        """Wait for bytes, or the end of them.

        Raises:
            TimeoutError: Neither came until `deadline` (loop time).
        """
        if not self.readable:
            self._wants_to_write = False
            await self._wait(deadline)

    async def until_writable(self, deadline: float) -> None:
        """Wait until it is connected, and takes bytes.

        Raises:
            TimeoutError: It did not until `deadline` (loop time).
        """
        if not self.writable:
            self._wants_to_write = True
            await self._wait(deadline)

    async def _wait(self, deadline: float) -> None:
        waiter = self._waiter = self._loop.create_future()
        timer = self._loop.call_at(deadline, _expire, waiter)
        try:
            await waiter
        finally:
            self._waiter = None
            timer.cancel()


def _expire(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_exception(TimeoutError())
