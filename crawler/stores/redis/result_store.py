"""The results of Tasks in Redis: compressed blocks, in the order in which they were recorded."""

import zlib
from collections import Counter
from collections.abc import Sequence
from typing import Final

import msgspec

from crawler.core.errors import TaskNotFound
from crawler.core.results import ProbeResult
from crawler.core.tasks import ResultFilter, ResultSlice, Task
from crawler.registry import passes_filter
from crawler.runtime.turns import Turns
from crawler.stores.redis.connection import RedisConnection
from crawler.stores.redis.keys import OFFSETS_PER_HASH, results_key, results_prefix, shared_key, task_key
from crawler.stores.redis.task_hash import decode_counts, merge_counts

__all__ = ["ResultStore"]

_MAX_RESULTS_PER_BLOCK: Final = 500
_MAX_BYTES_PER_BLOCK: Final = 2**19  # of JSON
_MAX_BLOCKS_PER_READ: Final = 16
_COMPRESSION_LEVEL: Final = 1

_decode_results: Final = msgspec.json.Decoder(list[ProbeResult]).decode


class ResultStore:
    """The recorded results. All methods may raise `StoreError`.

    Args:
        connection: To the Redis that holds the results.
    """

    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection

    async def add(self, task: Task, results: Sequence[ProbeResult]) -> None:
        """Store results and count them in `task`; those of lines that have a result already are dropped."""
        turns = Turns()
        block: list[ProbeResult] = []
        size = 0
        for result in results:
            block.append(result)
            size += result.size
            if len(block) == _MAX_RESULTS_PER_BLOCK or size >= _MAX_BYTES_PER_BLOCK:
                await self._add_block(task, block)
                block, size = [], 0
            if turns.is_over:
                await turns.next()
        if block:
            await self._add_block(task, block)

    async def read(self, task: Task, start: int, limit: int, where: ResultFilter, max_bytes: int) -> ResultSlice:
        """Return results from an offset on, as `Registry.page` does.

        Raises:
            TaskNotFound: The results have been deleted.
        """
        async with self._connection.task_call("read", task.id):
            blocks = await self._read_blocks(task.id, start)
        if not blocks and start < task.counts.done:
            raise TaskNotFound(task.id)
        wanted: list[ProbeResult] = []
        offset, size, turns = start, 0, Turns()
        for block_offset, body in blocks:
            results = _decode_results(zlib.decompress(body))
            for offset, result in enumerate(results[max(0, start - block_offset) :], max(start, block_offset) + 1):
                if passes_filter(result, where):
                    wanted.append(result)
                    size += result.size
                    if len(wanted) == limit or size >= max_bytes:
                        return ResultSlice(wanted, offset)
            if turns.is_over:
                await turns.next()
        return ResultSlice(wanted, offset)

    def keys(self, task: Task) -> list[str]:
        """Return the keys that hold a Task's results."""
        hashes = [results_key(task.id, offset) for offset in range(0, task.total + 1, OFFSETS_PER_HASH)]
        return [task_key(task.id, "bits"), task_key(task.id, "blocks"), *hashes]

    async def _add_block(self, task: Task, results: Sequence[ProbeResult]) -> None:
        keys = [task_key(task.id), task_key(task.id, "bits"), task_key(task.id, "blocks"), shared_key("bytes")]
        while results:
            body = zlib.compress(msgspec.json.encode(results), _COMPRESSION_LEVEL)
            outcomes = Counter(result.outcome for result in results)
            async with self._connection.task_call("write", task.id):
                answer = await self._connection.scripts["record"](
                    keys=keys,
                    args=[
                        task.id,
                        shared_key("changes"),
                        results_prefix(task.id),
                        OFFSETS_PER_HASH,
                        body,
                        msgspec.json.encode(outcomes),
                        *(result.seq for result in results),
                    ],
                )
            if isinstance(answer, bytes):
                merge_counts(task, decode_counts(answer))
                return
            if answer == [-1]:  # the Task has ended meanwhile
                return
            recorded = set(answer)
            results = [result for result in results if result.seq not in recorded]

    async def _read_blocks(self, task_id: str, start: int) -> list[tuple[int, bytes]]:
        """Return the block that contains an offset and some after it, each with its own offset."""
        redis, key = self._connection.redis, task_key(task_id, "blocks")
        first = await redis.zrange(key, start, "-inf", desc=True, byscore=True, offset=0, num=1)
        if not first:
            return []
        offsets = await redis.zrange(key, int(first[0]), "+inf", byscore=True, offset=0, num=_MAX_BLOCKS_PER_READ)
        pipeline = redis.pipeline(transaction=False)
        for offset in offsets:
            pipeline.hget(results_key(task_id, int(offset)), offset)
        bodies = await pipeline.execute()
        return [(int(offset), body) for offset, body in zip(offsets, bodies, strict=True) if body is not None]
