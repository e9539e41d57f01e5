"""A process that works on chunks of Tasks: `python -m crawler worker`."""

import asyncio
import logging
import os
import socket
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Final
from weakref import WeakValueDictionary

from docket import Worker

from crawler.core.errors import TaskNotFound, TransitionError
from crawler.core.options import Options
from crawler.core.results import ProbeError, ProbeResult
from crawler.core.tasks import Task
from crawler.distributed.fleet import KINDS, ChunkQueue
from crawler.probing.probe import Probe
from crawler.probing.prober import Prober
from crawler.runtime.cancellation import end
from crawler.runtime.logs import about
from crawler.stores.redis.chunk_store import ChunkPosition
from crawler.stores.redis.chunking import ChunkLine
from crawler.stores.redis.registry import RedisRegistry
from crawler.worker import Recorder, probe_and_record, retry_until_stored

__all__ = ["ChunkWorker"]

log = logging.getLogger(__name__)

# A chunk is another worker's after so long without a sign of life. docket looks for such chunks each 5/16 of it at the
# latest, and misses a turn if whoever was to look has ended too: 41 s at worst.
_LEASE: Final = timedelta(seconds=25)
_CHECK: Final = timedelta(milliseconds=50)  # docket's wait for new chunks; by default it takes a quarter of a second
_AGAIN: Final = timedelta(seconds=1)  # until a Redis that was lost is tried again
_SLOTS: Final = 8  # of the prober's, for which a chunk is taken on: the least that a host has by default
_FEW: Final = 8  # chunks of a kind at once, however few slots there are
_DEATHS: Final = 3  # of workers on a chunk, after which it is probed apart from all else
_LEAVE: Final = 5.0  # seconds for what was found to be recorded, and chunks to be given back


