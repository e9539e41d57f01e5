"""Read lists with one URL a line: plain text and NDJSON."""

import re
from collections.abc import Callable
from typing import Any, Final

import msgspec

from crawler.core.errors import InputError, read_validation_error
from crawler.core.urls import MAX_URL_CHARACTERS, Line
from crawler.formats.encodings import Utf8Converter
from crawler.formats.json_batch import MAX_VALUE_BYTES

__all__ = ["BlankLines", "LineSplitter", "NdjsonReader", "TextReader", "check_line_length"]

_FIRST_LINE_END: Final = re.compile(rb"\n|\r(?=[^\n])")
_BLANKS: Final = b" \t\v\f"
_COMMENT: Final = ord("#")
_MAX_TEXT_LINE_BYTES: Final = 2 * MAX_URL_CHARACTERS
_MAX_BLANK_LINES: Final = 1_000_000  # of a list: they cost as much time as URLs do, and no limit of URLs counts them


class LineSplitter:
    """Splits a list at line feeds, or at carriage returns if its first line ends in one alone, as on old Macs.

    `rest` is the last line, as long as it is incomplete. It grows in place, so that many small pieces cost no more than
    a large one.
    """

    def __init__(self) -> None:
        self.rest = bytearray()
        self._utf8 = Utf8Converter()
        self._has_carriage_returns: bool | None = None  # unknown until the first line ends

    def split(self, data: bytes) -> list[bytes]:
        """Add more input and return the lines that have become complete."""
        return self._split(self._utf8.feed(data))

    def end(self) -> list[bytes]:
        """End the input and return the last line, even if it is empty."""
        return self._split(self._utf8.close() + (b"\r" if self._has_carriage_returns else b"\n"))

    def _split(self, data: bytes) -> list[bytes]:
        if self._has_carriage_returns is None:
            data, self.rest = bytes(self.rest) + data, bytearray()
            if (end := _FIRST_LINE_END.search(data)) is None:
                self.rest += data
                return []
            self._has_carriage_returns = end[0] == b"\r"
        if self._has_carriage_returns:
            if b"\n" in data:
                raise InputError("some lines end in CR and some in LF, so where a URL ends is not certain")
            data = data.replace(b"\r", b"\n")
        first, *lines = data.split(b"\n")
        self.rest += first
        if not lines:
            return []
        lines.insert(0, bytes(self.rest))
        self.rest = bytearray(lines.pop())
        return lines


class BlankLines:
    """Counts the lines without a URL, blank ones and comments, that a reader skips."""

    def __init__(self) -> None:
        self._count = 0

    def add(self, count: int, number: int) -> None:
        """Count more of them; `number` is that of the latest line.

        Raises:
            InputError: There are too many.
        """
        self._count += count
        if self._count > _MAX_BLANK_LINES:
            raise InputError(f"more than {_MAX_BLANK_LINES} lines without a URL", f"line {number}")


class TextReader:
    """Reads one URL a line, without the white space around it; empty lines and `#` comments are skipped.

    A line that is too long for a URL is cut, because it must not fill the memory.
    """

    def __init__(self) -> None:
        self._lines = LineSplitter()
        self._number = 0  # of the last complete line
        self._blank_lines = BlankLines()

    def feed(self, data: bytes) -> list[bytes]:
        """See `UrlListReader`."""
        return self._take(self._lines.split(data))

    def close(self) -> list[bytes]:
        """See `UrlListReader`."""
        return self._take(self._lines.end())

    def _take(self, whole_lines: list[bytes]) -> list[bytes]:
        lines = [line for whole in whole_lines if (line := whole.strip()) and line[0] != _COMMENT]
        self._number += len(whole_lines)
        self._blank_lines.add(len(whole_lines) - len(lines), self._number)
        if max(map(len, lines), default=0) > _MAX_TEXT_LINE_BYTES:
            lines = [line[:_MAX_TEXT_LINE_BYTES].rstrip() for line in lines]
        rest = self._lines.rest
        if rest[:1].isspace():
            rest[:] = rest.lstrip(_BLANKS)
        del rest[_MAX_TEXT_LINE_BYTES:]
        return lines


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
        return self._take(self._lines.split(data))

    def close(self) -> list[Line]:
        """See `UrlListReader`."""
        return self._take(self._lines.end())

    def _take(self, lines: list[bytes]) -> list[Line]:
        urls: list[Line] = []
        for line in lines:
            self._number += 1
            if line.strip():
                urls.append(self._read(line))
            else:
                self._blank_lines.add(1, self._number)
        check_line_length(len(self._lines.rest), self._number + 1)
        return urls

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
