"""Hands out slots, within a limit for the process and a limit for each host.

The rule of this module: *nothing waits while it holds a slot*. Items are queued by work queue (one caller,
for example one Task) and within it by host. An item takes a slot only when its host has one free too, so a host that
is slow, full or in back-off holds up its own queue and nothing else. Work queues take turns, and within a work queue
hosts do, so ten URLs behind a hundred thousand wait for about as long as ten.
"""

import asyncio
import math
from collections import OrderedDict, deque
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final, NamedTuple

from crawler.probing.scheduling.adaptive_limit import AdaptiveLimit
from crawler.probing.scheduling.host_slots import NO_OVERLOAD, HostQueue, HostSlots, Overload, QueueOwner
from crawler.probing.settings import DEFAULT_SETTINGS, RetryPolicy

__all__ = ["Load", "Scheduler"]

_MAX_REMEMBERED_HOSTS: Final = 10_000  # hosts without work that get fewer requests, or have refused or failed some
_SLOTS_REGAINED_PER_ANSWER: Final = 0.02  # after a shortage of this machine has lowered the limit


class Load(NamedTuple):
    """How busy a prober is.

    Attributes:
        active: Slots in use.
        limit: Slots in use and free, at this moment.
        waiting: Hosts with work that has not begun.
        slowed: Hosts with work that get fewer requests, because they ask for it or fail.
        missed_seconds: For how long the process stood still so far.
        replaced_children: Child processes that were replaced so far because they did not answer.
    """

    active: int
    limit: int
    waiting: int
    slowed: int
    missed_seconds: float = 0.0
    replaced_children: int = 0


