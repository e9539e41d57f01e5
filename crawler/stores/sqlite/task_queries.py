"""The queries of Tasks and notes in a registry's file, one function each; `Database` runs them on its thread.

A function that writes needs a transaction around it: `Database.write` provides one.
"""

import sqlite3
import time
from contextlib import suppress
from typing import Final, NamedTuple

import msgspec

from crawler.core.errors import InputError
from crawler.core.options import Options
from crawler.core.tasks import Counts, Task, decode_task

__all__ = [
    "admit", "make_orphan", "read_last_number", "read_note", "read_options", "read_tasks", "reserve", "save",
    "set_body", "write_note",
]  # fmt: skip

# The options of a Task never change; in memory they may be incomplete (`Registry.options`).
_KEEP_OPTIONS: Final = "json_set(:body, '$.options', json(json_extract(body, '$.options')))"


class UnreadTask(NamedTuple):
    """A Task whose record cannot be read: its id, why, and whether the record is damaged or of another version."""

    id: str
    problem: str
    is_damaged: bool


class StoredTasks(NamedTuple):
    """The return value of `read_tasks`: Tasks with their numbers, and those whose record cannot be read."""

    tasks: list[tuple[int, Task]]
    unread: list[UnreadTask]


def read_tasks(connection: sqlite3.Connection) -> StoredTasks:
    """Return every Task, oldest first.

    In place of one whose record is damaged there is another, with its id, that can be read and deleted. One with values
    that only another version knows is left out.
    """
    rows = connection.execute(
        """SELECT number, id, body, ok, http_error, failed, blocked, invalid FROM tasks
        WHERE body IS NOT NULL ORDER BY number"""
    )
    found: list[tuple[int, Task]] = []
    unread: list[UnreadTask] = []
    for number, id_, body, *counts in rows:
        try:
            if not all(isinstance(count, int) for count in counts):
                raise msgspec.DecodeError("a count is not a number")
            task = decode_task(body)
        except (msgspec.MsgspecError, InputError) as error:
            # JSON with unknown values stays in the file for a version that can decode it.
            is_damaged = type(error) is msgspec.DecodeError
            unread.append(UnreadTask(id_, str(error), is_damaged))
            if not is_damaged:
                continue
            task = _stand_in(id_, body)
        task.counts = Counts(*(count if isinstance(count, int) else 0 for count in counts))
        found.append((number, task))
    return StoredTasks(found, unread)


def _stand_in(id_: str, body: object) -> Task:
    """Return a Task that has ended, in place of one whose record is damaged. If its owner can be read, that stays."""
    owner = None
    if isinstance(body, str | bytes):
        with suppress(msgspec.MsgspecError, UnicodeDecodeError):
            owner = msgspec.json.decode(body, type=_Owned).owner
    now, detail = time.time(), "its record is damaged"
    return Task(id=id_, options=Options(), status="error", detail=detail, owner=owner, created=now, finished=now)


class _Owned(msgspec.Struct):
    owner: str | None = None


def read_last_number(connection: sqlite3.Connection) -> int:
    """Return the highest number of a Task or an orphan; 0 if there are none."""
    return int(connection.execute("SELECT coalesce(max(number), 0) FROM tasks").fetchone()[0])


def reserve(connection: sqlite3.Connection, *, number: int, id_: str) -> None:
    """Reserve a number for a Task that is being taken in. Until it is admitted, its rows are an orphan's."""
    connection.execute("INSERT INTO tasks (number, id) VALUES (?, ?)", (number, id_))


def admit(connection: sqlite3.Connection, *, number: int, task: Task) -> None:
    """Make the rows of a reserved number a Task."""
    set_body(connection, number, task)


def save(connection: sqlite3.Connection, *, number: int, task: Task) -> None:
    """Store a Task's own fields; the counts are stored with its results."""
    if connection.execute("SELECT body FROM tasks WHERE number = ?", (number,)).fetchone() != (None,):
        set_body(connection, number, task, _KEEP_OPTIONS)  # else it was deleted meanwhile, and this would restore it


def read_options(connection: sqlite3.Connection, *, number: int) -> Options | None:
    """Return the options that were stored with a Task; None if it has been deleted."""
    row = connection.execute("SELECT body FROM tasks WHERE number = ? AND body IS NOT NULL", (number,)).fetchone()
    return None if row is None else decode_task(row[0]).options


def read_note(connection: sqlite3.Connection, *, name: str) -> bytes | None:
    """Return a note, or None."""
    row = connection.execute("SELECT CAST(body AS BLOB) FROM notes WHERE name = ?", (name,)).fetchone()
    return None if row is None else bytes(row[0])


def write_note(connection: sqlite3.Connection, *, name: str, note: bytes) -> None:
    """Store a note in place of the one with the same name."""
    connection.execute("INSERT OR REPLACE INTO notes VALUES (?, ?)", (name, note))


def make_orphan(connection: sqlite3.Connection, *, number: int) -> None:
    """Delete a Task, but leave its rows for `delete_some_rows`."""
    connection.execute("UPDATE tasks SET body = NULL WHERE number = ?", (number,))


def set_body(connection: sqlite3.Connection, number: int, task: Task, body_of: str = ":body") -> None:
    """Store a Task; `body_of` is the SQL expression of what is stored of `:body`."""
    values = {"body": msgspec.json.encode(task).decode(), "number": number}
    if not connection.execute(f"UPDATE tasks SET body = {body_of} WHERE number = :number", values).rowcount:
        raise sqlite3.DatabaseError(f"Task {task.id} is not there any more")
