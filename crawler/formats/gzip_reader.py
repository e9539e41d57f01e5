"""Decompress gzip in pieces of bounded size."""

import zlib
from collections.abc import Iterator
from typing import Final

from crawler.core.errors import InputError

__all__ = ["GzipReader"]

_GZIP_WINDOW_BITS: Final = 31  # zlib's code for "gzip, largest window"
_MAX_COMPRESSED_BYTES: Final = 16 * 1024  # decompressed in one step
_MAX_PLAIN_BYTES: Final = 64 * 1024


class GzipReader:
    """Decompresses gzip, also of several members. A decompression bomb is never in memory as a whole."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(wbits=_GZIP_WINDOW_BITS)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Decompress more data and yield pieces of 64 KiB at most, some of them empty. The caller must exhaust it.

        Raises:
            InputError: The data is not gzip or is damaged.
        """
        for start in range(0, len(data), _MAX_COMPRESSED_BYTES):
            compressed, has_more = data[start : start + _MAX_COMPRESSED_BYTES], False
            while compressed or has_more:
                if self._member.eof:
                    compressed = compressed.lstrip(b"\0")  # padding, for example to the block size of a tape
                    if not compressed:
                        break
                    self._member = zlib.decompressobj(wbits=_GZIP_WINDOW_BITS)
                try:
                    plain = self._member.decompress(compressed, _MAX_PLAIN_BYTES)
                except zlib.error:
                    raise InputError("is not gzip, or damaged") from None
                compressed = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
                has_more = len(plain) == _MAX_PLAIN_BYTES  # zlib may keep output back even when all input is consumed
                yield plain  # even if it is empty: without, thousands of empty members would be one step

    def close(self) -> None:
        """Check that the data is complete.

        Raises:
            InputError: The last member is incomplete.
        """
        if not self._member.eof:
            raise InputError("the gzip data ends too early")
