"""What is asked of the database, and told to it: one function each, to be run on its thread.

Those that write are each one transaction's work, or part of one: `Database.write` makes it whole.
"""

import logging
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from crawler.core.errors import InputError
from crawler.core.results import Outcome, ProbeError, ProbeResult
from crawler.core.tasks import Counts, ResultFilter, ResultPage, Task
from crawler.core.urls import Target
from crawler.runtime.logs import about
from crawler.stores.sqlite.database import insert
from crawler.stores.sqlite.schema import SPAN

__all__ = [
    "admit",
    "all_tasks",
    "disown",
    "dropped",
    "find_turns",
    "last_number",
    "orphans",
    "read_records",
    "read_turns",
    "record",
    "reserve",
    "save",
    "shrink",
    "size",
]

log = logging.getLogger(__name__)

_WINDOW: Final = 1_000  # targets that are read ahead
_SWEPT: Final = 5_000  # places whose rows are dropped in one transaction
_FREED: Final = 500  # pages that are given back to the disk at once
_SIZES: Final = ("page_count", "freelist_count", "page_size")
_KEYS: Final = {"turns": "id", "twins": "first", "lines": "id", "records": "id"}

_READ_TURNS: Final = """
    SELECT json_group_array(json_array(turns.id - :base, turns.seq, lines.text, lines.problem)) FROM (
        SELECT id, seq FROM turns WHERE id >= :base + :start AND id < :base + :span ORDER BY id LIMIT :limit
    ) AS turns JOIN lines ON lines.id = :base + turns.seq"""

_FIND_TURNS: Final = """
    SELECT json_group_array(json_array(turns.id - :base, turns.seq, lines.text, lines.problem)) FROM turns
    JOIN lines ON lines.id = :base + turns.seq
    WHERE turns.id >= :base AND turns.id < :base + :span AND turns.seq IN (SELECT value FROM json_each(:seqs))"""

# A line that is no URL has twins of the very same text, which its record has already.
_INSERT_TWINS: Final = """
    INSERT INTO records (id, outcome, status, error, host, body)
    SELECT :next + :count + row_number() OVER () - 1, outcome, status, error, records.host,
        iif(lines.problem IS NOT NULL, json_set(body, '$.seq', twins.seq - :base),
            json_set(body, '$.seq', twins.seq - :base, '$.url', lines.text))
    FROM records
    JOIN twins ON twins.first = :base + json_extract(body, '$.seq')
    JOIN lines ON lines.id = twins.seq
    WHERE records.id >= :next AND records.id < :next + :count"""

_DELETE_TURNS: Final = """
    DELETE FROM turns WHERE id IN (SELECT :base + value FROM json_each(:turns))"""

_COUNT: Final = """
    SELECT json_group_object(outcome, number) FROM (
        SELECT outcome, count(*) AS number FROM records WHERE id >= :next AND id < :base + :span GROUP BY outcome)"""

_READ_RECORDS: Final = """
    SELECT coalesce('[' || group_concat(body) || ']', '[]'), max(id), count(*) FROM (
        SELECT id, body FROM records
        WHERE id >= :base + :start AND id < :base + :end
            AND (:outcome IS NULL OR outcome = :outcome) AND (:status IS NULL OR status = :status)
            AND (:error IS NULL OR error = :error) AND (:host IS NULL OR host = :host)
        ORDER BY id LIMIT :limit)"""

_turns: Final = msgspec.json.Decoder(list[tuple[int, int, str, str | None]])  # turn, position, text, why it is no URL
_problem: Final = msgspec.json.Decoder(ProbeError)
_results: Final = msgspec.json.Decoder(list[ProbeResult])


def all_tasks(connection: sqlite3.Connection) -> list[tuple[int, Task]]:
    """Every Task and its number, oldest first."""
    rows = connection.execute(
        """SELECT number, id, body, ok, http_error, failed, blocked, invalid FROM tasks
        WHERE body IS NOT NULL ORDER BY number"""
    )
    found = []
    for number, id_, body, *counts in rows:
        try:
            task = msgspec.json.decode(body, type=Task)
        except (msgspec.MsgspecError, InputError) as error:  # it stays where it is, for a version that can
            with about(task=id_):
                log.error("task %s cannot be read and is left out: %s", id_, error)
            continue
        task.counts = Counts(*counts)
        found.append((number, task))
    return found


def last_number(connection: sqlite3.Connection) -> int:
    """The highest number that a Task, or what is left of one, has."""
    return int(connection.execute("SELECT coalesce(max(number), 0) FROM tasks").fetchone()[0])


def reserve(connection: sqlite3.Connection, *, number: int, id_: str) -> None:
    """Give a number to a Task that is about to come in; until it is in, it is a leftover."""
    connection.execute("INSERT INTO tasks (number, id) VALUES (?, ?)", (number, id_))


def admit(connection: sqlite3.Connection, *, number: int, task: Task) -> None:
    """Make it a Task, which from now on outlives even a power failure."""
    _set_body(connection, number, task)


