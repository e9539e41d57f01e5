"""SQLite connections: how this package opens, migrates and writes a database file.

Each step of a statement releases the interpreter's lock and has to get it back, and a busy event loop hands it over
only every few milliseconds. So a statement that concerns many rows is one step: rows go in as one list of values
(`insert_rows`) and come out as one JSON text (`json_group_array`).
"""

import logging
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from crawler.core.errors import InputError
from crawler.stores.sqlite.schema import MIGRATIONS

__all__ = ["check_writable", "checkpoint", "connect", "insert_rows", "migrate", "transaction"]

log = logging.getLogger(__name__)

_LOCK_TIMEOUT_SECONDS: Final = 60.0  # to wait for another connection's transaction; each is short
_ROWS_PER_STEP: Final = 1_000  # SQLite limits the number of values in a statement
_CACHE_KIB: Final = 16 * 1024  # of pages, for each connection


def connect(path: Path, *, create: bool = False) -> sqlite3.Connection:
    """Open a database with a write-ahead log: each commit survives a crash of the process.

    Args:
        path: The file.
        create: Create the file if it does not exist. A file that is in use must not be created again: a new one would
            hide that the first one is lost.
    """
    uri = f"{path.absolute().as_uri()}?mode={'rwc' if create else 'rw'}"
    connection = sqlite3.connect(
        uri, uri=True, timeout=_LOCK_TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False
    )
    try:
        if create:
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # works only before the first write
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        connection.execute("PRAGMA temp_store = FILE")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def migrate(path: Path) -> None:
    """Create a registry's file, or bring one of an earlier version up to date.

    Raises:
        InputError: The file is not a registry's, is of a later version, is damaged, or cannot be written.
    """
    try:
        connection = connect(path, create=True)
        try:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version > len(MIGRATIONS):
                raise InputError("was written by a later version of crawler", str(path))
            if 0 < version < len(MIGRATIONS):
                log.info("%s is brought from version %d to version %d", path, version, len(MIGRATIONS))
            for number, statements in enumerate(MIGRATIONS[version:], version + 1):
                with transaction(connection):
                    for statement in statements:
                        connection.execute(statement)
                    connection.execute(f"PRAGMA user_version = {number}")
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise InputError(f"cannot be used: {error}", str(path)) from None


@contextmanager
def transaction(connection: sqlite3.Connection, *, durable: bool = False) -> Iterator[None]:
    """Commit at the end of the context, or roll back if it raises.

    Args:
        connection: Where.
        durable: Whether the commit has to survive a power failure, not only a crash of the process.
    """
    if durable:
        connection.execute("PRAGMA synchronous = FULL")
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):  # after some errors SQLite has rolled back already
            connection.execute("ROLLBACK")
        raise
    finally:
        if durable:
            connection.execute("PRAGMA synchronous = NORMAL")


def check_writable(connection: sqlite3.Connection) -> None:
    """Write a value that the database has already."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    connection.execute(f"PRAGMA user_version = {version}")


def checkpoint(connection: sqlite3.Connection) -> None:
    """Copy the write-ahead log into the database, as far as no reader needs the log."""
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()


def insert_rows(
    connection: sqlite3.Connection, table: str, rows: Sequence[tuple[object, ...]], *, or_replace: bool = False
) -> None:
    """Insert rows, with a value for each column, in few steps."""
    verb = "INSERT OR REPLACE" if or_replace else "INSERT"
    for start in range(0, len(rows), _ROWS_PER_STEP):
        some = rows[start : start + _ROWS_PER_STEP]
        placeholders = "(" + ",".join("?" * len(some[0])) + ")"
        values = [value for row in some for value in row]
        connection.execute(f"{verb} INTO {table} VALUES " + ",".join([placeholders] * len(some)), values)
