"""Decompress lists, recognised by their first bytes, in pieces of bounded size."""

import bz2
import lzma
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import import_module
from typing import Any, Final, Protocol

from crawler.core.errors import InputError
from crawler.formats.gzip_reader import GzipReader

__all__ = ["MAGIC_BYTES", "Unpacker", "find_unpacker", "is_beginning_of_magic"]

MAGIC_BYTES: Final = 8
"""The first bytes of a list that `find_unpacker` needs at most."""

_MAX_COMPRESSED_BYTES: Final = 16 * 1024  # decompressed in one step
_MAX_PLAIN_BYTES: Final = 64 * 1024
_GZIP: Final = b"\x1f\x8b"
_XZ: Final = b"\xfd7zXZ\x00"
_BZIP2: Final = b"BZh"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_NO_LISTS: Final = {
    b"PK\x03\x04": "a zip archive or an Office document; unpack it, or export it as CSV",
    b"%PDF": "a PDF document",
    b"PAR1": "a Parquet file; export it as CSV",
    b"SQLite f": "a SQLite database; export it as CSV",
    b"\xd0\xcf\x11\xe0": "an old Office document; export it as CSV",
}
_MAGIC: Final = (_GZIP, _XZ, _BZIP2, _ZSTD, *_NO_LISTS)


class Unpacker(Protocol):
    """Decompresses in pieces. After an `InputError` it cannot be used any more."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Decompress more data and yield pieces of 64 KiB at most, some of them empty. The caller must exhaust it.

        Raises:
            InputError: The data is damaged.
        """

    def close(self) -> None:
        """Check that the data is complete.

        Raises:
            InputError: It ends too early.
        """


class _StreamReader:
    """Decompresses streams with the interface that `bz2`, `lzma` and `compression.zstd` share; several in a row too."""

    def __init__(self, name: str, make: Callable[[], Any], error: type[Exception]) -> None:
        self._name = name
        self._make = make
        self._error = error
        self._stream = make()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """See `Unpacker`."""
        for start in range(0, len(data), _MAX_COMPRESSED_BYTES):
            compressed = data[start : start + _MAX_COMPRESSED_BYTES]
            while compressed or not (self._stream.eof or self._stream.needs_input):
                if self._stream.eof:
                    self._stream = self._make()
                try:
                    yield self._stream.decompress(compressed, _MAX_PLAIN_BYTES)
                except (self._error, EOFError):
                    raise InputError(f"is not {self._name}, or damaged") from None
                compressed = self._stream.unused_data if self._stream.eof else b""

    def close(self) -> None:
        """See `Unpacker`."""
        if not self._stream.eof:
            raise InputError(f"the {self._name} data ends too early")


def find_unpacker(beginning: bytes) -> Unpacker | None:
    """Return what decompresses a list with these first bytes; None for a list that is not compressed.

    Raises:
        InputError: It is compressed in a way that cannot be read here, or is no list at all.
    """
    for magic, name in _NO_LISTS.items():
        if beginning.startswith(magic):
            raise InputError(f"is {name}")
    if beginning.startswith(_GZIP):
        return GzipReader()
    if beginning.startswith(_XZ):
        return _StreamReader("xz", lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ), lzma.LZMAError)
    if beginning.startswith(_BZIP2):
        return _StreamReader("bzip2", bz2.BZ2Decompressor, OSError)
    if beginning.startswith(_ZSTD):
        zstd = _import_zstd()
        return _StreamReader("zstd", zstd.ZstdDecompressor, zstd.ZstdError)
    return None


def is_beginning_of_magic(data: bytes) -> bool:
    """Whether more bytes are needed to know how a list is compressed."""
    return any(magic.startswith(data) and magic != data for magic in _MAGIC)


def _import_zstd() -> Any:
    for name in ("compression.zstd", "backports.zstd"):  # Python 3.14, or a package
        with suppress(ImportError):
            return import_module(name)
    raise InputError("is compressed with zstd: install backports.zstd, or decompress it with zstd -d")
