"""What a batch without a registry has found, for lines that ask for the same later: in memory, then in a file."""

import sqlite3
import struct
import tempfile
from typing import IO, Final

import msgspec

from crawler.core.results import ProbeResult
from crawler.stores.sqlite.database import insert

__all__ = ["SeenResults"]

_IN_MEMORY: Final = 20_000  # results; a kilobyte each
_LOT: Final = 500  # that leave for the file together: some milliseconds
_CACHE: Final = 16 * 1024  # KiB of the index
_BITS: Final = 2**27  # one for each key of the file: most lines are new, which is seen without a look into it
_HEAD: Final = struct.Struct("<16sI")  # of a result in the file: its key, and its length
_number: Final = struct.Struct("<q8x").unpack


class SeenResults:
    """Results by keys of 16 bytes, of which the oldest are in a temporary file; `close` drops it.

    Their index is in SQLite, on disk too, and has half of each key: the whole one stands with the result.
    """

    def __init__(self) -> None:
        self._newest: dict[bytes, ProbeResult] = {}
        self._file: IO[bytes] | None = None
        self._end = 0
        self._bits = bytearray()

    def add(self, key: bytes, result: ProbeResult) -> None:
        """Keep a result."""
        self._newest[key] = result
        if len(self._newest) > _IN_MEMORY:
            self._move()

    def get(self, key: bytes) -> ProbeResult | None:
        """The result of a key, if there is one."""
        if (result := self._newest.get(key)) is not None or self._file is None:
            return result
        place = _place(key)
        if not self._bits[place >> 3] & 1 << (place & 7):
            return None
        found = self._index.execute("SELECT place FROM found WHERE key = ?", _number(key)).fetchone()
        if found is None:
            return None
        self._file.seek(found[0])
        whole_key, length = _HEAD.unpack(self._file.read(_HEAD.size))
        return msgspec.msgpack.decode(self._file.read(length), type=ProbeResult) if whole_key == key else None

    def close(self) -> None:
        """Drop everything."""
        if self._file is not None:
            self._file.close()
            self._index.close()

    def _move(self) -> None:
        """Move the oldest lot from memory to the file."""
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="crawler-")  # noqa: SIM115 - `close` closes it
            self._index = sqlite3.connect("", isolation_level=None)  # SQLite's name for a file without one
            self._index.execute(f"PRAGMA cache_size = -{_CACHE}")
            self._index.execute("PRAGMA journal_mode = OFF")
            self._index.execute("CREATE TABLE found (key INTEGER PRIMARY KEY, place INTEGER NOT NULL)")
            self._bits = bytearray(_BITS >> 3)
        lot, rows = bytearray(), []
        for key in [key for key, _ in zip(self._newest, range(_LOT), strict=False)]:
            body = msgspec.msgpack.encode(self._newest.pop(key))
            rows.append((*_number(key), self._end + len(lot)))
            lot += _HEAD.pack(key, len(body)) + body
            place = _place(key)
            self._bits[place >> 3] |= 1 << (place & 7)
        self._file.seek(self._end)
        self._file.write(lot)
        self._end += len(lot)
        insert(self._index, "found", rows, or_replace=True)


def _place(key: bytes) -> int:
    return int.from_bytes(key[:4], "little") % _BITS
