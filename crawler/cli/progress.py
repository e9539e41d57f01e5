"""What `probe` and `watch` show on a terminal while they run: rows of results, and below them a bar of one line."""

from collections import deque
from typing import Final

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress import Progress, TimeRemainingColumn
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from crawler.core.results import ProbeResult
from crawler.core.tasks import Counts
from crawler.formats.table import STYLES, format_header, format_row

__all__ = ["ProgressDisplay", "format_counts"]

_REFRESHES_PER_SECOND: Final = 10
_MAX_WAITING_ROWS: Final = 10_000  # a terminal that reads no faster slows the probes down
_BAR_COLUMNS: Final = 40
_MIN_BAR_COLUMNS: Final = 10


class ProgressDisplay(Live):
    """Rows of results with a progress bar below them, drawn ten times a second by a thread of its own.

    Rows and bar go through one console, so that neither can overwrite the other.

    Args:
        console: The terminal.
        counts: Read at each refresh; the caller adds to it.
        total: Number of lines; None while that is unknown.
    """

    def __init__(self, console: Console, counts: Counts, total: int | None) -> None:
        self._rows: deque[Text] = deque()
        self._failure: OSError | None = None
        super().__init__(_ProgressLine(counts, total), console=console, refresh_per_second=_REFRESHES_PER_SECOND)

    def write(self, result: ProbeResult) -> None:
        """Show a result with the next refresh.

        Raises:
            OSError: The terminal has gone.
        """
        self._rows.append(format_row(result))
        if len(self._rows) > _MAX_WAITING_ROWS:
            self.refresh()
        if self._failure is not None:
            raise self._failure

    def write_header(self) -> None:
        """Show the names of the columns."""
        self._rows.append(format_header())

    def close(self) -> None:
        """The table has no end."""

    def refresh(self) -> None:
        """Draw the rows that wait, and the bar below them."""
        rows = []
        while self._rows:
            rows.append(self._rows.popleft())
        try:
            with self._lock, self.console:  # one write for both
                if rows:
                    self.console.print(Text("\n").join(rows), soft_wrap=True)
                if self.console.is_interactive or not rows:
                    super().refresh()
        except OSError as error:  # in the thread, where nobody would catch it
            self._failure = error


class _ProgressLine:
    """The bar and its numbers, in one line at any width: the bar is dropped first, then the line is cut."""

    def __init__(self, counts: Counts, total: int | None) -> None:
        self._counts = counts
        self._progress = Progress()  # computes the rate over the last seconds, and the time that remains
        self._progress.add_task("", total=total)
        (self._task,) = self._progress.tasks

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        task = self._task
        self._progress.update(task.id, completed=self._counts.done)
        done = f"{self._counts.done}" if task.total is None else f"{self._counts.done}/{task.total:.0f}"
        remaining = TimeRemainingColumn(compact=True).render(task)
        parts = [Text(done, style="progress.download"), Text(f"{task.speed or 0:.0f}/s"), remaining]
        text = Text(" ").join([*parts, format_counts(self._counts)])
        text.no_wrap, text.overflow = True, "ellipsis"
        bar_columns = min(_BAR_COLUMNS, options.max_width - text.cell_len - 1)
        line = Table.grid(padding=(0, 1, 0, 0))
        if bar_columns < _MIN_BAR_COLUMNS:
            yield text
            return
        bar = ProgressBar(total=task.total, completed=task.completed, width=bar_columns, pulse=task.total is None)
        line.add_row(bar, text)
        yield line


def format_counts(counts: Counts) -> Text:
    """Format counts in words and colours; zeros are left out."""
    return Text("  ").join(
        Text(f"{number} {outcome.replace('_', ' ')}", style=STYLES[outcome])
        for outcome, number in counts.by_outcome()
        if number
    )
