"""The tables of a registry's file, as migrations: each leads from one version of the file to the next.

A row's id is `number * 2**32 + place`: the Task's number above, the row's place within the Task below. So the rows of
a Task stand together in one tree without a second index, and are read and deleted as one range of ids.

    tasks        one row a Task; `body` is JSON. A row without `body` is not a Task yet, or not any more: an orphan
    lines        the lines as submitted, by position; `problem` is JSON of the error if a line is no URL
    pending      the targets without a result, in probing order; `seq` is the position of the first equal line
    duplicates   the other lines: `seq` is the position of one, `first` the id of the first line equal to it
    results      the results in the order in which they were recorded
    notes        short texts that concern all Tasks, for the next process (`Registry.write_note`)
"""

from typing import Final

__all__ = ["MIGRATIONS", "PLACES_PER_TASK"]

PLACES_PER_TASK: Final = 2**32

MIGRATIONS: Final = [
    [
        """CREATE TABLE tasks (
            number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, body TEXT,
            ok INTEGER NOT NULL DEFAULT 0, http_error INTEGER NOT NULL DEFAULT 0, failed INTEGER NOT NULL DEFAULT 0,
            blocked INTEGER NOT NULL DEFAULT 0, invalid INTEGER NOT NULL DEFAULT 0)""",
        """CREATE TABLE lines (
            id INTEGER PRIMARY KEY, key INTEGER NOT NULL, key2 INTEGER NOT NULL, host INTEGER NOT NULL, problem TEXT,
            text TEXT NOT NULL)""",
        "CREATE TABLE turns (id INTEGER PRIMARY KEY, seq INTEGER NOT NULL)",
        "CREATE TABLE twins (first INTEGER NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (first, seq)) WITHOUT ROWID",
        """CREATE TABLE records (
            id INTEGER PRIMARY KEY, outcome TEXT NOT NULL, status INTEGER, error TEXT, host TEXT NOT NULL,
            body TEXT NOT NULL)""",
    ],
    # Only intake needs a line's key and host; it now has them in a temporary table. Each DROP COLUMN rewrites `lines`:
    # all three take 1.4 s for a million lines.
    [
        "ALTER TABLE lines DROP COLUMN key",
        "ALTER TABLE lines DROP COLUMN key2",
        "ALTER TABLE lines DROP COLUMN host",
        "ALTER TABLE turns RENAME TO pending",
        "ALTER TABLE twins RENAME TO duplicates",
        "ALTER TABLE records RENAME TO results",
    ],
    ["CREATE TABLE notes (name TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID"],
]
