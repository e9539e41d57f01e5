"""The tables, as the steps that lead from one version of them to the next.

A row's key is `number * 2**32 + place`: its Task's number above, its place within the Task below. So a Task's rows lie
together in one tree that needs no second index, and are read, and dropped, as one range of keys.

    tasks     one a Task; `body` is JSON. Without a body it is not (yet, or any more) a Task, and its rows are leftovers
    lines     the lines as submitted, by position; `key` and `key2` are equal for those that ask for one target, and
              `host` for those of one host; `problem` is why one is no URL
    turns     targets without a record, in the order in which they are to be probed; `seq` is the first line of each
    twins     the other lines that ask for the same target as line `first`
    records   what was found, in the order in which it was
"""

from typing import Final

__all__ = ["MIGRATIONS", "SPAN"]

SPAN: Final = 2**32  # places a Task has

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
]
