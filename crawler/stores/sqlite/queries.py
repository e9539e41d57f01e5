"""The queries of lines and results in a registry's file, one function each; `Database` runs them on its thread.

A function that writes needs a transaction around it: `Database.write` provides one.
"""

import sqlite3
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import msgspec

from crawler.core.results import Outcome, ProbeError, ProbeResult
from crawler.core.tasks import ResultFilter, ResultSlice
from crawler.core.urls import Target
from crawler.stores.sqlite.connection import insert_rows
from crawler.stores.sqlite.schema import PLACES_PER_TASK

__all__ = [
    "RecordedResults",
    "delete_some_rows",
    "find_pending",
    "free_pages",
    "list_orphans",
    "read_pending",
    "read_results",
    "record",
    "used_bytes",
]

_READ_AHEAD_TARGETS: Final = 1_000
_READ_AHEAD_CHARACTERS: Final = 2**20  # of their lines
_FIRST_ROWS: Final = 100  # of a page: they show how many more will fit
_MAX_BODIES_CHARACTERS: Final = 2**20  # of recorded results that are returned
_PLACES_PER_DELETE: Final = 5_000  # a transaction deletes the rows of this many places
_PAGES_PER_VACUUM: Final = 500
_ID_COLUMNS: Final = {"pending": "id", "duplicates": "first", "lines": "id", "results": "id"}

_READ_PENDING: Final = """
    SELECT json_group_array(json_array(id - :base, seq, text, problem)) FROM (
        SELECT pending.id, seq, text, problem, length(text) AS size,
            sum(length(text)) OVER (ORDER BY pending.id ROWS UNBOUNDED PRECEDING) AS sum
        FROM (SELECT id, seq FROM pending WHERE id >= :base + :start AND id < :base + :span ORDER BY id LIMIT :limit)
            AS pending JOIN lines ON lines.id = :base + pending.seq
    ) WHERE sum - size < :characters"""

_FIND_PENDING: Final = """
    SELECT json_group_array(json_array(pending.id - :base, pending.seq, lines.text, lines.problem)) FROM pending
    JOIN lines ON lines.id = :base + pending.seq
    WHERE pending.id >= :base AND pending.id < :base + :span AND pending.seq IN (SELECT value FROM json_each(:seqs))"""

# A line that is no URL has duplicates with the very same text, which the first one's result has already.
_INSERT_DUPLICATES: Final = """
    INSERT INTO results (id, outcome, status, error, host, body)
    SELECT :next + :count + row_number() OVER () - 1, outcome, status, error, results.host,
        iif(lines.problem IS NOT NULL, json_set(body, '$.seq', duplicates.seq - :base),
            json_set(body, '$.seq', duplicates.seq - :base, '$.url', lines.text))
    FROM results
    JOIN duplicates ON duplicates.first = :base + json_extract(body, '$.seq')
    JOIN lines ON lines.id = duplicates.seq
    WHERE results.id >= :next AND results.id < :next + :count"""

_DELETE_PENDING: Final = """
    DELETE FROM pending WHERE id IN (SELECT :base + value FROM json_each(:places))"""

_COUNT: Final = """
    SELECT json_group_object(outcome, number) FROM (
        SELECT outcome, count(*) AS number FROM results WHERE id >= :next AND id < :base + :span GROUP BY outcome)"""

_READ_DUPLICATES: Final = """
    SELECT group_concat(body) FROM (
        SELECT body FROM results WHERE id >= :next + :count AND id < :base + :span ORDER BY id)
    WHERE (SELECT sum(length(body)) FROM results WHERE id >= :next + :count AND id < :base + :span) <= :characters"""

# The results that fit into some bytes, with the one that reaches them; the last id; their number, with and without that
# limit; and their bytes.
_READ_RESULTS: Final = """
    SELECT group_concat(body), max(id), count(*), max(rows), sum(size) FROM (
        SELECT id, body, size, sum(size) OVER (ORDER BY id ROWS UNBOUNDED PRECEDING) AS sum, count(*) OVER () AS rows
        FROM (
            SELECT id, body, length(CAST(body AS BLOB)) AS size FROM results
            WHERE id >= :base + :start AND id < :base + :end
                AND (:outcome IS NULL OR outcome = :outcome) AND (:status IS NULL OR status = :status)
                AND (:error IS NULL OR error = :error) AND (:host IS NULL OR host = :host)
            ORDER BY id LIMIT :limit)
    ) WHERE sum - size < :bytes"""

_pending: Final = msgspec.json.Decoder(list[tuple[int, int, str, str | None]])  # place, position, text, problem
_problem: Final = msgspec.json.Decoder(ProbeError)
_results: Final = msgspec.json.Decoder(list[ProbeResult])
_counts: Final = msgspec.json.Decoder(dict[Outcome, int])


class RecordedResults(NamedTuple):
    """The return value of `record`: counts by outcome, and if wanted all results as JSON separated by commas.

    `bodies` is None if the results are too long for memory.
    """

    counts: dict[Outcome, int]
    bodies: str | None


def read_pending(connection: sqlite3.Connection, *, number: int, start: int) -> list[tuple[int, Target]]:
    """Return the next pending targets from a place on, in probing order, each with its place."""
    base = number * PLACES_PER_TASK
    values = {
        "base": base, "span": PLACES_PER_TASK, "start": start,
        "limit": _READ_AHEAD_TARGETS, "characters": _READ_AHEAD_CHARACTERS,
    }  # fmt: skip
    return _read_targets(connection, _READ_PENDING, values)


