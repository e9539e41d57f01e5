"""What waits for workers on other machines, and who they are."""

import time
from collections.abc import Iterable
from typing import TextIO

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["Backlog", "Outlook", "print_outlook"]


class Backlog(msgspec.Struct, frozen=True):
    """One queue: chunks that wait, chunks that workers have, and the seconds since the oldest of all was queued."""

    waiting: int = 0
    running: int = 0
    oldest: float = 0.0


class Outlook(msgspec.Struct, frozen=True):
    """What there is.

    Attributes:
        queues: By name.
        workers: By name, each with when it gave its last sign of life, in unix seconds.
        redelivered: How often a chunk was begun again because a worker had fallen silent.
    """

    queues: dict[str, Backlog]
    workers: dict[str, float]
    redelivered: int


def print_outlook(outlook: Outlook, stream: TextIO) -> None:
    """Print the workers and the queues as tables."""
    now = time.time()
    console = Console(file=stream, highlight=False, markup=False, emoji=False)
    console.print(_table(("worker", "seen"), ((name, f"{now - at:.0f} s ago") for name, at in outlook.workers.items())))
    queues = (
        (name, *map(str, (each.waiting, each.running)), f"{each.oldest:.0f} s") for name, each in outlook.queues.items()
    )
    console.print(_table(("queue", "waiting", "running", "oldest"), queues))
    console.print(f"begun again because a worker fell silent: {outlook.redelivered}")


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in head:
        table.add_column(name, no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))
    return table
