"""Take a Task's lines into a registry's file: store them as they come, then find duplicates and the probing order.

Both need all lines at once. A Task of few lines is sorted in memory and stored in one transaction. SQLite sorts the
lines of a larger one on disk, on a connection of its own and in transactions of some milliseconds, so that no other
write waits for long.
"""

import sqlite3
from functools import partial
from operator import itemgetter
from typing import Final

from crawler.core.tasks import Task
from crawler.registry import Lines
from crawler.runtime.iteration import iterate
from crawler.runtime.turns import Turns
from crawler.stores.ordering import (
    SQL_FIRST_EQUAL,
    SQL_RANK_IN_HOST,
    LineKey,
    PreparedLine,
    interleave,
    prepare_line,
)
from crawler.stores.sqlite.connection import insert_rows
from crawler.stores.sqlite.database import Database
from crawler.stores.sqlite.schema import PLACES_PER_TASK
from crawler.stores.sqlite.task_queries import admit, reserve

__all__ = ["LINES_PER_WRITE", "find_duplicates", "insert_lines", "take_in"]

LINES_PER_WRITE: Final = 2_000  # a Task of fewer lines is sorted in memory
_CHARACTERS_PER_WRITE: Final = 2**22  # the same, of the lines' texts

# What sorting needs of the lines, in their order, as long as the connection is open.
_CREATE_LINE_KEYS: Final = """
    CREATE TEMP TABLE IF NOT EXISTS line_keys (key INTEGER NOT NULL, key2 INTEGER NOT NULL, host INTEGER NOT NULL)"""

_FIND_DUPLICATES: Final = f"""
    CREATE TEMP TABLE line_firsts AS SELECT id, host, {SQL_FIRST_EQUAL} AS first
    FROM (SELECT :base + rowid - 1 AS id, key, key2, host FROM line_keys)"""

_SORT_TARGETS: Final = f"""
    CREATE TEMP TABLE sorted_targets AS
    SELECT id FROM (SELECT id, {SQL_RANK_IN_HOST} AS rank FROM line_firsts WHERE id = first) ORDER BY rank, id"""

_INSERT_PENDING: Final = """
    INSERT INTO pending (id, seq)
    SELECT :base + rowid, id - :base FROM sorted_targets WHERE rowid > :start AND rowid <= :end"""

_INSERT_DUPLICATES: Final = """
    INSERT INTO duplicates (first, seq)
    SELECT first, id FROM line_firsts WHERE id <> first AND rowid > :start AND rowid <= :end"""


async def take_in(
    database: Database, own: Database, number: int, task: Task, lines: Lines, lines_per_write: int = LINES_PER_WRITE
) -> None:
    """Store a Task with its lines, pending targets and duplicates, and set its `total`.

    Args:
        database: Stores a Task of few lines in one transaction.
        own: The same file on a connection of the Task's own, which stores a larger one in many transactions.
        number: The Task's number.
        task: The Task. It is admitted last.
        lines: Its lines.
        lines_per_write: How many lines one transaction stores.
    """
    base = number * PLACES_PER_TASK
    waiting: list[PreparedLine] = []
    characters, turns = 0, Turns()
    async for line in iterate(lines):
        if turns.is_over:
            await turns.next()
        if len(waiting) == lines_per_write or characters > _CHARACTERS_PER_WRITE:
            if task.total == 0:
                await own.write(partial(reserve, number=number, id_=task.id))
            await own.write(partial(insert_lines, first=base + task.total, lines=waiting), is_intake=True)
            task.total += len(waiting)
            waiting, characters = [], 0
        waiting.append(prepare_line(line))
        characters += len(waiting[-1].text)
    first, task.total = base + task.total, task.total + len(waiting)
    if first == base:
        await database.write(
            partial(_take_in_few, number=number, task=task, lines=waiting), durable=True, is_intake=True
        )
        return
    await own.write(partial(insert_lines, first=first, lines=waiting), is_intake=True)
    await own.call(partial(find_duplicates, base=base))
    await own.call(_sort_targets)
    for start in range(0, task.total, lines_per_write):
        await own.write(partial(_insert_sorted, base=base, start=start, end=start + lines_per_write), is_intake=True)
    await own.write(partial(admit, number=number, task=task), durable=True)


def insert_lines(connection: sqlite3.Connection, *, first: int, lines: list[PreparedLine]) -> None:
    """Store lines from id `first` on, and what sorting needs of them in a temporary table of the connection."""
    _insert_texts(connection, first, lines)
    connection.execute(_CREATE_LINE_KEYS)
    insert_rows(connection, "line_keys", [(*line.key, line.host) for line in lines])


def find_duplicates(connection: sqlite3.Connection, *, base: int) -> None:
    """Create the temporary table `line_firsts` (id, host, first): each inserted line and the first line equal to it.

    Args:
        connection: Where all lines were inserted.
        base: The id of the first one.
    """
    connection.execute(_FIND_DUPLICATES, {"base": base})


def _sort_targets(connection: sqlite3.Connection) -> None:
    connection.execute(_SORT_TARGETS)


def _insert_sorted(connection: sqlite3.Connection, *, base: int, start: int, end: int) -> None:
    part = {"base": base, "start": start, "end": end}
    connection.execute(_INSERT_PENDING, part)
    connection.execute(_INSERT_DUPLICATES, part)


def _take_in_few(connection: sqlite3.Connection, *, number: int, task: Task, lines: list[PreparedLine]) -> None:
    base = number * PLACES_PER_TASK
    firsts: dict[LineKey, int] = {}
    targets, duplicates = [], []
    for seq, line in enumerate(lines):
        first = firsts.setdefault(line.key, seq)
        if first == seq:
            targets.append((line.host, seq))
        else:
            duplicates.append((base + first, base + seq))
    ordered = interleave(targets, itemgetter(0))
    reserve(connection, number=number, id_=task.id)
    _insert_texts(connection, base, lines)
    insert_rows(connection, "pending", [(base + place, seq) for place, (_, seq) in enumerate(ordered, 1)])
    insert_rows(connection, "duplicates", duplicates)
    admit(connection, number=number, task=task)


def _insert_texts(connection: sqlite3.Connection, first: int, lines: list[PreparedLine]) -> None:
    insert_rows(connection, "lines", [(first + place, line.problem, line.text) for place, line in enumerate(lines)])