class Scheduler:
    """All slots of a process, shared by its work queues.

    Args:
        concurrency: Slots in all.
        per_host: Slots of one host.
        interval: Seconds from one request to a host to the next.
        policy: How long the pauses of hosts are.
        max_queue_share: The slots of one work queue at most, as a multiple of the slots that are free. So a free slot
            is left for the next queue, however many the first one could use. This is the dynamic threshold of
            Choudhury and Hahne (IEEE/ACM Transactions on Networking 6 (2), 1998), by which switches share a buffer.
    """

    def __init__(
        self,
        concurrency: int,
        per_host: int,
        interval: float = 0.0,
        policy: RetryPolicy = DEFAULT_SETTINGS.retry,
        *,
        max_queue_share: float = math.inf,
    ) -> None:
        self.active = 0
        self.per_host = per_host
        self.interval = interval
        self.is_draining = False
        self._policy = policy
        self._max_queue_share = max_queue_share
        self._concurrency = concurrency
        self._limit = float(concurrency)
        self._hosts: dict[str, HostSlots] = {}
        self._remembered: OrderedDict[str, HostSlots] = OrderedDict()  # hosts without work
        self._ready: dict[QueueOwner, deque[HostQueue[Any]]] = {}  # of each work queue
        self._turns: deque[QueueOwner] = deque()  # work queues with a ready host queue, in the order of their turns
        self._idle = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    # What running items report

    def record_answer(self, name: str, seconds: float, *, was_refused: bool = False) -> None:
        """Note that a host answered after `seconds`; `was_refused` if it has refused the same URL before."""
        if self._limit < self._concurrency:
            self._limit = min(self._concurrency, self._limit + _SLOTS_REGAINED_PER_ANSWER)
        if (host := self._hosts.get(name)) is not None:
            host.record_answer(seconds, self._loop.time(), was_refused=was_refused)

    def record_refusal(self, name: str, status: int | None, retry_after: float | None) -> Overload:
        """Note that a host asks for fewer requests.

        Args:
            name: The host.
            status: 429 or 503.
            retry_after: The seconds that it asks for; None if it does not say.
        """
        host = self._hosts.get(name)
        if host is None:
            return NO_OVERLOAD
        return host.record_refusal(status, retry_after, self._loop.time(), self._policy)

    def record_failure(self, name: str, error_type: str, seconds: float) -> Overload:
        """Note that a request to a host failed after `seconds`."""
        host = self._hosts.get(name)
        if host is None:
            return NO_OVERLOAD
        return host.record_failure(error_type, seconds, self._loop.time(), self._policy)

    def record_final_retry(self, name: str, *, is_good: bool) -> None:
        """Note the outcome of a final retry that was alone at its host."""
        if (host := self._hosts.get(name)) is not None:
            host.record_final_retry(is_good=is_good)

    def has_answered(self, name: str) -> bool:
        """Whether a host has answered requests, and does not fail all of them now."""
        host = self._hosts.get(name)
        return host is not None and host.adaptive_limit.has_answered and not host.seems_down

    def is_overloaded(self, name: str) -> bool:
        """Whether a host gets fewer requests at once because it has refused or failed some, or is slow."""
        host = self._hosts.get(name)
        return host is not None and host.adaptive_limit.limit < self.per_host

    def seems_dead(self, name: str) -> bool:
        """Whether a host fails all requests now, and has never answered one."""
        host = self._hosts.get(name)
        return host is not None and host.seems_dead

    def record_shortage(self) -> None:
        """Use one slot less: a request failed because this machine lacks descriptors, ports or memory.

        Requests that fail together take away one slot each, so as many are left as the machine can serve.
        """
        self._limit = max(1.0, min(self._limit, float(self.active)) - 1.0)

    def is_held(self, name: str) -> bool:
        """Whether no request to a host may start now, not even in the slot of one that has ended."""
        host = self._hosts.get(name)
        if host is None:
            return False
        return host.free_at > self._loop.time() or host.active > host.adaptive_limit.limit

    def hold(self, name: str, seconds: float) -> None:
        """Start no request to a host until `resume`, at most for `seconds`."""
        if (host := self._hosts.get(name)) is not None:
            host.held_until = self._loop.time() + seconds

    def resume(self, name: str) -> None:
        """End a `hold`. The host was held for a request, so its interval starts now."""
        if (host := self._hosts.get(name)) is not None:
            host.held_until = 0.0
            host.adaptive_limit.start_request(self._loop.time())
            if host.timer is not None:
                host.timer.cancel()
                host.timer = None
            self._wake_next(host)
            self.dispatch()

    def require_interval(self, name: str, interval: float) -> None:
        """Leave at least `interval` seconds between requests to a host, because it asks for that."""
        if (host := self._hosts.get(name)) is not None:
            host.adaptive_limit.require_interval(interval)

    # What work queues do

    def join(self, owner: QueueOwner) -> None:
        """Serve a work queue from now on."""
        self._ready[owner] = deque()

    def leave(self, owner: QueueOwner, queues: Iterable[HostQueue[Any]]) -> None:
        """Forget a work queue and its open host queues; others get the slots that were meant for them."""
        if self._ready.pop(owner, None):
            self._turns.remove(owner)
        for queue in queues:
            self.close_queue(queue)
            self._wake_next(queue.host)
            self._forget_if_unused(queue.host)
        self.dispatch()

    def open_queue(self, owner: QueueOwner, name: str) -> HostQueue[Any]:
        """Make the host queue of a work queue for one host."""
        host = self._host(name)
        host.open_queues += 1
        return HostQueue(owner, host)

    def close_queue(self, queue: HostQueue[Any]) -> None:
        """Forget a host queue, which is empty and neither ready nor waiting."""
        queue.is_open = False
        queue.host.open_queues -= 1

    def make_ready(self, queue: HostQueue[Any]) -> None:
        """Let a host queue try for a slot at the next `dispatch`."""
        ready = self._ready[queue.owner]
        if not ready:
            self._turns.append(queue.owner)
        ready.append(queue)

    def ready_count(self, owner: QueueOwner) -> int:
        """Return the number of a work queue's host queues that are ready."""
        return len(self._ready[owner])

    def dispatch(self) -> None:
        """Hand out every slot that can be used."""
        passed = 0  # owners in a row that have their share
        while passed < len(self._turns) and self.active < self._limit and not self.is_draining:
            owner = self._turns.popleft()
            if owner.active >= self._max_queue_share * (self._limit - self.active):
                self._turns.append(owner)
                passed += 1
                continue
            passed = 0
            ready = self._ready[owner]
            queue = ready.popleft()
            host = queue.host
            if not self._take_slot(queue):
                if host.waiting is None:
                    host.waiting = deque()
                host.waiting.append(queue)
                owner.notify_host_full()
            elif owner.start_next(queue):
                ready.append(queue)
            else:
                self._wake_next(host)
            if ready:
                self._turns.append(owner)

    def release(self, queue: HostQueue[Any]) -> None:
        """Take back the slot of an item that has run, and let the next queue of its host try."""
        host = queue.host
        host.active -= 1
        self.active -= 1
        if self.is_draining and not self.active:
            self._idle.set()
        self._wake_next(host)
        self._forget_if_unused(host)

    # What the prober does

    def load(self) -> Load:
        """Return how busy the process is now. This takes time for each host that has work."""
        now, hosts = self._loop.time(), self._hosts.values()
        waiting = sum(1 for host in hosts if host.open_queues)
        slowed = sum(1 for host in hosts if host.adaptive_limit.is_slowed(now))
        return Load(self.active, int(self._limit), waiting, slowed)

    async def drain(self, seconds: float) -> None:
        """Start no more items. Cancel those that still run after `seconds`."""
        self.is_draining = True
        for owner in list(self._ready):
            owner.notify_drain()
        if self.active:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._idle.wait()
        for owner in list(self._ready):
            owner.cancel_running()

    # Slots of a host

    def _host(self, name: str) -> HostSlots:
        if (host := self._hosts.get(name)) is None:
            host = self._remembered.pop(name, None) or HostSlots(name, AdaptiveLimit(self.per_host, self.interval))
            self._hosts[name] = host
        return host

    def _take_slot(self, queue: HostQueue[Any]) -> bool:
        """Take a slot for the first item of a queue, if its host has one free now."""
        host = queue.host
        if queue[0].wants_host_alone and host.wants_final_retries_alone:
            host.adaptive_limit.reduce_to_one()
        if host.active >= host.adaptive_limit.limit:
            return False
        now = self._loop.time()
        if host.free_at > now:
            if host.timer is None:
                host.timer = self._loop.call_at(host.free_at, self._retry_host, host)
            return False
        host.adaptive_limit.start_request(now)
        host.active += 1
        self.active += 1
        return True

    def _retry_host(self, host: HostSlots) -> None:
        host.timer = None
        self._wake_next(host)
        self.dispatch()

    def _wake_next(self, host: HostSlots) -> None:
        """Let the next queue that waits for a host try for its slot, if there is one."""
        while host.waiting and host.active < host.adaptive_limit.limit:
            queue = host.waiting.popleft()
            if queue.is_open:  # else its work queue has left
                self.make_ready(queue)
                break

    def _forget_if_unused(self, host: HostSlots) -> None:
        """Drop a host without work: memory must not grow with the number of hosts ever seen."""
        if host.active or host.open_queues:
            return
        self._hosts.pop(host.name, None)
        if host.timer is not None:
            host.timer.cancel()
            host.timer = None
        if host.is_worth_remembering(self._loop.time()):
            host.waiting = None
            self._remembered[host.name] = host
            if len(self._remembered) > _MAX_REMEMBERED_HOSTS:
                self._remembered.popitem(last=False)
