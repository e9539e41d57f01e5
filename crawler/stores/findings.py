"""What a batch without a registry has found, for lines that ask for the same later: in memory, then in a file."""

import sqlite3
from typing import Final

import msgspec

from crawler.models import ProbeResult
from crawler.stores.database import insert

__all__ = ["Findings"]

_IN_MEMORY: Final = 20_000  # results; a kilobyte each
_LOT: Final = 500  # that leave for the file together: some milliseconds
_CACHE: Final = 16 * 1024  # KiB of the file's pages
_BITS: Final = (
    2**27
)  # one for each key of the file, by its first bytes: most lines are new, which is seen without a look


class Findings:
    """Results by key, of which the oldest are in a temporary file that nobody else sees; `close` drops it."""

    def __init__(self) -> None:
        self._newest: dict[bytes, ProbeResult] = {}
        self._file: sqlite3.Connection | None = None
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
        found = self._file.execute("SELECT body FROM found WHERE key = ?", (key,)).fetchone()
        return msgspec.msgpack.decode(found[0], type=ProbeResult) if found else None

    def close(self) -> None:
        """Drop everything."""
        if self._file is not None:
            self._file.close()

    def _move(self) -> None:
        """Move the oldest lot from memory to the file."""
        if self._file is None:
            self._file = sqlite3.connect("", isolation_level=None)  # SQLite's name for a file without one
            self._file.execute(f"PRAGMA cache_size = -{_CACHE}")
            self._file.execute("PRAGMA journal_mode = OFF")
            self._file.execute("CREATE TABLE found (key BLOB PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID")
            self._bits = bytearray(_BITS >> 3)
        oldest = [key for key, _ in zip(self._newest, range(_LOT), strict=False)]
        insert(self._file, "found", [(key, msgspec.msgpack.encode(self._newest.pop(key))) for key in oldest])
        for key in oldest:
            place = _place(key)
            self._bits[place >> 3] |= 1 << (place & 7)


def _place(key: bytes) -> int:
    return int.from_bytes(key[:4], "little") % _BITS
