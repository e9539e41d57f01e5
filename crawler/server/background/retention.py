"""How long Tasks that have ended are kept."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from crawler.core.errors import StoreError, TaskNotFound
from crawler.core.service_options import ServiceOptions
from crawler.core.tasks import Task
from crawler.registry import Registry
from crawler.runtime.cancellation import end
from crawler.runtime.logs import log_fields

__all__ = ["Retention", "outlived"]

log = logging.getLogger(__name__)

_EVERY: Final = 60.0  # seconds between two looks
_DAY: Final = 86_400.0
_JUMP: Final = 3_600.0  # seconds; less is no matter


class Retention:
    """Deletes, while its context lasts, what the service's options say is too old or too much.

    Args:
        registry: Where the Tasks are.
        service: Says how long they are kept.
        delete: Ends a Task and forgets it.
    """

    def __init__(self, registry: Registry, service: ServiceOptions, delete: Callable[[Task], Awaitable[None]]) -> None:
        self._registry = registry
        self._service = service
        self._delete_task = delete
        self._looked = (time.time(), time.monotonic())
        self._jumped = 0.0  # seconds that the clock was set forward

    async def __aenter__(self) -> Self:
        self._work = asyncio.ensure_future(self._keep())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await end([self._work])

    async def _keep(self) -> None:
        while True:
            try:
                await self.once()
            except StoreError as error:
                log.error("old tasks could not be deleted, which is tried again: %s", error)
            except Exception:  # a fault of ours must not end it for good
                log.exception("old tasks could not be deleted, which is tried again")
            await asyncio.sleep(_EVERY)

    async def once(self) -> None:
        """Delete what is to be deleted now."""
        for task in outlived(list(self._registry.tasks.values()), self._service, self._now()):
            await self._delete(task)
        while (size := await self._registry.stored_bytes()) > self._service.keep_bytes:
            ended = oldest_first(list(self._registry.tasks.values()))
            if not ended:
                log.warning("tasks that run take %d bytes, more than are to be kept", size)
                return
            await self._delete(ended[0])

    def _now(self) -> float:
        """The time as it would be without jumps of the clock: a Task does not age because that is set right."""
        now, steady = time.time(), time.monotonic()
        jump = now - self._looked[0] - (steady - self._looked[1])
        self._looked = (now, steady)
        if jump > _JUMP:
            log.warning("the clock went %.0f seconds forward at once: tasks are kept for as much longer", jump)
            self._jumped += jump
        return now - self._jumped

    async def _delete(self, task: Task) -> None:
        with log_fields(task=task.id), suppress(TaskNotFound):  # somebody else may have deleted it meanwhile
            log.info("task %s is deleted: kept for long enough", task.id)
            await self._delete_task(task)


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
