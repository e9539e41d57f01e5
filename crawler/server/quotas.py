"""Quotas: URLs of a Task, running Tasks, running Tasks and URLs of one token, and requests in progress.

The headers that show clients what is left are those of the IETF's draft:
https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from crawler.core.errors import TASK_RETRY_SECONDS, QuotaExceeded, TaskTooLarge
from crawler.core.service_options import ServiceOptions
from crawler.core.tasks import Task
from crawler.registry import Registry
from crawler.server.places import Places

__all__ = ["MAX_LONG_LISTS", "CountLines", "Quotas"]

CountLines = Callable[[int, int], Awaitable[None]]
"""Called with the number of lines and of bytes received; raises if they are too many."""

MAX_LONG_LISTS: Final = 32
"""Long lists that are received at once. Each takes memory, a connection to the store with its thread, and a turn."""

_SHORT_LINES: Final = 2_000  # a list with no more lines and bytes is short
_SHORT_BYTES: Final = 64 * 1024

_LIST_WAIT_SECONDS: Final = 30.0
_REQUEST_RETRY_SECONDS: Final = 1  # most requests take less


class _Quota(NamedTuple):
    """A limit, and how much of it is in use."""

    policy: str
    limit: int
    used: int

    @property
    def left(self) -> int:
        return max(0, self.limit - self.used)

    def check(self, retry_seconds: int = TASK_RETRY_SECONDS) -> None:
        """Check that one more fits.

        Raises:
            QuotaExceeded: The limit is reached.
        """
        if not self.left:
            raise QuotaExceeded(self.policy, self.limit, retry_seconds)


class Quotas:
    """The quotas of one service. A Task that is being submitted counts as running.

    Services that share a registry do not see each other's submits, so the registry checks the running Tasks once more.

    Args:
        registry: Has the Tasks.
        service: Has the limits.
        wait_seconds: How long a long list waits for a place.

    Attributes:
        long_lists: The places of the long lists that are received.
    """

    def __init__(
        self, registry: Registry, service: ServiceOptions, *, wait_seconds: float = _LIST_WAIT_SECONDS
    ) -> None:
        self.long_lists = Places("long lists", MAX_LONG_LISTS)
        self._wait_seconds = wait_seconds
        self._registry = registry
        registry.most_running, registry.most_running_of_owner = service.max_tasks, service.token_tasks
        self._service = service
        # Being submitted, or in progress; by owner.
        self._tasks: Counter[str | None] = Counter()
        self._urls: Counter[str | None] = Counter()
        self._requests: Counter[str | None] = Counter()

    @contextmanager
    def request(self, owner: str | None) -> Iterator[None]:
        """Count one more request of this owner while it is in progress.

        Raises:
            QuotaExceeded: The owner has too many requests in progress.
        """
        self._of_requests(owner).check(_REQUEST_RETRY_SECONDS)
        self._requests[owner] += 1
        try:
            yield
        finally:
            self._requests[owner] -= 1

    @contextmanager
    def reserve_task(self, owner: str | None) -> Iterator[CountLines]:
        """Count one more Task of this owner while it is submitted; yield a function that counts its lines.

        As soon as the list is long, the function waits for a place, and so does the client: nothing more is read.

        Raises:
            QuotaExceeded: There are too many Tasks, or too many URLs of this owner; the yielded function raises it too.
            Overloaded: Raised by the yielded function: too many long lists are being received.
            TaskTooLarge: Raised by the yielded function.
        """
        for quota in self._of_tasks(owner):
            quota.check()
        service = self._service
        limit = service.max_urls if owner is None else min(service.max_urls, service.token_urls)
        taken, size, has_place = 0, 0, False

        async def count_lines(count: int, bytes_: int) -> None:
            nonlocal taken, size, has_place
            taken += count
            size += bytes_
            self._urls[owner] += count
            if taken > limit:
                raise TaskTooLarge(limit)
            if owner is not None:
                quota = self._of_urls(owner, (task for task in self._running() if task.owner == owner))
                quota._replace(used=quota.used - 1).check()
            if not has_place and (taken > _SHORT_LINES or size > _SHORT_BYTES):
                await self.long_lists.take(owner, self._wait_seconds)
                has_place = True

        self._tasks[owner] += 1
        try:
            yield count_lines
        finally:
            self._tasks[owner] -= 1
            self._urls[owner] -= taken
            if has_place:
                self.long_lists.release(owner)

    def headers(self, owner: str | None) -> dict[str, str]:
        """Return the headers that show an owner what is left of each quota."""
        quotas = [*self._of_tasks(owner), self._of_requests(owner)]
        return {
            "RateLimit-Policy": ", ".join(f'"{quota.policy}";q={quota.limit}' for quota in quotas),
            "RateLimit": ", ".join(f'"{quota.policy}";r={quota.left}' for quota in quotas),
        }

    def _of_requests(self, owner: str | None) -> _Quota:
        return _Quota("token-requests", self._service.token_requests, self._requests[owner])

    def _of_tasks(self, owner: str | None) -> Iterator[_Quota]:
        service = self._service
        running = self._running()
        yield _Quota("running-tasks", service.max_tasks, len(running) + self._tasks.total())
        if owner is not None:
            own = [task for task in running if task.owner == owner]
            yield _Quota("token-tasks", service.token_tasks, len(own) + self._tasks[owner])
            yield self._of_urls(owner, own)

    def _of_urls(self, owner: str, running: Iterable[Task]) -> _Quota:
        """Return the quota of the owner's URLs without a result; `running` are the owner's Tasks that run."""
        pending = sum(task.total - task.counts.done for task in running)
        return _Quota("token-urls", self._service.token_urls, self._urls[owner] + pending)

    def _running(self) -> list[Task]:
        return [task for task in self._registry.tasks.values() if task.status == "running"]
