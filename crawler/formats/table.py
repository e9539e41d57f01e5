"""Write results as a table for a terminal."""

from typing import Final, TextIO

from rich.console import Console
from rich.text import Text

from crawler.core.results import Outcome, ProbeResult
from crawler.formats.result_writers import Color

__all__ = ["STYLES", "ResultTable", "format_header", "format_row", "open_console", "replace_unprintable"]

STYLES: Final[dict[Outcome, str]] = {
    "ok": "green",
    "http_error": "yellow",
    "failed": "red",
    "blocked": "magenta",
    "invalid": "magenta",
}

_ROW: Final = "{:<10} {:>6} {:>9}  {}"


class ResultTable:
    """Writes one line per result. The layout is for people and may change."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._console.print(format_header(), soft_wrap=True)

    def write(self, result: ProbeResult) -> None:
        """Write one result."""
        self._console.print(format_row(result), soft_wrap=True)

    def close(self) -> None:
        """The table has no end."""


def open_console(stream: TextIO, color: Color = "auto") -> Console:
    """Return a console that prints texts as they are.

    Args:
        stream: Where it prints.
        color: `auto` is colour on a terminal, unless the variable NO_COLOR is set.
    """
    return Console(
        file=stream,
        highlight=False,
        markup=False,
        emoji=False,
        color_system="auto" if color == "auto" else "standard" if color == "always" else None,
        no_color=None if color == "auto" else color == "never",
    )


def format_header() -> Text:
    """Return the names of the columns."""
    return Text(_ROW.format("outcome", "status", "ms", "url"), style="bold")


def format_row(result: ProbeResult) -> Text:
    """Format a result as one line: the URL, then what is known beside status and time."""
    text = result.url if result.error is None else f"{result.url}  {result.error.type}: {result.error.message}"
    if result.final_url and len(result.hops) > 1 and result.final_url != result.hops[0].url:
        text += f"  -> {result.final_url}"
    if result.title is not None:
        text += f'  "{result.title}"'
    if result.matched is not None:
        text += "  matched" if result.matched else "  not matched"
    status = "-" if result.status is None else str(result.status)
    row = _ROW.format(result.outcome, status, f"{result.timings.total:.1f}", replace_unprintable(text))
    return Text(row, style=STYLES[result.outcome])


def replace_unprintable(text: str) -> str:
    """Replace control characters in a text from outside, so that it cannot control the terminal."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
