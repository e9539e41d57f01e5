"""Probe the lines of one chunk, and find the line that crashes worker processes."""

import logging
from weakref import WeakValueDictionary

from crawler.core.errors import TaskNotFound
from crawler.core.results import ProbeError
from crawler.core.tasks import Task
from crawler.distributed.crash_policy import CHUNK_ISOLATION_CRASHES, crash_error, plan_isolation
from crawler.distributed.shared_lock import SharedLock
from crawler.probing.prober import Prober
from crawler.probing.unprobed import failed_result
from crawler.stores.redis.chunk import ChunkLine, ChunkPosition
from crawler.stores.redis.registry import RedisRegistry
from crawler.worker import Recorder, fail_task, probe_and_record, retry_until_stored

__all__ = ["ChunkProber"]

log = logging.getLogger(__name__)


class ChunkProber:
    """Probes chunks and records the results. Several chunks are probed at the same time.

    A chunk on which too many worker processes have crashed is probed with nothing else in the process, group by group:
    the group that was being probed at the next crash is then halved, until it is one line.

    Args:
        registry: Holds the Tasks.
        prober: Probes the targets.
    """

    def __init__(self, registry: RedisRegistry, prober: Prober) -> None:
        self._registry = registry
        self._prober = prober
        self._lock = SharedLock()
        self._recorders: WeakValueDictionary[str, Recorder] = WeakValueDictionary()  # one for all chunks of a Task

    async def probe(self, task: Task, position: ChunkPosition, lines: list[ChunkLine], crashes: int) -> bool:
        """Probe the lines of a chunk; an unexpected error ends the Task.

        Args:
            task: The Task.
            position: Its chunk.
            lines: Those of the chunk that have no result yet.
            crashes: How many worker processes have crashed while they worked on this chunk.

        Returns:
            Whether all lines have their result: not if the prober drains, or the Task ends.
        """
        try:
            if crashes < CHUNK_ISOLATION_CRASHES:
                async with self._lock.shared():
                    return await self._probe_lines(task, lines)
            async with self._lock.exclusive():
                return await self._probe_isolated(task, position, lines, crashes)
        except TaskNotFound:
            return False
        except Exception as error:
            await fail_task(task.id, self._registry, error)
            return False

    async def _probe_lines(self, task: Task, lines: list[ChunkLine]) -> bool:
        recorder = self._recorders.setdefault(task.id, Recorder(task.id, self._registry))
        return await probe_and_record([line.target for line in lines], task.options, self._prober, recorder) == len(
            lines
        )

    async def _probe_isolated(self, task: Task, position: ChunkPosition, lines: list[ChunkLine], crashes: int) -> bool:
        by_seq = {line.seq: line for line in lines}
        suspects = await retry_until_stored(self._registry.chunks.isolated, task.id, position)
        plan = plan_isolation(list(by_seq), suspects)
        for seq in plan.given_up:
            await self._record_error(task, by_seq[seq], crash_error(crashes))
        for group in plan.groups:
            await retry_until_stored(self._registry.chunks.isolate, task.id, position, group)
            if not await self._probe_lines(task, [by_seq[seq] for seq in group]):
                return False
        return True

    async def _record_error(self, task: Task, line: ChunkLine, error: ProbeError) -> None:
        log.error("line %d of Task %s crashes worker processes and is recorded as failed", line.seq, task.id)
        await retry_until_stored(self._registry.record, task.id, [failed_result(line.target, task.options, error)])
