"""Retention: deletes ended Tasks that are too old, too many or too large."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from crawler.core.errors import StoreError, TaskNotFound
from crawler.core.service_options import ServiceOptions
from crawler.core.tasks import Task
from crawler.registry import Registry
from crawler.runtime.cancellation import BackgroundJob
from crawler.runtime.logs import log_fields
from crawler.server.settings import ServerSettings

__all__ = ["Retention", "find_expired"]

log = logging.getLogger(__name__)

_DEFAULT: Final = ServerSettings()
_DAY_SECONDS: Final = 86_400.0
_CLOCK_JUMP_SECONDS: Final = 3_600.0  # a smaller jump of the clock is ignored


class Retention(BackgroundJob):
    """Deletes Tasks by the limits of the service's options, while its context lasts.

    Args:
        registry: Where the Tasks are.
        service: Has the limits.
        delete: Stops a Task and deletes it.
        interval_seconds: Seconds between two searches for Tasks to delete.
    """

    def __init__(
        self,
        registry: Registry,
        service: ServiceOptions,
        delete: Callable[[Task], Awaitable[None]],
        *,
        interval_seconds: float = _DEFAULT.retention_seconds,
    ) -> None:
        self._registry = registry
        self._service = service
        self._delete_task = delete
        self._interval_seconds = interval_seconds
        self._clocks = (time.time(), time.monotonic())  # when they were last read
        self._jumped_seconds = 0.0  # how far the clock was set forward, in all

    async def _run(self) -> None:
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
        for task in find_expired(list(self._registry.tasks.values()), self._service, self._now()):
            await self._delete(task)
        limit = self._service.keep_bytes
        while (size := await self._registry.stored_bytes()) > limit:
            ended = _ended_by_age(list(self._registry.tasks.values()))
            if not ended:
                log.warning("the running Tasks take %d bytes, more than the limit of %d", size, limit)
                return
            await self._delete(ended[0])

    def _now(self) -> float:
        """Return the time without jumps: a clock that is set forward must not make Tasks old."""
        now, steady = time.time(), time.monotonic()
        jump = now - self._clocks[0] - (steady - self._clocks[1])
        self._clocks = (now, steady)
        if jump > _CLOCK_JUMP_SECONDS:
            log.warning("the clock jumped %.0f seconds forward: Tasks are kept for that much longer", jump)
            self._jumped_seconds += jump
        return now - self._jumped_seconds

    async def _delete(self, task: Task) -> None:
        with log_fields(task=task.id), suppress(TaskNotFound):  # a client can have deleted it meanwhile
            log.info("Task %s is deleted: kept for long enough", task.id)
            await self._delete_task(task)


def find_expired(tasks: list[Task], service: ServiceOptions, now: float) -> list[Task]:
    """Return the ended Tasks that exceed the limit of age or of number; oldest first."""
    ended = _ended_by_age(tasks)
    surplus = max(0, len(ended) - service.keep_tasks)
    return ended[:surplus] + [
        task for task in ended[surplus:] if now - (task.finished or now) > service.keep_days * _DAY_SECONDS
    ]


def _ended_by_age(tasks: list[Task]) -> list[Task]:
    """Return the Tasks that have ended, in the order in which they ended."""
    return sorted((task for task in tasks if task.finished is not None), key=lambda task: task.finished or 0.0)
