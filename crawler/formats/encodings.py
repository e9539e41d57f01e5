"""Turn lists in UTF-16 and UTF-32 into UTF-8, by their byte order mark (https://encoding.spec.whatwg.org/#bom-sniff)."""

import codecs
from typing import Final

from crawler.core.errors import InputError

__all__ = ["Utf8Converter"]

# UTF-32 comes first: its mark begins with that of UTF-16.
_MARKS: Final = {
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF8: "",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}


class Utf8Converter:
    """Converts a list in pieces of any size, and drops its mark. Without a mark the bytes stay as they are."""

    def __init__(self) -> None:
        self._beginning: bytes | None = b""  # as long as it may be a mark
        self._decoder: codecs.IncrementalDecoder | None = None
        self._encoding = ""

    def feed(self, data: bytes) -> bytes:
        """Return the next bytes in UTF-8; those of an incomplete character come later.

        Raises:
            InputError: They are not in the encoding that the mark says.
        """
        if self._beginning is not None:
            data = self._beginning + data
            if any(mark.startswith(data) for mark in _MARKS):
                self._beginning = data
                return b""
            self._beginning = None
            data = self._drop_mark(data)
        return data if self._decoder is None else self._convert(data, is_end=False)

    def close(self) -> bytes:
        """Return the last bytes.

        Raises:
            InputError: The last character is incomplete.
        """
        data = b"" if self._beginning is None else self._drop_mark(self._beginning)
        self._beginning = None
        return data if self._decoder is None else self._convert(data, is_end=True)

    def _drop_mark(self, data: bytes) -> bytes:
        mark = next((mark for mark in _MARKS if data.startswith(mark)), b"")
        self._encoding = _MARKS.get(mark, "")
        if self._encoding:
            self._decoder = codecs.getincrementaldecoder(self._encoding)()
        return data[len(mark) :]

    def _convert(self, data: bytes, *, is_end: bool) -> bytes:
        assert self._decoder is not None
        try:
            return self._decoder.decode(data, is_end).encode()
        except UnicodeError:
            raise InputError(f"is not {self._encoding[:6].upper()}, although its byte order mark says so") from None
