"""Read lists with one URL a line: plain text and NDJSON."""

from typing import Any, Final

import msgspec

from crawler.core.errors import InputError
from crawler.core.urls import MAX_URL_CHARACTERS, Line
from crawler.formats.json_batch import MAX_VALUE_BYTES

__all__ = ["LineSplitter", "NdjsonReader", "TextReader", "check_line_length"]

_BOM: Final = b"\xef\xbb\xbf"
_MAX_TEXT_LINE_BYTES: Final = 2 * MAX_URL_CHARACTERS


class LineSplitter:
    """Splits bytes at line feeds and drops a byte order mark at the start.

    `rest` is the last line, as long as it is incomplete. It grows in place, so that many small pieces cost no more than
    a large one.
    """

    def __init__(self) -> None:
        self.rest = bytearray()
        self._has_begun = False

    def split(self, data: bytes) -> list[bytes]:
        """Add more input and return the lines that have become complete."""
        if not self._has_begun:
            self.rest += data
            if len(self.rest) < len(_BOM) and _BOM.startswith(self.rest):
                return []
            self._has_begun = True
            data = bytes(self.rest).removeprefix(_BOM)
            self.rest = bytearray()
        first, *lines = data.split(b"\n")
        self.rest += first
        if not lines:
            return []
        lines.insert(0, bytes(self.rest))
        self.rest = bytearray(lines.pop())
        return lines


class TextReader:
    """Reads one URL a line, without the white space around it; empty lines are skipped.

    A line that is too long for a URL is cut, because it must not fill the memory.
    """

    def __init__(self) -> None:
        self._lines = LineSplitter()

    def feed(self, data: bytes) -> list[bytes]:
        """See `UrlListReader`."""
        lines = [line for whole in self._lines.split(data) if (line := whole.strip())]
        if max(map(len, lines), default=0) > _MAX_TEXT_LINE_BYTES:
            lines = [line[:_MAX_TEXT_LINE_BYTES].rstrip() for line in lines]
        rest = self._lines.rest
        if rest[:1].isspace():
            rest[:] = rest.lstrip()
        del rest[_MAX_TEXT_LINE_BYTES:]
        return lines

    def close(self) -> list[bytes]:
        """See `UrlListReader`."""
        return self.feed(b"\n")


class NdjsonReader:
    """Reads one JSON value a line: a URL, or an object with the URL under `key`."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._lines = LineSplitter()
        self._decode = msgspec.json.Decoder(str | dict[str, Any]).decode
        self._number = 0  # of the last complete line

    def feed(self, data: bytes) -> list[Line]:
        """See `UrlListReader`."""
        urls: list[Line] = []
        for line in self._lines.split(data):
            self._number += 1
            if line.strip():
                urls.append(self._read(line))
        check_line_length(len(self._lines.rest), self._number + 1)
        return urls

    def close(self) -> list[Line]:
        """See `UrlListReader`."""
        return self.feed(b"\n")

    def _read(self, line: bytes) -> str:
        check_line_length(len(line), self._number)
        try:
            value = self._decode(line)
            if isinstance(value, str):
                return value
            if self._key not in value:
                raise InputError(f"Object missing required field `{self._key}`", f"line {self._number}")
            return msgspec.convert(value[self._key], str)
        except msgspec.ValidationError as error:
            raise InputError(str(error), f"line {self._number}") from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            reason = str(error).removeprefix("JSON is malformed: ")
            raise InputError(f"is not JSON: {reason}", f"line {self._number}") from None
        except RecursionError:
            raise InputError("nested too deeply", f"line {self._number}") from None


def check_line_length(size: int, number: int) -> None:
    """Refuse a line of more than `MAX_VALUE_BYTES`.

    Raises:
        InputError: The line is too long; `place` is its number.
    """
    if size > MAX_VALUE_BYTES:
        raise InputError(f"longer than {MAX_VALUE_BYTES} bytes", f"line {number}")
