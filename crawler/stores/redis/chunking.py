"""Cut a batch into chunks for many worker processes: duplicates merged, each host in one sequence of chunks.

The chunks of a sequence are probed one after another, different sequences at the same time. So one worker process at a
time sends requests to a host, and the limits of a host hold across all of them. A big batch is sorted by SQLite in a
temporary file.
"""

import asyncio
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from functools import partial
from operator import itemgetter
from pathlib import Path
from sqlite3 import Connection
from typing import Any, Final

import msgspec

from crawler.core.results import ProbeError
from crawler.registry import Lines
from crawler.runtime.counters import CallCounters
from crawler.runtime.iteration import iterate
from crawler.runtime.turns import Turns
from crawler.stores.ordering import LineKey, PreparedLine, interleave, prepare_line
from crawler.stores.redis.chunk import Chunk, ChunkLine, ChunkPosition
from crawler.stores.sqlite.connection import migrate
from crawler.stores.sqlite.database import Database
from crawler.stores.sqlite.ingest import find_duplicates, insert_lines

__all__ = ["cut_into_chunks"]

_CHARACTERS_PER_SLICE: Final = 2**22  # of the lines that are in memory at once
_CHARACTERS_PER_CHUNK: Final = 2**19  # without those of duplicates

_ORDER: Final = """
    CREATE TEMP TABLE ordered AS SELECT id, host FROM line_firsts WHERE id = first ORDER BY host, id"""

_INSERT_DUPLICATES: Final = "INSERT INTO duplicates (first, seq) SELECT first, id FROM line_firsts WHERE id <> first"

_READ: Final = """
    SELECT json_group_array(json_array(ordered.host, ordered.id, lines.text, lines.problem)) FROM (
        SELECT id, host FROM ordered WHERE rowid > :start AND rowid <= :end ORDER BY rowid
    ) AS ordered JOIN lines ON lines.id = ordered.id"""

_READ_DUPLICATES: Final = """
    SELECT json_group_array(json_array(duplicates.first, duplicates.seq, lines.text)) FROM ordered
    JOIN duplicates ON duplicates.first = ordered.id JOIN lines ON lines.id = duplicates.seq
    WHERE ordered.rowid > :start AND ordered.rowid <= :end"""


async def cut_into_chunks(
    lines: Lines, *, targets_per_chunk: int, lines_per_slice: int
) -> AsyncIterator[tuple[int, list[Chunk]]]:
    """Cut a batch into chunks.

    Args:
        lines: The batch.
        targets_per_chunk: The size of a chunk.
        lines_per_slice: A batch with fewer lines is sorted in memory. The lines of a bigger one are written to and read
            from a temporary file, this many at once.

    Yields:
        The number of lines so far, and complete chunks; those of a sequence in their order.
    """
    packer = _Packer(targets_per_chunk)
    rows: list[PreparedLine] = []
    characters, turns = 0, Turns()
    source = iterate(lines)
    async for line in source:
        if turns.is_over:
            await turns.next()
        rows.append(prepare_line(line))
        characters += len(rows[-1].text)
        if len(rows) == lines_per_slice or characters > _CHARACTERS_PER_SLICE:
            async for part in _cut_on_disk(rows, source, packer, lines_per_slice):
                yield part
            return
    chunks = [chunk for host, line in _sort_in_memory(rows) for chunk in packer.add(host, line)]
    yield len(rows), chunks + list(packer.flush())


def _sort_in_memory(rows: list[PreparedLine]) -> Iterator[tuple[int, ChunkLine]]:
    """Return the distinct lines, grouped by host, in each group by position."""
    by_target: dict[LineKey, ChunkLine] = {}
    by_host: dict[int, list[ChunkLine]] = defaultdict(list)
    for seq, row in enumerate(rows):
        first = by_target.get(row.key)
        if first is None:
            by_target[row.key] = line = ChunkLine(seq, row.text, _decode_problem(row.problem), [])
            by_host[row.host].append(line)
        else:
            first.duplicates.append((seq, row.text))
    return ((host, line) for host, lines in by_host.items() for line in lines)


async def _cut_on_disk(
    rows: list[PreparedLine], source: AsyncIterator[str | bytes], packer: "_Packer", lines_per_slice: int
) -> AsyncIterator[tuple[int, list[Chunk]]]:
    with tempfile.TemporaryDirectory(prefix="crawler-") as folder:
        path = Path(folder) / "batch.db"
        migrate(path)
        async with aclosing(Database(path, asyncio.Lock(), CallCounters())) as database:
            total = await _write_lines(database, rows, source, lines_per_slice)
            yield total, []
            await database.call(_sort)
            start = 0
            while lines := await database.call(partial(_read, start=start, end=start + lines_per_slice)):
                start += lines_per_slice
                yield total, [chunk for host, line in lines for chunk in packer.add(host, line)]
            yield total, list(packer.flush())


