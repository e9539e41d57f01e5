"""A batch cut into chunks for many workers: equal lines found, and each host's lines in one chain of chunks.

The chunks of a chain are probed one after the other, those of different chains side by side. So a host is asked by one
worker at a time, and its limits hold over all of them. A big batch is sorted in a temporary file, as SQLite sorts.
"""

import asyncio
import tempfile
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from functools import partial
from pathlib import Path
from sqlite3 import Connection
from typing import Any, Final, NamedTuple

import msgspec

from crawler.core.results import ProbeError
from crawler.core.urls import Target, iterate
from crawler.registry import Lines
from crawler.runtime.counters import CallCounter
from crawler.stores.sqlite.database import Database, insert, migrate
from crawler.stores.sqlite.ingest import FIND_EQUAL, Row, row_of

__all__ = ["Chunk", "ChunkLine", "chunks_of"]

_SLICE: Final = 2_000  # lines that are taken in, or come back sorted, at once; a batch of fewer is sorted here
_SIZE: Final = 200  # targets of a chunk

_ORDER: Final = """
    CREATE TEMP TABLE ordered AS SELECT id, host FROM placed WHERE id = first ORDER BY host, id"""

_INSERT_TWINS: Final = "INSERT INTO twins (first, seq) SELECT first, id FROM placed WHERE id <> first"

_READ: Final = """
    SELECT json_group_array(json_array(ordered.host, ordered.id, lines.text, lines.problem)) FROM (
        SELECT rowid AS place, id, host FROM ordered WHERE rowid > :start AND rowid <= :end ORDER BY rowid
    ) AS ordered JOIN lines ON lines.id = ordered.id"""

_READ_TWINS: Final = """
    SELECT json_group_array(json_array(twins.first, twins.seq, lines.text)) FROM ordered
    JOIN twins ON twins.first = ordered.id JOIN lines ON lines.id = twins.seq
    WHERE ordered.rowid > :start AND ordered.rowid <= :end"""


class ChunkLine(msgspec.Struct, array_like=True, gc=False):
    """A target of a chunk: its line, why that is no URL, and the other lines that ask for the same."""

    seq: int
    text: str
    problem: ProbeError | None = None
    twins: list[tuple[int, str]] = []

    @property
    def target(self) -> Target:
        """What is probed for it."""
        return Target.of(self.seq, self.text) if self.problem is None else Target(self.seq, self.text, self.problem)


class Chunk(NamedTuple):
    """Targets that one worker probes: the `place`-th of a chain. Hosts take turns in it."""

    chain: int
    place: int
    works: list[ChunkLine]


async def chunks_of(lines: Lines) -> AsyncIterator[tuple[int, list[Chunk]]]:
    """Cut a batch.

    Yields:
        How many lines there were so far, and chunks: those of a chain in their order, each whole.
    """
    waiting: list[Row] = []
    source = iterate(lines)
    async for line in source:
        waiting.append(row_of(line))
        if len(waiting) == _SLICE:
            async for piece in _cut_big(waiting, source):
                yield piece
            return
    packer = _Packer()
    found = [chunk for host, work in _sorted(waiting) for chunk in packer.add(host, work)]
    yield len(waiting), found + list(packer.rest())


def _sorted(rows: list[Row]) -> Iterator[tuple[int, ChunkLine]]:
    """The targets of a small batch, by host and then position."""
    firsts: dict[tuple[int, int], ChunkLine] = {}
    by_host: dict[int, list[ChunkLine]] = defaultdict(list)
    for seq, (key, key2, host, problem, text) in enumerate(rows):
        first = firsts.get((key, key2))
        if first is None:
            firsts[key, key2] = work = ChunkLine(seq, text, _problem(problem), [])
            by_host[host].append(work)
        else:
            first.twins.append((seq, text))
    return ((host, work) for host, works in by_host.items() for work in works)


