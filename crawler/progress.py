"""The progress bar of `probe`, on standard error."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TimeRemainingColumn
from rich.text import Text

from crawler.models import Counts
from crawler.outputs import STYLES

__all__ = ["show_progress"]


@contextmanager
def show_progress(counts: Counts, total: int | None) -> Iterator[Callable[[], None]]:
    """Show, as long as the context lasts, how far the work is that `counts` counts.

    Args:
        counts: Read at each refresh; somebody else adds to it.
        total: Lines in all; None while that is unknown.

    Yields:
        A function to call after `counts` has changed.
    """
    console = Console(stderr=True)
    with Progress(
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(compact=True),
        _Tally(),
        console=console,
        disable=not console.is_terminal,
    ) as progress:
        bar = progress.add_task("", total=total, counts=counts)
        yield lambda: progress.update(bar, completed=counts.done)


class _Rate(ProgressColumn):
    """Probes a second, over the last few seconds."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0:.0f}/s")


class _Tally(ProgressColumn):
    """How many came out how; what did not happen is not shown."""

    def render(self, task: Task) -> Text:
        counts: Counts = task.fields["counts"]
        return Text("  ").join(
            Text(f"{number} {outcome.replace('_', ' ')}", style=STYLES[outcome])
            for outcome, number in counts.by_outcome()
            if number
        )
