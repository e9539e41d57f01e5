"""Tasks in a SQLite file: they survive `kill -9`, and the length of a list costs no memory."""

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple, Self

from crawler.core.errors import InputError, StoreDamaged, StoreError, StoreReplaced, TaskNotFound
from crawler.core.options import Options
from crawler.core.results import ProbeResult
from crawler.core.tasks import ResultFilter, ResultSlice, Task
from crawler.core.urls import Target
from crawler.registry import READER_SECONDS, Lines, PageReader, Registry
from crawler.runtime.logs import log_fields
from crawler.stores.sqlite import queries, task_queries
from crawler.stores.sqlite.connection import check_writable, checkpoint, connect, migrate
from crawler.stores.sqlite.database import Database
from crawler.stores.sqlite.file_guard import FileGuard
from crawler.stores.sqlite.file_lock import acquire_lock
from crawler.stores.sqlite.ingest import LINES_PER_WRITE, take_in
from crawler.stores.sqlite.log_check import begin_session, check_log, check_log_has_file, record_session
from crawler.stores.sqlite.recent_results import RecentResults
from crawler.stores.sqlite.reserve import Reserve
from crawler.stores.sqlite.sweeper import Sweeper

__all__ = ["SqliteRegistry"]

log = logging.getLogger(__name__)

_MAX_SCANNED_RESULTS: Final = 20_000  # one call scans no more results for those that pass a filter
_MAX_RESULTS_PER_WRITE: Final = 5_000
_SWEEP_RETRY_SECONDS: Final = 5.0


class _KnownTarget(NamedTuple):
    """A target that `pending` has read, as `record` needs it: its place in probing order, and its host."""

    place: int
    host: str


