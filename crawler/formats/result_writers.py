"""Write results as text: NDJSON and CSV for programs, a table for people."""

import csv
from collections.abc import Callable
from typing import Final, Literal, Protocol, TextIO, get_args

import msgspec

from crawler.core.results import ProbeResult

__all__ = ["COLUMNS", "RESULT_FORMATS", "ResultFormat", "ResultWriter", "open_writer"]

ResultFormat = Literal["table", "ndjson", "csv"]
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
}


class ResultWriter(Protocol):
    """Writes results to a stream, each with one call of the stream's `write`. A format may begin with a header."""

    def write(self, result: ProbeResult) -> None:
        """Write one result."""

    def close(self) -> None:
        """Write the end of the format, if it has one, after the last result. The stream stays open."""


def open_writer(format_: ResultFormat, stream: TextIO) -> ResultWriter:
    """Make a writer that writes this format to the stream. Close the writer when all results are written."""
    return _WRITERS[format_](stream)


def _open_table(stream: TextIO) -> ResultWriter:
    from crawler.formats.table import ResultTable  # imports rich, which the other formats do not need

    return ResultTable(stream)


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

    def __init__(self, stream: TextIO) -> None:
        self._rows = csv.writer(stream)
        self._rows.writerow(COLUMNS)

    def write(self, result: ProbeResult) -> None:
        self._rows.writerow([_escape_formula(column(result)) for column in COLUMNS.values()])

    def close(self) -> None:
        """The format has no end."""


def _escape_formula(value: object) -> object:
    """Quote text that a spreadsheet would run as a formula."""
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r", "\n")):
        return "'" + value
    return value


_WRITERS: Final[dict[ResultFormat, Callable[[TextIO], ResultWriter]]] = {
    "table": _open_table,
    "ndjson": _NdjsonWriter,
    "csv": _CsvWriter,
}