def find_pending(connection: sqlite3.Connection, *, number: int, seqs: list[int]) -> list[tuple[int, Target]]:
    """Return the pending targets of some positions, each with its place; this scans all pending targets of the Task."""
    base = number * PLACES_PER_TASK
    values = {"base": base, "span": PLACES_PER_TASK, "seqs": msgspec.json.encode(seqs).decode()}
    return _read_targets(connection, _FIND_PENDING, values)


def record(
    connection: sqlite3.Connection,
    *,
    number: int,
    start: int,
    rows: Iterable[tuple[int, str, ProbeResult]],
    wants_bodies: bool = False,
) -> RecordedResults:
    """Store results of pending targets, and copies of them for duplicate lines.

    Args:
        connection: Where.
        number: The Task's number.
        start: The first free place for a result.
        rows: Place in probing order, host and result of each target.
        wants_bodies: Whether to return the results as JSON.
    """
    base = number * PLACES_PER_TASK
    results, places = [], []
    for result_id, (place, host, result) in enumerate(rows, base + start):
        error = result.error and result.error.type
        results.append((result_id, result.outcome, result.status, error, host, msgspec.json.encode(result).decode()))
        places.append(place)
    values = {
        "base": base, "span": PLACES_PER_TASK, "next": base + start, "count": len(results),
        "places": msgspec.json.encode(places).decode(), "characters": _MAX_BODIES_CHARACTERS,
    }  # fmt: skip
    insert_rows(connection, "results", results)
    connection.execute(_INSERT_DUPLICATES, values)
    connection.execute(_DELETE_PENDING, values)
    counts = _counts.decode(connection.execute(_COUNT, values).fetchone()[0])
    more = ", ".join(f"{outcome} = {outcome} + {count}" for outcome, count in counts.items())
    if not connection.execute(f"UPDATE tasks SET {more} WHERE number = ?", (number,)).rowcount:
        raise sqlite3.DatabaseError(f"there is no Task {number} any more")
    if not wants_bodies:
        return RecordedResults(counts, "")
    bodies = [body for *_, body in results]
    if sum(map(len, bodies)) > _MAX_BODIES_CHARACTERS:
        return RecordedResults(counts, None)
    if sum(counts.values()) > len(results):
        copies = connection.execute(_READ_DUPLICATES, values).fetchone()[0]
        if copies is None:
            return RecordedResults(counts, None)
        bodies.append(copies)
    return RecordedResults(counts, ",".join(bodies))


def read_results(
    connection: sqlite3.Connection,
    *,
    number: int,
    start: int,
    end: int,
    limit: int,
    where: ResultFilter,
    max_bytes: int,
) -> ResultSlice:
    """Return at most `limit` of the results from place `start` to before place `end`, as `Registry.page` does."""
    base = number * PLACES_PER_TASK
    values: dict[str, Any] = {"base": base, "end": end, **msgspec.structs.asdict(where)}
    bodies: list[str] = []
    count = size = 0
    wanted = min(limit, _FIRST_ROWS)
    while wanted > 0 and size < max_bytes:
        values |= {"start": start, "limit": wanted, "bytes": max_bytes - size}
        text, last, fitting, rows, part_size = connection.execute(_READ_RESULTS, values).fetchone()
        if text is not None:
            bodies.append(text)
            start, count, size = last + 1 - base, count + fitting, size + part_size
        if text is None or (fitting == rows < wanted):
            start = max(start, end)
            break
        # Bytes and not only rows: the rows that do not fit would be read for nothing.
        wanted = min(limit - count, max(1, (max_bytes - size) * count // size))
    return ResultSlice(_results.decode(f"[{','.join(bodies)}]"), start)


def list_orphans(connection: sqlite3.Connection) -> list[int]:
    """Return the numbers that are not a Task's, but can have rows."""
    return [number for (number,) in connection.execute("SELECT number FROM tasks WHERE body IS NULL")]


def delete_some_rows(connection: sqlite3.Connection, *, number: int) -> bool:
    """Delete some rows of an orphan; return whether it had any."""
    first, last = number * PLACES_PER_TASK, (number + 1) * PLACES_PER_TASK - 1
    if not connection.execute("SELECT 1 FROM tasks WHERE number = ? AND body IS NULL", (number,)).fetchone():
        return False  # it was admitted after `list_orphans`
    for table, column in _ID_COLUMNS.items():
        bounds = f"{column} BETWEEN ? AND ?"
        start = connection.execute(f"SELECT min({column}) FROM {table} WHERE {bounds}", (first, last)).fetchone()[0]
        if start is not None:
            connection.execute(f"DELETE FROM {table} WHERE {bounds}", (start, min(start + _PLACES_PER_DELETE, last)))
            return True
    connection.execute("DELETE FROM tasks WHERE number = ?", (number,))
    return False


def free_pages(connection: sqlite3.Connection) -> bool:
    """Give some unused pages back to the disk; return whether there were any."""
    if not connection.execute("PRAGMA freelist_count").fetchone()[0]:
        return False
    connection.executescript(f"PRAGMA incremental_vacuum({_PAGES_PER_VACUUM})")  # execute() would free one page
    return True


def used_bytes(connection: sqlite3.Connection) -> int:
    """Return the size of the file without its unused pages."""
    pages, unused, page_bytes = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - unused) * page_bytes)


def _read_targets(connection: sqlite3.Connection, statement: str, values: dict[str, Any]) -> list[tuple[int, Target]]:
    found = _pending.decode(connection.execute(statement, values).fetchone()[0])
    return [
        (place, Target.of(seq, text) if problem is None else Target(seq, text, _problem.decode(problem)))
        for place, seq, text, problem in sorted(found)
    ]