def save(connection: sqlite3.Connection, *, number: int, task: Task) -> None:
    """Keep a Task's own fields, but for its counts, which its records make."""
    if connection.execute("SELECT body FROM tasks WHERE number = ?", (number,)).fetchone() != (None,):
        _set_body(connection, number, task)  # else it was deleted meanwhile, and would be a Task again


def disown(connection: sqlite3.Connection, *, number: int) -> None:
    """Make it a Task no more; its rows are left over."""
    connection.execute("UPDATE tasks SET body = NULL WHERE number = ?", (number,))


def read_turns(connection: sqlite3.Connection, *, number: int, start: int) -> list[tuple[int, Target]]:
    """The next targets, with their turns."""
    return _targets(connection, _READ_TURNS, {"base": number * SPAN, "span": SPAN, "start": start, "limit": _WINDOW})


def find_turns(connection: sqlite3.Connection, *, number: int, seqs: list[int]) -> list[tuple[int, Target]]:
    """The targets of some positions, with their turns; it looks through all turns."""
    seqs_as_json = msgspec.json.encode(seqs).decode()
    return _targets(connection, _FIND_TURNS, {"base": number * SPAN, "span": SPAN, "seqs": seqs_as_json})


def record(
    connection: sqlite3.Connection, *, number: int, start: int, rows: Iterable[tuple[int, str, ProbeResult]]
) -> dict[Outcome, int]:
    """Record results (turn, host, result), and those of their twins, from place `start` on; gives their counts."""
    base = number * SPAN
    records, turns = [], []
    for place, (turn, host, result) in enumerate(rows, base + start):
        error = result.error and result.error.type
        records.append((place, result.outcome, result.status, error, host, msgspec.json.encode(result).decode()))
        turns.append(turn)
    values = {
        "base": base, "span": SPAN, "next": base + start, "count": len(records),
        "turns": msgspec.json.encode(turns).decode(),
    }  # fmt: skip
    insert(connection, "records", records)
    connection.execute(_INSERT_TWINS, values)
    connection.execute(_DELETE_TURNS, values)
    counts = msgspec.json.decode(connection.execute(_COUNT, values).fetchone()[0], type=dict[Outcome, int])
    more = ", ".join(f"{outcome} = {outcome} + {count}" for outcome, count in counts.items())
    if not connection.execute(f"UPDATE tasks SET {more} WHERE number = ?", (number,)).rowcount:
        raise sqlite3.DatabaseError(f"there is no task {number} any more")
    return counts


def read_records(
    connection: sqlite3.Connection, *, number: int, start: int, end: int, limit: int, where: ResultFilter
) -> ResultPage:
    """At most `limit` of the records from place `start` to before place `end`."""
    base = number * SPAN
    values: dict[str, Any] = {"base": base, "start": start, "end": end, "limit": limit, **msgspec.structs.asdict(where)}
    text, last, count = connection.execute(_READ_RECORDS, values).fetchone()
    return ResultPage(_results.decode(text), last + 1 - base if 0 < count == limit else max(start, end))


def orphans(connection: sqlite3.Connection) -> Sequence[int]:
    """The numbers that are no Task's, but may have rows."""
    return [number for (number,) in connection.execute("SELECT number FROM tasks WHERE body IS NULL")]


def dropped(connection: sqlite3.Connection, *, number: int) -> bool:
    """Drop some rows of an orphan; whether there was anything left to drop."""
    first, last = number * SPAN, (number + 1) * SPAN - 1
    if not connection.execute("SELECT 1 FROM tasks WHERE number = ? AND body IS NULL", (number,)).fetchone():
        return False  # it has become a Task since it was found
    for table, key in _KEYS.items():
        bounds = f"{key} BETWEEN ? AND ?"
        start = connection.execute(f"SELECT min({key}) FROM {table} WHERE {bounds}", (first, last)).fetchone()[0]
        if start is not None:
            connection.execute(f"DELETE FROM {table} WHERE {bounds}", (start, min(start + _SWEPT, last)))
            return True
    connection.execute("DELETE FROM tasks WHERE number = ?", (number,))
    return False


def shrink(connection: sqlite3.Connection) -> bool:
    """Give some free pages back to the disk; whether there were any."""
    if not connection.execute("PRAGMA freelist_count").fetchone()[0]:
        return False
    connection.executescript(f"PRAGMA incremental_vacuum({_FREED})")  # execute() would free one page
    return True


def size(connection: sqlite3.Connection) -> int:
    """Bytes in use; what deleted rows have left free is not."""
    pages, free, each = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in _SIZES)
    return int((pages - free) * each)


def _targets(connection: sqlite3.Connection, statement: str, values: dict[str, Any]) -> list[tuple[int, Target]]:
    found = _turns.decode(connection.execute(statement, values).fetchone()[0])
    return [
        (turn, Target.of(seq, text) if problem is None else Target(seq, text, _problem.decode(problem)))
        for turn, seq, text, problem in sorted(found)
    ]


def _set_body(connection: sqlite3.Connection, number: int, task: Task) -> None:
    body = msgspec.json.encode(task).decode()
    if not connection.execute("UPDATE tasks SET body = ? WHERE number = ?", (body, number)).rowcount:
        raise sqlite3.DatabaseError(f"task {task.id} is not there any more")
