"""The engine of a service with Redis: worker processes, on any number of machines, work on its Tasks."""

import asyncio
import logging
import time
from contextlib import suppress
from typing import Final, NamedTuple, Self

from crawler.core.errors import QueueLost, StoreError, TaskDamaged, TaskNotFound, TransitionError
from crawler.core.tasks import FleetStatus
from crawler.distributed.chunk_queue import ChunkQueue
from crawler.probing.prober import Prober
from crawler.runtime.cancellation import cancel_and_wait
from crawler.runtime.logs import log_fields
from crawler.stores.redis.registry import RedisRegistry
from crawler.worker import fail_task, retry_until_stored

__all__ = ["FleetEngine"]

log = logging.getLogger(__name__)

_MAX_TASKS_QUEUED_AT_ONCE: Final = 32
_STATUS_SECONDS: Final = 1.0  # how long a fleet status is reused, and how long Redis may take to answer


class FleetEngine:
    """Queues the chunks of Tasks for worker processes.

    Args:
        registry: Holds the Tasks; worker processes use the same Redis. Its settings apply here, too.
        prober: Probes single URLs in this process.
    """

    def __init__(self, registry: RedisRegistry, prober: Prober) -> None:
        self._registry = registry
        self._prober = prober
        self._queue = ChunkQueue(registry)
        self._queueing: set[asyncio.Future[None]] = set()
        self._queueing_slots = asyncio.Semaphore(_MAX_TASKS_QUEUED_AT_ONCE)
        self._status_query: asyncio.Future[FleetStatus] | None = None
        self._status_queried_at = 0.0

    async def __aenter__(self) -> Self:
        await self._queue.__aenter__()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await cancel_and_wait(*self._queueing, *([self._status_query] if self._status_query else []))
        await self._queue.__aexit__(*exception)

    def start(self, task_id: str) -> None:
        """Queue what is left of a Task; returns at once."""
        self._start(task_id)

    def _start(self, task_id: str, *, is_stalled: bool = False) -> None:
        queueing = asyncio.ensure_future(self._queue_task(task_id, is_stalled))
        self._queueing.add(queueing)
        queueing.add_done_callback(self._queueing.discard)

    def workers(self, task_id: str) -> list[asyncio.Future[None]]:
        """Return an empty list: all workers are in other processes."""
        return []

    async def stop(self, task_id: str) -> None:
        """Do nothing: worker processes learn from the registry that a Task has ended or is deleted."""

    async def drain(self, seconds: float) -> None:
        """Start no more probes in this process, and give those in flight `seconds` to finish."""
        await self._prober.drain(seconds)

    async def fleet_status(self) -> FleetStatus | None:
        """Return the queued chunks and the worker processes, at most a second old; None while Redis does not answer."""
        now = time.monotonic()
        query = self._status_query
        if query is None or (query.done() and now - self._status_queried_at > _STATUS_SECONDS):
            self._status_queried_at = now
            self._status_query = query = asyncio.ensure_future(self._queue.fleet_status())
            # Mark an error as retrieved even if no caller waits any more: otherwise asyncio logs it.
            query.add_done_callback(lambda query: query.cancelled() or query.exception())
        try:
            async with asyncio.timeout(_STATUS_SECONDS):
                return await asyncio.shield(query)
        except (StoreError, TimeoutError):
            return None

    async def requeue_stalled(self) -> None:
        """Queue stalled Tasks again, until cancelled. A Task stalls if a process crashes before it queues a chunk.

        A chunk that is queued or leased is not queued twice. The leader of all processes runs this.
        """
        settings = self._registry.settings
        progress: dict[str, _Progress] = {}
        while True:
            await asyncio.sleep(settings.stalled_check_seconds)
            await retry_until_stored(self._registry.chunks.drop_stale_batches)
            with suppress(StoreError):
                await self.check()
            now = time.monotonic()
            running = {task.id: task for task in self._registry.tasks.values() if task.status == "running"}
            progress = {id_: before for id_, before in progress.items() if id_ in running}
            for id_, task in running.items():
                before = progress.get(id_)
                if before is None or before.done != task.counts.done:
                    progress[id_] = _Progress(task.counts.done, now, settings.stalled_after_seconds)
                elif now - before.since > before.allowed_seconds:
                    allowed = min(2 * before.allowed_seconds, settings.max_stalled_after_seconds)
                    progress[id_] = _Progress(before.done, now, allowed)
                    self._start(id_, is_stalled=True)

    async def check(self) -> None:
        """Raise `StoreError` if a queue does not pass chunks on. What a queue has lost is queued again."""
        try:
            await self._queue.check()
        except QueueLost as error:
            log.error("chunks are queued again: %s", error)
            for task in list(self._registry.tasks.values()):
                if task.status == "running":
                    self._start(task.id, is_stalled=True)
            raise

    async def _queue_task(self, task_id: str, is_stalled: bool) -> None:
        async with self._queueing_slots:
            with log_fields(task=task_id), suppress(TaskNotFound):
                try:
                    await retry_until_stored(self._queue_next_chunks, task_id, is_stalled)
                except TaskDamaged as error:
                    await fail_task(task_id, self._registry, error)

    async def _queue_next_chunks(self, task_id: str, is_stalled: bool) -> None:
        task = await self._registry.fetch(task_id)
        if task.status != "running":
            return
        if positions := await self._registry.chunks.next_chunks(task_id):
            await self._queue.add(task, positions)
            if is_stalled:
                await self._queue.requeue_lost(task, positions)
            return
        task = await self._registry.fetch(task_id)  # its last chunk may have been completed meanwhile
        if task.status != "running":
            return
        if task.counts.done < task.total:
            missing = task.total - task.counts.done
            raise TaskDamaged(f"its stored data is damaged: lines without a result that are missing: {missing}")
        with suppress(TransitionError):  # a worker process crashed before it ended the Task
            await self._registry.finish(task_id, "ready")


class _Progress(NamedTuple):
    """The progress of a running Task at the last check.

    Attributes:
        done: Lines with a result.
        since: When `done` changed or the Task was queued again, on the monotonic clock.
        allowed_seconds: How long `done` may stay the same before the Task is queued again.
    """

    done: int
    since: float
    allowed_seconds: float
