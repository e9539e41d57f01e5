"""A SQLite connection on a thread of its own, so that the event loop never waits for a disk."""

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

import msgspec

from crawler.core.errors import StoreDamaged, StoreError, StoreFull
from crawler.runtime.counters import CallCounters
from crawler.stores.sqlite.connection import checkpoint, connect, transaction
from crawler.stores.sqlite.file_guard import FileGuard
from crawler.stores.sqlite.reserve import Reserve

__all__ = ["Database"]

T = TypeVar("T")
DatabaseCall: TypeAlias = Callable[[sqlite3.Connection], T]

_ERRORS: Final = {
    sqlite3.SQLITE_FULL: StoreFull,
    sqlite3.SQLITE_CORRUPT: StoreDamaged,
    sqlite3.SQLITE_NOTADB: StoreDamaged,
}

_POSSIBLY_FULL: Final = {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN}  # what a file fails with that has no space


class _DurableWrite(NamedTuple):
    """A call that waits for the next durable transaction."""

    call: DatabaseCall[Any]
    done: asyncio.Future[Any]


class Database:
    """A connection and its thread. Calls run there one after the other; the first one opens the connection.

    Args:
        path: The file.
        write_lock: Held during each write. It queues the writers of this process; SQLite's own lock makes them poll.
        calls: Counts reads and writes.
        guard: Asked before each write, and before the connection is opened.
        reserve: Space for the writes that must be possible on a full disk.
    """

    def __init__(
        self,
        path: Path,
        write_lock: asyncio.Lock,
        calls: CallCounters,
        guard: FileGuard | None = None,
        reserve: Reserve | None = None,
    ) -> None:
        self._path = path
        self._write_lock = write_lock
        self._calls = calls
        self._guard = guard or FileGuard(path)
        self._reserve = reserve
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sqlite")
        self._connection: sqlite3.Connection | None = None
        self._durable_writes: list[_DurableWrite] = []
        self._commits: set[asyncio.Task[None]] = set()  # the event loop holds its tasks by weak references only

    async def call(self, call: DatabaseCall[T]) -> T:
        """Run `call` with the connection; it runs to its end even if the caller is cancelled.

        Raises:
            StoreError: SQLite raised an error.
        """
        try:
            return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, self._run, call))
        except StoreDamaged:
            self._calls.is_damaged = True
            raise

    async def read(self, call: DatabaseCall[T]) -> T:
        """Run `call` and count it as a read.

        Raises:
            StoreError: SQLite raised an error.
        """
        with self._calls.timed("read"):
            return await self.call(call)

    async def write(self, call: DatabaseCall[T], *, durable: bool = False, is_intake: bool = False) -> T:
        """Run `call` in a transaction.

        Args:
            call: What to run.
            durable: Whether the change must have survived even a power failure on return.
            is_intake: Whether it stores new Tasks, which may not take the last space of the disk.

        Raises:
            StoreError: SQLite raised an error, or there is too little space; nothing has changed.
        """
        if is_intake and self._reserve is not None:
            call = partial(_run_if_room, reserve=self._reserve, call=call)
        with self._calls.timed("write"):
            if durable:
                return await self._write_durably(call)
            async with self._write_lock:
                return await self.call(partial(self._run_in_transaction, call=call))

    async def even_if_full(self, write: Callable[[], Coroutine[Any, Any, T]], share: float = 1.0) -> T:
        """Write; while the disk is full, give the write the space of the reserve and repeat it.

        Args:
            write: What to call.
            share: How much of the reserve it may use.

        Raises:
            StoreError: SQLite raised an error; on a full disk, that part of the reserve has been used.
        """
        while True:
            try:
                return await write()
            except StoreFull:
                if not await self.call(partial(self._find_room, share=share)):
                    raise

    def _find_room(self, connection: sqlite3.Connection, *, share: float) -> bool:
        with suppress(sqlite3.Error):
            checkpoint(connection)  # then the log is written from its beginning again
        return self._reserve is not None and self._reserve.release(share)

    async def _write_durably(self, call: DatabaseCall[T]) -> T:
        """Run `call` in one transaction with all other durable writes that wait: they share one sync of the disk."""
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._durable_writes.append(_DurableWrite(call, done))
        if len(self._durable_writes) == 1:
            commit = asyncio.ensure_future(self._commit())
            self._commits.add(commit)
            commit.add_done_callback(self._commits.discard)
        return await done

    async def _commit(self) -> None:
        async with self._write_lock:
            writes = [write for write in self._durable_writes if not write.done.cancelled()]
            self._durable_writes = []
            outcomes: list[Any]
            try:
                outcomes = await self.call(partial(self._run_group, calls=[write.call for write in writes]))
            except Exception as error:
                outcomes = [error] * len(writes)
        for write, outcome in zip(writes, outcomes, strict=True):
            if write.done.cancelled():
                continue
            if isinstance(outcome, Exception):
                write.done.set_exception(self._map_error(outcome) if isinstance(outcome, sqlite3.Error) else outcome)
            else:
                write.done.set_result(outcome)

    async def aclose(self) -> None:
        """Close the connection after all calls."""
        if self._connection is not None:
            with suppress(StoreError):
                await self.call(sqlite3.Connection.close)
        self._thread.shutdown(wait=False)

    def _run(self, call: DatabaseCall[T]) -> T:
        try:
            if self._connection is None:
                self._guard.check()
                self._connection = connect(self._path)
            return call(self._connection)
        except sqlite3.Error as error:
            raise self._map_error(error) from error
        except msgspec.DecodeError as error:
            raise StoreDamaged(f"{self._path}: a record cannot be read: {error}") from error

    def _run_in_transaction(self, connection: sqlite3.Connection, *, call: DatabaseCall[T]) -> T:
        self._guard.check()
        with transaction(connection):
            return call(connection)

    def _run_group(self, connection: sqlite3.Connection, *, calls: Sequence[DatabaseCall[Any]]) -> list[Any]:
        """Run calls in one durable transaction.

        Returns:
            Each one's result or error; one that raised has changed nothing.
        """
        outcomes: list[Any] = []
        self._guard.check()
        with transaction(connection, durable=True):
            for call in calls:
                connection.execute("SAVEPOINT call")
                try:
                    outcomes.append(call(connection))
                except Exception as error:
                    if not connection.in_transaction:  # SQLite rolled everything back, perhaps as the disk is full
                        raise
                    connection.execute("ROLLBACK TO call")
                    outcomes.append(error)
                connection.execute("RELEASE call")
        return outcomes

    def _map_error(self, error: sqlite3.Error) -> StoreError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the higher bits give details of the same error
        if code in _POSSIBLY_FULL and self._reserve is not None and self._reserve.is_disk_full():
            code = sqlite3.SQLITE_FULL
        if str(error) == "malformed JSON":  # by SQLite's functions for JSON, without a code of its own
            code = sqlite3.SQLITE_CORRUPT
        return _ERRORS.get(code, StoreError)(f"{self._path}: {error}")


def _run_if_room(connection: sqlite3.Connection, *, reserve: Reserve, call: DatabaseCall[T]) -> T:
    reserve.check()
    return call(connection)
