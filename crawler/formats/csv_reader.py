"""Read the URLs in one column of a CSV file (RFC 4180)."""

import csv
import re
import textwrap
from collections.abc import Iterator
from typing import Final

from crawler.core.errors import InputError
from crawler.core.urls import Line
from crawler.formats.line_readers import BlankLines, LineSplitter, check_line_length

__all__ = ["CsvReader"]

_DEFAULT_COLUMN: Final = "url"
_MAX_SHOWN_CHARACTERS: Final = 300  # of the header row, in an error message
_MAX_COMMAS: Final = 16_384  # in a row: as many columns as spreadsheets have; a megabyte of them would take 30 ms

# Complete cells, as Python's csv module reads them: a quote opens a quoted cell only at the start of the cell.
_CELL: Final = rb'(?:"[^"]*+(?:""[^"]*+)*+"[^,]*+|[^",][^,]*+|)'
_END_OF_RECORD: Final = re.compile(_CELL + b"(?:," + _CELL + b")*+")
_END_OF_RECORD_IN_QUOTES: Final = re.compile(rb'[^"]*+(?:""[^"]*+)*+"[^,]*+(?:,' + _CELL + b")*+")


class CsvReader:
    """Reads the URLs in a column, given by its name in the header row or its number from 1.

    Without a column it reads the one named `url`, or the only one.
    """

    def __init__(self, column: str | None) -> None:
        self._column = column
        self._position: int | None = None  # of the column; None until the header row is read
        self._lines = LineSplitter()
        self._record = bytearray()  # the complete lines of an incomplete record: they end inside quotes
        self._number = 0  # of lines in complete records
        self._blank_lines = BlankLines()

    def feed(self, data: bytes) -> list[Line]:
        """See `UrlListReader`."""
        records: list[bytes] = []
        number = self._number + 1  # of the line
        for line in self._lines.split(data):
            check_line_length(len(self._record) + len(line), number)
            if len(line) > _MAX_COMMAS and line.count(b",") > _MAX_COMMAS:
                raise InputError(f"more than {_MAX_COMMAS} commas in a row", f"line {number}")
            end = _END_OF_RECORD_IN_QUOTES if self._record else _END_OF_RECORD
            is_complete = end.fullmatch(line) is not None
            if self._record or not is_complete:
                self._record += line + b"\n"
                if is_complete:
                    line, self._record = bytes(self._record), bytearray()
            if is_complete:
                records.append(line)
                number += 1 + line.count(b"\n", 0, -1)
        check_line_length(len(self._record) + len(self._lines.rest), number)
        return self._read(records)

    def close(self) -> list[Line]:
        """See `UrlListReader`."""
        urls = self.feed(b"\n")
        if self._record:
            raise InputError("a quoted cell has no end", f"line {self._number + 1}")
        if self._position is None:
            raise InputError("has no header row", "line 1")
        return urls

    def _read(self, records: list[bytes]) -> list[Line]:
        rows = csv.reader(self._decode(records))
        cells: list[str] = []
        try:
            for row in rows:
                if not row or (len(row) == 1 and row[0].isspace()):
                    self._blank_lines.add(1, self._number)
                elif self._position is None:
                    self._position = _find_column(row, self._column, f"line {self._number}")
                else:
                    cells.append(row[self._position] if self._position < len(row) else "")
        except csv.Error as error:
            raise InputError(str(error), f"line {self._number}") from None
        return [cell if cell.isascii() else _restore_bytes(cell) for cell in cells]

    def _decode(self, records: list[bytes]) -> Iterator[str]:
        """Yield each record as text, and count its lines."""
        for record in records:
            self._number += 1 + record.count(b"\n", 0, -1)
            yield record.decode(errors="surrogateescape")


def _find_column(header: list[str], column: str | None, place: str) -> int:
    if column is None:
        column = _DEFAULT_COLUMN if len(header) > 1 else header[0]
    folded = [name.strip().casefold() for name in header]
    numbers = [str(number) for number in range(1, len(header) + 1)]
    for names, name in ((header, column), (folded, column.strip().casefold()), (numbers, column)):
        if name in names:
            position = names.index(name)
            if "://" in header[position]:  # there is no header row: the first URL would be lost
                raise InputError("the header row has a URL instead of a column name", place)
            return position
    shown = ", ".join(map(repr, header[:_MAX_SHOWN_CHARACTERS]))
    raise InputError(f"no column {column!r} among {textwrap.shorten(shown, _MAX_SHOWN_CHARACTERS)}", place)


def _restore_bytes(cell: str) -> Line:
    """Return the bytes of a cell that is not UTF-8, so that the error of the line names the byte."""
    try:
        cell.encode()
    except UnicodeEncodeError:
        return cell.encode(errors="surrogateescape")
    return cell
