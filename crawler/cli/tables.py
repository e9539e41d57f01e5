"""Tasks, worker processes and queues as tables for a terminal."""

import time
from collections.abc import Iterable
from typing import Final, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from crawler.cli.progress import format_counts
from crawler.core.task_summary import Summary
from crawler.core.tasks import FleetStatus
from crawler.formats.table import replace_unprintable

__all__ = ["print_fleet_status", "print_tasks"]

_MAX_LABEL_CHARACTERS: Final = 24
_UNITS_SECONDS: Final = (("d", 86400), ("h", 3600), ("m", 60))
_STYLES: Final = {"running": "cyan", "ready": "green", "error": "red"}


def print_tasks(tasks: Iterable[Summary], stream: TextIO) -> None:
    """Print a table with a row for each Task."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("id", no_wrap=True, min_width=36)
    table.add_column("label", no_wrap=True, max_width=_MAX_LABEL_CHARACTERS)
    table.add_column("status")
    table.add_column("done", justify="right", no_wrap=True)
    table.add_column("results")
    table.add_column("age", justify="right", no_wrap=True)
    now = time.time()
    for task in tasks:
        table.add_row(
            task.id,
            Text(replace_unprintable(task.label or "")),
            Text(task.status, style=_STYLES[task.status]),
            f"{task.counts.done}/{task.total}",
            format_counts(task.counts),
            _format_age(now - task.created),
        )
    Console(file=stream, highlight=False, markup=False, emoji=False).print(table)


def print_fleet_status(status: FleetStatus, stream: TextIO) -> None:
    """Print the worker processes and the queues as tables."""
    now = time.time()
    console = Console(file=stream, highlight=False, markup=False, emoji=False)
    console.print(
        _table(("worker process", "seen"), ((name, f"{now - at:.0f} s ago") for name, at in status.workers.items()))
    )
    queues = (
        (name, *map(str, (each.waiting, each.running)), f"{each.oldest:.0f} s") for name, each in status.queues.items()
    )
    console.print(_table(("queue", "waiting", "running", "oldest"), queues))
    console.print(f"redelivered after a worker process fell silent: {status.redelivered}")


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in head:
        table.add_column(name, no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _format_age(seconds: float) -> str:
    """Format a duration in its largest unit, as `3h`."""
    for unit, size in _UNITS_SECONDS:
        if seconds >= size:
            return f"{seconds / size:.0f}{unit}"
    return f"{max(seconds, 0):.0f}s"
