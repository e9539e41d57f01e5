"""Choose the poller of this platform."""

import select
from collections.abc import Callable
from time import monotonic

from crawler.transport.sockets.loop_poller import LoopPoller
from crawler.transport.sockets.poller import Poller

__all__ = ["open_poller"]


def open_poller(now: Callable[[], float] = monotonic) -> Poller:
    """Open the fastest poller that this process has; `now` is the clock of its deadlines."""
    if hasattr(select, "epoll"):
        from crawler.transport.sockets.epoll_poller import EpollPoller  # its constants exist only where epoll does

        return EpollPoller(now)
    return LoopPoller(now)