class ChunkWorker:
    """Takes chunks from the queue, and has them probed.

    Args:
        registry: Where the Tasks are.
        prober: Probes.
        options: How, and how much at once.
    """

    def __init__(self, registry: RedisRegistry, prober: Prober, options: Options) -> None:
        self.name = f"{socket.gethostname()}-{os.getpid()}"
        self._registry = registry
        self._prober = prober
        self._options = options
        self._queue = ChunkQueue(registry, self.probe_chunk)
        self._gate = _Gate()
        self._takers: list[asyncio.Future[None]] = []
        self._at_work = 0
        self._changed = asyncio.Event()
        self._left: list[tuple[Task, ChunkPosition]] = []
        self._recorders: WeakValueDictionary[str, Recorder] = WeakValueDictionary()  # chunks of a Task share one

    @asynccontextmanager
    async def running(self) -> "AsyncIterator[ChunkWorker]":
        """Take chunks, as long as the context lasts; what is under way at its end is left for others."""
        at_once = max(_FEW, self._options.concurrency // _SLOTS)
        async with self._queue:
            await self._queue.endure()
            self._takers = [asyncio.ensure_future(self._take(kind, at_once)) for kind in KINDS]
            try:
                yield self
            finally:
                await end(self._takers)

    async def _take(self, kind: str, at_once: int) -> None:
        while True:
            try:
                async with Worker(
                    self._queue.dockets[kind], self.name, at_once, _LEASE, _AGAIN, _CHECK,
                    schedule_automatic_tasks=False,
                ) as worker:  # fmt: skip
                    return await worker.run_forever()
            except Exception:  # docket leaves only what is no fault of Redis'; it must not end this for good
                log.exception("no %s chunks are taken for now", kind)
            await asyncio.sleep(_AGAIN.total_seconds())

    async def drain(self, seconds: float) -> None:
        """Begin no more probes, record what those under way find within so many seconds, and give the rest back."""
        await self._prober.drain(seconds)
        with suppress(TimeoutError):
            async with asyncio.timeout(_LEAVE):
                while self._at_work:
                    self._changed.clear()
                    await self._changed.wait()
        await end(self._takers)  # before, this worker would take what it gives back
        with suppress(TimeoutError):
            async with asyncio.timeout(_LEAVE):
                for task, turn in self._left:
                    await retry_until_stored(self._registry.chunks.leave, task.id, turn)
                    await retry_until_stored(self._queue.give_back, task, turn)

    async def probe_chunk(self, task_id: str, chain: int, place: int) -> None:
        """Bring a chunk to its end."""
        turn = ChunkPosition(chain, place)
        is_left = False
        self._at_work += 1
        try:
            with about(task=task_id), suppress(TaskNotFound):
                task = await retry_until_stored(self._registry.fetch, task_id)
                if task.status == "running":
                    is_left = not await self._work(task, turn)
        finally:
            self._at_work -= 1
            self._changed.set()
        if is_left:
            self._left.append((task, turn))
            await self._until_over(task)  # a job that returns has ended for docket; this one is to be another's
            self._left.remove((task, turn))
            self._registry.chunks.forget(task.id, turn)

    async def _work(self, task: Task, turn: ChunkPosition) -> bool:
        """Work on a chunk; false if it is left as far as it is, for another worker."""
        works, starts = await retry_until_stored(self._registry.chunks.begin, task.id, turn, uuid.uuid4().hex)
        probing = asyncio.ensure_future(self._probe(task, turn, works, starts))
        over = asyncio.ensure_future(self._until_over(task))
        try:
            await asyncio.wait({probing, over}, return_when=asyncio.FIRST_COMPLETED)
            is_over = over.done()
        finally:
            await end({probing, over})
        if is_over:
            self._registry.chunks.forget(task.id, turn)
            return True
        if probing.cancelled() or not probing.result():
            return False
        await self._go_on(task, turn)
        return True

    async def _until_over(self, task: Task) -> None:
        """Wait until nobody wants the Task any more."""
        with suppress(TaskNotFound):
            while task.status == "running":
                await self._registry.wait_for_change(task.id)

    async def _probe(self, task: Task, turn: ChunkPosition, works: list[ChunkLine], starts: int) -> bool:
        """Have all of them recorded; false if the prober drains before."""
        try:
            if starts <= _DEATHS:
                async with self._gate.beside():
                    return await self._record(task, works)
            async with self._gate.alone():
                return await self._search(task, turn, works)
        except TaskNotFound:
            return False
        except Exception as error:
            log.exception("task %s cannot go on", task.id)
            with suppress(TaskNotFound, TransitionError):
                await retry_until_stored(self._registry.finish, task.id, "error", f"{type(error).__name__}: {error}")
            return False

    async def _record(self, task: Task, works: list[ChunkLine]) -> bool:
        recorder = self._recorders.setdefault(task.id, Recorder(task.id, self._registry))
        return await probe_and_record([each.target for each in works], task.options, self._prober, recorder) == len(
            works
        )

    async def _search(self, task: Task, turn: ChunkPosition, works: list[ChunkLine]) -> bool:
        """Probe a chunk of which a target may be what ends workers: half by half, so that the next one finds it."""
        suspects = await retry_until_stored(self._registry.chunks.suspects, task.id, turn)
        if len(suspects) == 1:
            await self._mark(task, [each for each in works if each.seq in suspects])
            works = [each for each in works if each.seq not in suspects]
        half = max(1, (len(suspects) if len(suspects) > 1 else len(works)) // 2)
        for start in range(0, len(works), half):
            some = works[start : start + half]
            await retry_until_stored(self._registry.chunks.suspect, task.id, turn, [each.seq for each in some])
            if not await self._record(task, some):
                return False
        return True

    async def _mark(self, task: Task, works: list[ChunkLine]) -> None:
        for each in works:
            log.error("workers have ended of line %d of task %s, which is recorded as failed", each.seq, task.id)
            probe = Probe(each.target, task.options, asyncio.get_running_loop().time)
            probe.fail(ProbeError.of("unknown", "the workers that probed it have ended"))
            found: list[ProbeResult] = [probe.result]
            await retry_until_stored(self._registry.record, task.id, found)

    async def _go_on(self, task: Task, turn: ChunkPosition) -> None:
        following = await retry_until_stored(self._registry.chunks.advance, task.id, turn)
        if following is not None:
            # Whoever is next, here or elsewhere, knows nothing of when the host was asked last.
            await asyncio.sleep(self._options.with_stored(task.options).interval)
            await retry_until_stored(self._queue.put, task, [following])
            return
        task = await retry_until_stored(self._registry.fetch, task.id)
        if task.status == "running" and task.counts.done == task.total:
            with suppress(TransitionError):  # another worker was faster
                await retry_until_stored(self._registry.finish, task.id, "ready")
                log.info("task %s is ready", task.id)


class _Gate:
    """Chunks go through side by side, but for one that goes alone: nobody comes in until it is out."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self._inside = 0
        self._waits_alone = 0

    @asynccontextmanager
    async def beside(self) -> AsyncIterator[None]:
        """Wait until nobody is, or wants to be, alone."""
        while self._waits_alone:
            await self._changed.wait()
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1
            self._tell()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Wait until nobody else is there."""
        self._waits_alone += 1
        try:
            while self._inside:
                await self._changed.wait()
            self._inside += 1
            try:
                yield
            finally:
                self._inside -= 1
        finally:
            self._waits_alone -= 1
            self._tell()

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
