"""Tasks in Redis: any number of processes, on any number of machines, have them in common.

What a process knows of the Tasks themselves is a copy, a kilobyte each, that changes as Redis publishes it; lines and
records stay in Redis. `stores.scripts` has what is there.
"""

import asyncio
import logging
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from types import MappingProxyType, TracebackType
from typing import Any, Final, Self, get_args

import msgspec
import redis as sync_redis
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import OutOfMemoryError, RedisError
from redis.exceptions import TimeoutError as NoAnswer

from crawler.ending import end
from crawler.errors import InputError, KeyTaken, StoreError, StoreFull, TaskNotFound, TransitionError
from crawler.logs import about
from crawler.models import Counts, Outcome, Page, ProbeResult, Task, Where
from crawler.registry import Lines, Reader, Registry, is_wanted
from crawler.stores.chunks import Chunk, Work, chunks_of
from crawler.stores.scripts import CHAINS, SCRIPTS, SHARD
from crawler.targets import Target

__all__ = ["RedisRegistry", "Turn"]

log = logging.getLogger(__name__)

OUTCOMES: Final[tuple[Outcome, ...]] = get_args(Outcome)
_FIELDS: Final = tuple(name for name in Task.__struct_fields__ if name != "counts")

_ANSWER: Final = 5.0  # seconds for Redis to answer
_TRIES: Final = 3  # of a command whose connection was lost; each is safe to repeat
_AGAIN: Final = 1.0  # seconds until a lost subscription is made again
_CONNECTIONS: Final = 64
_LEAD: Final = 20.0  # seconds without a sign of life, after which another process keeps house
_BLOCK: Final = 500  # records that are kept together
_BLOCKS: Final = 40  # that are looked through in one call
_LINGER: Final = 600  # seconds for which the records of a deleted Task can still be read by who has begun to
_STALE: Final = 86_400.0  # seconds after which a batch that was never admitted is dropped
_AT_ONCE: Final = 500  # commands of one pipeline

_records: Final = msgspec.json.Decoder(list[ProbeResult])
_works: Final = msgspec.msgpack.Decoder(list[Work])
_counts: Final = msgspec.json.Decoder(dict[Outcome, int])


class Turn(msgspec.Struct, frozen=True, array_like=True):
    """A chunk of a Task: the `place`-th of a chain."""

    chain: int
    place: int

    def __str__(self) -> str:
        return f"{self.chain}.{self.place}"


