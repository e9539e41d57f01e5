"""Tasks in Redis: any number of processes, on any number of machines, have them in common.

What a process knows of the Tasks themselves is a copy; lines and records stay in Redis. `stores.scripts` says what is
there.
"""

import asyncio
import time
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from types import MappingProxyType, TracebackType
from typing import Any, Final, Self

import msgspec
import redis as sync_redis

from crawler.core.errors import IdempotencyKeyTaken, StoreError, TaskNotFound, TransitionError
from crawler.core.results import Outcome, ProbeResult
from crawler.core.tasks import ResultFilter, ResultPage, Task
from crawler.core.urls import Target
from crawler.registry import Lines, Reader, Registry, is_wanted
from crawler.stores.redis.chunk_store import ChunkStore
from crawler.stores.redis.chunking import chunks_of
from crawler.stores.redis.connection import ANSWER, RedisConnection
from crawler.stores.redis.keys import FIELDS, common, counted, encoded, own, owned, records_key
from crawler.stores.redis.scripts import SHARD
from crawler.stores.redis.task_cache import TaskCache

__all__ = ["RedisRegistry"]

_BLOCK: Final = 500  # records that are kept together
_BLOCKS: Final = 40  # that are looked through in one call
_LINGER: Final = 600  # seconds for which the records of a deleted Task can still be read by who has begun to

_records: Final = msgspec.json.Decoder(list[ProbeResult])
_counts: Final = msgspec.json.Decoder(dict[Outcome, int])


