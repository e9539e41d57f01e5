"""How much may be asked for at once: URLs of a Task, Tasks that run, what one token may have of both, and requests.

What is too much by itself is answered 413; what is too much for now 429, with the fields of the IETF's draft, which
also tell who submits what is left (https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from aiohttp import web

from crawler.core.service_options import ServiceOptions
from crawler.core.tasks import Task
from crawler.registry import Registry

__all__ = ["Quotas", "Take"]

Take = Callable[[int], None]  # told of each lot of lines; raises if they are too many

_LATER: Final = 30  # seconds: when a Task ends, nobody knows
_SOON: Final = 1  # second: most requests take less


class _Quota(NamedTuple):
    """How much of something there may be, and is."""

    policy: str
    most: int
    used: int

    @property
    def left(self) -> int:
        return max(0, self.most - self.used)

    def check(self, later: int = _LATER) -> None:
        """See that one more fits.

        Raises:
            web.HTTPTooManyRequests: It does not; it may in so many seconds.
        """
        if not self.left:
            headers = {
                "Retry-After": str(later),
                "RateLimit-Policy": f'"{self.policy}";q={self.most}',
                "RateLimit": f'"{self.policy}";r=0;t={later}',
            }
            text = f"{self.policy}: there may be {self.most} at once; try again later"
            raise web.HTTPTooManyRequests(headers=headers, text=text)


class Quotas:
    """What is left of the quotas of one service. What is being taken in counts as if it were."""

    def __init__(self, registry: Registry, service: ServiceOptions) -> None:
        self._registry = registry
        self._service = service
        self._tasks: Counter[str | None] = Counter()
        self._urls: Counter[str | None] = Counter()
        self._requests: Counter[str | None] = Counter()

    @contextmanager
    def request(self, owner: str | None) -> Iterator[None]:
        """Count one more request of this owner while it is under way.

        Raises:
            web.HTTPTooManyRequests: There may be no more now.
        """
        self._of_requests(owner).check(_SOON)
        self._requests[owner] += 1
        try:
            yield
        finally:
            self._requests[owner] -= 1

    @contextmanager
    def room(self, owner: str | None) -> Iterator[Take]:
        """Room for one more Task of this owner while it is taken in; gives what its lines are to be told to.

        Raises:
            web.HTTPTooManyRequests: There is none now.
        """
        for quota in self._of_tasks(owner):
            quota.check()
        service = self._service
        most = service.max_urls if owner is None else min(service.max_urls, service.token_urls)
        taken = 0

        def take(count: int) -> None:
            nonlocal taken
            taken += count
            self._urls[owner] += count
            if taken > most:
                raise web.HTTPRequestEntityTooLarge(most, text=f"there are more than {most} URLs, the most of a task")
            if owner is not None:
                quota = self._of_urls(owner, (task for task in self._running() if task.owner == owner))
                quota._replace(used=quota.used - 1).check()

        self._tasks[owner] += 1
        try:
            yield take
        finally:
            self._tasks[owner] -= 1
            self._urls[owner] -= taken

    def headers(self, owner: str | None) -> dict[str, str]:
        """What an owner who has submitted is told of his quotas."""
        quotas = [*self._of_tasks(owner), self._of_requests(owner)]
        return {
            "RateLimit-Policy": ", ".join(f'"{quota.policy}";q={quota.most}' for quota in quotas),
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
        """Of the URLs of an owner that are not done, from his Tasks that run."""
        left = sum(task.total - task.counts.done for task in running)
        return _Quota("token-urls", self._service.token_urls, self._urls[owner] + left)

    def _running(self) -> list[Task]:
        return [task for task in self._registry.tasks.values() if task.status == "running"]
