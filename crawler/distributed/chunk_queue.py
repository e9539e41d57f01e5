"""The queues of chunks that wait for a worker process, kept by docket (https://docket.lol) in Redis.

docket leases each chunk to one worker process, and hands it to another one when the lease lapses. Small Tasks have a
queue of their own, so that none waits behind a million URLs.
"""

import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self

from docket import Docket
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import RedisError, ResponseError

from crawler.core.errors import StoreError
from crawler.core.tasks import FleetStatus, QueueStatus, Task
from crawler.distributed.queue_watch import QueueWatch, find_lost
from crawler.stores.redis.chunk import ChunkPosition
from crawler.stores.redis.failover import leave_replicas
from crawler.stores.redis.registry import RedisRegistry

__all__ = ["JOB", "QUEUES", "ChunkQueue", "read_fleet_status"]

Job = Callable[[str, int, int], Awaitable[None]]
"""Called with the Task id, the chunk's sequence and its index. docket stores these three and the name `JOB`."""

QUEUES: Final = ("small", "big")
JOB: Final = "probe_chunk"

_MAX_LINES_OF_SMALL_TASK: Final = 1_000
_KEEP_ENDED_JOBS: Final = timedelta(0)
_MAX_CONNECTIONS: Final = (
    10_000  # docket takes one for each job that starts; with redis-py's default of 100 it would report Redis as down
)
_RETRY_SECONDS: Final = 0.02  # pause before a command is retried when Redis does not answer; doubled each time
_MAX_RETRY_SECONDS: Final = 1.0
_RETRY_FOR_EVER: Final = -1


async def _refuse(task_id: str, sequence: int, index: int) -> None:
    raise AssertionError("only worker processes run jobs")


class ChunkQueue:
    """The queues; open while its context lasts.

    Args:
        registry: Its Redis has the queues, too.
        job: Works on a chunk. Only worker processes have one.

    Attributes:
        dockets: One for each of `QUEUES`.
    """

    def __init__(self, registry: RedisRegistry, job: Job = _refuse) -> None:
        self._registry = registry
        url = _with_connection_limit(registry.url)
        self.dockets = {name: Docket(f"crawler-{name}", url, execution_ttl=_KEEP_ENDED_JOBS) for name in QUEUES}
        self._watches = [QueueWatch(each, registry.settings.stalled_after_seconds) for each in self.dockets.values()]
        for docket in self.dockets.values():
            docket.register(job, names=[JOB])

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            redis: Any
            for docket in self.dockets.values():
                await stack.enter_async_context(docket)
                async with docket.redis() as redis:  # docket itself sets no bound, and keeps connections to a replica
                    await leave_replicas(redis.connection_pool, socket_timeout=self._registry.settings.answer_seconds)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._stack.aclose()

    async def retry_for_ever(self) -> None:
        """Make docket wait for a Redis that does not answer, however long.

        Otherwise it would take no more chunks, and renew no lease, until all its running jobs have ended.
        """
        redis: Any
        for docket in self.dockets.values():
            async with docket.redis() as redis:
                redis.set_retry(Retry(ExponentialBackoff(_MAX_RETRY_SECONDS, _RETRY_SECONDS), _RETRY_FOR_EVER))

    async def add(self, task: Task, positions: Iterable[ChunkPosition]) -> None:
        """Queue chunks. A chunk that is queued or leased already is not queued twice.

        Raises:
            StoreError: Not all of them could be queued.
        """
        docket = self._docket_of(task)
        jobs = [
            docket.call(JOB, key=_key(task, position))(task.id, position.sequence, position.index)
            for position in positions
        ]
        try:
            executions = await docket.add_many(jobs)
        except (RedisError, OSError) as error:
            raise StoreError(f"chunks could not be queued: {error}") from None
        for execution in executions:
            if execution.schedule_exception is not None:
                raise StoreError(f"a chunk could not be queued: {execution.schedule_exception}")

    async def requeue_lost(self, task: Task, positions: Iterable[ChunkPosition]) -> None:
        """Queue those of these chunks again that are neither queued nor leased, though docket takes them for that.

        Raises:
            StoreError: Not all of them could be queued.
        """
        by_key = {_key(task, position): position for position in positions}
        try:
            lost = await find_lost(self._docket_of(task), by_key)
        except (RedisError, OSError) as error:
            raise StoreError(f"the queue cannot be searched: {error}") from None
        for key in lost:
            await self.requeue(task, by_key[key])

    async def check(self) -> None:
        """Raise `StoreError` if a queue does not pass its chunks on."""
        for watch in self._watches:
            await watch.check()

    async def requeue(self, task: Task, position: ChunkPosition) -> None:
        """Queue a chunk that is queued or leased already, for another worker process.

        Raises:
            StoreError: It could not be queued.
        """
        add = self._docket_of(task).replace(JOB, datetime.now(UTC), _key(task, position))
        try:
            await add(task.id, position.sequence, position.index)
        except (RedisError, OSError) as error:
            raise StoreError(f"a chunk could not be queued: {error}") from None

    async def fleet_status(self) -> FleetStatus:
        """Return the queued chunks and the worker processes.

        Raises:
            StoreError: Redis does not answer.
        """
        redelivered = await self._registry.chunks.redeliveries()
        try:
            queues = {name: await _read_queue_status(docket) for name, docket in self.dockets.items()}
            workers = [worker for docket in self.dockets.values() for worker in await docket.workers()]
        except (RedisError, OSError) as error:
            raise StoreError(f"the queues do not answer: {error}") from None
        last_seen: dict[str, float] = {}
        for worker in sorted(workers, key=lambda worker: worker.name):
            last_seen[worker.name] = max(worker.last_seen.timestamp(), last_seen.get(worker.name, 0.0))
        return FleetStatus(queues, last_seen, redelivered)

    def _docket_of(self, task: Task) -> Docket:
        return self.dockets["small" if task.total <= _MAX_LINES_OF_SMALL_TASK else "big"]


