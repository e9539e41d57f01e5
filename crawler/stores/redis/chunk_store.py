"""The chunks of Tasks in Redis: kept, begun, ended, one after the other in each chain."""

import time
import zlib
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Final

import msgspec

from crawler.core.errors import TaskNotFound
from crawler.stores.redis.chunking import Chunk, ChunkLine
from crawler.stores.redis.connection import RedisConnection
from crawler.stores.redis.keys import chunks_key, common, own
from crawler.stores.redis.scripts import CHAINS

__all__ = ["ChunkPosition", "ChunkStore"]

_AT_ONCE: Final = 500  # chunks, or chains, of one command
_STALE: Final = 86_400.0  # seconds after which a batch that was never admitted is dropped

_works: Final = msgspec.msgpack.Decoder(list[ChunkLine])


class ChunkPosition(msgspec.Struct, frozen=True, array_like=True):
    """A chunk of a Task: the `place`-th of a chain."""

    chain: int
    place: int

    def __str__(self) -> str:
        return f"{self.chain}.{self.place}"


class ChunkStore:
    """What there is to do. All methods may raise `StoreError`.

    Args:
        link: The connections.
    """

    def __init__(self, link: RedisConnection) -> None:
        self._link = link
        self._works: dict[str, dict[int, ChunkLine]] = defaultdict(dict)
        self._begun: dict[tuple[str, ChunkPosition], set[int]] = {}

    async def heads(self, task_id: str) -> list[ChunkPosition]:
        """The chunks that a Task can go on with: one of each chain that has not ended."""
        found = []
        with self._link.guarded("read"):
            async for chain, state in self._link.redis.hscan_iter(own(task_id, "chains"), count=_AT_ONCE):
                found.append(ChunkPosition(int(chain), int(state.partition(b"/")[0])))
        return sorted(found, key=lambda turn: turn.chain)

    async def begin(self, task_id: str, turn: ChunkPosition, start: str) -> tuple[list[ChunkLine], int]:
        """The targets of a chunk that have no record yet, and how often it was begun without coming to its end.

        A start, whose name is nobody else's, counts once, however often it is told.
        """
        with self._link.guarded("write"):
            starts = await self._link.scripts["begin"](
                keys=[own(task_id), own(task_id, "starts"), common("redelivered")], args=[str(turn), start]
            )
        if not starts:
            raise TaskNotFound(task_id)
        works = await self._unrecorded(task_id, await self._kept(task_id, turn))
        self._works[task_id] |= {work.seq: work for work in works}
        self._begun[task_id, turn] = {work.seq for work in works}
        return works, starts

    async def redelivered(self) -> int:
        """How often a chunk was begun again that had not come to its end, of all Tasks ever."""
        with self._link.guarded("read"):
            return int(await self._link.redis.get(common("redelivered")) or 0)

    async def suspects(self, task_id: str, turn: ChunkPosition) -> set[int]:
        """The positions of those targets of a chunk that were probed apart when a worker ended last."""
        with self._link.guarded("read"):
            body = await self._link.redis.hget(own(task_id, "suspects"), str(turn))
        return set() if body is None else msgspec.json.decode(body, type=set[int])

    async def suspect(self, task_id: str, turn: ChunkPosition, seqs: list[int]) -> None:
        """Take note that these are about to be probed apart."""
        with self._link.guarded("write"):
            await self._link.scripts["suspect"](
                keys=[own(task_id), own(task_id, "suspects")], args=[str(turn), msgspec.json.encode(seqs)]
            )

    async def leave(self, task_id: str, turn: ChunkPosition) -> None:
        """Take note that a chunk is left as far as it is, in good order."""
        self.forget(task_id, turn)
        with self._link.guarded("write"):
            pipeline = self._link.redis.pipeline()
            for name in ("starts", "suspects"):  # of these, none has ended a worker by that
                pipeline.hdel(own(task_id, name), str(turn))
            await pipeline.execute()

    async def advance(self, task_id: str, turn: ChunkPosition) -> ChunkPosition | None:
        """End a chunk, all of which is recorded; gives the next of its chain."""
        self.forget(task_id, turn)
        keys = [own(task_id, "chains"), chunks_key(task_id, turn.chain)]
        keys += [own(task_id, "starts"), own(task_id, "suspects")]
        with self._link.guarded("write"):
            place = await self._link.scripts["advance"](keys=keys, args=[turn.chain, turn.place])
        return ChunkPosition(turn.chain, place) if place >= 0 else None

    async def sweep(self) -> None:
        """Drop what is left of batches whose process ended before they were admitted, or before it had dropped it."""
        before = time.time() - _STALE
        with self._link.guarded("read"):
            ids = await self._link.redis.zrange(common("coming"), "-inf", before, byscore=True)
        for id_ in ids:
            await self._drop(id_.decode(), before)

    async def expect(self, id_: str) -> None:
        """Take note that a batch comes; where it is not admitted in the end, `sweep` finds it."""
        with self._link.guarded("write"):
            await self._link.redis.zadd(common("coming"), {id_: time.time()})

    async def put(self, id_: str, chunks: list[Chunk]) -> None:
        """Keep chunks of a batch that is expected; once that is dropped, nothing of it is kept any more."""
        for start in range(0, len(chunks), _AT_ONCE):
            parts: list[int | bytes] = []
            for chunk in chunks[start : start + _AT_ONCE]:
                parts += chunk.chain, chunk.place, zlib.compress(msgspec.msgpack.encode(chunk.works), 1)
            with self._link.guarded("write"):
                await self._link.scripts["put"](
                    keys=[common("coming"), own(id_, "chains")],
                    args=[id_, time.time(), own(id_, "chunks:"), CHAINS, *parts],
                )

    async def drop(self, id_: str) -> None:
        """Drop all that there is to do of a Task, or of a batch that does not become one."""
        await self._drop(id_)

    async def _drop(self, id_: str, before: float | None = None) -> None:
        with self._link.guarded("write"):
            await self._link.scripts["drop"](
                keys=[common("coming"), *(own(id_, name) for name in ("chains", "starts", "suspects"))],
                args=[id_, own(id_, "chunks:"), CHAINS, "" if before is None else before],
            )

    async def pending(self, task_id: str) -> AsyncIterator[ChunkLine]:
        """All that has no record yet."""
        for turn in await self.heads(task_id):
            place = turn.place
            while works := await self._kept(task_id, ChunkPosition(turn.chain, place)):
                for work in await self._unrecorded(task_id, works):
                    yield work
                place += 1

    async def works_of(self, task_id: str, seqs: set[int]) -> dict[int, ChunkLine]:
        """The targets of these positions."""
        works = self._works[task_id]
        if seqs - works.keys():  # begun by nobody here: they are looked for
            async for work in self.pending(task_id):
                if work.seq in seqs:
                    works[work.seq] = work
        return {seq: works[seq] for seq in seqs if seq in works}

    def recorded(self, task_id: str, seqs: set[int]) -> None:
        """Remember these targets no more."""
        works = self._works[task_id]
        for seq in seqs:
            works.pop(seq, None)
        if not works:
            del self._works[task_id]

    def forget(self, task_id: str, turn: ChunkPosition) -> None:
        """Remember nothing of a chunk that was begun."""
        self.recorded(task_id, self._begun.pop((task_id, turn), set()))

    async def _kept(self, task_id: str, turn: ChunkPosition) -> list[ChunkLine]:
        """A chunk; empty if there is none."""
        with self._link.guarded("read"):
            body = await self._link.redis.hget(chunks_key(task_id, turn.chain), str(turn))
        return [] if body is None else _works.decode(zlib.decompress(body))

    async def _unrecorded(self, task_id: str, works: list[ChunkLine]) -> list[ChunkLine]:
        """Those of which a line has no record: the first, or of those that ask for the same the last."""
        if not works:
            return []
        lasts = {work.seq: work.twins[-1][0] if work.twins else work.seq for work in works}
        with self._link.guarded("read"):
            found = await self._link.scripts["recorded"](
                keys=[own(task_id, "bits")], args=list({*lasts, *lasts.values()})
            )
        have = set(found)
        return [work for work in works if not {work.seq, lasts[work.seq]} <= have]
