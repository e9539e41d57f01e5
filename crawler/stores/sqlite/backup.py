"""Copy a registry's file while a service uses it, and check whether a file is sound. Neither changes its Tasks."""

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from crawler.core.errors import InputError, StoreDamaged, StoreError
from crawler.core.results import ProbeResult
from crawler.stores.sqlite import task_queries
from crawler.stores.sqlite.log_check import check_log, check_log_has_file, forget_session, has_log

__all__ = ["copy_file", "find_damage"]

_PAGES_PER_STEP: Final = 1_000
_MOST_FINDINGS: Final = 20

_decode_result: Final = msgspec.json.Decoder(ProbeResult).decode


def copy_file(path: Path, target: Path) -> int:
    """Copy a registry's file as it is at one moment, by SQLite's backup API (https://sqlite.org/backup.html).

    Args:
        path: The file, which a service may be using.
        target: The copy. It gets its name when it is whole and on the disk.

    Returns:
        The number of Tasks in the copy.

    Raises:
        InputError: The file cannot be opened, or `target` exists or cannot be created.
        StoreDamaged: The file is damaged; there is no copy.
        StoreError: The copy cannot be written, for example to a full disk.
    """
    if os.path.lexists(target):
        raise InputError("exists already, and is not overwritten", str(target))
    with _reading(path) as source:
        try:
            descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        except OSError as error:
            raise InputError(f"cannot be created: {error.strerror}", str(target)) from None
        os.close(descriptor)
        partial = Path(name)
        try:
            count = _copy_pages(source, partial)
            if findings := find_damage(partial):
                raise StoreDamaged(f"{path}: is damaged: {findings[0]}")
            _give_name(partial, target)
        except sqlite3.Error as error:
            raise StoreError(f"{target}: cannot be written: {error}") from None
        finally:
            with suppress(FileNotFoundError):
                partial.unlink()
    return count


def find_damage(path: Path) -> list[str]:
    """Return what is wrong with a registry's file, some findings if there are many; empty if it is sound.

    Raises:
        InputError: The file cannot be opened, or is not a registry's.
    """
    findings: list[str] = []
    with _reading(path) as connection:
        try:
            rows = connection.execute(f"PRAGMA integrity_check({_MOST_FINDINGS})")
            findings += [str(text) for (text,) in rows if text != "ok"]
            unread = task_queries.read_tasks(connection).unread
            findings += [f"Task {task.id} cannot be read: {task.problem}" for task in unread if task.is_damaged]
            findings += _find_damaged_results(connection)
        except sqlite3.Error as error:
            findings.append(str(error))
    return findings[:_MOST_FINDINGS]


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a registry's file at one moment: what others write meanwhile is not seen."""
    path = path.resolve()
    check_log_has_file(path)
    if not path.is_file():
        raise InputError("is not there", str(path))
    check_log(path)
    try:
        # Reading creates the log's index, which a read-only disk does not let it; but nothing changes a file there.
        is_frozen = bool(os.statvfs(path).f_flag & os.ST_RDONLY) and not has_log(path)
        uri = f"{path.as_uri()}?mode=ro{'&immutable=1' if is_frozen else ''}"
        connection = sqlite3.connect(uri, uri=True, isolation_level=None)
        connection.execute("BEGIN")
        is_registry = connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'tasks'").fetchone()
    except sqlite3.Error as error:
        raise InputError(f"cannot be read: {error}", str(path)) from None
    with closing(connection):
        if not is_registry:
            raise InputError("is not a file of Tasks", str(path))
        yield connection


def _copy_pages(source: sqlite3.Connection, partial: Path) -> int:
    with closing(sqlite3.connect(partial, isolation_level=None)) as copy:
        source.backup(copy, pages=_PAGES_PER_STEP, sleep=0.0)
        copy.execute("PRAGMA journal_mode = DELETE")  # one file, without a log
        forget_session(copy)
        return int(copy.execute("SELECT count(*) FROM tasks WHERE body IS NOT NULL").fetchone()[0])


def _find_damaged_results(connection: sqlite3.Connection) -> Iterator[str]:
    for table in ("results", "records"):  # its name in version 1
        if connection.execute("SELECT 1 FROM sqlite_schema WHERE name = ?", (table,)).fetchone():
            for number, body in connection.execute(f"SELECT id, body FROM {table}"):
                try:
                    _decode_result(body)
                except (msgspec.MsgspecError, TypeError, ValueError) as error:
                    yield f"result {number} cannot be read: {error}"


def _give_name(partial: Path, target: Path) -> None:
    """Give a whole file its name, unless another file has it; both are then on the disk."""
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    try:
        os.link(partial, target)  # unlike a rename, it never overwrites
    except FileExistsError:
        raise InputError("exists already, and is not overwritten", str(target)) from None
    except OSError:  # a file system without links
        partial.rename(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