def _key(task: Task, position: ChunkPosition) -> str:
    """Return the key by which docket identifies a job."""
    return f"{task.id}:{position}"


def _with_connection_limit(url: str) -> str:
    """Return the URL with redis-py's option for the size of the pool. An option that the URL has already wins.

    It sets no timeout of sockets: docket cancels its own reads only once, and before Python 3.12 redis-py may lose a
    cancellation if there is one (see `failover`). Nothing here depends on what these reads wait for.
    """
    return f"{url}{'&' if '?' in url else '?'}max_connections={_MAX_CONNECTIONS}"


async def _read_queue_status(docket: Docket) -> QueueStatus:
    """Read a docket's stream: it holds the waiting and the leased chunks, and its ids are Unix milliseconds."""
    redis: Any
    async with docket.redis() as redis:
        pipeline = redis.pipeline(transaction=False)
        pipeline.xlen(docket.stream_key)
        pipeline.xpending(docket.stream_key, docket.worker_group_name)
        pipeline.xrange(docket.stream_key, count=1)
        length, pending, first = await pipeline.execute(raise_on_error=False)
    if isinstance(length, ResponseError):  # its key has another type
        raise length
    if isinstance(pending, ResponseError):  # no worker process has used this queue yet
        return QueueStatus(waiting=length)
    oldest = time.time() - int(first[0][0].partition(b"-")[0]) / 1000 if first else 0.0
    return QueueStatus(length - pending["pending"], pending["pending"], max(0.0, oldest))


async def read_fleet_status(registry: RedisRegistry) -> FleetStatus:
    """Return the queued chunks and the worker processes of a Redis.

    Args:
        registry: Not open yet.

    Raises:
        InputError: Redis cannot be used.
        StoreError: It does not answer any more.
    """
    async with registry, ChunkQueue(registry) as queue:
        return await queue.fleet_status()
