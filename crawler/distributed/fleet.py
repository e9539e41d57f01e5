"""Who runs workers: here those of any number of machines, which docket hands chunks of Tasks to, through Redis.

docket (https://docket.lol) gives each chunk to one worker, and to another one if that falls silent. Small Tasks have a
queue of their own: none waits behind a million URLs.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Final, Self

from docket import Docket
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import RedisError, ResponseError

from crawler.core.errors import StoreError, TaskNotFound, TransitionError
from crawler.core.tasks import FleetStatus, QueueStatus, Task
from crawler.probing.prober import Prober
from crawler.runtime.cancellation import end
from crawler.runtime.logs import about
from crawler.stores.redis.chunk_store import ChunkPosition
from crawler.stores.redis.registry import RedisRegistry
from crawler.worker import retry_until_stored

__all__ = ["JOB", "KINDS", "ChunkQueue", "FleetEngine", "fleet_status_of"]

log = logging.getLogger(__name__)

Job = Callable[[str, int, int], Awaitable[None]]

KINDS: Final = ("small", "big")
JOB: Final = "probe_chunk"
_SMALL: Final = 1_000  # lines of a Task that is small
_KEPT: Final = timedelta(0)  # that docket remembers of a chunk which has ended
_CONNECTIONS: Final = 10_000  # docket has one for each chunk that begins; past redis-py's 100 it takes Redis for lost
_SOON: Final = 0.02  # seconds until docket asks a Redis again that is away; doubled each time
_LATER: Final = 1.0  # at most
_ALWAYS: Final = -1  # as redis-py has it
_STARTS: Final = 32  # Tasks that are queued at once
_TEND: Final = 15.0  # seconds between two looks at Tasks that do not get on
_STILL: Final = 60.0  # seconds without a record, after which a Task's chunks are queued again; doubled each time
_FRESH: Final = 1.0  # seconds for which an outlook is, and in which Redis has to give one
_CALM: Final = 3_600.0  # at most


async def _nowhere(task_id: str, chain: int, place: int) -> None:
    raise AssertionError("a chunk is probed by workers")


class ChunkQueue:
    """The chunks that wait for a worker; open while its context lasts.

    Args:
        registry: Says where, and has what is in them.
        job: Works on a chunk, where that is done.
    """

    def __init__(self, registry: RedisRegistry, job: Job = _nowhere) -> None:
        self._registry = registry
        url = _with_room(registry.url)
        self.dockets = {kind: Docket(f"crawler-{kind}", url, execution_ttl=_KEPT) for kind in KINDS}
        for docket in self.dockets.values():
            docket.register(job, names=[JOB])

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            for docket in self.dockets.values():
                await stack.enter_async_context(docket)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def endure(self) -> None:
        """Have docket wait for a Redis that is away, however long.

        Else it takes no more chunks on, and keeps up no lease, until all that it has come to their end.
        """
        redis: Any
        for docket in self.dockets.values():
            async with docket.redis() as redis:
                redis.set_retry(Retry(ExponentialBackoff(cap=_LATER, base=_SOON), _ALWAYS))

    async def put(self, task: Task, turns: Iterable[ChunkPosition]) -> None:
        """Have chunks probed; one that waits already, or is being probed, does so once.

        Raises:
            StoreError: They could not all be queued.
        """
        docket = self._docket(task)
        calls = [docket.call(JOB, key=f"{task.id}:{turn}")(task.id, turn.chain, turn.place) for turn in turns]
        try:
            executions = await docket.add_many(calls)
        except (RedisError, OSError) as error:
            raise StoreError(f"chunks could not be queued: {error}") from None
        for execution in executions:
            if execution.schedule_exception is not None:
                raise StoreError(f"a chunk could not be queued: {execution.schedule_exception}")

    async def give_back(self, task: Task, turn: ChunkPosition) -> None:
        """Have a chunk that is being probed here probed by another worker.

        Raises:
            StoreError: It could not be queued.
        """
        try:
            await self._docket(task).replace(JOB, datetime.now(UTC), f"{task.id}:{turn}")(
                task.id, turn.chain, turn.place
            )
        except (RedisError, OSError) as error:
            raise StoreError(f"a chunk could not be queued: {error}") from None

    async def fleet_status(self) -> FleetStatus:
        """What waits, and who works.

        Raises:
            StoreError: Redis does not answer.
        """
        redelivered = await self._registry.chunks.redelivered()
        try:
            queues = {kind: await _backlog(docket) for kind, docket in self.dockets.items()}
            found = [worker for docket in self.dockets.values() for worker in await docket.workers()]
        except (RedisError, OSError) as error:
            raise StoreError(f"the queues do not answer: {error}") from None
        workers: dict[str, float] = {}
        for worker in sorted(found, key=lambda worker: worker.name):
            workers[worker.name] = max(worker.last_seen.timestamp(), workers.get(worker.name, 0.0))
        return FleetStatus(queues, workers, redelivered)

    def _docket(self, task: Task) -> Docket:
        return self.dockets["small" if task.total <= _SMALL else "big"]


def _with_room(url: str) -> str:
    """A URL by which redis-py opens as many connections as are asked for, unless it says how many itself."""
    return f"{url}{'&' if '?' in url else '?'}max_connections={_CONNECTIONS}"


async def _backlog(docket: Docket) -> QueueStatus:
    """A docket's stream has what waits, and what workers have until it has ended; its ids are milliseconds."""
    redis: Any
    async with docket.redis() as redis:
        pipeline = redis.pipeline(transaction=False)
        pipeline.xlen(docket.stream_key)
        pipeline.xpending(docket.stream_key, docket.worker_group_name)
        pipeline.xrange(docket.stream_key, count=1)
        length, pending, first = await pipeline.execute(raise_on_error=False)
    if isinstance(pending, ResponseError):  # nobody has come to this queue yet
        return QueueStatus(waiting=length)
    oldest = time.time() - int(first[0][0].partition(b"-")[0]) / 1000 if first else 0.0
    return QueueStatus(length - pending["pending"], pending["pending"], max(0.0, oldest))


