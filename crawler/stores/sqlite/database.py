"""SQLite on threads of its own, so that the event loop never waits for a disk.

Each step of a statement gives the interpreter's lock up and has to get it back, and a busy event loop hands it over
only every few milliseconds. So whatever concerns many rows is *one* step: rows go in as one list of values (`insert`)
and come out as one JSON text (`json_group_array`).
"""

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

from crawler.core.errors import InputError, StoreDamaged, StoreError, StoreFull
from crawler.runtime.counters import CallCounter
from crawler.stores.sqlite.schema import MIGRATIONS

__all__ = ["Database", "FileLock", "connect", "insert", "lock", "migrate", "transaction", "try_out"]

T = TypeVar("T")
DatabaseCall: TypeAlias = Callable[[sqlite3.Connection], T]

_PATIENCE: Final = 60.0  # seconds to wait for another connection's transaction; each is short
_ROWS: Final = 1_000  # of one step; a statement has a bound on its values
_NOTICED: Final = 0.05  # seconds until it is looked again whether another process has ended
_CACHE: Final = 16 * 1024  # KiB of pages that a connection keeps
_ROOM: Final = 2**20  # bytes of the disk: with fewer left, the next batch would not find its place
_ERRORS: Final = {
    sqlite3.SQLITE_FULL: StoreFull,
    sqlite3.SQLITE_CORRUPT: StoreDamaged,
    sqlite3.SQLITE_NOTADB: StoreDamaged,
}


class Database:
    """A connection, made with the first call, and its thread. Calls run there one after the other.

    Args:
        path: The file.
        writing: Held by whoever writes to the file: the others of this process wait in a line for it, as they do not
            for SQLite's own lock.
        calls: Counts what is read and written.
    """

    def __init__(self, path: Path, writing: asyncio.Lock, calls: CallCounter) -> None:
        self._path = path
        self._writing = writing
        self._calls = calls
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sqlite")
        self._connection: sqlite3.Connection | None = None
        self._waiting: list[
            tuple[DatabaseCall[Any], asyncio.Future[Any]]
        ] = []  # what the next durable transaction will have
        self._commits: set[asyncio.Task[None]] = set()  # the loop itself holds them by weak references only

    async def call(self, work: DatabaseCall[T]) -> T:
        """Have `work` done with the connection; it goes on even if nobody waits for it any more.

        Raises:
            StoreError: The database refused.
        """
        try:
            return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, self._run, work))
        except StoreDamaged:
            self._calls.is_damaged = True
            raise

    async def read(self, work: DatabaseCall[T]) -> T:
        """The same, for what somebody waits to read.

        Raises:
            StoreError: The database refused.
        """
        with self._calls.timed("read"):
            return await self.call(work)

    async def write(self, work: DatabaseCall[T], *, durable: bool = False) -> T:
        """Have `work` done whole or not at all; if `durable`, it has survived even a power failure on return.

        Raises:
            StoreError: The database refused, and nothing is changed.
        """
        with self._calls.timed("write"):
            if durable:
                return await self._with_others(work)
            async with self._writing:
                return await self.call(partial(_whole, work=work))

    async def _with_others(self, work: DatabaseCall[T]) -> T:
        """Have `work` done with all else that is to be durable by now: a sync takes as long for many as for one."""
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append((work, done))
        if len(self._waiting) == 1:
            commit = asyncio.ensure_future(self._commit())
            self._commits.add(commit)
            commit.add_done_callback(self._commits.discard)
        return await done

    async def _commit(self) -> None:
        async with self._writing:
            waiting, self._waiting = self._waiting, []
            waiting = [(work, done) for work, done in waiting if not done.cancelled()]
            try:
                found = await self.call(partial(_together, works=[work for work, _ in waiting]))
            except Exception as error:
                found = [error] * len(waiting)
        for (_, done), outcome in zip(waiting, found, strict=True):
            if done.cancelled():
                continue
            if isinstance(outcome, Exception):
                done.set_exception(self._ours(outcome) if isinstance(outcome, sqlite3.Error) else outcome)
            else:
                done.set_result(outcome)

    async def aclose(self) -> None:
        """Close the connection, once all calls are done."""
        if self._connection is not None:
            with suppress(StoreError):
                await self.call(sqlite3.Connection.close)
        self._thread.shutdown(wait=False)

    def _run(self, work: DatabaseCall[T]) -> T:
        try:
            if self._connection is None:
                self._connection = connect(self._path)
            return work(self._connection)
        except sqlite3.Error as error:
            raise self._ours(error) from error

    def _ours(self, error: sqlite3.Error) -> StoreError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the rest says more of the same
        return _ERRORS.get(code, StoreError)(f"{self._path}: {error}")


