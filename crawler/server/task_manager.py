"""The TaskManager, which starts and ends Tasks."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from crawler.core.errors import ServiceStopping, StoreError, TransitionError
from crawler.core.options import Options
from crawler.core.task_options import apply_stored_options
from crawler.core.tasks import Task
from crawler.registry import Lines, Registry
from crawler.runtime.logs import add_log_fields
from crawler.worker import Engine

__all__ = ["CANCELLED", "TaskManager"]

CANCELLED: Final = "cancelled"  # the detail of a Task that was cancelled

_MAX_STARTS: Final = 10_000  # Tasks whose start is remembered, to compute their rate


class TaskManager:
    """Starts and ends Tasks.

    Args:
        registry: Keeps the Tasks.
        options: How URLs are probed, where a Task does not choose otherwise.
        drain_seconds: Time that probes in flight get when the service stops.

    Attributes:
        engine: Works on the Tasks; set while the application runs.
        is_stopping: Whether the service is stopping: then requests no longer wait for Tasks, and no Task starts.
    """

    engine: Engine

    def __init__(self, registry: Registry, options: Options, drain_seconds: float) -> None:
        self.is_stopping = False
        self._registry = registry
        self._options = options
        self._drain_seconds = drain_seconds
        self._drained: asyncio.Future[None] | None = None
        self._starts: OrderedDict[str, tuple[float, int]] = OrderedDict()  # Unix time, and lines done by then

    def resume(self) -> None:
        """Continue the Tasks that were running when the service last ended."""
        for task in self._registry.tasks.values():
            if task.status == "running":
                task.options = apply_stored_options(self._options, task.options)
                self._start(task)

    def stop(self) -> asyncio.Future[None]:
        """Start nothing more, and end all waits for changes of a Task; returns at once.

        Returns:
            A future. It is done when the probes in flight have ended or have used up their time, and their results are
            recorded.
        """
        if self._drained is None:
            self.is_stopping = True
            self._registry.wake_waiters()
            self._drained = asyncio.ensure_future(self.engine.drain(self._drain_seconds))
        return self._drained

    async def submit(self, lines: Lines, options: Options | None = None, **fields: Any) -> Task:
        """Store a new Task and start it; `fields` are those of `Registry.submit`.

        Raises:
            ServiceStopping: The service is stopping. A list that is being received is still stored, and its Task starts
                when the service starts again.
        """
        if self.is_stopping:
            raise ServiceStopping("the service is stopping")
        task = await self._registry.submit(lines, options or self._options, **fields)
        add_log_fields(task=task.id)
        self._start(task)
        return task

    async def cancel(self, task: Task) -> None:
        """Cancel a Task and keep its results. A Task that has ended does not change."""
        async with self._stopped(task):
            if self._registry.task(task.id).status == "running":
                with suppress(TransitionError):  # another request can cancel it too
                    await self._registry.finish(task.id, "error", CANCELLED)

    async def delete(self, task: Task) -> None:
        """Stop a Task and delete it with its results."""
        async with self._stopped(task):
            await self._registry.delete(task.id)

    def rate(self, task: Task) -> float | None:
        """Return lines per second since this process started the Task; None if it did not, or only just now."""
        if task.id not in self._starts:
            return None
        began, done = self._starts[task.id]
        seconds = (task.finished or time.time()) - began
        return (task.counts.done - done) / seconds if seconds > 0 else None

    @asynccontextmanager
    async def _stopped(self, task: Task) -> AsyncIterator[None]:
        """Stop the work on a Task while the context lasts. If the store cannot end the Task, continue the work."""
        await self.engine.stop(task.id)
        try:
            yield
        except StoreError:
            if task.status == "running":
                self._start(task)
            raise

    def _start(self, task: Task) -> None:
        self._starts[task.id] = (time.time(), task.counts.done)
        if len(self._starts) > _MAX_STARTS:
            self._starts.popitem(last=False)
        self.engine.start(task.id)
