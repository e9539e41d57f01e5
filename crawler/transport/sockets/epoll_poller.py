"""Watch sockets by an epoll of our own (Linux).

An event loop's own `add_reader` makes libuv check, register and unregister each descriptor anew, which takes a dozen
system calls for a connection of one request. Here one edge-triggered epoll holds all sockets: one call registers a
socket, closing the socket removes it, and the loop watches only the epoll.
"""

import select
from collections.abc import Callable
from time import monotonic
from typing import Final

from crawler.transport.sockets.poller import Poller, SocketReadiness

__all__ = ["EpollPoller"]

_WATCHED_EVENTS: Final = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
_READABLE: Final = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
_WRITABLE: Final = select.EPOLLOUT | select.EPOLLHUP | select.EPOLLERR
_ERROR: Final = select.EPOLLERR
_MAX_EVENTS_PER_CALL: Final = 16  # between two calls the loop serves others, such as the API's clients


class EpollPoller(Poller):
    """Watches sockets by one edge-triggered epoll."""

    def __init__(self, now: Callable[[], float] = monotonic) -> None:
        super().__init__(now)
        self._epoll = select.epoll()
        self._watched: dict[int, SocketReadiness] = {}
        self.loop.add_reader(self._epoll.fileno(), self._take_events)

    def watch(self, descriptor: int) -> SocketReadiness:
        """Watch a socket until `forget`."""
        self._epoll.register(descriptor, _WATCHED_EVENTS)
        readiness = self._watched[descriptor] = SocketReadiness(self)
        return readiness

    def forget(self, descriptor: int, readiness: SocketReadiness) -> None:
        """Stop watching a socket; closing it takes it out of the epoll."""
        if self._watched.get(descriptor) is readiness:  # else it is closed, and another socket has its number
            del self._watched[descriptor]

    def close(self) -> None:
        """Stop watching all sockets."""
        super().close()
        self.loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def take_all_events(self) -> None:
        """Wake the tasks whose sockets have become ready."""
        self._take_events(max(1, len(self._watched)))

    def _take_events(self, max_events: int = _MAX_EVENTS_PER_CALL) -> None:
        for descriptor, events in self._epoll.poll(0, max_events):
            # An event can be older than the socket that has this number now. That socket then tries once in vain.
            if (readiness := self._watched.get(descriptor)) is not None:
                readiness.note(events & _READABLE, events & _WRITABLE, events & _ERROR)
