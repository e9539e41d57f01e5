"""Write results as a table for a terminal."""

from typing import Final, TextIO

from rich.console import Console
from rich.control import Control
from rich.segment import ControlType

from crawler.core.results import Outcome, ProbeResult

__all__ = ["STYLES", "ResultTable", "replace_unprintable"]

STYLES: Final[dict[Outcome, str]] = {
    "ok": "green",
    "http_error": "yellow",
    "failed": "red",
    "blocked": "magenta",
    "invalid": "magenta",
}

# The cursor may be on the line of the progress bar, which appears again below the row.
_CLEAR_LINE: Final = Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2))


class ResultTable:
    """Writes one line per result. The layout is for people and may change."""

    _ROW: Final = "{:<10} {:>6} {:>9}  {}"

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream, highlight=False, markup=False, emoji=False, soft_wrap=True)
        self._console.print(self._ROW.format("outcome", "status", "ms", "url"), style="bold")

    def write(self, result: ProbeResult) -> None:
        """Write one result."""
        text = result.url if result.error is None else f"{result.url}  {result.error.type}: {result.error.message}"
        if result.final_url and len(result.hops) > 1 and result.final_url != result.hops[0].url:
            text += f"  -> {result.final_url}"
        status = "-" if result.status is None else str(result.status)
        row = self._ROW.format(result.outcome, status, f"{result.timings.total:.1f}", replace_unprintable(text))
        with self._console as console:  # writes both at once
            if console.is_terminal:
                console.control(_CLEAR_LINE)
            console.print(row, style=STYLES[result.outcome])

    def close(self) -> None:
        """The table has no end."""


def replace_unprintable(text: str) -> str:
    """Replace control characters in a text from outside, so that it cannot control the terminal."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
