"""Write results as text: NDJSON and CSV for programs, a table for people."""

import csv
from collections.abc import Callable
from typing import Final, Literal, Protocol, TextIO, get_args

import msgspec

from crawler.core.results import ProbeResult

__all__ = ["COLUMNS", "RESULT_FORMATS", "Color", "ResultFormat", "ResultWriter", "escape_formula", "open_writer"]

ResultFormat = Literal["table", "ndjson", "csv"]
Color = Literal["auto", "always", "never"]
RESULT_FORMATS: Final[tuple[ResultFormat, ...]] = get_args(ResultFormat)

# The columns of CSV in their order.
COLUMNS: Final[dict[str, Callable[[ProbeResult], object]]] = {
    "seq": lambda result: result.seq,
    "url": lambda result: result.url,
    "outcome": lambda result: result.outcome,
    "status": lambda result: result.status,
    "error": lambda result: result.error and result.error.type,
    "message": lambda result: result.error and result.error.message,
    "method": lambda result: result.method,
    "attempts": lambda result: result.attempts,
    "final_url": lambda result: result.final_url,
    "ip": lambda result: result.ip,
    "total_ms": lambda result: result.timings.total,
    "timestamp": lambda result: result.timestamp,
    "title": lambda result: result.title,
    "matched": lambda result: result.matched,
}


class ResultWriter(Protocol):
    """Writes results to a stream, each with one call of the stream's `write`. A format may begin with a header."""

    def write(self, result: ProbeResult) -> None:
        """Write one result."""

    def close(self) -> None:
        """Write the end of the format, if it has one, after the last result. The stream stays open."""


def open_writer(
    format_: ResultFormat, stream: TextIO, *, color: Color = "auto", is_continued: bool = False
) -> ResultWriter:
    """Make a writer that writes this format to the stream. Close the writer when all results are written.

    Args:
        format_: Which format.
        stream: Where to write.
        color: Whether a table has colours; `auto` is on a terminal.
        is_continued: Whether the stream has results of this format already, and with them its header.
    """
    if format_ == "ndjson":
        return _NdjsonWriter(stream)
    if format_ == "csv":
        return _CsvWriter(stream, has_header=not is_continued)
    from crawler.formats.table import ResultTable, open_console  # imports rich, which the other formats do not need

    return ResultTable(open_console(stream, color))


class _NdjsonWriter:
    """One JSON object a line."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._encode = msgspec.json.Encoder().encode

    def write(self, result: ProbeResult) -> None:
        self._stream.write(self._encode(result).decode() + "\n")

    def close(self) -> None:
        """The format has no end."""


class _CsvWriter:
    """CSV (RFC 4180) with `COLUMNS` in the first line."""

    def __init__(self, stream: TextIO, *, has_header: bool) -> None:
        self._rows = csv.writer(stream)
        if has_header:
            self._rows.writerow(COLUMNS)

    def write(self, result: ProbeResult) -> None:
        self._rows.writerow([escape_formula(column(result)) for column in COLUMNS.values()])

    def close(self) -> None:
        """The format has no end."""


def escape_formula(value: object) -> object:
    """Quote text that a spreadsheet would run as a formula."""
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r", "\n")):
        return "'" + value
    return value
