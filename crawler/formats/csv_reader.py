"""Read the URLs in one column of a CSV file (RFC 4180)."""

import csv
import re
import textwrap
from typing import Final

from crawler.core.errors import InputError
from crawler.core.urls import Line
from crawler.formats.json_batch import MAX_VALUE_BYTES
from crawler.formats.line_readers import LineSplitter, check_line_length

__all__ = ["CsvReader"]

_DEFAULT_COLUMN: Final = "url"
_MAX_SHOWN_CHARACTERS: Final = 300  # of the header row, in an error message

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
        self._record: list[bytes] = []  # the lines of an incomplete record: they end inside quotes
        self._record_bytes = 0
        self._number = 0  # of lines in complete records

    def feed(self, data: bytes) -> list[Line]:
        """See `UrlListReader`."""
        complete: list[bytes] = []  # lines of complete records
        for line in self._lines.split(data):
            self._record_bytes += len(line)
            if self._record_bytes > MAX_VALUE_BYTES:
                break
            end = _END_OF_RECORD_IN_QUOTES if self._record else _END_OF_RECORD
            self._record.append(line)
            if end.fullmatch(line):
                complete += self._record
                self._record, self._record_bytes = [], 0
            else:
                self._record_bytes += 1
        check_line_length(self._record_bytes + len(self._lines.rest), self._number + len(complete) + 1)
        return self._read(complete)

    def close(self) -> list[Line]:
        """See `UrlListReader`."""
        urls = self.feed(b"\n")
        if self._record:
            raise InputError("a quoted cell has no end", f"line {self._number + 1}")
        if self._position is None:
            raise InputError("has no header row", "line 1")
        return urls

    def _read(self, lines: list[bytes]) -> list[Line]:
        rows = csv.reader((line + b"\n").decode(errors="surrogateescape") for line in lines)
        cells: list[str] = []
        try:
            for row in rows:
                if not row or (len(row) == 1 and row[0].isspace()):
                    continue
                if self._position is None:
                    self._position = _find_column(row, self._column, f"line {self._number + rows.line_num}")
                else:
                    cells.append(row[self._position] if self._position < len(row) else "")
        except csv.Error as error:
            raise InputError(str(error), f"line {self._number + rows.line_num}") from None
        self._number += len(lines)
        return [_restore_bytes(cell) for cell in cells]


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
    shown = ", ".join(map(repr, header))
    raise InputError(f"no column {column!r} among {textwrap.shorten(shown, _MAX_SHOWN_CHARACTERS)}", place)


def _restore_bytes(cell: str) -> Line:
    """Return the bytes of a cell that is not UTF-8, so that the error of the line names the byte."""
    try:
        cell.encode()
    except UnicodeEncodeError:
        return cell.encode(errors="surrogateescape")
    return cell