class RedisRegistry(Registry):
    """Keeps Tasks in a Redis, or a Valkey, that all processes with the same URL share.

    Args:
        url: As redis-py reads it: `redis://`, `rediss://` (TLS) or `unix://`, with user, password and database.

    Attributes:
        place: The URL without its secrets.
    """

    is_shared = True

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url
        self.place = _without_secrets(url)
        self._tasks: dict[str, Task] = {}
        self._works: dict[str, dict[int, Work]] = defaultdict(dict)
        self._begun: dict[tuple[str, Turn], list[int]] = {}
        self._stale: set[str] = set()
        self._is_stale = asyncio.Event()

    async def __aenter__(self) -> Self:
        """Connect, and read what Tasks there are.

        Raises:
            InputError: The URL is none, or nothing answers there.
        """
        retry = Retry(ExponentialBackoff(cap=0.5, base=0.02), _TRIES)
        try:
            self._redis: Any = Redis.from_url(  # redis-py types its answers as unions of all there are
                self.url, socket_timeout=_ANSWER, socket_connect_timeout=_ANSWER, max_connections=_CONNECTIONS,
                retry=retry, retry_on_error=[NoConnection, NoAnswer], health_check_interval=30,
            )  # fmt: skip
        except ValueError as error:
            raise InputError(str(error), self.place) from None
        self._scripts = {name: self._redis.register_script(text) for name, text in SCRIPTS.items()}
        self._subscribed = asyncio.Event()
        try:
            await self._redis.ping()
        except (RedisError, OSError) as error:
            await self._redis.aclose()
            raise InputError(f"cannot be used: {error}", self.place) from None
        self._listening = [asyncio.ensure_future(work) for work in (self._listen(), self._follow_stale())]
        await self._subscribed.wait()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnect."""
        await super().__aexit__(kind, error, trace)
        await end(self._listening)
        with suppress(RedisError, OSError):
            await self._redis.aclose()

    @property
    def tasks(self) -> Mapping[str, Task]:
        """All Tasks by id, oldest first, as far as this process has heard."""
        return MappingProxyType(self._tasks)

    async def fresh(self, task_id: str) -> Task:
        """The Task of this id, as it is in Redis now."""
        if (await self._look([task_id]))[task_id] is None:
            raise TaskNotFound(task_id)
        return self._tasks[task_id]

    async def refresh(self) -> None:
        """Have in `tasks` those that are in Redis now."""
        with self._guarded("read"):
            ids = [id_.decode() for id_ in await self._redis.zrange(_common("tasks"), 0, -1)]
        for gone in set(self._tasks).difference(ids):
            self._forget(gone)
        wanted = [id_ for id_ in ids if id_ not in self._tasks or self._tasks[id_].status == "running"]
        await self._look(wanted)
        if list(self._tasks) != ids:  # as many as one gets to know in another order than they were made
            self._tasks = {id_: self._tasks[id_] for id_ in ids if id_ in self._tasks}

    async def with_key(self, owner: str | None, key: str) -> Task | None:
        """The Task that its owner submitted under an idempotency key."""
        with self._guarded("read"):
            id_ = await self._redis.hget(_common("keys"), _owned(owner, key))
        with suppress(TaskNotFound):
            return None if id_ is None else await self.fresh(id_.decode())
        return None

    @asynccontextmanager
    async def leading(self) -> AsyncIterator[asyncio.Event]:
        """Wait until this process may do what only one does at a time."""
        lock = self._redis.lock(_common("leader"), timeout=_LEAD, sleep=_LEAD / 4, thread_local=False)
        lost = asyncio.Event()
        with self._guarded("write"):
            await lock.acquire()
        renewing = asyncio.ensure_future(self._renew(lock, lost))
        try:
            yield lost
        finally:
            await end([renewing])
            with suppress(RedisError, OSError):
                await lock.release()

    async def _renew(self, lock: Any, lost: asyncio.Event) -> None:
        try:
            while True:
                await asyncio.sleep(_LEAD / 4)
                await lock.reacquire()
        except (RedisError, OSError) as error:
            log.warning("this process keeps house no more: %s", error)
            lost.set()

    async def size(self) -> int:
        """Bytes of memory that Redis has in use, for whomever."""
        with self._guarded("read"):
            return int((await self._redis.info("memory"))["used_memory"])

    async def sweep(self) -> None:
        """Drop what is left of batches whose process ended before they were admitted."""
        with self._guarded("write"):
            for id_ in await self._redis.zrange(_common("coming"), "-inf", time.time() - _STALE, byscore=True):
                await self._drop_coming(id_.decode())

    # What engines ask for.

    async def heads(self, task_id: str) -> list[Turn]:
        """The chunks that a Task can go on with: one of each chain that has not ended."""
        found = []
        with self._guarded("read"):
            async for chain, state in self._redis.hscan_iter(_own(task_id, "chains"), count=_AT_ONCE):
                found.append(Turn(int(chain), int(state.partition(b"/")[0])))
        return sorted(found, key=lambda turn: turn.chain)

    async def begin(self, task_id: str, turn: Turn) -> tuple[list[Work], int]:
        """The targets of a chunk that have no record yet, and how often it was begun without coming to its end."""
        with self._guarded("write"):
            starts = await self._redis.hincrby(_own(task_id, "starts"), str(turn), 1)
            works = await self._unrecorded(task_id, turn)
        self._works[task_id] |= {work.seq: work for work in works}
        self._begun[task_id, turn] = [work.seq for work in works]
        return works, starts

    async def suspects(self, task_id: str, turn: Turn) -> set[int]:
        """The positions of those targets of a chunk that were probed apart when a worker ended last."""
        with self._guarded("read"):
            body = await self._redis.hget(_own(task_id, "suspects"), str(turn))
        return set() if body is None else msgspec.json.decode(body, type=set[int])

    async def suspect(self, task_id: str, turn: Turn, seqs: list[int]) -> None:
        """Take note that these are about to be probed apart."""
        with self._guarded("write"):
            await self._redis.hset(_own(task_id, "suspects"), str(turn), msgspec.json.encode(seqs))

    async def check(self) -> None:
        """See that something could be kept now; StoreError if not."""
        with self._guarded("write"):
            await self._redis.set(_common("check"), 1, ex=_LINGER)

    async def leave(self, task_id: str, turn: Turn) -> None:
        """Take note that a chunk is left as far as it is, in good order."""
        self._drop_works(task_id, turn)
        with self._guarded("write"):
            await self._redis.hdel(_own(task_id, "starts"), str(turn))

    async def advance(self, task_id: str, turn: Turn) -> Turn | None:
        """End a chunk, all of which is recorded; gives the next of its chain."""
        self._drop_works(task_id, turn)
        keys = [_own(task_id, "chains"), _chunks_key(task_id, turn.chain)]
        keys += [_own(task_id, "starts"), _own(task_id, "suspects")]
        with self._guarded("write"):
            place = await self._scripts["advance"](keys=keys, args=[turn.chain, turn.place])
        return Turn(turn.chain, place) if place >= 0 else None

    # What a store fills in.

    async def _insert(self, task: Task, lines: Lines) -> None:
        id_, chains = task.id, 0
        try:
            async for task.total, chunks in chunks_of(lines):
                with self._guarded("write"):
                    await self._put_chunks(id_, chunks)
                chains = max([chains, *(chunk.chain + 1 for chunk in chunks)])
            key = "" if task.idempotency is None else _owned(task.owner, task.idempotency.key)
            with self._guarded("write"):
                fields = {**_encoded(task, _FIELDS), "done": "0", "shards": str(-(-chains // CHAINS))}
                admitted = await self._scripts["admit"](
                    keys=[_own(id_), _common("tasks"), _common("keys"), _common("coming"), _common("number")],
                    args=[id_, key, _common("changes"), *(part for field in fields.items() for part in field)],
                )
            if not admitted:
                raise KeyTaken(key)
        except BaseException:
            with suppress(RedisError, OSError):
                await self._drop_coming(id_)
            raise
        if (known := self._tasks.get(id_)) is not None:  # it was heard of before this was
            _count(task, dict(known.counts.by_outcome()))
            task.status, task.detail, task.finished = known.status, known.detail, known.finished
        self._tasks[id_] = task

    async def _record(self, task: Task, results: Sequence[ProbeResult]) -> None:
        works = await self._works_of(task.id, {result.seq for result in results})
        records: dict[int, ProbeResult] = {}
        for result in results:
            if result.seq in works:
                records.setdefault(result.seq, result)
                for seq, text in works[result.seq].twins:
                    records.setdefault(seq, result.restamp(seq, text))
        waiting = list(records.values())
        for start in range(0, len(waiting), _BLOCK):
            await self._keep(task, waiting[start : start + _BLOCK])
        for result in results:
            self._works[task.id].pop(result.seq, None)

    async def _save(self, task: Task, names: Collection[str]) -> None:
        ends = msgspec.json.encode(task.status).decode() if "status" in names else ""
        fields = _encoded(task, names)
        with self._guarded("write"):
            saved = await self._scripts["save"](
                keys=[_own(task.id)],
                args=[task.id, _common("changes"), ends, *(part for field in fields.items() for part in field)],
            )
        if saved == b"gone":
            raise TaskNotFound(task.id)
        if saved != b"saved":
            raise TransitionError(f"task {task.id} cannot go to {task.status}: it is {saved.decode()}")

    async def _delete(self, task: Task) -> None:
        id_ = task.id
        with self._guarded("write"):
            shards = int(await self._redis.hget(_own(id_), "shards") or 0)
            data = [_own(id_, name) for name in ("chains", "bits", "blocks", "starts", "suspects")]
            data += _chunk_keys(id_, shards)
            data += [_records_key(id_, shard * SHARD) for shard in range(task.total // SHARD + 1)]
            key = "" if task.idempotency is None else _owned(task.owner, task.idempotency.key)
            was_there = await self._scripts["delete"](
                keys=[_own(id_), _common("tasks"), _common("keys"), _own(id_, "chains"), *data],
                args=[id_, key, _common("changes"), _LINGER],
            )
        self._forget(id_)
        if not was_there:
            raise TaskNotFound(id_)

    async def _pending(self, task: Task) -> AsyncIterator[Target]:
        for head in await self.heads(task.id):
            turn = head
            while True:
                with self._guarded("read"):
                    if not await self._redis.hexists(_chunks_key(task.id, turn.chain), str(turn)):
                        break
                    works = await self._unrecorded(task.id, turn)
                self._works[task.id] |= {work.seq: work for work in works}
                for work in works:
                    yield work.target
                turn = Turn(turn.chain, turn.place + 1)

    @contextmanager
    def _reader(self, task: Task) -> Iterator[Reader]:
        if task.id not in self._tasks:
            raise TaskNotFound(task.id)

        async def read(start: int, limit: int, where: Where) -> Page:
            with self._guarded("read"):
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
                            return Page(found, place)
            return Page(found, place)

        yield read

    def _found(self, task: Task) -> Sequence[ProbeResult]:
        here: Any
        with self._guarded("read"), sync_redis.Redis.from_url(self.url, socket_timeout=_ANSWER) as here:
            places = [int(place) for place in here.zrange(_own(task.id, "blocks"), 0, -1)]
            bodies = [here.hget(_records_key(task.id, place), str(place)) for place in places]
        found = [record for body in bodies if body for record in _records.decode(zlib.decompress(body))]
        return tuple(found[: task.counts.done])

    # The copy of the Tasks.

    async def _listen(self) -> None:
        """Hear what others change; what was missed while nobody listened is read."""
        while True:
            try:
                async with self._redis.pubsub() as subscription:
                    await subscription.subscribe(_common("changes"))
                    await self.refresh()
                    self._subscribed.set()
                    async for message in subscription.listen():
                        if message["type"] == "message":
                            self._hear(message["data"])
            except (RedisError, OSError, StoreError) as error:
                log.warning("%s does not answer, which is tried again: %s", self.place, error)
            await asyncio.sleep(_AGAIN)

    def _hear(self, message: bytes) -> None:
        """A Task has changed: these are its counts, or it has to be looked at."""
        id_, brace, counts = message.decode().partition("{")
        task = self._tasks.get(id_)
        if brace and task is not None:
            _count(task, _counts.decode(brace + counts))
            self._tell(id_)
        else:
            self._stale.add(id_)
            self._is_stale.set()

    async def _follow_stale(self) -> None:
        while True:
            await self._is_stale.wait()
            self._is_stale.clear()
            ids, self._stale = self._stale, set()
            try:
                await self._look(list(ids))
            except StoreError:
                self._stale |= ids  # the subscription is lost too; they are read when it is made again
                await asyncio.sleep(_AGAIN)
                self._is_stale.set()

    async def _look(self, ids: list[str]) -> dict[str, Task | None]:
        """Read Tasks."""
        found: dict[str, Task | None] = {}
        for start in range(0, len(ids), _AT_ONCE):
            some = ids[start : start + _AT_ONCE]
            with self._guarded("read"):
                pipeline = self._redis.pipeline(transaction=False)
                for id_ in some:
                    pipeline.hgetall(_own(id_))
                all_fields = await pipeline.execute()
            for id_, fields in zip(some, all_fields, strict=True):
                found[id_] = self._know(id_, fields)
        return found

    def _know(self, id_: str, fields: dict[bytes, bytes]) -> Task | None:
        if not fields:
            self._forget(id_)
            return None
        try:
            task = _decoded(fields)
        except (msgspec.MsgspecError, InputError) as error:  # it stays where it is, for a version that can
            with about(task=id_):
                log.error("task %s cannot be read and is left out: %s", id_, error)
            return None
        if (known := self._tasks.get(id_)) is None:
            self._tasks[id_] = task
            self._welcome(task)
        else:
            for name in _FIELDS:
                setattr(known, name, getattr(task, name))
            _count(known, dict(task.counts.by_outcome()))
        self._tell(id_)
        return self._tasks[id_]

    def _forget(self, id_: str) -> None:
        self._works.pop(id_, None)
        if self._tasks.pop(id_, None) is not None:
            self._tell(id_)

    # Chunks and blocks.

    async def _put_chunks(self, id_: str, chunks: list[Chunk]) -> None:
        """Keep chunks of a batch that comes; where it is not admitted in the end, `sweep` finds it."""
        await self._redis.zadd(_common("coming"), {id_: time.time()})
        for start in range(0, len(chunks), _AT_ONCE):
            pipeline = self._redis.pipeline(transaction=False)
            for chunk in chunks[start : start + _AT_ONCE]:
                body = zlib.compress(msgspec.msgpack.encode(chunk.works), 1)
                pipeline.hset(_chunks_key(id_, chunk.chain), str(Turn(chunk.chain, chunk.place)), body)
                pipeline.hset(_own(id_, "chains"), str(chunk.chain), f"0/{chunk.place + 1}")
            await pipeline.execute()

    async def _drop_coming(self, id_: str) -> None:
        chains = [int(chain) for chain in await self._redis.hkeys(_own(id_, "chains"))]
        await self._redis.unlink(_own(id_, "chains"), *_chunk_keys(id_, max(chains, default=0) // CHAINS + 1))
        await self._redis.zrem(_common("coming"), id_)

    async def _unrecorded(self, id_: str, turn: Turn) -> list[Work]:
        body = await self._redis.hget(_chunks_key(id_, turn.chain), str(turn))
        if body is None:
            return []
        works = _works.decode(zlib.decompress(body))
        pipeline = self._redis.pipeline(transaction=False)
        for work in works:
            pipeline.getbit(_own(id_, "bits"), work.seq)
            for seq, _ in work.twins[-1:]:  # the last of a block that may have been the last before an end
                pipeline.getbit(_own(id_, "bits"), seq)
        bits = iter(await pipeline.execute())
        return [work for work in works if not all([next(bits), *(next(bits) for _ in work.twins[-1:])])]

    async def _works_of(self, id_: str, seqs: set[int]) -> dict[int, Work]:
        """The targets of these positions."""
        works = self._works[id_]
        if seqs - works.keys():  # somebody else asked for what is pending: it is looked for
            async for _ in self._pending(self.task(id_)):
                pass
        return {seq: works[seq] for seq in seqs if seq in works}

    def _drop_works(self, id_: str, turn: Turn) -> None:
        for seq in self._begun.pop((id_, turn), []):
            self._works[id_].pop(seq, None)
        if not self._works[id_]:
            del self._works[id_]

    async def _keep(self, task: Task, records: list[ProbeResult]) -> None:
        keys = [_own(task.id), _own(task.id, "bits"), _own(task.id, "blocks")]
        while records:
            body = zlib.compress(msgspec.json.encode(records), 1)
            outcomes = Counter(record.outcome for record in records)
            with self._guarded("write"):
                seen = await self._scripts["record"](
                    keys=keys,
                    args=[
                        task.id, _common("changes"), _own(task.id, "records:"), SHARD, body,
                        msgspec.json.encode(outcomes), *(record.seq for record in records),
                    ],
                )  # fmt: skip
            if isinstance(seen, bytes):
                _count(task, _counts.decode(seen))
                return
            if seen == [-1]:  # it has ended meanwhile
                return
            have = set(seen)
            records = [record for record in records if record.seq not in have]

    async def _read_blocks(self, id_: str, start: int) -> list[tuple[int, bytes]]:
        """The block that a place is in, and some after it."""
        blocks = _own(id_, "blocks")
        first = await self._redis.zrange(blocks, start, "-inf", desc=True, byscore=True, offset=0, num=1)
        if not first:
            return []
        places = await self._redis.zrange(blocks, int(first[0]), "+inf", byscore=True, offset=0, num=_BLOCKS)
        pipeline = self._redis.pipeline(transaction=False)
        for place in places:
            pipeline.hget(_records_key(id_, int(place)), place)
        bodies = await pipeline.execute()
        return [(int(place), body) for place, body in zip(places, bodies, strict=True) if body is not None]

    @contextmanager
    def _guarded(self, kind: str) -> Iterator[None]:
        """A call of a kind, `read` or `write`. What Redis cannot do now is a fault of the store."""
        with self.calls.timed(kind):
            try:
                yield
            except OutOfMemoryError as error:
                raise StoreFull(f"{self.place}: {error}") from None
            except (RedisError, OSError) as error:
                raise StoreError(f"{self.place}: {error}") from None


def _common(name: str) -> str:
    """The key of what all Tasks have in common."""
    return f"crawler:{name}"


def _own(id_: str, name: str = "") -> str:
    """The key of what a Task has."""
    return f"crawler:task:{id_}:{name}" if name else f"crawler:task:{id_}"


def _chunks_key(id_: str, chain: int) -> str:
    return _own(id_, f"chunks:{chain // CHAINS}")


def _chunk_keys(id_: str, shards: int) -> list[str]:
    return [_own(id_, f"chunks:{shard}") for shard in range(shards)]


def _records_key(id_: str, place: int) -> str:
    return _own(id_, f"records:{place // SHARD}")


def _owned(owner: str | None, key: str) -> str:
    """A client's key, which is known to who chose it, and to nobody else."""
    return msgspec.json.encode((owner, key)).decode()


def _encoded(task: Task, names: Collection[str]) -> dict[str, str]:
    return {name: msgspec.json.encode(getattr(task, name)).decode() for name in names}


def _decoded(fields: dict[bytes, bytes]) -> Task:
    body = b",".join(b'"%s":%s' % (name.encode(), fields[name.encode()]) for name in _FIELDS if name.encode() in fields)
    task = msgspec.json.decode(b"{" + body + b"}", type=Task)
    task.counts = Counts(**{outcome: int(fields.get(outcome.encode(), 0)) for outcome in OUTCOMES})
    return task


def _count(task: Task, counts: Mapping[Outcome, int]) -> None:
    """Take counts over; they only grow, so what is less is older."""
    for outcome, count in counts.items():
        setattr(task.counts, outcome, max(count, getattr(task.counts, outcome)))


def _without_secrets(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    return scheme + separator + rest.rpartition("@")[2].partition("?")[0]
