"""Results as text: NDJSON and CSV for programs, a table for people."""

import csv
from collections.abc import Callable
from typing import Any, Final, Literal, Protocol, TextIO, get_args

import msgspec
from rich.console import Console
from rich.control import Control
from rich.segment import ControlType

from crawler.models import Outcome, ProbeResult

__all__ = ["COLUMNS", "FORMATS", "STYLES", "Format", "Writer", "open_writer"]

Format = Literal["table", "ndjson", "csv"]
FORMATS: Final[tuple[Format, ...]] = get_args(Format)

# Where the cursor is, on a terminal, the progress bar may stand; it comes back below the row.
_CLEAR_LINE: Final = Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2))

# The columns of CSV, in order.
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

STYLES: Final[dict[Outcome, str]] = {
    "ok": "green",
    "http_error": "yellow",
    "failed": "red",
    "blocked": "magenta",
    "invalid": "magenta",
}


class Writer(Protocol):
    """Writes results, each whole, as they come."""

    def write(self, result: ProbeResult) -> None:
        """Write one."""


def open_writer(format_: Format, stream: TextIO) -> Writer:
    """A writer of a format onto a stream."""
    writers: dict[Format, type[Any]] = {"table": _Table, "ndjson": _Ndjson, "csv": _Csv}
    writer: Writer = writers[format_](stream)
    return writer


class _Ndjson:
    """A JSON object a line."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._encode = msgspec.json.Encoder().encode

    def write(self, result: ProbeResult) -> None:
        self._stream.write(self._encode(result).decode() + "\n")


class _Csv:
    """RFC 4180, with `COLUMNS` in the first line."""

    def __init__(self, stream: TextIO) -> None:
        self._rows = csv.writer(stream)
        self._rows.writerow(COLUMNS)

    def write(self, result: ProbeResult) -> None:
        self._rows.writerow([_cell(column(result)) for column in COLUMNS.values()])


class _Table:
    """A line a result, for eyes: it may change."""

    _ROW: Final = "{:<10} {:>6} {:>9}  {}"

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream, highlight=False, markup=False, emoji=False, soft_wrap=True)
        self._console.print(self._ROW.format("outcome", "status", "ms", "url"), style="bold")

    def write(self, result: ProbeResult) -> None:
        what = result.url if result.error is None else f"{result.url}  {result.error.type}: {result.error.message}"
        if result.final_url and len(result.hops) > 1 and result.final_url != result.hops[0].url:
            what += f"  -> {result.final_url}"
        status = "-" if result.status is None else str(result.status)
        row = self._ROW.format(result.outcome, status, f"{result.timings.total:.1f}", _printable(what))
        with self._console as console:  # both in one write
            if console.is_terminal:
                console.control(_CLEAR_LINE)
            console.print(row, style=STYLES[result.outcome])


def _cell(value: object) -> object:
    """Keep a spreadsheet from taking text for a formula."""
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r", "\n")):
        return "'" + value
    return value


def _printable(text: str) -> str:
    """Keep a URL or a server's words from steering the terminal."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
