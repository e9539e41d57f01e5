"""The limits of one work queue for each host, where they are stricter than the scheduler's."""

import asyncio
from collections import OrderedDict
from typing import Any, Final

from crawler.probing.scheduling.host_slots import HostQueue, QueueOwner
from crawler.probing.scheduling.scheduler import Scheduler

__all__ = ["HostLimits"]

_MAX_IDLE_HOSTS: Final = 10_000  # hosts without work whose next allowed time is remembered


class _HostUse:
    """How one work queue uses one host."""

    __slots__ = ("active", "free_at", "held_back", "timer")

    def __init__(self, free_at: float) -> None:
        self.active = 0
        self.free_at = free_at  # loop time
        self.held_back: HostQueue[Any] | None = None  # until a running item ends, or until `free_at`
        self.timer: asyncio.TimerHandle | None = None


class HostLimits:
    """Holds host queues back that would exceed a limit, and makes them ready when they no longer would.

    Args:
        scheduler: Gets the queues that may try for a slot.
        owner: The work queue.
        per_host: Items of the work queue that may run at once for one host.
        interval: Seconds from one start to the next for one host.
    """

    def __init__(self, scheduler: Scheduler, owner: QueueOwner, per_host: int, interval: float) -> None:
        self._scheduler = scheduler
        self._owner = owner
        self._per_host = per_host
        self._interval = interval
        self._hosts: dict[str, _HostUse] = {}  # hosts with work
        self._idle: OrderedDict[str, float] = OrderedDict()  # other hosts, with the time at which they are free
        self._loop = asyncio.get_running_loop()

    def close(self) -> None:
        """Stop making queues ready."""
        for host in self._hosts.values():
            if host.timer is not None:
                host.timer.cancel()

    def admits(self, queue: HostQueue[Any]) -> bool:
        """Whether a queue may try for a slot; if not, it is held back until it may."""
        host = self._host(queue.host_name)
        is_full = host.active >= self._per_host
        if not is_full and host.free_at <= self._loop.time():
            return True
        host.held_back = queue
        if not is_full and host.timer is None:
            host.timer = self._loop.call_at(host.free_at, self._end_interval, host)
        self._owner.notify_host_full()
        return False

    def count_start(self, name: str) -> None:
        """Count an item of a host that starts."""
        host = self._host(name)
        host.active += 1
        host.free_at = self._loop.time() + self._interval

    def count_end(self, name: str, *, has_more: bool) -> None:
        """Count an item of a host that has run; `has_more` if others of the host are queued."""
        host = self._hosts[name]
        host.active -= 1
        self._retry(host)
        if not host.active and not has_more:
            del self._hosts[name]
            if host.free_at > self._loop.time():
                self._idle[name] = host.free_at
                if len(self._idle) > _MAX_IDLE_HOSTS:
                    self._idle.popitem(last=False)

    def _host(self, name: str) -> _HostUse:
        if (host := self._hosts.get(name)) is None:
            host = self._hosts[name] = _HostUse(self._idle.pop(name, 0.0))
        return host

    def _retry(self, host: _HostUse) -> None:
        queue, host.held_back = host.held_back, None
        if queue is not None and self.admits(queue):
            self._scheduler.make_ready(queue)

    def _end_interval(self, host: _HostUse) -> None:
        host.timer = None
        self._retry(host)
        self._scheduler.dispatch()
