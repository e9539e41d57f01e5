"""The progress bar of `probe` and `watch`, on standard error."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TimeRemainingColumn
from rich.progress import Task as RichTask
from rich.text import Text

from crawler.core.tasks import Counts
from crawler.formats.table import STYLES

__all__ = ["format_counts", "show_progress"]


@contextmanager
def show_progress(counts: Counts, total: int | None) -> Iterator[None]:
    """Show a progress bar while the context lasts.

    Args:
        counts: Read at each refresh; the caller adds to it.
        total: Number of lines; None while that is unknown.
    """
    columns = (BarColumn(), MofNCompleteColumn(), _RateColumn(), TimeRemainingColumn(compact=True), _CountsColumn())
    with _CountsProgress(*columns, console=Console(stderr=True)) as bar:
        bar.counts = counts
        bar.add_task("", total=total, counts=counts)
        yield


class _CountsProgress(Progress):
    """Reads the counts when it is drawn, so that a probe does not have to report them."""

    counts: Counts | None = None

    def get_renderables(self) -> Iterable[RenderableType]:
        for task_id in self.task_ids:
            self.update(task_id, completed=self.counts.done if self.counts else 0)
        yield from super().get_renderables()


class _RateColumn(ProgressColumn):
    """Shows the probes per second, over the last few seconds."""

    def render(self, task: RichTask) -> Text:
        return Text(f"{task.speed or 0:.0f}/s")


class _CountsColumn(ProgressColumn):
    """Shows the number of results by outcome."""

    def render(self, task: RichTask) -> Text:
        return format_counts(task.fields["counts"])


def format_counts(counts: Counts) -> Text:
    """Format counts in words and colours; zeros are left out."""
    return Text("  ").join(
        Text(f"{number} {outcome.replace('_', ' ')}", style=STYLES[outcome])
        for outcome, number in counts.by_outcome()
        if number
    )
