"""Retention: deletes ended Tasks that are too old, too many or too large."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from crawler.core.errors import StoreError, TaskNotFound
from crawler.core.service_options import ServiceOptions
from crawler.core.tasks import Task
from crawler.registry import Registry
from crawler.runtime.cancellation import BackgroundJob
from crawler.runtime.logs import log_fields
from crawler.server.background.age_clock import AgeClock
from crawler.server.settings import ServerSettings

__all__ = ["Retention", "find_expired"]

log = logging.getLogger(__name__)

_DEFAULT: Final = ServerSettings()
_DAY_SECONDS: Final = 86_400.0


class Retention(BackgroundJob):
    """Deletes Tasks by the limits of the service's options, while its context lasts.

    Args:
        registry: Where the Tasks are.
        service: Has the limits.
        delete: Stops a Task and deletes it.
        interval_seconds: Seconds between two searches for Tasks to delete.
        clock: Measures the age of Tasks.
    """

    def __init__(
        self,
        registry: Registry,
        service: ServiceOptions,
        delete: Callable[[Task], Awaitable[None]],
        *,
        interval_seconds: float = _DEFAULT.retention_seconds,
        clock: AgeClock | None = None,
    ) -> None:
        self._registry = registry
        self._service = service
        self._delete_task = delete
        self._interval_seconds = interval_seconds
        self._clock = clock or AgeClock(registry, service.keep_days * _DAY_SECONDS)

    async def _run(self) -> None:
        self._clock.restart()
        while True:
            try:
                await self.delete_expired()
            except StoreError as error:
                log.error("old Tasks could not be deleted, which is tried again: %s", error)
            except Exception:  # a fault of the service must not end the job for good
                log.exception("old Tasks could not be deleted, which is tried again")
            await asyncio.sleep(self._interval_seconds)

    async def delete_expired(self) -> None:
        """Delete the Tasks that are beyond a limit now."""
        await self._clock.advance()
        for task in find_expired(list(self._registry.tasks.values()), self._service, self._clock.age):
            await self._delete(task)
        limit = self._service.keep_bytes
        while (size := await self._registry.stored_bytes()) > limit:
            ended = _ended_by_age(list(self._registry.tasks.values()))
            if not ended:
                log.warning("the running Tasks take %d bytes, more than the limit of %d", size, limit)
                return
            await self._delete(ended[0])

    async def _delete(self, task: Task) -> None:
        with log_fields(task=task.id), suppress(TaskNotFound):  # a client can have deleted it meanwhile
            log.info("Task %s is deleted: kept for long enough", task.id)
            await self._delete_task(task)


def find_expired(tasks: list[Task], service: ServiceOptions, age: Callable[[float], float]) -> list[Task]:
    """Return the ended Tasks that exceed the limit of age or of number; oldest first.

    Args:
        tasks: All Tasks.
        service: Has the limits.
        age: Returns how many seconds ago a Unix time was.
    """
    ended = _ended_by_age(tasks)
    surplus = max(0, len(ended) - service.keep_tasks)
    return ended[:surplus] + [
        task for task in ended[surplus:] if age(task.finished or 0.0) > service.keep_days * _DAY_SECONDS
    ]


def _ended_by_age(tasks: list[Task]) -> list[Task]:
    """Return the Tasks that have ended, in the order in which they ended."""
    return sorted((task for task in tasks if task.finished is not None), key=lambda task: task.finished or 0.0)