async def _write_lines(
    database: Database, rows: list[PreparedLine], source: AsyncIterator[str | bytes], lines_per_slice: int
) -> int:
    total, characters, turns = 0, 0, Turns()
    async for line in source:
        if turns.is_over:
            await turns.next()
        if len(rows) == lines_per_slice or characters > _CHARACTERS_PER_SLICE:
            await database.write(partial(insert_lines, first=total, lines=rows))
            total, rows, characters = total + len(rows), [], 0
        rows.append(prepare_line(line))
        characters += len(rows[-1].text)
    await database.write(partial(insert_lines, first=total, lines=rows))
    return total + len(rows)


def _sort(connection: Connection) -> None:
    find_duplicates(connection, base=0)
    connection.execute(_ORDER)
    connection.execute(_INSERT_DUPLICATES)


def _read(connection: Connection, *, start: int, end: int) -> list[tuple[int, ChunkLine]]:
    part = {"start": start, "end": end}
    rows: list[Any] = msgspec.json.decode(connection.execute(_READ, part).fetchone()[0])
    duplicates: dict[int, list[tuple[int, str]]] = defaultdict(list)
    for first, seq, text in msgspec.json.decode(connection.execute(_READ_DUPLICATES, part).fetchone()[0]):
        duplicates[first].append((seq, text))
    return [
        (host, ChunkLine(seq, text, _decode_problem(problem), duplicates.get(seq, [])))
        for host, seq, text, problem in rows
    ]


def _decode_problem(text: str | None) -> ProbeError | None:
    return None if text is None else msgspec.json.decode(text, type=ProbeError)


class _Packer:
    """Fills chunks with whole hosts. A host with more lines than a chunk holds gets a sequence of its own."""

    def __init__(self, targets_per_chunk: int) -> None:
        self._targets_per_chunk = targets_per_chunk
        self._sequences = 0  # opened so far
        self._mixed: list[tuple[int, ChunkLine]] = []  # lines of several small hosts
        self._host: int | None = None  # the host that is being added
        self._lines: list[tuple[int, ChunkLine]] = []  # its lines
        self._characters = 0  # of their texts
        self._mixed_characters = 0
        self._sequence: int | None = None  # its own sequence, if it has one
        self._index = 0  # of the next chunk there

    def add(self, host: int, line: ChunkLine) -> Iterator[Chunk]:
        """Add a line; the lines of a host come together. Gives the chunks that are full."""
        if host != self._host:
            yield from self._end_host()
            self._host = host
        self._lines.append((host, line))
        self._characters += len(line.text)
        if len(self._lines) == self._targets_per_chunk or self._characters > _CHARACTERS_PER_CHUNK:
            yield self._own_chunk()

    def flush(self) -> Iterator[Chunk]:
        """Yield the chunks that are not full."""
        yield from self._end_host()
        if self._mixed:
            yield self._mixed_chunk()

    def _end_host(self) -> Iterator[Chunk]:
        if self._sequence is not None:
            if self._lines:
                yield self._own_chunk()
        else:
            self._mixed_characters += self._characters
            is_long = self._mixed_characters > _CHARACTERS_PER_CHUNK
            if self._mixed and (is_long or len(self._mixed) + len(self._lines) > self._targets_per_chunk):
                yield self._mixed_chunk()
                self._mixed, self._mixed_characters = [], self._characters
            self._mixed += self._lines
        self._lines, self._characters, self._sequence, self._index = [], 0, None, 0

    def _own_chunk(self) -> Chunk:
        # Lines that are not URLs share the host without a name. No request is sent for them, so each of their chunks
        # gets a sequence, and all can be worked on at the same time.
        if self._sequence is None or self._lines[0][1].problem is not None:
            self._sequence, self._index = self._open_sequence(), 0
        chunk = Chunk(ChunkPosition(self._sequence, self._index), [line for _, line in self._lines])
        self._index, self._lines, self._characters = self._index + 1, [], 0
        return chunk

    def _mixed_chunk(self) -> Chunk:
        by_position = sorted(self._mixed, key=lambda entry: entry[1].seq)
        lines = [line for _, line in interleave(by_position, itemgetter(0))]
        return Chunk(ChunkPosition(self._open_sequence(), 0), lines)

    def _open_sequence(self) -> int:
        self._sequences += 1
        return self._sequences - 1
