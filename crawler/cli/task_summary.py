"""Tasks as a service shows them, as far as its clients care."""

import re
from typing import Final

import msgspec

from crawler.core.tasks import Counts, Status
from crawler.formats.table import replace_unprintable

__all__ = ["Progress", "Summary", "is_id"]

_ID: Final = re.compile(r"[\w-]+", re.ASCII)


def is_id(text: str) -> bool:
    """Whether it can be a Task's id: nothing in it steers a terminal or leads elsewhere in a path."""
    return _ID.fullmatch(text) is not None


class Progress(msgspec.Struct, kw_only=True):
    """How far a Task is."""

    total: int
    counts: Counts


class Summary(Progress, kw_only=True):
    """A Task without its results."""

    id: str
    status: Status
    created: float
    label: str | None = None
    detail: str | None = None

    def __post_init__(self) -> None:
        """Check what is printed as it is."""
        if not is_id(self.id):
            raise ValueError("the id of a task is none")

    @property
    def is_all_ok(self) -> bool:
        """Whether it has ended, and every line of it is ok."""
        return self.status == "ready" and self.counts.ok == self.total

    def __str__(self) -> str:
        """A line for people."""
        numbers = [f"{number} {outcome.replace('_', ' ')}" for outcome, number in self.counts.by_outcome() if number]
        counts = f" ({', '.join(numbers)})" if numbers else ""
        detail = f" ({replace_unprintable(self.detail)})" if self.detail else ""
        return f"task {self.id}: {self.status}{detail}, {self.counts.done} of {self.total} done{counts}"
