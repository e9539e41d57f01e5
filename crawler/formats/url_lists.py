"""Lists of URLs in every format that is read, as they arrive.

A reader does no I/O and keeps only what has no end yet: `feed` it bytes in any pieces, and it gives the same lines.
"""

import csv
import re
import textwrap
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal, Protocol, TypeAlias, get_args

import msgspec

from crawler.core.errors import InputError
from crawler.core.urls import MAX_URL_CHARACTERS
from crawler.formats.json_batch import MAX_VALUE_BYTES, BatchReader

__all__ = ["INPUT_FORMATS", "GzipReader", "InputFormat", "Line", "UrlListReader", "open_reader"]

Line: TypeAlias = str | bytes  # a URL as submitted; bytes may not be UTF-8
InputFormat: TypeAlias = Literal["text", "ndjson", "csv", "json"]
INPUT_FORMATS: Final[tuple[InputFormat, ...]] = get_args(InputFormat)

_BOM: Final = b"\xef\xbb\xbf"
_COLUMN: Final = "url"
_GZIP: Final = 31  # as zlib spells it
_SHOWN: Final = 300  # characters of a header row that an error shows


class UrlListReader(Protocol):
    """Turns bytes into lines. After an `InputError` it is of no more use."""

    def feed(self, data: bytes) -> Sequence[Line]:
        """The lines that are complete by now and were not before."""

    def close(self) -> Sequence[Line]:
        """What is left once all is fed."""


def open_reader(format_: InputFormat, column: str | None = None) -> UrlListReader:
    """A reader of this format.

    Args:
        format_: One of `INPUT_FORMATS`.
        column: Where the URL stands: a column of CSV, by its name in the header row or its number from 1, or a key of
            the objects of NDJSON. Without it, `url`, or the only column.

    Raises:
        InputError: The format has no columns.
    """
    if format_ == "csv":
        return _Csv(column)
    if format_ == "ndjson":
        return _Ndjson(_COLUMN if column is None else column)
    if column is not None:
        raise InputError(f"{format_} has no columns to choose from", "column")
    return _Text() if format_ == "text" else BatchReader()


