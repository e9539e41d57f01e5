"""A worker process: takes chunks from the queues, probes them, and queues the next chunk of each sequence."""

import asyncio
import logging
import os
import socket
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Final, Self

from docket import Worker

from crawler.core.errors import TaskDamaged, TaskNotFound, TransitionError
from crawler.core.options import Options
from crawler.core.task_options import apply_stored_options
from crawler.core.tasks import Task
from crawler.distributed.chunk_prober import ChunkProber
from crawler.distributed.chunk_queue import QUEUES, ChunkQueue
from crawler.probing.prober import Prober
from crawler.runtime.cancellation import cancel_and_wait, in_background
from crawler.runtime.logs import log_fields
from crawler.stores.redis.chunk import ChunkPosition
from crawler.stores.redis.registry import RedisRegistry
from crawler.worker import fail_task, retry_until_stored

__all__ = ["ChunkWorker"]

log = logging.getLogger(__name__)

_SLOTS_PER_CHUNK: Final = 8  # slots of the prober for each chunk taken at once: the default of `per_host`
_CHUNKS_PER_READ: Final = 32  # parsing a reply holds the event loop; one of up to 250 chunks took 20 ms
_MIN_CHUNKS_AT_ONCE: Final = 8  # of each queue, even if the prober has few slots


class ChunkWorker:
    """Takes chunks from the queues and probes them.

    Args:
        registry: Holds the Tasks, and the settings.
        prober: Probes the targets.
        options: Those of this process; `concurrency` says how many chunks are taken at once.

    Attributes:
        name: The name of this worker process, as `crawler workers` lists it.
    """

    def __init__(self, registry: RedisRegistry, prober: Prober, options: Options) -> None:
        self.name = f"{socket.gethostname()}-{os.getpid()}"
        self._registry = registry
        self._settings = registry.settings
        self._prober = prober
        self._options = options
        self._queue = ChunkQueue(registry, self.run_job)
        self._chunk_prober = ChunkProber(registry, prober)
        self._consumers: list[asyncio.Future[None]] = []
        self._jobs_at_work = 0
        self._job_ended = asyncio.Event()
        self._unfinished: list[tuple[Task, ChunkPosition]] = []  # leased chunks that another process has to finish

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Take chunks while the context lasts. Other worker processes do the work that is not finished then."""
        async with self._queue:
            await self._queue.retry_for_ever()
            self._consumers = [asyncio.ensure_future(self._consume(name)) for name in QUEUES]
            try:
                yield self
            finally:
                await cancel_and_wait(*self._consumers)

    async def drain(self, seconds: float) -> None:
        """Start no more probes, record results of those in flight for `seconds`, and return the rest to the queues."""
        await self._prober.drain(seconds)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.drain_seconds):
                while self._jobs_at_work:
                    self._job_ended.clear()
                    await self._job_ended.wait()
        await cancel_and_wait(*self._consumers)  # otherwise this process would take the chunks that it hands over
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.drain_seconds):
                for task, position in self._unfinished:
                    with suppress(TaskDamaged):  # the next worker process finds that, too, and ends the Task
                        await retry_until_stored(self._registry.chunks.release, task.id, position)
                    await retry_until_stored(self._queue.requeue, task, position)

    async def run_job(self, task_id: str, sequence: int, index: int) -> None:
        """Work on a chunk to its end. docket calls this, and regards the chunk as done when it returns."""
        position = ChunkPosition(sequence, index)
        is_finished = True
        self._jobs_at_work += 1
        try:
            with log_fields(task=task_id), suppress(TaskNotFound):
                task = await retry_until_stored(self._registry.fetch, task_id)
                if task.status == "running":
                    is_finished = await self._work(task, position)
        except TaskDamaged as error:
            await fail_task(task_id, self._registry, error)
        finally:
            self._jobs_at_work -= 1
            self._job_ended.set()
        if not is_finished:  # this may not return: `drain` hands the chunk over
            self._unfinished.append((task, position))
            await self._wait_for_end(task)
            self._unfinished.remove((task, position))
            self._registry.chunks.forget_chunk(task.id, position)

    async def _consume(self, queue_name: str) -> None:
        """Run a job for each chunk of a queue, without end."""
        reconnect_seconds = self._settings.reconnect_seconds
        while True:
            try:
                async with Worker(
                    self._queue.dockets[queue_name],
                    self.name,
                    concurrency=max(_MIN_CHUNKS_AT_ONCE, self._options.concurrency // _SLOTS_PER_CHUNK),
                    redelivery_timeout=timedelta(seconds=self._settings.chunk_lease_seconds),
                    reconnection_delay=timedelta(seconds=reconnect_seconds),
                    minimum_check_interval=timedelta(seconds=self._settings.chunk_poll_seconds),
                    schedule_automatic_tasks=False,
                    message_batch=_CHUNKS_PER_READ,
                ) as worker:
                    return await worker.run_forever()
            except Exception:  # docket handles errors of Redis itself; after any other, this starts anew
                log.exception("no %s chunks are taken for now", queue_name)
            await asyncio.sleep(reconnect_seconds)

    async def _work(self, task: Task, position: ChunkPosition) -> bool:
        """Probe a chunk; returns False if another worker process has to continue it."""
        chunks = self._registry.chunks
        lines, crashes = await retry_until_stored(chunks.start, task.id, position, uuid.uuid4().hex)
        async with (
            in_background(self._wait_for_end(task)) as task_end,
            in_background(self._chunk_prober.probe(task, position, lines, crashes)) as probing,
        ):
            await asyncio.wait({probing, task_end}, return_when=asyncio.FIRST_COMPLETED)
            has_task_ended = task_end.done()
        if has_task_ended:
            chunks.forget_chunk(task.id, position)
            return True
        if probing.cancelled() or not probing.result():
            return False
        await self._complete(task, position)
        return True

    async def _wait_for_end(self, task: Task) -> None:
        """Wait until the Task has ended or was deleted."""
        with suppress(TaskNotFound):
            while task.status == "running":
                await self._registry.wait_for_change(task.id)

    async def _complete(self, task: Task, position: ChunkPosition) -> None:
        """Queue the next chunk of the sequence. After the last chunk of all, the Task is ready."""
        following = await retry_until_stored(self._registry.chunks.complete, task.id, position)
        if following is not None:
            # The process that gets the next chunk does not know when the last request to the host was sent.
            await asyncio.sleep(apply_stored_options(self._options, task.options).interval)
            await retry_until_stored(self._queue.add, task, [following])
            return
        task = await retry_until_stored(self._registry.fetch, task.id)
        if task.status == "running" and task.counts.done == task.total:
            with suppress(TransitionError):  # another worker process was faster
                await retry_until_stored(self._registry.finish, task.id, "ready")
                log.info("Task %s is ready", task.id)
