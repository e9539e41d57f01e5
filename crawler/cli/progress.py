"""The progress bar of `probe`, on standard error."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TimeRemainingColumn
from rich.text import Text

from crawler.core.tasks import Counts
from crawler.formats.table import STYLES

__all__ = ["show_progress", "tally"]


@contextmanager
def show_progress(counts: Counts, total: int | None) -> Iterator[None]:
    """Show, as long as the context lasts, how far the work is that `counts` counts.

    Args:
        counts: Read at each refresh; somebody else adds to it.
        total: Lines in all; None while that is unknown.
    """
    columns = (BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn(compact=True), _Tally())
    with _Bar(*columns, console=Console(stderr=True)) as bar:
        bar.counts = counts
        bar.add_task("", total=total, counts=counts)
        yield


class _Bar(Progress):
    """Looks at the counts when it is drawn: counting costs a probe nothing."""

    counts: Counts | None = None

    def get_renderables(self) -> Iterable[RenderableType]:
        for task_id in self.task_ids:
            self.update(task_id, completed=self.counts.done if self.counts else 0)
        yield from super().get_renderables()


class _Rate(ProgressColumn):
    """Probes a second, over the last few seconds."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0:.0f}/s")


class _Tally(ProgressColumn):
    """How many came out how."""

    def render(self, task: Task) -> Text:
        return tally(task.fields["counts"])


def tally(counts: Counts) -> Text:
    """Counts as words; what did not happen is not shown."""
    return Text("  ").join(
        Text(f"{number} {outcome.replace('_', ' ')}", style=STYLES[outcome])
        for outcome, number in counts.by_outcome()
        if number
    )
