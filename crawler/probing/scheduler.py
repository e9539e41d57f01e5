"""Who may go next: slots, over all hosts and for each.

The rule that everything here serves: *nobody waits while holding a slot*. Work is queued by lane (a lane is one
caller, say one Task) and within it by host. An item takes a slot only when its host has one free too, so a host that is
slow, full or in back-off holds up its own queue and nothing else. Lanes take turns, and within a lane hosts do, so
ten URLs behind a hundred thousand wait for about as long as ten.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

from crawler.probing.adaptive_limit import AdaptiveLimit

__all__ = ["Load", "RunItem", "Scheduler", "WorkItem"]

_REMEMBERED: Final = 10_000  # hosts that were told to slow down and have no work now
_GROWTH: Final = 0.02  # slots that an answer gives back after faults of this machine took them


class WorkItem(Protocol):
    """What can wait for its turn."""

    last_look: bool  # better done after all others

    @property
    def host(self) -> str:
        """The host of which its next turn needs a slot."""

    @property
    def not_before(self) -> float:
        """Loop time before which it must not run; 0 for at once."""


T = TypeVar("T", bound=WorkItem)
RunItem = Callable[[T], Coroutine[Any, Any, bool]]


class Load(NamedTuple):
    """How busy it is.

    Attributes:
        active: Slots in use.
        limit: Slots that there are just now.
        waiting: Hosts with work that has not begun.
        slowed: Hosts with work that are asked less than they could be, because they want it or have trouble.
    """

    active: int
    limit: int
    waiting: int
    slowed: int


class QueueOwner(Protocol):
    """Whose queues are served: a lane."""

    ready: "deque[HostQueue[Any]]"

    def start(self, queue: "HostQueue[Any]") -> None:
        """Begin the turn of the queue's first item; its slot is taken.

        If the queue does not get ready at once for its next, the turn to try at this host has to be passed on.
        """

    def parked(self) -> None:
        """Hear that a ready queue has to wait for its host."""

    def wake(self) -> None:
        """Hear that no more turns begin."""

    def cut(self) -> None:
        """End the turns that are under way; what they come to does not count."""


class HostSlots:
    """The slots of one host, and the queues that wait for one."""

    __slots__ = ("active", "held_until", "name", "pace", "queues", "timer", "waiting")

    def __init__(self, name: str, pace: AdaptiveLimit) -> None:
        self.name = name
        self.pace = pace
        self.held_until = 0.0  # by us, while its robots.txt is fetched
        self.active = 0
        self.queues = 0
        self.waiting: deque[HostQueue[Any]] | None = None  # most hosts never have one
        self.timer: asyncio.TimerHandle | None = None

    @property
    def free_at(self) -> float:
        """Loop time before which no request may start."""
        return max(self.pace.free_at, self.held_until)


class HostQueue(Generic[T]):
    """The items of one lane for one host.

    It stands in the lane's `ready`, in the host's `waiting`, or is put aside by its lane.
    """

    __slots__ = ("host", "items", "lane")

    def __init__(self, lane: QueueOwner, host: HostSlots) -> None:
        self.lane = lane
        self.host = host
        self.items: deque[T] = deque()


class Scheduler:
    """All slots of a process, shared by its lanes.

    Args:
        concurrency: Slots in all.
        per_host: Slots of one host.
        interval: Seconds from one request to a host to the next.
    """

    def __init__(self, concurrency: int, per_host: int, interval: float = 0.0) -> None:
        self.active = 0
        self._concurrency = concurrency
        self._limit = float(concurrency)
        self.per_host = per_host
        self.interval = interval
        self.is_draining = False
        self._lanes: set[QueueOwner] = set()
        self._is_quiet = asyncio.Event()
        self._hosts: dict[str, HostSlots] = {}
        self._hurt: OrderedDict[str, AdaptiveLimit] = OrderedDict()
        self._rota: deque[QueueOwner] = deque()  # lanes with a ready queue, in the order of their turns
        self._loop = asyncio.get_running_loop()

    # What those who work on items report.

    def answered(self, name: str, seconds: float) -> None:
        """A host answered."""
        if self._limit < self._concurrency:
            self._limit = min(self._concurrency, self._limit + _GROWTH)
        if (host := self._hosts.get(name)) is not None:
            host.pace.answered(seconds, self._loop.time())

    def refused(self, name: str, wait: float) -> None:
        """A host asks for fewer requests, and for none within `wait` seconds."""
        if (host := self._hosts.get(name)) is not None:
            host.pace.refused(wait, self._loop.time())

    def is_held(self, name: str) -> bool:
        """Whether a host wants no request just now."""
        host = self._hosts.get(name)
        return host is not None and host.free_at > self._loop.time()

    def hold(self, name: str, seconds: float) -> None:
        """Start no request to a host for so long, or until `let_go`."""
        if (host := self._hosts.get(name)) is not None:
            host.held_until = self._loop.time() + seconds

    def let_go(self, name: str) -> None:
        """End a `hold`."""
        if (host := self._hosts.get(name)) is not None:
            host.held_until = 0.0
            host.pace.start(self._loop.time())  # what it was held for was a request too
            if host.timer is not None:
                host.timer.cancel()
                host.timer = None
            self.pass_on(host)
            self.pump()

    def keep_apart(self, name: str, interval: float) -> None:
        """A host wants so many seconds between requests."""
        if (host := self._hosts.get(name)) is not None:
            host.pace.keep_apart(interval)

    def shrink(self) -> None:
        """A turn failed because this machine is at its limits (descriptors, ports, memory): do with a slot less.

        Of turns that fail together each takes its own away, so that those are left which this machine can bear.
        """
        self._limit = max(1.0, min(self._limit, float(self.active)) - 1.0)

    def load(self) -> Load:
        """How busy it is now. It looks at every host that has work."""
        now, hosts = self._loop.time(), self._hosts.values()
        waiting = sum(1 for host in hosts if host.queues)
        return Load(self.active, int(self._limit), waiting, sum(1 for host in hosts if host.pace.is_hurt(now)))

    async def drain(self, seconds: float) -> None:
        """Begin no more turns. Those under way have so many seconds; the ones that take longer are cut off."""
        self.is_draining = True
        for lane in list(self._lanes):
            lane.wake()
        if self.active:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._is_quiet.wait()
        for lane in list(self._lanes):
            lane.cut()

    # What lanes do.

    def enter(self, lane: QueueOwner) -> None:
        """Get to know a lane."""
        self._lanes.add(lane)

    def host(self, name: str) -> HostSlots:
        """The slots of a host."""
        if (host := self._hosts.get(name)) is None:
            pace = self._hurt.pop(name, None) or AdaptiveLimit(self.per_host, self.interval)
            host = self._hosts[name] = HostSlots(name, pace)
        return host

    def make_ready(self, queue: HostQueue[Any]) -> None:
        """Let a queue try for a slot."""
        lane = queue.lane
        if not lane.ready:
            self._rota.append(lane)
        lane.ready.append(queue)

    def pump(self) -> None:
        """Hand out every slot that can be."""
        while self._rota and self.active < self._limit and not self.is_draining:
            lane = self._rota.popleft()
            queue = lane.ready.popleft()
            if self._take(queue.host):
                lane.start(queue)
            else:
                if queue.host.waiting is None:
                    queue.host.waiting = deque()
                queue.host.waiting.append(queue)
                lane.parked()
            if lane.ready:
                self._rota.append(lane)

    def leave(self, lane: QueueOwner) -> None:
        """Forget a lane and the queues that it has ready."""
        self._lanes.discard(lane)
        if lane.ready:
            lane.ready.clear()
            self._rota.remove(lane)

    def release(self, host: HostSlots) -> None:
        """Take a slot back and let the next queue of that host try."""
        host.active -= 1
        self.active -= 1
        if self.is_draining and not self.active:
            self._is_quiet.set()
        self.pass_on(host)
        self.forget(host)

    def pass_on(self, host: HostSlots) -> None:
        """Let the next queue that waits for a host try, if there is a slot to try for."""
        while host.waiting and host.active < host.pace.limit:
            queue = host.waiting.popleft()
            if queue.items:  # else its lane is closed
                self.make_ready(queue)
                break

    def forget(self, host: HostSlots) -> None:
        """Drop a host that nobody uses: memory must not grow with the number of hosts ever seen."""
        if host.active or host.queues:
            return
        self._hosts.pop(host.name, None)
        if host.timer is not None:
            host.timer.cancel()
        if host.pace.is_hurt(self._loop.time()):
            self._hurt[host.name] = host.pace
            if len(self._hurt) > _REMEMBERED:
                self._hurt.popitem(last=False)

    def _take(self, host: HostSlots) -> bool:
        """Take a slot, if the host has one free now."""
        if host.active >= host.pace.limit:
            return False
        now = self._loop.time()
        if host.free_at > now:
            if host.timer is None:
                host.timer = self._loop.call_at(host.free_at, self._free, host)
            return False
        host.pace.start(now)
        host.active += 1
        self.active += 1
        return True

    def _free(self, host: HostSlots) -> None:
        host.timer = None
        self.pass_on(host)
        self.pump()