class SqliteRegistry(Registry):
    """Keeps Tasks in a file, which no other process can use at the same time.

    The Tasks themselves are in memory too, a kilobyte each. Lines and results are not, except the results of small
    Tasks that were submitted to this process.

    Args:
        path: The file. Entering the context opens or creates it, and raises `InputError` if it cannot be used.
        lock_timeout: Seconds to wait for another process that uses the file and is about to end.
        lines_per_write: Lines that one transaction takes in.
        sweep_retry_seconds: Pause after a failed deletion of rows.
        reader_seconds: How long readers of a deleted Task can keep its rows; then their next read fails.
    """

    def __init__(
        self,
        path: Path,
        *,
        lock_timeout: float = 0.0,
        lines_per_write: int = LINES_PER_WRITE,
        sweep_retry_seconds: float = _SWEEP_RETRY_SECONDS,
        reader_seconds: float = READER_SECONDS,
    ) -> None:
        super().__init__()
        self._path = path
        self._lock_timeout = lock_timeout
        self._lines_per_write = lines_per_write
        self._tasks: dict[str, Task] = {}
        self._numbers: dict[str, int] = {}
        self._last_number = 0
        self._known_targets: dict[int, dict[int, _KnownTarget]] = {}  # by Task number and position
        self._recent = RecentResults()
        self._record_lock = asyncio.Lock()
        self._write_lock = asyncio.Lock()
        self._sweep_retry_seconds = sweep_retry_seconds
        self._reader_seconds = reader_seconds

    async def __aenter__(self) -> Self:
        """Open or create the file, and load its Tasks.

        Raises:
            InputError: The file cannot be used.
        """
        try:
            self._path = self._path.resolve()  # a link would have its own lock and its own write-ahead log
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except (OSError, RuntimeError) as error:  # before Python 3.13, a loop of links is a RuntimeError
            raise InputError(f"cannot be used: {getattr(error, 'strerror', error)}", str(self._path)) from None
        check_log_has_file(self._path)
        async with AsyncExitStack() as stack:
            lock = await acquire_lock(self._path, self._lock_timeout)
            stack.callback(lock.release)
            check_log(self._path)
            self._reserve = Reserve(self._path)
            stack.callback(self._reserve.fill)  # closing the file gives the space of its log back
            self._load_even_if_full()
            session = begin_session(self._path)
            self._reserve.fill()
            self._guard = FileGuard(self._path)
            self._database = await stack.enter_async_context(aclosing(self._open_database()))
            # A connection of its own, so that no reader waits for a long write.
            self._reading = await stack.enter_async_context(aclosing(self._open_database()))
            for database in (self._database, self._reading):
                await database.call(task_queries.read_last_number)  # opens all files
            self._guard.remember()
            record_session(self._path, session)
            sweeper = Sweeper(self._database, self._sweep_retry_seconds, self._reader_seconds)
            self._sweeper = await stack.enter_async_context(sweeper)
            self._resources = stack.pop_all()
        return self

    async def __aexit__(self, *exception: object) -> None:
        """Close the file after all writes that have begun."""
        await super().__aexit__(*exception)
        await self._resources.aclose()

    @property
    def tasks(self) -> Mapping[str, Task]:
        """All Tasks by id, oldest first."""
        return MappingProxyType(self._tasks)

    def results_in_memory(self, task_id: str) -> Sequence[ProbeResult] | None:
        """Return the results so far of a small Task that was submitted to this process recently; otherwise None."""
        if (results := self._recent.read(self._numbers[self.task(task_id).id])) is not None:
            return results
        return super().results_in_memory(task_id)

    async def options(self, task_id: str) -> Options:
        """Return the options as they were stored."""
        number = self._numbers[self.task(task_id).id]
        options = await self._reading.read(partial(task_queries.read_options, number=number))
        if options is None:
            raise TaskNotFound(task_id)
        return options

    def _release(self, task: Task) -> None:
        task.options = task.options.without_header_values()

    async def stored_bytes(self) -> int:
        """Return the bytes of the file that are in use, after all rows of deleted Tasks have left it."""
        await self._sweeper.wait_until_swept()
        return await self._database.call(queries.used_bytes)

    async def check_writable(self) -> None:
        """Raise `StoreError` if nothing could be written now to the file with this path."""
        if self.calls.is_damaged:
            raise StoreDamaged(f"{self._path}: some of it could not be read")
        try:
            async with aclosing(self._open_database()) as own:
                await own.write(check_writable, is_intake=True)
        except StoreReplaced:
            with suppress(StoreError):  # if only the log has lost its name, its content gets a safe place
                await self._database.call(checkpoint)
            raise

    async def room_bytes(self) -> float:
        """Return how many bytes of the disk new Tasks may take."""
        return await asyncio.to_thread(self._reserve.free_bytes)

    async def read_note(self, name: str) -> bytes | None:
        """Return what the file has under this name."""
        return await self._reading.read(partial(task_queries.read_note, name=name))

    async def write_note(self, name: str, note: bytes) -> None:
        """Store a note in the file."""
        await self._database.write(partial(task_queries.write_note, name=name, note=note))

    async def _insert(self, task: Task, lines: Lines) -> None:
        self._last_number = number = self._last_number + 1
        self._sweeper.incoming.add(number)
        try:
            async with aclosing(self._open_database()) as own:
                await take_in(self._database, own, number, task, lines, self._lines_per_write)
            self._add_task(number, task)
            self._recent.add_task(number, task.total)
        except BaseException:
            self._sweeper.request()
            raise
        finally:
            self._sweeper.incoming.discard(number)

    async def _record(self, task: Task, results: Sequence[ProbeResult]) -> None:
        # Shielded as a whole: the file and the counts here must not diverge if the worker is cancelled.
        await asyncio.shield(asyncio.ensure_future(self._record_in_turn(task, results)))

    async def _record_in_turn(self, task: Task, results: Sequence[ProbeResult]) -> None:
        async with self._record_lock:  # each call's results begin where those of the previous one end
            for start in range(0, len(results), _MAX_RESULTS_PER_WRITE):
                if task.id in self._tasks:  # the Task may have been deleted during the wait
                    await self._record_next(task, results[start : start + _MAX_RESULTS_PER_WRITE])

    async def _record_next(self, task: Task, results: Sequence[ProbeResult]) -> None:
        number = self._numbers[task.id]
        targets = self._known_targets.setdefault(number, {})
        if unread := [result.seq for result in results if result.seq not in targets]:
            for place, target in await self._database.read(partial(queries.find_pending, number=number, seqs=unread)):
                targets[target.seq] = _KnownTarget(place, target.host)
        new: dict[int, ProbeResult] = {}
        for result in results:
            if result.seq in targets:
                new.setdefault(result.seq, result)
        if not new:
            return
        recorded = await self._database.write(
            partial(
                queries.record,
                number=number,
                start=task.counts.done,
                rows=[(*targets[seq], result) for seq, result in new.items()],
                wants_bodies=number in self._recent,
            )
        )
        for seq in new:
            targets.pop(seq, None)
        for outcome, count in recorded.counts.items():
            task.counts.add(outcome, count)
        self._recent.add(number, recorded.bodies)

    async def _save(self, task: Task, names: Collection[str]) -> None:
        number = self._numbers[task.id]
        save = partial(task_queries.save, number=number, task=task)
        await self._database.even_if_full(partial(self._database.write, save))
        if task.status != "running":
            self._known_targets.pop(number, None)

    async def _delete(self, task: Task) -> None:
        number = self._numbers[task.id]
        make_orphan = partial(task_queries.make_orphan, number=number)
        await self._database.even_if_full(partial(self._database.write, make_orphan, durable=True))
        if self._tasks.pop(task.id, None) is None:  # another call has deleted it meanwhile
            raise TaskNotFound(task.id)
        del self._numbers[task.id]
        self._known_targets.pop(number, None)
        self._recent.delete_task(number)
        self.calls.is_damaged = False  # perhaps this was the Task with the damage; else the next read finds it again
        self._sweeper.request()

    async def _pending(self, task: Task) -> AsyncIterator[Target]:
        number, place = self._numbers[task.id], 0
        while task.id in self._tasks:
            window = await self._database.read(partial(queries.read_pending, number=number, start=place))
            if not window:
                return
            targets = self._known_targets.setdefault(number, {})
            for place, target in window:
                targets[target.seq] = _KnownTarget(place, target.host)
                yield target
            place += 1

    @contextmanager
    def _reader(self, task: Task) -> Iterator[PageReader]:
        number = self._numbers.get(task.id)
        if number is None:
            raise TaskNotFound(task.id)
        readers = self._sweeper.readers
        readers[number] += 1

        async def read(start: int, limit: int, where: ResultFilter, max_bytes: int) -> ResultSlice:
            end = min(start + _MAX_SCANNED_RESULTS, task.counts.done)
            read_results = partial(queries.read_results, number=number, start=start, end=end)
            found = await self._reading.read(partial(read_results, limit=limit, where=where, max_bytes=max_bytes))
            if number not in readers:  # the rows of the deleted Task are being swept: some can be missing here
                raise TaskNotFound(task.id)
            return found

        try:
            yield read
        finally:
            readers[number] -= 1
            if readers[number] <= 0:
                del readers[number]
                if task.id not in self._tasks:
                    self._sweeper.request()

    def _open_database(self) -> Database:
        return Database(self._path, self._write_lock, self.calls, self._guard, self._reserve)

    def _load_even_if_full(self) -> None:
        while True:
            try:
                return self._load()
            except InputError as error:
                if not self._reserve.is_disk_full() and "disk is full" not in str(
                    error
                ):  # reading a long log takes more
                    raise
                if not self._reserve.release():
                    message = "cannot be opened, because its disk is full: make room there"
                    raise InputError(message, str(self._path)) from None

    def _load(self) -> None:
        migrate(self._path)
        try:
            with closing(connect(self._path)) as connection:
                self._last_number = task_queries.read_last_number(connection)
                stored = task_queries.read_tasks(connection)
                for number, task in stored.tasks:
                    self._add_task(number, task)
        except sqlite3.Error as error:
            raise InputError(f"cannot be used: {error}", str(self._path)) from None
        for task_id, problem, is_damaged in stored.unread:
            self.calls.is_damaged = self.calls.is_damaged or is_damaged
            with log_fields(task=task_id):
                log.error("Task %s cannot be read: %s", task_id, problem)

    def _add_task(self, number: int, task: Task) -> None:
        if task.status != "running":
            self._release(task)
        self._tasks[task.id] = task
        self._numbers[task.id] = number