async def _cut_big(first: list[Row], lines: AsyncIterator[str | bytes]) -> AsyncIterator[tuple[int, list[Chunk]]]:
    with tempfile.TemporaryDirectory(prefix="crawler-") as folder:
        path = Path(folder) / "batch.db"
        migrate(path)
        async with aclosing(Database(path, asyncio.Lock(), CallCounter())) as database:
            total = await _take_in(database, first, lines)
            yield total, []
            await database.call(partial(_sort, total=total))
            packer, start = _Packer(), 0
            while works := await database.call(partial(_read, start=start, end=start + _SLICE)):
                start += _SLICE
                yield total, [chunk for host, work in works for chunk in packer.add(host, work)]
            yield total, list(packer.rest())


async def _take_in(database: Database, waiting: list[Row], lines: AsyncIterator[str | bytes]) -> int:
    total = 0
    async for line in lines:
        if len(waiting) == _SLICE:
            await database.write(partial(_insert, first=total, rows=waiting))
            total, waiting = total + len(waiting), []
        waiting.append(row_of(line))
    await database.write(partial(_insert, first=total, rows=waiting))
    return total + len(waiting)


def _insert(connection: Connection, *, first: int, rows: list[Row]) -> None:
    insert(connection, "lines", [(first + place, *row) for place, row in enumerate(rows)])


def _sort(connection: Connection, *, total: int) -> None:
    connection.execute(FIND_EQUAL, {"base": 0, "total": total})
    connection.execute(_ORDER)
    connection.execute(_INSERT_TWINS)


def _read(connection: Connection, *, start: int, end: int) -> list[tuple[int, ChunkLine]]:
    part = {"start": start, "end": end}
    found: list[Any] = msgspec.json.decode(connection.execute(_READ, part).fetchone()[0])
    twins: dict[int, list[tuple[int, str]]] = defaultdict(list)
    for first, seq, text in msgspec.json.decode(connection.execute(_READ_TWINS, part).fetchone()[0]):
        twins[first].append((seq, text))
    return [(host, ChunkLine(seq, text, _problem(problem), twins.get(seq, []))) for host, seq, text, problem in found]


def _problem(text: str | None) -> ProbeError | None:
    return None if text is None else msgspec.json.decode(text, type=ProbeError)


class _Packer:
    """Fills chunks with whole hosts; one that is larger than a chunk gets a chain of its own."""

    def __init__(self) -> None:
        self._chains = 0
        self._mixed: list[tuple[int, ChunkLine]] = []  # of several hosts
        self._host: int | None = None
        self._works: list[tuple[int, ChunkLine]] = []  # of the host that is being read
        self._chain: int | None = None  # that host's own
        self._place = 0

    def add(self, host: int, work: ChunkLine) -> Iterator[Chunk]:
        """Take a target; those of a host come together."""
        if host != self._host:
            yield from self._end_host()
            self._host = host
        self._works.append((host, work))
        if len(self._works) == _SIZE:
            yield self._of_own_chain()

    def rest(self) -> Iterator[Chunk]:
        """What is not full."""
        yield from self._end_host()
        if self._mixed:
            yield Chunk(self._next_chain(), 0, _by_turns(self._mixed))

    def _end_host(self) -> Iterator[Chunk]:
        if self._chain is not None:
            if self._works:
                yield self._of_own_chain()
        else:
            if len(self._mixed) + len(self._works) > _SIZE:
                yield Chunk(self._next_chain(), 0, _by_turns(self._mixed))
                self._mixed = []
            self._mixed += self._works
        self._works, self._chain, self._place = [], None, 0

    def _of_own_chain(self) -> Chunk:
        # What is no URL is of the host without a name, and nobody is asked for it: each chunk has a chain, and all go
        # side by side.
        if self._chain is None or self._works[0][1].problem is not None:
            self._chain, self._place = self._next_chain(), 0
        chunk = Chunk(self._chain, self._place, [work for _, work in self._works])
        self._place, self._works = self._place + 1, []
        return chunk

    def _next_chain(self) -> int:
        self._chains += 1
        return self._chains - 1


def _by_turns(works: list[tuple[int, ChunkLine]]) -> list[ChunkLine]:
    """By rank within the host, and then position."""
    seen: Counter[int] = Counter()
    ranked = []
    for host, work in works:
        ranked.append((seen[host], work.seq, work))
        seen[host] += 1
    return [work for *_, work in sorted(ranked, key=lambda entry: entry[:2])]
