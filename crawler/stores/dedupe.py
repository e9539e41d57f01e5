"""Deduplicate a stream of lines without a registry: the first of equal lines is probed, all get its result.

`Deduplicator` does it as the lines come. `SeenResults` keeps the results for lines that come later: the newest in
memory, the others in a temporary file.
"""

import asyncio
import sqlite3
import struct
import tempfile
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from itertools import islice
from typing import IO, Final

import msgspec

from crawler.core.results import ProbeResult
from crawler.core.urls import Target
from crawler.runtime.iteration import iterate
from crawler.stores.ordering import LineKey, line_key
from crawler.stores.sqlite.connection import insert_rows

__all__ = ["Deduplicator", "SeenResults"]

_MAX_WAITING_LINES: Final = 50_000
_LINES_PER_STEP: Final = 1_000  # between two turns of the event loop

_MAX_RESULTS_IN_MEMORY: Final = 20_000  # a kilobyte each
_RESULTS_PER_MOVE: Final = 500  # moved to the file at once; takes some milliseconds
_INDEX_CACHE_KIB: Final = 16 * 1024
_BITMAP_BITS: Final = 2**27  # a power of two
_HEADER: Final = struct.Struct("<qqI")  # of a result in the file: the two halves of its key, and its length in bytes

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(ProbeResult).decode


class SeenResults:
    """Results by the key of their line. Drop them with `close`.

    The oldest are in a temporary file. Its index is in a temporary SQLite database and has half of each key; the
    file has the whole key. Most lines are new: a bitmap of the keys tells that without a query.

    Args:
        max_in_memory: Results that stay in memory.
        per_move: Results that are moved to the file at once.
    """

    def __init__(self, max_in_memory: int = _MAX_RESULTS_IN_MEMORY, per_move: int = _RESULTS_PER_MOVE) -> None:
        self._max_in_memory = max_in_memory
        self._per_move = per_move
        self._newest: dict[LineKey, ProbeResult] = {}
        self._file: IO[bytes] | None = None
        self._file_bytes = 0
        self._bitmap = bytearray()

    def add(self, key: LineKey, result: ProbeResult) -> None:
        """Keep a result."""
        self._newest[key] = result
        if len(self._newest) > self._max_in_memory:
            self._move_oldest()

    def get(self, key: LineKey) -> ProbeResult | None:
        """Return the result of a key, or None."""
        if (result := self._newest.get(key)) is not None or self._file is None:
            return result
        byte, bit = _bitmap_place(key)
        if not self._bitmap[byte] & bit:
            return None
        row = self._index.execute("SELECT place FROM results WHERE key = ?", key[:1]).fetchone()
        if row is None:
            return None
        self._file.seek(row[0])
        *whole_key, length = _HEADER.unpack(self._file.read(_HEADER.size))
        return _decode(self._file.read(length)) if tuple(whole_key) == key else None

    def close(self) -> None:
        """Drop all results."""
        if self._file is not None:
            self._file.close()
            self._index.close()

    def _move_oldest(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="crawler-")  # noqa: SIM115 - `close` closes it
            self._index = sqlite3.connect("", isolation_level=None)  # without a name: a temporary file
            self._index.execute(f"PRAGMA cache_size = -{_INDEX_CACHE_KIB}")
            self._index.execute("PRAGMA journal_mode = OFF")
            self._index.execute("CREATE TABLE results (key INTEGER PRIMARY KEY, place INTEGER NOT NULL)")
            self._bitmap = bytearray(_BITMAP_BITS >> 3)
        moved, rows = bytearray(), []
        for key in list(islice(self._newest, self._per_move)):
            body = _encode(self._newest.pop(key))
            rows.append((key[0], self._file_bytes + len(moved)))
            moved += _HEADER.pack(*key, len(body)) + body
            byte, bit = _bitmap_place(key)
            self._bitmap[byte] |= bit
        self._file.seek(self._file_bytes)
        self._file.write(moved)
        self._file_bytes += len(moved)
        insert_rows(self._index, "results", rows, or_replace=True)


class Deduplicator:
    """Finds the targets to probe in a stream of lines, and the lines that share the result of each.

    Args:
        seen: Keeps the results for equal lines that come later.
        scheme: That of lines without one; None if these are no URLs.
    """

    def __init__(self, seen: SeenResults | None = None, scheme: str | None = None) -> None:
        self._scheme = scheme
        self._seen = seen or SeenResults()
        self._waiting: dict[LineKey, list[Target]] = {}  # lines that wait for the result of an equal one
        self._probed_keys: dict[int, LineKey] = {}  # by the position of the line that is probed
        self._waiting_lines = 0
        self._has_room = asyncio.Event()

    async def unique_targets(self, urls: Iterable[str | bytes] | AsyncIterable[str | bytes]) -> AsyncIterator[Target]:
        """Yield the targets to probe, and those whose result is known already: these have a `known_result`."""
        seq = 0
        async for line in iterate(urls):
            target = Target.of(seq, line, self._scheme)
            key = line_key(target)
            seq += 1
            if (result := self._seen.get(key)) is not None:
                target.known_result = result
            elif key in self._waiting:
                self._waiting[key].append(target)
                self._waiting_lines += 1
                await self._wait_for_room()
                continue
            else:
                self._waiting[key] = []
                self._probed_keys[target.seq] = key
            yield target

    def take_duplicates(self, result: ProbeResult) -> list[Target]:
        """Keep a result, and return the lines that have waited for it."""
        key = self._probed_keys.pop(result.seq, None)
        if key is None:
            return []
        self._seen.add(key, result)
        duplicates = self._waiting.pop(key)
        self._waiting_lines -= len(duplicates)
        self._has_room.set()
        return duplicates

    def close(self) -> None:
        """Drop the results that were kept."""
        self._seen.close()

    async def _wait_for_room(self) -> None:
        if self._waiting_lines % _LINES_PER_STEP == 0:
            await asyncio.sleep(0)
        while self._waiting_lines >= _MAX_WAITING_LINES:
            self._has_room.clear()
            await self._has_room.wait()


def _bitmap_place(key: LineKey) -> tuple[int, int]:
    number = key[1] & (_BITMAP_BITS - 1)
    return number >> 3, 1 << (number & 7)
