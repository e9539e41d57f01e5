"""Refuses a write-ahead log that belongs to another file than the one beside it.

SQLite copies a log that a crash has left into whichever file it finds there. Beside a restored copy, that damages the
file or loses what it held (https://sqlite.org/howtocorrupt.html, 1.4), and nothing in a log names its file. So each use
of a file has a name, its session: it is in the file itself before the log gets its first byte, and in the lock file,
which stays beside the log.
"""

import os
import secrets
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

import msgspec

from crawler.core.errors import InputError
from crawler.stores.sqlite.connection import checkpoint, connect, transaction
from crawler.stores.sqlite.file_lock import LOCK_HEAD_BYTES, lock_path

__all__ = ["begin_session", "check_log", "check_log_has_file", "forget_session", "has_log", "record_session"]

_NOTE: Final = "session"
# A checkpoint writes into the file soon after the last write to the log. More time between the two is a copy.
_LONGEST_CHECKPOINT_SECONDS: Final = 60.0


class _Record(msgspec.Struct):
    """The session that the lock file names, and the inodes of the files in it."""

    session: str
    file: int
    log: int


def has_log(path: Path) -> bool:
    """Return whether a file has a log with content."""
    return _size(path.with_name(path.name + "-wal")) > 0


def check_log_has_file(path: Path) -> None:
    """Refuse a write-ahead log whose file is missing: SQLite would delete it.

    Raises:
        InputError: The file is missing or empty, but its log has bytes.
    """
    log = path.with_name(path.name + "-wal")
    if not _size(path) and has_log(path):
        raise InputError(f"is missing, but {log.name} is there: restore the file, or move {log.name} away", str(path))


def check_log(path: Path) -> None:
    """Refuse a log that does not belong to the file, which this process has locked and not yet opened.

    Raises:
        InputError: The log belongs to another file.
    """
    log, record = path.with_name(path.name + "-wal"), _read_record(path)
    if record is not None and has_log(path) and _is_other_file(path, log, record):
        raise InputError(
            f"is not the file that {log.name} belongs to: move {log.name} away to use the file as it is, or restore "
            f"both together. If they do belong together, remove {lock_path(path).name}",
            str(path),
        )


def begin_session(path: Path) -> str | None:
    """Give a locked file a new session.

    Returns:
        Its name; None if the file could not be written, for example on a full disk.
    """
    with suppress(OSError):  # a record of another session would make this file another one
        os.truncate(lock_path(path), LOCK_HEAD_BYTES)
    session = None
    with suppress(sqlite3.Error):
        session = _write_session(path)
    return session if session is not None and _read_session(path) == session else None


def forget_session(connection: sqlite3.Connection) -> None:
    """Make a copy another file than the one whose session it has."""
    if connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'notes'").fetchone():
        connection.execute("DELETE FROM notes WHERE name = ?", (_NOTE,))


def _write_session(path: Path) -> str:
    """Write a new session into a file itself, not only into its log; return its name."""
    session = secrets.token_hex(8)
    with closing(connect(path)) as connection:
        with transaction(connection):
            connection.execute("INSERT OR REPLACE INTO notes VALUES (?, ?)", (_NOTE, session.encode()))
        checkpoint(connection)
    return session


def record_session(path: Path, session: str | None) -> None:
    """Write the session into the lock file, as soon as the log is open and before it has a byte."""
    if session is None:
        return
    record = _Record(session, path.stat().st_ino, path.with_name(path.name + "-wal").stat().st_ino)
    with suppress(OSError), lock_path(path).open("r+b") as file:  # without a record, any log is taken
        file.seek(LOCK_HEAD_BYTES)
        file.write(msgspec.json.encode(record) + b"\n")


def _is_other_file(path: Path, log: Path, record: _Record) -> bool:
    session = _read_session(path)
    if session not in (None, record.session):
        return True
    file_status, log_status = path.stat(), log.stat()
    has_same_log = log_status.st_ino == record.log
    if (file_status.st_ino == record.file) != has_same_log:
        return True  # one of them was replaced by a copy; if both are copies, they can belong together
    return has_same_log and file_status.st_mtime - log_status.st_mtime > _LONGEST_CHECKPOINT_SECONDS


def _read_session(path: Path) -> str | None:
    """Return the session in the file itself, without its log: empty if it has none, None if that cannot be read."""
    try:
        # An immutable file has no log for SQLite (https://sqlite.org/uri.html).
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
            if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'notes'").fetchone():
                return ""
            row = connection.execute("SELECT CAST(body AS TEXT) FROM notes WHERE name = ?", (_NOTE,)).fetchone()
            return "" if row is None else str(row[0])
    except sqlite3.Error:  # a crash during a checkpoint; the log has the pages that are missing
        return None


def _read_record(path: Path) -> _Record | None:
    with suppress(OSError, msgspec.MsgspecError):
        return msgspec.json.decode(lock_path(path).read_bytes()[LOCK_HEAD_BYTES:], type=_Record)
    return None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
