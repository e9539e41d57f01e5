"""Read lists with one URL a line: plain text and NDJSON."""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from crawler.core.errors import InputError, read_validation_error
from crawler.core.urls import MAX_URL_CHARACTERS, Line
from crawler.formats.json_batch import MAX_VALUE_BYTES

__all__ = ["BlankLines", "LineSplitter", "NdjsonReader", "TextReader", "check_line_length"]

_BOM: Final = b"\xef\xbb\xbf"
_MAX_TEXT_LINE_BYTES: Final = 2 * MAX_URL_CHARACTERS
_MAX_BLANK_LINES: Final = 1_000_000  # of a list: they cost as much time as URLs do, and no limit of URLs counts them


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


class BlankLines:
    """Counts the lines without a URL that a reader skips."""

    def __init__(self) -> None:
        self._count = 0

    def add(self, count: int, number: int) -> None:
        """Count more of them; `number` is that of the latest line.

        Raises:
            InputError: There are too many.
        """
        self._count += count
        if self._count > _MAX_BLANK_LINES:
            raise InputError(f"more than {_MAX_BLANK_LINES} blank lines", f"line {number}")


class TextReader:
    """Reads one URL a line, without the white space around it; empty lines are skipped.

    A line that is too long for a URL is cut, because it must not fill the memory.
    """

    def __init__(self) -> None:
        self._lines = LineSplitter()
        self._number = 0  # of the last complete line
        self._blank_lines = BlankLines()

    def feed(self, data: bytes) -> list[bytes]:
        """See `UrlListReader`."""
        whole_lines = self._lines.split(data)
        lines = [line for whole in whole_lines if (line := whole.strip())]
        self._number += len(whole_lines)
        self._blank_lines.add(len(whole_lines) - len(lines), self._number)
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
        self._lines = LineSplitter()
        # msgspec skips the other members and builds nothing from them: a megabyte of brackets would take 100 ms.
        try:
            line = msgspec.defstruct("Line", [("value", str)], rename={"value": key})
        except ValueError:
            raise InputError("cannot be a key of JSON objects", "column") from None
        self._decode: Callable[[bytes], Any] = msgspec.json.Decoder(str | line).decode
        self._number = 0  # of the last complete line
        self._blank_lines = BlankLines()

    def feed(self, data: bytes) -> list[Line]:
        """See `UrlListReader`."""
        urls: list[Line] = []
        for line in self._lines.split(data):
            self._number += 1
            if line.strip():
                urls.append(self._read(line))
            else:
                self._blank_lines.add(1, self._number)
        check_line_length(len(self._lines.rest), self._number + 1)
        return urls

    def close(self) -> list[Line]:
        """See `UrlListReader`."""
        return self.feed(b"\n")

    def _read(self, line: bytes) -> str:
        check_line_length(len(line), self._number)
        try:
            value = self._decode(line)
            return value if isinstance(value, str) else str(value.value)
        except msgspec.ValidationError as error:
            raise InputError(read_validation_error(error)[0], f"line {self._number}") from None
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