class RedisRegistry(Registry):
    """Keeps Tasks in a Redis, or a Valkey, that all processes with the same URL share.

    Args:
        url: As redis-py reads it: `redis://`, `rediss://` (TLS) or `unix://`, with user, password and database.

    Attributes:
        chunks: What is left to probe.
        location: The URL without its secrets.
    """

    is_shared = True

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url
        self._link = RedisConnection(url, self.calls)
        self._mirror = TaskCache(self._link, self._notify, self._announce)
        self.chunks = ChunkStore(self._link)
        self.location = self._link.location

    async def __aenter__(self) -> Self:
        """Connect, and read what Tasks there are.

        Raises:
            InputError: The URL is none, or nothing answers there.
        """
        await self._link.open()
        await self._mirror.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnect."""
        await super().__aexit__(kind, error, trace)
        await self._mirror.close()
        await self._link.close()

    @property
    def tasks(self) -> Mapping[str, Task]:
        """All Tasks by id, oldest first, as far as this process has heard."""
        return MappingProxyType(self._mirror.tasks)

    async def fetch(self, task_id: str) -> Task:
        """The Task of this id, as it is in Redis now."""
        if ":" in task_id:  # the key of something else
            raise TaskNotFound(task_id)
        await self._mirror.look([task_id])
        return self.task(task_id)

    async def refresh(self) -> None:
        """Have in `tasks` those that are in Redis now."""
        await self._mirror.refresh()

    def leadership(self) -> AbstractAsyncContextManager[asyncio.Event]:
        """Wait until this process may do what only one does at a time."""
        return self._link.leadership()

    async def find_by_key(self, owner: str | None, key: str) -> Task | None:
        """The Task that its owner submitted under an idempotency key."""
        with self._link.guarded("read"):
            id_ = await self._link.redis.hget(common("keys"), owned(owner, key))
        with suppress(TaskNotFound):
            return None if id_ is None else await self.fetch(id_.decode())
        return None

    async def stored_bytes(self) -> int:
        """Bytes of all records, packed, without what Redis needs to keep them: what goes when Tasks are deleted."""
        with self._link.guarded("read"):
            return int(await self._link.redis.get(common("bytes")) or 0)

    async def check_writable(self) -> None:
        """See that something could be kept now; StoreError if not."""
        with self._link.guarded("write"):
            await self._link.redis.set(common("check"), 1, ex=_LINGER)

    async def _insert(self, task: Task, lines: Lines) -> None:
        id_ = task.id
        try:
            await self.chunks.expect(id_)
            async for task.total, chunks in chunks_of(lines):
                await self.chunks.put(id_, chunks)
            key = "" if task.idempotency is None else owned(task.owner, task.idempotency.key)
            with self._link.guarded("write"):
                fields = {**encoded(task, FIELDS), "done": "0"}
                admitted = await self._link.scripts["admit"](
                    keys=[own(id_), common("tasks"), common("keys"), common("coming"), common("number")],
                    args=[id_, key, common("changes"), *(part for field in fields.items() for part in field)],
                )
            if admitted == 0:
                raise IdempotencyKeyTaken(key)
            if admitted < 0:
                raise StoreError(f"{self.location}: the lines of task {id_} were dropped before it was kept")
        except BaseException:  # also if it may have been admitted: nobody has heard of it
            with suppress(StoreError):
                await self._drop(task)
            raise
        if (known := self._mirror.tasks.get(id_)) is not None:  # it was heard of before this was
            counted(task, dict(known.counts.by_outcome()))
            task.status, task.detail, task.finished = known.status, known.detail, known.finished
        self._mirror.tasks[id_] = task

    async def _record(self, task: Task, results: Sequence[ProbeResult]) -> None:
        works = await self.chunks.works_of(task.id, {result.seq for result in results})
        records: dict[int, ProbeResult] = {}
        for result in results:
            if result.seq in works:
                records.setdefault(result.seq, result)
                for seq, text in works[result.seq].twins:
                    records.setdefault(seq, result.copy_for_line(seq, text))
        waiting = list(records.values())
        for start in range(0, len(waiting), _BLOCK):
            await self._keep(task, waiting[start : start + _BLOCK])
        self.chunks.recorded(task.id, {result.seq for result in results})

    async def _save(self, task: Task, names: Collection[str]) -> None:
        ends = msgspec.json.encode(task.status).decode() if "status" in names else ""
        fields = encoded(task, names)
        with self._link.guarded("write"):
            saved = await self._link.scripts["save"](
                keys=[own(task.id), common("coming")],
                args=[
                    task.id,
                    common("changes"),
                    ends,
                    time.time(),
                    *(part for field in fields.items() for part in field),
                ],
            )
        if saved == b"gone":
            raise TaskNotFound(task.id)
        if saved == b"ended" or (ends and saved == b"saved"):  # what was left to do is wanted no more
            with suppress(StoreError):
                await self.chunks.drop(task.id)
        if saved != b"saved":
            raise TransitionError(f"task {task.id} cannot go to {task.status}: it is {saved.decode()}")

    async def _delete(self, task: Task) -> None:
        was_there = await self._drop(task)
        self._mirror.forget(task.id)
        if not was_there:
            raise TaskNotFound(task.id)

    async def _drop(self, task: Task) -> bool:
        """Drop all of a Task, also of one that was never admitted; whether it was one."""
        id_ = task.id
        await self.chunks.drop(id_)
        with self._link.guarded("write"):
            data = [own(id_, name) for name in ("bits", "blocks")]
            data += [records_key(id_, shard * SHARD) for shard in range(task.total // SHARD + 1)]
            key = "" if task.idempotency is None else owned(task.owner, task.idempotency.key)
            was_there: int = await self._link.scripts["delete"](
                keys=[own(id_), common("tasks"), common("keys"), common("bytes"), *data],
                args=[id_, key, common("changes"), _LINGER],
            )
        return bool(was_there)

    async def _pending(self, task: Task) -> AsyncIterator[Target]:
        async for work in self.chunks.pending(task.id):
            yield work.target

    @contextmanager
    def _reader(self, task: Task) -> Iterator[Reader]:
        if task.id not in self._mirror.tasks:
            raise TaskNotFound(task.id)

        async def read(start: int, limit: int, where: ResultFilter) -> ResultPage:
            with self._link.guarded("read"):
                blocks = await self._read_blocks(task.id, start)
            if not blocks and start < task.counts.done:
                raise TaskNotFound(task.id)
            found: list[ProbeResult] = []
            place = start
            for first, body in blocks:
                records = _records.decode(zlib.decompress(body))
                for place, record in enumerate(records[max(0, start - first) :], max(start, first) + 1):
                    if is_wanted(record, where):
                        found.append(record)
                        if len(found) == limit:
                            return ResultPage(found, place)
            return ResultPage(found, place)

        yield read

    def _found(self, task: Task) -> Sequence[ProbeResult]:
        here: Any
        with self._link.guarded("read"), sync_redis.Redis.from_url(self.url, socket_timeout=ANSWER) as here:
            places = [int(place) for place in here.zrange(own(task.id, "blocks"), 0, -1)]
            bodies = [here.hget(records_key(task.id, place), str(place)) for place in places]
        found = [record for body in bodies if body for record in _records.decode(zlib.decompress(body))]
        return tuple(found[: task.counts.done])

    async def _keep(self, task: Task, records: list[ProbeResult]) -> None:
        keys = [own(task.id), own(task.id, "bits"), own(task.id, "blocks"), common("bytes")]
        while records:
            body = zlib.compress(msgspec.json.encode(records), 1)
            outcomes = Counter(record.outcome for record in records)
            with self._link.guarded("write"):
                seen = await self._link.scripts["record"](
                    keys=keys,
                    args=[
                        task.id, common("changes"), own(task.id, "records:"), SHARD, body,
                        msgspec.json.encode(outcomes), *(record.seq for record in records),
                    ],
                )  # fmt: skip
            if isinstance(seen, bytes):
                counted(task, _counts.decode(seen))
                return
            if seen == [-1]:  # it has ended meanwhile
                return
            have = set(seen)
            records = [record for record in records if record.seq not in have]

    async def _read_blocks(self, id_: str, start: int) -> list[tuple[int, bytes]]:
        """The block that a place is in, and some after it."""
        blocks = own(id_, "blocks")
        first = await self._link.redis.zrange(blocks, start, "-inf", desc=True, byscore=True, offset=0, num=1)
        if not first:
            return []
        places = await self._link.redis.zrange(blocks, int(first[0]), "+inf", byscore=True, offset=0, num=_BLOCKS)
        pipeline = self._link.redis.pipeline(transaction=False)
        for place in places:
            pipeline.hget(records_key(id_, int(place)), place)
        bodies = await pipeline.execute()
        return [(int(place), body) for place, body in zip(places, bodies, strict=True) if body is not None]
