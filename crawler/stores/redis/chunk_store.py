"""The chunks of Tasks in Redis: add, start, complete and drop them. Those of a sequence follow one another."""

import time
import zlib
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Final

import msgspec

from crawler.core.errors import TaskDamaged, TaskNotFound
from crawler.runtime.turns import Turns
from crawler.stores.redis.chunk import Chunk, ChunkLine, ChunkPosition
from crawler.stores.redis.connection import RedisConnection
from crawler.stores.redis.keys import SEQUENCES_PER_HASH, chunks_key, chunks_prefix, shared_key, task_key

__all__ = ["ChunkStore"]

_MAX_CHUNKS_PER_COMMAND: Final = 100
_COMPRESSION_LEVEL: Final = 1

_decode_lines: Final = msgspec.msgpack.Decoder(list[ChunkLine]).decode
_decode_seqs: Final = msgspec.json.Decoder(set[int]).decode


class ChunkStore:
    """The lines that are left to probe, in chunks. All methods may raise `StoreError`.

    The lines of the chunks that this process has started are kept in memory until they are recorded.

    Args:
        connection: To the Redis that holds the chunks.
        unadmitted_batch_seconds: Age at which `drop_stale_batches` drops a batch that has not become a Task.
    """

    def __init__(self, connection: RedisConnection, unadmitted_batch_seconds: float) -> None:
        self._connection = connection
        self._unadmitted_batch_seconds = unadmitted_batch_seconds
        self._lines: dict[str, dict[int, ChunkLine]] = defaultdict(dict)  # of started chunks, by Task and `seq`
        self._started: dict[tuple[str, ChunkPosition], set[int]] = {}  # the `seq`s of each started chunk

    # Batches that are being received

    async def announce(self, task_id: str) -> None:
        """Mark a batch as being received. If it does not become a Task, `drop_stale_batches` drops it."""
        with self._connection.call("write"):
            await self._connection.redis.zadd(shared_key("coming"), {task_id: time.time()})

    async def add(self, task_id: str, chunks: list[Chunk]) -> None:
        """Store chunks of an announced batch. Nothing is stored if the batch has been dropped meanwhile."""
        turns = Turns()
        for start in range(0, len(chunks), _MAX_CHUNKS_PER_COMMAND):
            parts: list[int | bytes] = []
            for chunk in chunks[start : start + _MAX_CHUNKS_PER_COMMAND]:
                body = zlib.compress(msgspec.msgpack.encode(chunk.lines), _COMPRESSION_LEVEL)
                parts += chunk.position.sequence, chunk.position.index, body
                if turns.is_over:
                    await turns.next()
            with self._connection.call("write"):
                await self._connection.scripts["add_chunks"](
                    keys=[shared_key("coming"), task_key(task_id, "chains")],
                    args=[task_id, time.time(), chunks_prefix(task_id), SEQUENCES_PER_HASH, *parts],
                )

    async def drop(self, task_id: str) -> None:
        """Drop all chunks of a Task, or of a batch that does not become one."""
        await self._drop(task_id)

    async def drop_stale_batches(self) -> None:
        """Drop the chunks of batches and ended Tasks whose process crashed before it dropped them."""
        before = time.time() - self._unadmitted_batch_seconds
        with self._connection.call("read"):
            task_ids = await self._connection.redis.zrange(shared_key("coming"), "-inf", before, byscore=True)
        for task_id in task_ids:
            await self._drop(task_id.decode(), before)

    async def _drop(self, task_id: str, before: float | None = None) -> None:
        keys = [task_key(task_id, "chains"), task_key(task_id, "starts"), task_key(task_id, "suspects")]
        with self._connection.call("write"):
            await self._connection.scripts["drop_chunks"](
                keys=[shared_key("coming"), *keys, task_key(task_id)],
                args=[task_id, chunks_prefix(task_id), SEQUENCES_PER_HASH, "" if before is None else before],
            )

    # Work on chunks

    async def next_chunks(self, task_id: str) -> list[ChunkPosition]:
        """Return the next chunk of each sequence that is not finished: these can be probed now."""
        positions = []
        async with self._connection.task_call("read", task_id):
            states = self._connection.redis.hscan_iter(task_key(task_id, "chains"), count=_MAX_CHUNKS_PER_COMMAND)
            async for sequence, state in states:
                positions.append(ChunkPosition(int(sequence), int(state.partition(b"/")[0])))
        return sorted(positions, key=lambda position: position.sequence)

    async def start(self, task_id: str, position: ChunkPosition, start_name: str) -> tuple[list[ChunkLine], int]:
        """Start work on a chunk.

        Args:
            task_id: The Task.
            position: The chunk.
            start_name: Unique. A start with the same name counts once, so this call can be repeated.

        Returns:
            The lines that have no result yet, and how many earlier starts ended in a crash: they neither completed
            nor released the chunk.

        Raises:
            TaskNotFound: The Task does not run any more.
        """
        async with self._connection.task_call("write", task_id):
            starts = await self._connection.scripts["start_chunk"](
                keys=[task_key(task_id), task_key(task_id, "starts"), shared_key("redelivered")],
                args=[str(position), start_name],
            )
        if not starts:
            raise TaskNotFound(task_id)
        lines = await self._pending_of(task_id, await self._load(task_id, position))
        self._lines[task_id] |= {line.seq: line for line in lines}
        self._started[task_id, position] = {line.seq for line in lines}
        return lines, starts - 1

    async def complete(self, task_id: str, position: ChunkPosition) -> ChunkPosition | None:
        """Remove a chunk whose lines all have their result; returns the next chunk of its sequence, if there is one."""
        self.forget_chunk(task_id, position)
        keys = [task_key(task_id, "chains"), chunks_key(task_id, position.sequence)]
        keys += [task_key(task_id, "starts"), task_key(task_id, "suspects")]
        async with self._connection.task_call("write", task_id):
            index = await self._connection.scripts["complete_chunk"](
                keys=keys, args=[position.sequence, position.index]
            )
        return ChunkPosition(position.sequence, index) if index >= 0 else None

    async def release(self, task_id: str, position: ChunkPosition) -> None:
        """Stop work on an unfinished chunk without a crash, and forget the crashes counted so far."""
        self.forget_chunk(task_id, position)
        async with self._connection.task_call("write", task_id):
            pipeline = self._connection.redis.pipeline()
            pipeline.hdel(task_key(task_id, "starts"), str(position))
            pipeline.hdel(task_key(task_id, "suspects"), str(position))
            await pipeline.execute()

    async def redeliveries(self) -> int:
        """Return how often chunks of all Tasks have been started again after a crash."""
        with self._connection.call("read"):
            return int(await self._connection.redis.get(shared_key("redelivered")) or 0)

    async def isolated(self, task_id: str, position: ChunkPosition) -> set[int]:
        """Return the `seq`s that were being probed in isolation when a worker process crashed on this chunk."""
        async with self._connection.task_call("read", task_id):
            body = await self._connection.redis.hget(task_key(task_id, "suspects"), str(position))
        return set() if body is None else _decode_seqs(body)

    async def isolate(self, task_id: str, position: ChunkPosition, seqs: list[int]) -> None:
        """Store which `seqs` of a chunk are about to be probed in isolation."""
        async with self._connection.task_call("write", task_id):
            await self._connection.scripts["isolate"](
                keys=[task_key(task_id), task_key(task_id, "suspects")], args=[str(position), msgspec.json.encode(seqs)]
            )

    # Lines

    async def pending(self, task_id: str) -> AsyncIterator[ChunkLine]:
        """Yield all lines of a Task that have no result yet."""
        for position in await self.next_chunks(task_id):
            index = position.index
            while lines := await self._load(task_id, ChunkPosition(position.sequence, index)):
                for line in await self._pending_of(task_id, lines):
                    yield line
                index += 1

    async def find_lines(self, task_id: str, seqs: set[int]) -> dict[int, ChunkLine]:
        """Return the lines with these `seqs`."""
        lines = self._lines[task_id]
        if seqs - lines.keys():  # this process has not started their chunks
            async for line in self.pending(task_id):
                if line.seq in seqs:
                    lines[line.seq] = line
        return {seq: lines[seq] for seq in seqs if seq in lines}

    def forget_lines(self, task_id: str, seqs: set[int]) -> None:
        """Drop lines from the memory of this process."""
        lines = self._lines[task_id]
        for seq in seqs:
            lines.pop(seq, None)
        if not lines:
            del self._lines[task_id]

    def forget_chunk(self, task_id: str, position: ChunkPosition) -> None:
        """Drop a started chunk from the memory of this process."""
        self.forget_lines(task_id, self._started.pop((task_id, position), set()))

    async def _load(self, task_id: str, position: ChunkPosition) -> list[ChunkLine]:
        """Return the lines of a chunk; none if the chunk does not exist."""
        async with self._connection.task_call("read", task_id):
            body = await self._connection.redis.hget(chunks_key(task_id, position.sequence), str(position))
        try:
            return [] if body is None else _decode_lines(zlib.decompress(body))
        except zlib.error as error:
            raise TaskDamaged(f"its stored data is damaged: chunk {position} cannot be unpacked: {error}") from None

    async def _pending_of(self, task_id: str, lines: list[ChunkLine]) -> list[ChunkLine]:
        """Return the lines without a result, and the lines with a duplicate without a result.

        Results are recorded in the order of the duplicates, so the line and its last duplicate show it for all.
        """
        if not lines:
            return []
        lasts = {line.seq: line.duplicates[-1][0] if line.duplicates else line.seq for line in lines}
        async with self._connection.task_call("read", task_id):
            recorded = set(
                await self._connection.scripts["recorded"](
                    keys=[task_key(task_id, "bits")], args=list({*lasts, *lasts.values()})
                )
            )
        return [line for line in lines if not {line.seq, lasts[line.seq]} <= recorded]
