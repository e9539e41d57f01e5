"""Tasks in Redis, shared by any number of processes on any number of machines.

This process keeps a copy of the Tasks themselves (`TaskCache`); their lines (`ChunkStore`) and results (`ResultStore`)
stay in Redis. `keys` describes the data there.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from functools import partial
from types import MappingProxyType
from typing import Self

import msgspec

from crawler.core.errors import (
    TASK_RETRY_SECONDS,
    IdempotencyKeyTaken,
    InputError,
    QuotaExceeded,
    StoreDamaged,
    StoreError,
    TaskNotFound,
    TransitionError,
)
from crawler.core.options import Options
from crawler.core.results import ProbeResult
from crawler.core.tasks import Task
from crawler.core.urls import Target
from crawler.registry import Lines, PageReader, Registry
from crawler.runtime.turns import Turns
from crawler.stores.redis.chunk_store import ChunkStore
from crawler.stores.redis.chunking import cut_into_chunks
from crawler.stores.redis.connection import RedisConnection
from crawler.stores.redis.keys import idempotency_field, shared_key, task_key
from crawler.stores.redis.result_store import ResultStore
from crawler.stores.redis.settings import FleetSettings
from crawler.stores.redis.task_cache import TaskCache
from crawler.stores.redis.task_hash import FIELDS, decode_options, encode_fields, merge_counts

__all__ = ["RedisRegistry"]


class RedisRegistry(Registry):
    """Keeps Tasks in a Redis, or a Valkey, that all processes with the same URL share.

    Args:
        url: As redis-py reads it: `redis://`, `rediss://` (TLS) or `unix://`, with user, password and database.
        settings: Sizes and times; also those of the engine and the worker processes that use this registry.

    Attributes:
        url: As given.
        settings: As given.
        location: The URL without its secrets.
        chunks: The lines that are left to probe.
    """

    is_shared = True

    def __init__(self, url: str, settings: FleetSettings | None = None) -> None:
        super().__init__()
        self.url = url
        self.settings = settings or FleetSettings()
        self._connection = RedisConnection(url, self.calls, self.settings.answer_seconds)
        self._cache = TaskCache(self._connection, self._notify, self._announce)
        self._results = ResultStore(self._connection)
        self.chunks = ChunkStore(self._connection, self.settings.unadmitted_batch_seconds)
        self.location = self._connection.location

    async def __aenter__(self) -> Self:
        """Connect, and read the Tasks.

        Raises:
            InputError: The URL is wrong, or Redis does not answer there or holds something else.
        """
        await self._connection.open()
        try:
            await self._cache.open()
        except StoreDamaged as error:
            await self._connection.close()
            raise InputError(f"cannot be used: {error}", self.location) from None
        return self

    async def __aexit__(self, *exception: object) -> None:
        """Disconnect."""
        await super().__aexit__(*exception)
        await self._cache.close()
        await self._connection.close()

    @property
    def tasks(self) -> Mapping[str, Task]:
        """The Tasks that this process knows, by id, oldest first."""
        return MappingProxyType(self._cache.tasks)

    async def fetch(self, task_id: str) -> Task:
        """Return the Task with this id, as Redis has it now."""
        if ":" in task_id:  # another key of a Task
            raise TaskNotFound(task_id)
        await self._cache.read([task_id])
        return self.task(task_id)

    async def refresh(self) -> None:
        """Update `tasks` to what Redis has now."""
        await self._cache.refresh()

    def leadership(self) -> AbstractAsyncContextManager[asyncio.Event]:
        """Wait until this process is the leader of all that share the Redis."""
        return self._connection.leadership(self.settings.leader_lease_seconds)

    async def find_by_key(self, owner: str | None, key: str) -> Task | None:
        """Return the Task that a client submitted with an idempotency key."""
        with self._connection.call("read"):
            task_id = await self._connection.redis.hget(shared_key("keys"), idempotency_field(owner, key))
        with suppress(TaskNotFound):
            return None if task_id is None else await self.fetch(task_id.decode())
        return None

    async def options(self, task_id: str) -> Options:
        """Return the options as they were stored."""
        with self._connection.call("read"):
            body = await self._connection.redis.hget(task_key(self.task(task_id).id), "options")
        if body is None:
            raise TaskNotFound(task_id)
        return decode_options(body)

    def _release(self, task: Task) -> None:
        task.options = task.options.without_header_values()

    async def stored_bytes(self) -> int:
        """Compressed bytes of all results. Deleting a Task lowers it at once, though Redis frees the memory later."""
        with self._connection.call("read"):
            return int(await self._connection.redis.get(shared_key("bytes")) or 0)

    async def read_note(self, name: str) -> bytes | None:
        """Return what Redis has under this name."""
        with self._connection.call("read"):
            note: bytes | None = await self._connection.redis.hget(shared_key("notes"), name)
        return note

    async def write_note(self, name: str, note: bytes) -> None:
        """Store a note for all processes."""
        with self._connection.call("write"):
            await self._connection.redis.hset(shared_key("notes"), name, note)

    async def check_writable(self) -> None:
        """Raise `StoreError` if nothing can be stored now."""
        await self._connection.check()

    async def _insert(self, task: Task, lines: Lines) -> None:
        try:
            await self.chunks.announce(task.id)
            size, slice_ = self.settings.targets_per_chunk, self.settings.lines_per_slice
            async for task.total, chunks in cut_into_chunks(lines, targets_per_chunk=size, lines_per_slice=slice_):
                await self.chunks.add(task.id, chunks)
            await self._admit(task)
        except BaseException:  # also if Redis may have admitted the Task: no client knows it
            with suppress(StoreError):
                await self._drop(task)
            raise
        if (known := self._cache.tasks.get(task.id)) is not None:  # the published message has arrived first
            merge_counts(task, dict(known.counts.by_outcome()))
            task.status, task.detail, task.finished = known.status, known.detail, known.finished
        self._cache.tasks[task.id] = task

    async def _admit(self, task: Task) -> None:
        key = _idempotency_field(task)
        fields = {**encode_fields(task, FIELDS), "done": "0"}
        shared = (shared_key(name) for name in ("tasks", "keys", "coming", "number", "running"))
        with self._connection.call("write"):
            answer = await self._connection.scripts["admit"](
                keys=[task_key(task.id), *shared],
                args=[
                    task.id, key, shared_key("changes"), task_key(""), task.owner or "",
                    self.most_running_of_owner, self.most_running, *_flatten(fields),
                ],
            )  # fmt: skip
        if answer == 0:
            raise IdempotencyKeyTaken(key)
        if answer == -2:
            raise QuotaExceeded("token-tasks", self.most_running_of_owner, TASK_RETRY_SECONDS)
        if answer == -3:
            raise QuotaExceeded("running-tasks", self.most_running, TASK_RETRY_SECONDS)
        if answer < 0:
            raise StoreError(f"{self.location}: the lines of Task {task.id} were dropped before it was stored")

    async def _record(self, task: Task, results: Sequence[ProbeResult]) -> None:
        seqs = {result.seq for result in results}
        lines = await self.chunks.find_lines(task.id, seqs)
        by_seq: dict[int, ProbeResult] = {}
        turns = Turns()
        for result in results:
            if result.seq in lines:
                by_seq.setdefault(result.seq, result)
                for seq, text in lines[result.seq].duplicates:
                    by_seq.setdefault(seq, result.copy_for_line(seq, text))
                    if turns.is_over:
                        await turns.next()
        await self._results.add(task, list(by_seq.values()))
        self.chunks.forget_lines(task.id, seqs)

    async def _save(self, task: Task, names: Collection[str]) -> None:
        new_status = msgspec.json.encode(task.status).decode() if "status" in names else ""
        fields = _flatten(encode_fields(task, names))
        async with self._connection.task_call("write", task.id):
            answer = await self._connection.scripts["save"](
                keys=[task_key(task.id), shared_key("coming"), shared_key("running")],
                args=[task.id, shared_key("changes"), new_status, time.time(), *fields],
            )
        if answer == b"gone":
            raise TaskNotFound(task.id)
        if answer == b"ended" or (new_status and answer == b"saved"):
            with suppress(StoreError):  # then `drop_stale_batches` drops them
                await self.chunks.drop(task.id)
        if answer != b"saved":
            raise TransitionError(f"Task {task.id} cannot go to {task.status}: it is {answer.decode()}")

    async def _delete(self, task: Task) -> None:
        was_stored = await self._drop(task)
        self._cache.forget(task.id)
        if not was_stored:
            raise TaskNotFound(task.id)

    async def _drop(self, task: Task) -> bool:
        """Drop a Task, or a batch that was not admitted; returns whether it was a Task."""
        await self.chunks.drop(task.id)
        keys = [task_key(task.id), *(shared_key(name) for name in ("tasks", "keys", "bytes", "running"))]
        expire_ms = int(self.settings.reader_seconds * 1000)
        with self._connection.call("write"):
            was_stored: int = await self._connection.scripts["delete"](
                keys=[*keys, *self._results.keys(task)],
                args=[task.id, _idempotency_field(task), shared_key("changes"), expire_ms],
            )
        return bool(was_stored)

    async def _pending(self, task: Task) -> AsyncIterator[Target]:
        async for line in self.chunks.pending(task.id):
            yield line.target

    @contextmanager
    def _reader(self, task: Task) -> Iterator[PageReader]:
        if task.id not in self._cache.tasks:
            raise TaskNotFound(task.id)
        yield partial(self._results.read, task)


def _idempotency_field(task: Task) -> str:
    """Return the field of the Task's idempotency key; empty if it has none."""
    return "" if task.idempotency is None else idempotency_field(task.owner, task.idempotency.key)


def _flatten(fields: Mapping[str, str]) -> list[str]:
    return [part for field in fields.items() for part in field]