def _whole(connection: sqlite3.Connection, *, work: DatabaseCall[T]) -> T:
    with transaction(connection):
        return work(connection)


def _together(connection: sqlite3.Connection, *, works: Sequence[DatabaseCall[Any]]) -> list[Any]:
    """What came of each in one durable transaction: one that fails has changed nothing, and the others have."""
    found: list[Any] = []
    with transaction(connection, durable=True):
        for work in works:
            connection.execute("SAVEPOINT work")
            try:
                found.append(work(connection))
            except Exception as error:
                if not connection.in_transaction:  # SQLite has undone all of it, as it does if a disk is full
                    raise
                connection.execute("ROLLBACK TO work")
                found.append(error)
            connection.execute("RELEASE work")
    return found


class FileLock:
    """Keeps a second process from a file. The kernel lets go of it when the process ends, however it ends."""

    def __init__(self, path: Path) -> None:
        """Take it.

        Raises:
            InputError: Another process has it, or it cannot be made.
        """
        self._path = path.with_name(path.name + ".lock")
        try:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise InputError(f"cannot be used: {error.strerror}", str(path)) from None
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = os.read(self._descriptor, 32).decode().strip() or "unknown"
            os.close(self._descriptor)
            raise InputError(f"is in use by another crawler, process {owner}", str(path)) from None
        os.ftruncate(self._descriptor, 0)
        os.write(self._descriptor, f"{os.getpid()}\n".encode())

    def release(self) -> None:
        """Let others have it."""
        os.close(self._descriptor)


async def lock(path: Path, patience: float) -> FileLock:
    """Keep others from a file, as soon as nobody else does.

    Raises:
        InputError: Another process still has it after so many seconds, or it cannot be made.
    """
    until = asyncio.get_running_loop().time() + patience
    while asyncio.get_running_loop().time() < until:
        with suppress(InputError):
            return FileLock(path)
        await asyncio.sleep(_NOTICED)
    return FileLock(path)


def connect(path: Path, *, make: bool = False) -> sqlite3.Connection:
    """A connection as all here are: write-ahead log, safe against a crash of the process at every commit.

    If the file is not there, `make` it: while it is in use, a new one in its place would hide that it is lost.
    """
    where = f"{path.absolute().as_uri()}?mode={'rwc' if make else 'rw'}"
    connection = sqlite3.connect(where, uri=True, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
    try:
        if make:
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # before anything else is written
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA cache_size = -{_CACHE}")
        connection.execute("PRAGMA temp_store = FILE")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def migrate(path: Path) -> None:
    """Make a file what this version needs, from whatever earlier version.

    Raises:
        InputError: It is no database of ours, of a later version, damaged or not to be written to.
    """
    try:
        connection = connect(path, make=True)
        try:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version > len(MIGRATIONS):
                raise InputError("was written by a later version of crawler", str(path))
            for number, script in enumerate(MIGRATIONS[version:], version + 1):
                with transaction(connection):
                    for statement in script:
                        connection.execute(statement)
                    connection.execute(f"PRAGMA user_version = {number}")
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise InputError(f"cannot be used: {error}", str(path)) from None


@contextmanager
def transaction(connection: sqlite3.Connection, *, durable: bool = False) -> Iterator[None]:
    """All of it or nothing; a `durable` one has also survived a power failure when it returns."""
    if durable:
        connection.execute("PRAGMA synchronous = FULL")
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):  # some errors have rolled it back already
            connection.execute("ROLLBACK")
        raise
    finally:
        if durable:
            connection.execute("PRAGMA synchronous = NORMAL")


def try_out(connection: sqlite3.Connection, *, path: Path) -> None:
    """Write what is there already.

    Raises:
        StoreFull: Its disk has next to no room.
    """
    disk = os.statvfs(path)
    if disk.f_bavail * disk.f_frsize < _ROOM:
        raise StoreFull(f"{path}: there is next to no space left on its disk")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    connection.execute(f"PRAGMA user_version = {version}")


def insert(
    connection: sqlite3.Connection, table: str, rows: Sequence[tuple[object, ...]], *, or_replace: bool = False
) -> None:
    """Insert rows, each whole, in few steps."""
    verb = "INSERT OR REPLACE" if or_replace else "INSERT"
    for start in range(0, len(rows), _ROWS):
        some = rows[start : start + _ROWS]
        places = "(" + ",".join("?" * len(some[0])) + ")"
        values = [value for row in some for value in row]
        connection.execute(f"{verb} INTO {table} VALUES " + ",".join([places] * len(some)), values)
