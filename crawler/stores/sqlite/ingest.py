"""A batch on its way in: lines to disk as they come, then put into the order in which they are to be probed.

Finding equal lines and giving hosts their turns needs all of them at once. A small batch is sorted here and taken in as
one transaction. A big one SQLite sorts, on disk, on a connection of the batch's own and in transactions of some
milliseconds: nobody else waits for a batch of any size.
"""

import sqlite3
from collections import Counter
from contextlib import suppress
from functools import partial
from typing import Final

import msgspec

from crawler.core.results import ProbeError
from crawler.core.tasks import Task
from crawler.core.urls import Target, find_plain_host
from crawler.registry import Lines
from crawler.runtime.iteration import iterate
from crawler.stores.sqlite.database import Database, insert
from crawler.stores.sqlite.queries import admit, reserve
from crawler.stores.sqlite.schema import SPAN

__all__ = ["FIND_EQUAL", "Row", "row_of", "take_in"]

_SLICE: Final = 2_000  # lines, or turns, of one transaction

FIND_EQUAL: Final = """
    CREATE TEMP TABLE placed AS
    SELECT id, host, first_value(id) OVER (PARTITION BY key, key2 ORDER BY id) AS first
    FROM lines WHERE id BETWEEN :base AND :base + :total"""

_GIVE_TURNS: Final = """
    CREATE TEMP TABLE ranked AS
    SELECT id FROM (
        SELECT id, row_number() OVER (PARTITION BY host ORDER BY id) AS rank FROM placed WHERE id = first
    ) ORDER BY rank, id"""

_MOVE_TURNS: Final = """
    INSERT INTO turns (id, seq) SELECT :base + rowid, id - :base FROM ranked WHERE rowid > :start AND rowid <= :end"""

_MOVE_TWINS: Final = """
    INSERT INTO twins (first, seq)
    SELECT first, id FROM placed WHERE id <> first AND rowid > :start AND rowid <= :end"""


Row = tuple[int, int, int, str | None, str]  # two keys, host, why it is no URL, text


async def take_in(database: Database, own: Database, number: int, task: Task, lines: Lines) -> None:
    """Keep a Task, its lines, their turns and their twins; sets its total.

    Args:
        database: Takes a small batch in, in one transaction.
        own: The same file, for a big batch to be taken in beside all else, in many.
        number: The Task's.
        task: The Task; it is one for others only when all is kept.
        lines: The batch.
    """
    base = number * SPAN
    waiting: list[Row] = []
    async for line in iterate(lines):
        if len(waiting) == _SLICE:
            if task.total == 0:
                await own.write(partial(reserve, number=number, id_=task.id))
            await own.write(partial(_insert, first=base + task.total, lines=waiting))
            task.total += len(waiting)
            waiting = []
        waiting.append(row_of(line))
    first, task.total = base + task.total, task.total + len(waiting)
    if first == base:
        await database.write(partial(_take_in_at_once, number=number, task=task, lines=waiting), durable=True)
        return
    await own.write(partial(_insert, first=first, lines=waiting))
    await own.call(partial(_sort, base=base, total=task.total))
    for start in range(0, task.total, _SLICE):
        await own.write(partial(_move, base=base, start=start))
    await own.write(partial(admit, number=number, task=task), durable=True)


def row_of(line: str | bytes) -> Row:
    """What is kept of a line, and by what it is sorted."""
    if isinstance(line, bytes):
        with suppress(UnicodeDecodeError):  # then it is no URL, as a Target says
            line = line.decode()
    if isinstance(line, str) and (host := find_plain_host(line)) is not None:
        return *_key(line), hash(host), None, line
    target = Target.of(0, line)
    url, credentials = target.dedupe_key
    key = _key(f"{url}\n{credentials}" if credentials else url)
    problem = msgspec.json.encode(target.url).decode() if isinstance(target.url, ProbeError) else None
    return *key, hash(target.host), problem, target.text


def _key(wanted: str) -> tuple[int, int]:
    """Two numbers, of so many bits that no two of a billion targets have the same, whoever chooses them.

    `hash` is SipHash with a secret of this process, which is all that ever compares them; SQLite sorts numbers fast.
    """
    return hash(wanted), hash(wanted + "\n")


def _take_in_at_once(connection: sqlite3.Connection, *, number: int, task: Task, lines: list[Row]) -> None:
    base = number * SPAN
    reserve(connection, number=number, id_=task.id)
    _insert(connection, first=base, lines=lines)
    firsts: dict[tuple[int, int], int] = {}
    ranks: Counter[int] = Counter()
    ranked, twins = [], []
    for place, (key, key2, host, *_) in enumerate(lines):
        first = firsts.setdefault((key, key2), place)
        if first == place:
            ranked.append((ranks[host], place))
            ranks[host] += 1
        else:
            twins.append((base + first, base + place))
    insert(connection, "turns", [(base + turn, place) for turn, (_, place) in enumerate(sorted(ranked), 1)])
    insert(connection, "twins", twins)
    admit(connection, number=number, task=task)


def _insert(connection: sqlite3.Connection, *, first: int, lines: list[Row]) -> None:
    insert(connection, "lines", [(first + place, *line) for place, line in enumerate(lines)])


def _sort(connection: sqlite3.Connection, *, base: int, total: int) -> None:
    connection.execute(FIND_EQUAL, {"base": base, "total": total})
    connection.execute(_GIVE_TURNS)


def _move(connection: sqlite3.Connection, *, base: int, start: int) -> None:
    part = {"base": base, "start": start, "end": start + _SLICE}
    connection.execute(_MOVE_TURNS, part)
    connection.execute(_MOVE_TWINS, part)
