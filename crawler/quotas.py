"""How much may be asked for at once: URLs of a Task, Tasks that run, and what one token may have of both.

What is too much by itself is answered 413; what is too much for now 429, with the fields of the IETF's draft
(https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/).
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from aiohttp import web

from crawler.models import Task
from crawler.registry import Registry
from crawler.service_options import ServiceOptions

__all__ = ["Quotas", "Take"]

Take = Callable[[int], None]  # told of each lot of lines; raises if they are too many

_LATER: Final = 30  # seconds: when a Task ends, nobody knows


class Quotas:
    """What is left of the quotas of one service. What is being taken in counts as if it were."""

    def __init__(self, registry: Registry, service: ServiceOptions) -> None:
        self._registry = registry
        self._service = service
        self._tasks: Counter[str | None] = Counter()
        self._urls: Counter[str | None] = Counter()

    @contextmanager
    def room(self, owner: str | None) -> Iterator[Take]:
        """Room for one more Task of this owner while it is taken in; gives what its lines are to be told to.

        Raises:
            web.HTTPTooManyRequests: There is none now.
        """
        service = self._service
        running = [task for task in self._registry.tasks.values() if task.status == "running"]
        _check("running-tasks", service.max_tasks, len(running) + self._tasks.total())
        if owner is not None:
            own = sum(task.owner == owner for task in running) + self._tasks[owner]
            _check("token-tasks", service.token_tasks, own)
            _check("token-urls", service.token_urls, self._waiting(owner))
        most = service.max_urls if owner is None else min(service.max_urls, service.token_urls)
        taken = 0

        def take(count: int) -> None:
            nonlocal taken
            taken += count
            self._urls[owner] += count
            if taken > most:
                raise web.HTTPRequestEntityTooLarge(most, text=f"there are more than {most} URLs, the most of a task")
            if owner is not None:
                _check("token-urls", service.token_urls, self._waiting(owner) - 1)

        self._tasks[owner] += 1
        try:
            yield take
        finally:
            self._tasks[owner] -= 1
            self._urls[owner] -= taken

    def _waiting(self, owner: str) -> int:
        """URLs of an owner that are not done."""
        return self._urls[owner] + sum(map(_left, (t for t in self._registry.tasks.values() if t.owner == owner)))


def _left(task: Task) -> int:
    return task.total - task.counts.done if task.status == "running" else 0


def _check(policy: str, quota: int, used: int) -> None:
    """See that one more fits."""
    if used >= quota:
        headers = {
            "Retry-After": str(_LATER),
            "RateLimit-Policy": f'"{policy}";q={quota}',
            "RateLimit": f'"{policy}";r=0;t={_LATER}',
        }
        raise web.HTTPTooManyRequests(headers=headers, text=f"{policy}: there may be {quota} at once; try again later")
