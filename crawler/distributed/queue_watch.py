"""Whether the queues in Redis pass chunks on to worker processes, and which chunks they have lost.

docket identifies a job by its key, in a record of its own (`runs`). If the stream is deleted, the record stays: docket
takes the chunk for queued or running, and refuses to queue it again.
"""

from collections.abc import Iterable
from typing import Any, Final

from docket import Docket
from redis.exceptions import RedisError, ResponseError

from crawler.core.errors import QueueLost, QueueStalled, StoreDamaged, StoreError

__all__ = ["QueueWatch", "find_lost"]

_KEY_TYPES: Final = {"stream": "stream", "queue": "zset", "workers": "zset", "strikes": "stream"}
_MAX_LEASED: Final = 10_000  # chunks that one search for lost ones looks at


class QueueWatch:
    """Watches one queue.

    Args:
        docket: The queue.
        stalled_after_seconds: How long a chunk may wait while no worker process works.
    """

    def __init__(self, docket: Docket, stalled_after_seconds: float) -> None:
        self._docket = docket
        self._stalled_after_ms = stalled_after_seconds * 1000
        self._added = 0  # chunks that the stream has had so far; a new stream counts anew
        self._delivered: bytes | None = None  # the last one that a worker process took, if no other is worked on

    async def check(self) -> None:
        """Compare the queue with what it was at the last check.

        Raises:
            StoreDamaged: A key of the queue has a wrong type.
            QueueLost: The stream was deleted since the last check.
            QueueStalled: Worker processes are there, and take no chunks.
            StoreError: Redis does not answer.
        """
        try:
            await self._check()
        except (RedisError, OSError) as error:
            raise StoreError(f"the queue {self._docket.name} does not answer: {error}") from None

    async def _check(self) -> None:
        docket = self._docket
        redis: Any
        async with docket.redis() as redis:
            pipeline = redis.pipeline(transaction=False)
            for name in _KEY_TYPES:
                pipeline.type(docket.key(name))
            pipeline.time()
            pipeline.xinfo_stream(docket.stream_key)
            pipeline.xinfo_groups(docket.stream_key)
            *types, (seconds, microseconds), stream, groups = await pipeline.execute(raise_on_error=False)
            for (name, wanted), found in zip(_KEY_TYPES.items(), types, strict=True):
                if found.decode() not in (wanted, "none"):
                    raise StoreDamaged(f"{docket.key(name)} is a {found.decode()}, not a {wanted}")
            added, before = (0 if isinstance(stream, ResponseError) else stream.get("entries-added", 0)), self._added
            self._added = added
            if added < before:
                raise QueueLost(f"{docket.stream_key} was deleted, with the chunks that waited in it")
            if isinstance(groups, ResponseError) or not groups or groups[0]["pending"]:
                self._delivered = None
                return
            delivered, self._delivered = self._delivered, groups[0]["last-delivered-id"]
            if delivered is None or delivered != self._delivered:
                return
            now = seconds * 1000 + microseconds / 1000
            last_beat = seconds - docket.heartbeat_interval.total_seconds() * docket.missed_heartbeats
            waiting = await redis.xrange(docket.stream_key, b"(" + delivered, count=1)
            if (
                waiting
                and now - int(waiting[0][0].partition(b"-")[0]) > self._stalled_after_ms
                and await redis.zcount(docket.key("workers"), last_beat, "+inf")
            ):
                raise QueueStalled(f"{docket.stream_key} has chunks that no worker process takes")


async def find_lost(docket: Docket, keys: Iterable[str]) -> list[str]:
    """Return those of these keys of jobs that docket regards as queued or running, and has no more in its stream.

    A job that runs may be among them. It may then run twice, which chunks allow.
    """
    redis: Any
    async with docket.redis() as redis:
        pipeline = redis.pipeline(transaction=False)
        keys = list(keys)
        for key in keys:
            pipeline.hmget(docket.runs_key(key), "state", "stream_id")
        runs = dict(zip(keys, await pipeline.execute(), strict=True))
        queued = {key: stream_id for key, (_, stream_id) in runs.items() if stream_id is not None}
        for stream_id in queued.values():
            pipeline.xrange(docket.stream_key, stream_id, stream_id)
        found = dict(zip(queued, await pipeline.execute(), strict=True))
        lost = [key for key in queued if not found[key]]
        if running := [key for key, (state, _) in runs.items() if state == b"running"]:
            leased = await _keys_of_leased(docket, redis)
            lost += [key for key in running if key not in leased]
    return lost


async def _keys_of_leased(docket: Docket, redis: Any) -> set[str]:
    try:
        leased = await redis.xpending_range(docket.stream_key, docket.worker_group_name, "-", "+", _MAX_LEASED)
    except ResponseError:  # no such stream
        return set()
    pipeline = redis.pipeline(transaction=False)
    for each in leased:
        pipeline.xrange(docket.stream_key, each["message_id"], each["message_id"])
    return {fields[b"key"].decode() for messages in await pipeline.execute() for _, fields in messages}