class GzipReader:
    """Unpacks gzip, also of several members, in pieces small enough that no bomb is ever in memory whole."""

    _PACKED: Final = 16 * 1024
    _PLAIN: Final = 1024 * 1024

    def __init__(self) -> None:
        self._member = zlib.decompressobj(wbits=_GZIP)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What these bytes unpack to, at most 1 MiB at a time; to be taken to its end.

        Raises:
            InputError: It is not gzip, or damaged.
        """
        for start in range(0, len(data), self._PACKED):
            packed, more = data[start : start + self._PACKED], False
            while packed or more:
                if self._member.eof:
                    packed = packed.lstrip(b"\0")  # which may fill up the last block of a tape
                    if not packed:
                        break
                    self._member = zlib.decompressobj(wbits=_GZIP)
                try:
                    plain = self._member.decompress(packed, self._PLAIN)
                except zlib.error:
                    raise InputError("is not gzip, or damaged") from None
                packed = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
                more = len(plain) == self._PLAIN  # zlib may hold some back even when it has taken all
                if plain:
                    yield plain

    def close(self) -> None:
        """Say that this was all.

        Raises:
            InputError: A member has no end.
        """
        if not self._member.eof:
            raise InputError("the gzip data stops half way")


class _Lines:
    """What stands between line feeds; a mark at the very start is dropped.

    The line that has no end yet grows in place: in a thousand pieces it costs no more than in one.
    """

    def __init__(self) -> None:
        self.rest = bytearray()
        self._begun = False

    def split(self, data: bytes) -> list[bytes]:
        if not self._begun:
            self.rest += data
            if len(self.rest) < len(_BOM) and _BOM.startswith(self.rest):
                return []
            self._begun = True
            data = bytes(self.rest).removeprefix(_BOM)
            self.rest = bytearray()
        first, *lines = data.split(b"\n")
        self.rest += first
        if not lines:
            return []
        lines.insert(0, bytes(self.rest))
        self.rest = bytearray(lines.pop())
        return lines


class _Text:
    _LONGEST: Final = 2 * MAX_URL_CHARACTERS  # what is longer is cut: it is no URL anyway, and must not fill the memory

    def __init__(self) -> None:
        self._lines = _Lines()

    def feed(self, data: bytes) -> list[bytes]:
        lines = [line for each in self._lines.split(data) if (line := each.strip())]
        if max(map(len, lines), default=0) > self._LONGEST:
            lines = [line[: self._LONGEST].rstrip() for line in lines]
        rest = self._lines.rest
        if rest[:1].isspace():
            rest[:] = rest.lstrip()
        del rest[self._LONGEST :]
        return lines

    def close(self) -> list[bytes]:
        return self.feed(b"\n")


class _Ndjson:
    def __init__(self, key: str) -> None:
        self._key = key
        self._lines = _Lines()
        self._decode = msgspec.json.Decoder(str | dict[str, Any]).decode
        self._number = 0

    def feed(self, data: bytes) -> list[Line]:
        found: list[Line] = []
        for line in self._lines.split(data):
            self._number += 1
            if line.strip():
                found.append(self._read(line))
        _check_length(len(self._lines.rest), self._number + 1)
        return found

    def close(self) -> list[Line]:
        return self.feed(b"\n")

    def _read(self, line: bytes) -> str:
        _check_length(len(line), self._number)
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


# What the csv module takes for whole cells: a quote opens one only at its start.
_CELL: Final = rb'(?:"[^"]*+(?:""[^"]*+)*+"[^,]*+|[^",][^,]*+|)'
_ENDS: Final = re.compile(_CELL + b"(?:," + _CELL + b")*+")
_ENDS_IN_QUOTES: Final = re.compile(rb'[^"]*+(?:""[^"]*+)*+"[^,]*+(?:,' + _CELL + b")*+")


class _Csv:
    def __init__(self, column: str | None) -> None:
        self._column = column
        self._position: int | None = None  # of the column, once the header row is read
        self._lines = _Lines()
        self._record: list[bytes] = []  # lines of a record whose end is still to come: they end inside quotes
        self._size = 0  # bytes of these
        self._number = 0  # lines of the records before

    def feed(self, data: bytes) -> list[Line]:
        whole: list[bytes] = []  # lines of records that have their end
        for line in self._lines.split(data):
            self._size += len(line)
            if self._size > MAX_VALUE_BYTES:
                break
            ends = _ENDS_IN_QUOTES if self._record else _ENDS
            self._record.append(line)
            if ends.fullmatch(line):
                whole += self._record
                self._record, self._size = [], 0
            else:
                self._size += 1
        _check_length(self._size + len(self._lines.rest), self._number + len(whole) + 1)
        return self._read(whole)

    def close(self) -> list[Line]:
        lines = self.feed(b"\n")
        if self._record:
            raise InputError("a quoted cell has no end", f"line {self._number + 1}")
        if self._position is None:
            raise InputError("has no header row", "line 1")
        return lines

    def _read(self, lines: list[bytes]) -> list[Line]:
        rows = csv.reader((line + b"\n").decode(errors="surrogateescape") for line in lines)
        found: list[str] = []
        try:
            for row in rows:
                if not row or (len(row) == 1 and row[0].isspace()):
                    continue
                if self._position is None:
                    self._position = _position(row, self._column, f"line {self._number + rows.line_num}")
                else:
                    found.append(row[self._position] if self._position < len(row) else "")
        except csv.Error as error:
            raise InputError(str(error), f"line {self._number + rows.line_num}") from None
        self._number += len(lines)
        return [_as_submitted(cell) for cell in found]


def _position(header: list[str], column: str | None, place: str) -> int:
    """Where in a row the URL stands."""
    if column is None:
        column = _COLUMN if len(header) > 1 else header[0]
    folded = [name.strip().casefold() for name in header]
    numbers = [str(number) for number in range(1, len(header) + 1)]
    for names, name in ((header, column), (folded, column.strip().casefold()), (numbers, column)):
        if name in names:
            position = names.index(name)
            if "://" in header[position]:  # without one, the first URL would be lost
                raise InputError("a URL stands where the header row has the name of its column", place)
            return position
    shown = ", ".join(map(repr, header))
    raise InputError(f"no column {column!r} among {textwrap.shorten(shown, _SHOWN)}", place)


def _as_submitted(cell: str) -> Line:
    try:
        cell.encode()
    except UnicodeEncodeError:
        return cell.encode(errors="surrogateescape")
    return cell


def _check_length(size: int, number: int) -> None:
    if size > MAX_VALUE_BYTES:
        raise InputError(f"longer than {MAX_VALUE_BYTES} bytes", f"line {number}")
