"""Write results as text: NDJSON and CSV for programs, a table for people."""

import csv
from collections.abc import Callable
from typing import Final, Literal, Protocol, TextIO, get_args

import msgspec

from crawler.core.results import ProbeResult

__all__ = ["COLUMNS", "FORMATS", "Format", "ResultWriter", "open_writer"]

Format = Literal["table", "ndjson", "csv"]
FORMATS: Final[tuple[Format, ...]] = get_args(Format)

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
    """Writes each result with one call of the stream's `write`."""

    def write(self, result: ProbeResult) -> None:
        """Write one result."""


def open_writer(format_: Format, stream: TextIO) -> ResultWriter:
    """Make a writer that writes this format to the stream."""
    if format_ == "table":
        from crawler.formats.table import ResultTable  # imports rich, which the other formats do not need

        return ResultTable(stream)
    return _NdjsonWriter(stream) if format_ == "ndjson" else _CsvWriter(stream)


class _NdjsonWriter:
    """One JSON object a line."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._encode = msgspec.json.Encoder().encode

    def write(self, result: ProbeResult) -> None:
        self._stream.write(self._encode(result).decode() + "\n")


class _CsvWriter:
    """CSV (RFC 4180) with `COLUMNS` in the first line."""

    def __init__(self, stream: TextIO) -> None:
        self._rows = csv.writer(stream)
        self._rows.writerow(COLUMNS)

    def write(self, result: ProbeResult) -> None:
        self._rows.writerow([_escape_formula(column(result)) for column in COLUMNS.values()])


def _escape_formula(value: object) -> object:
    """Quote text that a spreadsheet would run as a formula."""
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r", "\n")):
        return "'" + value
    return value
