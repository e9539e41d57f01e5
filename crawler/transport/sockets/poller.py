"""Wait until sockets can be read or written, with a deadline for each wait.

One interface has two implementations. `EpollPoller` is for Linux. `LoopPoller` works everywhere else, and
also where a process has lost `select.epoll`, as gevent's monkey patching does.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from time import monotonic
from typing import Final

__all__ = ["Poller", "SocketReadiness"]

_MAX_LATENESS_SECONDS: Final = 0.02  # how late a deadline may take effect


class Poller(ABC):
    """Watches sockets for as long as they are open. Call `close` when done.

    Args:
        now: The clock of the deadlines.
    """

    def __init__(self, now: Callable[[], float] = monotonic) -> None:
        self.loop = asyncio.get_running_loop()
        self._now = now
        self._deadlines: dict[asyncio.Future[None], float] = {}
        self._timer: asyncio.TimerHandle | None = None

    @abstractmethod
    def watch(self, descriptor: int) -> "SocketReadiness":
        """Watch a socket until `forget`."""

    @abstractmethod
    def forget(self, descriptor: int, readiness: "SocketReadiness") -> None:
        """Stop watching a socket. Call it before the socket is closed."""

    @abstractmethod
    def take_all_events(self) -> None:
        """Wake the tasks whose sockets are ready now, if the poller can ask before the event loop's next turn."""

    def close(self) -> None:
        """Stop watching all sockets."""
        if self._timer is not None:
            self._timer.cancel()

    def begin_wait(self, deadline: float) -> "asyncio.Future[None]":
        """Return a future that gets a `TimeoutError` if it is not done at the deadline. Call `end_wait` after it."""
        waiter: asyncio.Future[None] = self.loop.create_future()
        self._deadlines[waiter] = deadline
        if self._timer is None:
            self._timer = self.loop.call_later(_MAX_LATENESS_SECONDS, self._end_late_waits)
        return waiter

    def end_wait(self, waiter: "asyncio.Future[None]") -> None:
        """Forget the deadline of a future."""
        del self._deadlines[waiter]

    def _end_late_waits(self) -> None:
        # One timer for all waits costs less than one timer for each.
        now = self._now()
        late = [waiter for waiter, deadline in self._deadlines.items() if deadline <= now]
        if late:
            self.take_all_events()  # timers come before sockets: what has arrived in time counts, however late we look
            for waiter in late:
                if not waiter.done():
                    waiter.set_exception(TimeoutError())
        self._timer = None
        if self._deadlines:
            self._timer = self.loop.call_later(_MAX_LATENESS_SECONDS, self._end_late_waits)


class SocketReadiness:
    """What is known about one socket: whether the next read or write can succeed.

    A flag stays set until the owner of the socket clears it, because a read or write would have blocked.

    Attributes:
        is_readable: Bytes may be there, or the end of the stream.
        is_writable: The socket is connected and may take bytes.
        may_have_error: SO_ERROR may be set.
    """

    __slots__ = ("_poller", "_waiter", "_waits_for_write", "is_readable", "is_writable", "may_have_error")

    def __init__(self, poller: Poller) -> None:
        self.is_readable = False
        self.is_writable = False
        self.may_have_error = False
        self._poller = poller
        self._waiter: asyncio.Future[None] | None = None
        self._waits_for_write = False

    def note(self, readable: int, writable: int, may_have_error: int) -> None:
        """Note what became possible (not 0), and wake the task that waits for it."""
        if readable:
            self.is_readable = True
        if writable:
            self.is_writable = True
        if may_have_error:
            self.may_have_error = True
        waiter = self._waiter
        if waiter is not None and not waiter.done() and (writable if self._waits_for_write else readable):
            waiter.set_result(None)

    async def until_readable(self, deadline: float) -> None:
        """Wait for bytes or for the end of the stream.

        Raises:
            TimeoutError: Neither came before `deadline`.
        """
        if not self.is_readable:
            await self._wait(deadline, for_write=False)

    async def until_writable(self, deadline: float) -> None:
        """Wait until the socket is connected and takes bytes.

        Raises:
            TimeoutError: It did not before `deadline`.
        """
        if not self.is_writable:
            await self._wait(deadline, for_write=True)

    async def _wait(self, deadline: float, *, for_write: bool) -> None:
        self._waits_for_write = for_write
        self._waiter = waiter = self._poller.begin_wait(deadline)
        try:
            await waiter
        finally:
            self._waiter = None
            self._poller.end_wait(waiter)
