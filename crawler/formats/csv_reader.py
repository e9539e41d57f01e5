"""Read the URLs in one column of a table: CSV (RFC 4180), and its dialects with other delimiters.

No URL is cut: a row with more cells than the header row may have a delimiter inside a URL, so it is refused.
"""

import csv
import re
import textwrap
from collections.abc import Iterator
from functools import lru_cache
from typing import Final, NamedTuple

from crawler.core.errors import InputError
from crawler.core.urls import Line
from crawler.formats.line_readers import BlankLines, LineSplitter, check_line_length

__all__ = ["CsvReader"]

_DEFAULT_COLUMN: Final = "url"
_MAX_SHOWN_CHARACTERS: Final = 300  # of the header row, in an error message
_MAX_DELIMITERS: Final = 16_384  # in a row: as many columns as spreadsheets have; a megabyte of them would take 30 ms
_DELIMITERS: Final = (",", ";", "\t", "|")  # that are found out
_UNUSUAL_IN_NAME: Final = re.compile(r"[^\w\s.()/#-]")  # in the name of a lone column it may be a delimiter
_QUOTED: Final = re.compile(rb'"[^"]*+(?:""[^"]*+)*+"')
_SEPARATOR_LINE: Final = re.compile(rb'"?sep=([\x09\x20-\x7e])"?\s*', re.IGNORECASE)  # as Excel writes and reads it


class _Dialect(NamedTuple):
    """The expressions that find the end of a record.

    Cells are complete as Python's csv module reads them: a quote opens a quoted cell only at the start of the cell.
    """

    delimiter: str
    end: re.Pattern[bytes]
    end_in_quotes: re.Pattern[bytes]

    @classmethod
    @lru_cache(16)
    def of(cls, delimiter: str) -> "_Dialect":
        mark = re.escape(delimiter.encode())
        cell = rb'(?:"[^"]*+(?:""[^"]*+)*+"[^%b]*+|[^"%b][^%b]*+|)' % (mark, mark, mark)
        cells = b"(?:" + mark + cell + b")*+"
        in_quotes = rb'[^"]*+(?:""[^"]*+)*+"[^%b]*+' % mark
        return cls(delimiter, re.compile(cell + cells), re.compile(in_quotes + cells))


class CsvReader:
    """Reads the URLs in a column, given by its name in the header row or its number from 1.

    Without a column it reads the one named `url`, or the only one.

    Args:
        column: The column.
        delimiter: One ASCII character. None to find it out: from a first line `sep=;`, else from the header row.
    """

    def __init__(self, column: str | None, delimiter: str | None = None) -> None:
        self._column = column
        self._dialect = None if delimiter is None else _Dialect.of(delimiter)
        self._width = 0  # cells of the header row
        self._position: int | None = None  # of the column; None until the header row is read
        self._lines = LineSplitter()
        self._record = bytearray()  # the complete lines of an incomplete record: they end inside quotes
        self._number = 0  # of lines in complete records
        self._blank_lines = BlankLines()

    def feed(self, data: bytes) -> list[Line]:
        """See `UrlListReader`."""
        return self._take(self._lines.split(data))

    def close(self) -> list[Line]:
        """See `UrlListReader`."""
        urls = self._take(self._lines.end())
        if self._record:
            raise InputError("a quoted cell has no end", f"line {self._number + 1}")
        if self._position is None:
            raise InputError("has no header row", "line 1")
        return urls

    def _take(self, lines: list[bytes]) -> list[Line]:
        records: list[bytes] = []
        number = self._number + 1  # of the line
        for line in lines:
            check_line_length(len(self._record) + len(line), number)
            if self._dialect is None and line.strip():
                if (separator := _SEPARATOR_LINE.fullmatch(line)) is not None:
                    self._dialect = _Dialect.of(separator[1].decode())
                    line = b""
                else:
                    self._dialect = _Dialect.of(_find_delimiter(line, self._column, f"line {number}"))
            delimiter, end_of_record, end_in_quotes = self._dialect or _Dialect.of(",")
            if len(line) > _MAX_DELIMITERS and line.count(delimiter.encode()) > _MAX_DELIMITERS:
                raise InputError(f"more than {_MAX_DELIMITERS} cells in a row", f"line {number}")
            end = end_in_quotes if self._record else end_of_record
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

    def _read(self, records: list[bytes]) -> list[Line]:
        delimiter = "," if self._dialect is None else self._dialect.delimiter
        rows = csv.reader(self._decode(records), delimiter=delimiter)
        cells: list[str] = []
        try:
            for row in rows:
                if not row or (len(row) == 1 and row[0].isspace()):
                    self._blank_lines.add(1, self._number)
                elif self._position is None:
                    self._position = _find_column(row, self._column, f"line {self._number}")
                    self._width = len(row)
                elif len(row) > self._width:
                    raise InputError(_explain_width(len(row), self._width, delimiter), f"line {self._number}")
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


def _find_delimiter(header: bytes, column: str | None, place: str) -> str:
    """Find out what separates the cells of the header row, where quotes protect none of it.

    Raises:
        InputError: It is not certain.
    """
    unquoted = _QUOTED.sub(b"", header).decode(errors="replace")
    found = [delimiter for delimiter in _DELIMITERS if delimiter in unquoted]
    if len(found) > 1:
        text = header.decode(errors="replace")
        found = [each for each in found if _has_column(next(csv.reader([text], delimiter=each)), column)] or found
    if len(found) > 1:
        raise InputError(f"{' or '.join(map(repr, found))} may separate the columns; name the delimiter", place)
    return found[0] if found else ","


def _has_column(header: list[str], column: str | None) -> bool:
    try:
        _find_column(header, column, "")
    except InputError:
        return False
    return True


def _explain_width(cells: int, width: int, delimiter: str) -> str:
    columns = "1 column" if width == 1 else f"{width} columns"
    return f"has {cells} cells for {columns}; a cell with {delimiter!r} in it must be quoted"


def _find_column(header: list[str], column: str | None, place: str) -> int:
    if column is None and len(header) == 1 and (sign := _UNUSUAL_IN_NAME.search(header[0])) and "://" not in header[0]:
        raise InputError(f"{sign[0]!r} may separate the columns; name the delimiter, or the column", place)
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