class FleetEngine:
    """Has others work on Tasks.

    Args:
        registry: Where the Tasks are, for them too.
        prober: Asked for single URLs, in this process.
    """

    def __init__(self, registry: RedisRegistry, prober: Prober) -> None:
        self._registry = registry
        self._prober = prober
        self._queue = ChunkQueue(registry)
        self._works: set[asyncio.Future[None]] = set()
        self._starts = asyncio.Semaphore(_STARTS)
        self._looking: asyncio.Future[FleetStatus] | None = None
        self._looked = 0.0

    async def __aenter__(self) -> Self:
        await self._queue.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await end(self._works)
        if self._looking is not None:
            await end([self._looking])
        await self._queue.__aexit__(kind, error, trace)

    def start(self, task_id: str) -> None:
        """Queue what there is to do of a Task; returns at once."""
        work = asyncio.ensure_future(self._start(task_id))
        self._works.add(work)
        work.add_done_callback(self._works.discard)

    def workers(self, task_id: str) -> list[asyncio.Future[None]]:
        """None of them is here."""
        return []

    async def stop(self, task_id: str) -> None:
        """Do nothing: workers hear from the registry that a Task has ended, or is gone."""

    async def drain(self, seconds: float) -> None:
        """Have no more probes begun here; those under way have so many seconds."""
        await self._prober.drain(seconds)

    async def fleet_status(self) -> FleetStatus | None:
        """What waits for workers; None while Redis does not answer. It is asked once a second at most."""
        now = time.monotonic()
        if self._looking is None or (self._looking.done() and now - self._looked > _FRESH):
            self._looked = now
            self._looking = asyncio.ensure_future(self._queue.fleet_status())
            self._looking.add_done_callback(lambda looking: looking.cancelled() or looking.exception())
        try:
            async with asyncio.timeout(_FRESH):
                return await asyncio.shield(self._looking)
        except (StoreError, TimeoutError):
            return None

    async def requeue_stalled(self) -> None:
        """Queue again what does not get on, without end: whoever was to queue it may have died before.

        It is for one process at a time; what is queued or probed already stays as it is.
        """
        looked: dict[str, tuple[int, float, float]] = {}  # lines done, since when so many, and how long that may be
        while True:
            await asyncio.sleep(_TEND)
            await retry_until_stored(self._registry.chunks.sweep)
            now = time.monotonic()
            running = {task.id: task for task in self._registry.tasks.values() if task.status == "running"}
            looked = {id_: seen for id_, seen in looked.items() if id_ in running}
            for id_, task in running.items():
                done, since, patience = looked.get(id_, (-1, now, _STILL))
                if done != task.counts.done:
                    looked[id_] = (task.counts.done, now, _STILL)
                elif now - since > patience:
                    looked[id_] = (done, now, min(2 * patience, _CALM))
                    self.start(id_)

    async def _start(self, task_id: str) -> None:
        async with self._starts:
            with about(task=task_id), suppress(TaskNotFound):
                await retry_until_stored(self._queue_all, task_id)

    async def _queue_all(self, task_id: str) -> None:
        task = await self._registry.fetch(task_id)
        if task.status != "running":
            return
        if turns := await self._registry.chunks.heads(task_id):
            await self._queue.put(task, turns)
        elif task.counts.done == task.total:  # whoever did the last of it died before saying so
            with suppress(TransitionError):
                await self._registry.finish(task_id, "ready")


async def fleet_status_of(url: str) -> FleetStatus:
    """What waits in this Redis, and who works for it.

    Raises:
        InputError: Redis cannot be used.
        StoreError: It does not answer any more.
    """
    async with RedisRegistry(url) as registry, ChunkQueue(registry) as queue:
        return await queue.fleet_status()
