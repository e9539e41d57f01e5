"""How long Tasks that have ended are kept."""

import asyncio
import logging
import time
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from crawler.errors import StoreError, TaskNotFound
from crawler.models import Task
from crawler.options import ServiceOptions
from crawler.registry import Registry

__all__ = ["Retention", "outlived"]

log = logging.getLogger(__name__)

_EVERY: Final = 60.0  # seconds between two looks
_DAY: Final = 86_400.0


class Retention:
    """Deletes, while its context lasts, what the service's options say is too old or too much."""

    def __init__(self, registry: Registry, service: ServiceOptions) -> None:
        self._registry = registry
        self._service = service

    async def __aenter__(self) -> Self:
        self._work = asyncio.ensure_future(self._keep())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._work.cancel()
        await asyncio.gather(self._work, return_exceptions=True)

    async def _keep(self) -> None:
        while True:
            try:
                await self.once()
            except StoreError as error:
                log.error("old tasks could not be deleted, which is tried again: %s", error)
            await asyncio.sleep(_EVERY)

    async def once(self) -> None:
        """Delete what is to be deleted now."""
        for task in outlived(list(self._registry.tasks.values()), self._service, time.time()):
            await self._delete(task)
        while (size := await self._registry.size()) > self._service.keep_bytes:
            ended = oldest_first(list(self._registry.tasks.values()))
            if not ended:
                log.warning("tasks that run take %d bytes, more than are to be kept", size)
                return
            await self._delete(ended[0])

    async def _delete(self, task: Task) -> None:
        log.info("task %s is deleted: kept for long enough", task.id)
        with suppress(TaskNotFound):  # somebody else may have deleted it meanwhile
            await self._registry.delete(task.id)


def oldest_first(tasks: list[Task]) -> list[Task]:
    """The Tasks that have ended, by when."""
    return sorted((task for task in tasks if task.finished is not None), key=lambda task: task.finished or 0.0)


def outlived(tasks: list[Task], service: ServiceOptions, now: float) -> list[Task]:
    """The Tasks that ended too long ago, or since when too many others have."""
    ended = oldest_first(tasks)
    surplus = max(0, len(ended) - service.keep_tasks)
    return ended[:surplus] + [
        task for task in ended[surplus:] if now - (task.finished or now) > service.keep_days * _DAY
    ]
