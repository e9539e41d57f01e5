"""Tasks in a SQLite file: what was acknowledged survives `kill -9`, a restart and the length of any list."""

import asyncio
import logging
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Final, NamedTuple, Self

from crawler.core.errors import InputError, StoreDamaged, StoreError, TaskNotFound
from crawler.core.results import ProbeResult
from crawler.core.tasks import ANY_RESULT, ResultFilter, ResultPage, Task
from crawler.core.urls import Target
from crawler.registry import Lines, Reader, Registry
from crawler.stores.sqlite import queries
from crawler.stores.sqlite.database import Database, connect, lock, migrate, try_out
from crawler.stores.sqlite.ingest import take_in

__all__ = ["SqliteRegistry"]

log = logging.getLogger(__name__)

_SCANNED: Final = 20_000  # records that are looked through in one call for some that are wanted
_PATIENCE: Final = 5.0  # seconds until what could not be dropped is tried again


class _Handed(NamedTuple):
    """A target that somebody probes now."""

    turn: int
    host: str


class SqliteRegistry(Registry):
    """Keeps Tasks in a file, which no other process may use meanwhile.

    Tasks themselves are in memory too, a kilobyte each; their lines and records are not.
    """

    def __init__(self, path: Path, *, patience: float = 0.0) -> None:
        """Name the file; it is opened, or made, where the context begins.

        Args:
            path: The file.
            patience: Seconds to wait for another process that uses it, and is about to end.

        Raises:
            InputError: Then; the file cannot be used.
        """
        super().__init__()
        self._path = path
        self._patience = patience
        self._tasks: dict[str, Task] = {}
        self._numbers: dict[str, int] = {}
        self._last = 0  # number that a Task has got
        self._handed: dict[int, dict[int, _Handed]] = {}
        self._coming: set[int] = set()
        self._readers: Counter[int] = Counter()
        self._recording = asyncio.Lock()
        self._writing = asyncio.Lock()
        self._leftovers = asyncio.Event()
        self._swept = asyncio.Event()

    async def __aenter__(self) -> Self:
        """Open the file, with the Tasks that it has."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot be used: {error.strerror}", str(self._path)) from None
        self._lock = await lock(self._path, self._patience)
        try:
            migrate(self._path)
            self._here = connect(self._path)  # for the one method that cannot wait
            self._last = queries.last_number(self._here)
            for number, task in queries.all_tasks(self._here):
                self._know(number, task)
        except sqlite3.Error as error:
            self._lock.release()
            raise InputError(f"cannot be used: {error}", str(self._path)) from None
        except BaseException:
            self._lock.release()
            raise
        self._database = Database(self._path, self._writing, self.calls)
        self._reading = Database(self._path, self._writing, self.calls)  # so that no reader waits for a long write
        self._sweeper = asyncio.ensure_future(self._sweep())
        self._leave_over()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file, once all that was begun is written."""
        await super().__aexit__(kind, error, trace)
        self._sweeper.cancel()
        await asyncio.gather(self._sweeper, return_exceptions=True)
        await self._database.aclose()
        await self._reading.aclose()
        self._here.close()
        self._lock.release()

    @property
    def tasks(self) -> Mapping[str, Task]:
        """All Tasks by id, oldest first."""
        return MappingProxyType(self._tasks)

    async def _insert(self, task: Task, lines: Lines) -> None:
        self._last = number = self._last + 1
        self._coming.add(number)  # before there is anything of it that could be taken for a leftover
        try:
            async with aclosing(Database(self._path, self._writing, self.calls)) as own:
                await take_in(self._database, own, number, task, lines)
            self._know(number, task)
        except BaseException:
            self._leave_over()  # of what did not come to its end nothing is left
            raise
        finally:
            self._coming.discard(number)

    async def _record(self, task: Task, results: Sequence[ProbeResult]) -> None:
        # Shielded as a whole: what is written and what is counted here must not part if the worker is cancelled.
        await asyncio.shield(asyncio.ensure_future(self._write(task, results)))

    async def _write(self, task: Task, results: Sequence[ProbeResult]) -> None:
        async with self._recording:  # one after the other, for each begins where the last one ended
            if task.id in self._tasks:  # it may be deleted while this waits
                await self._write_next(task, results)

    async def _write_next(self, task: Task, results: Sequence[ProbeResult]) -> None:
        number = self._numbers[task.id]
        handed = self._handed.setdefault(number, {})
        if lost := [result.seq for result in results if result.seq not in handed]:
            for turn, target in await self._database.read(partial(queries.find_turns, number=number, seqs=lost)):
                handed[target.seq] = _Handed(turn, target.host)
        found: dict[int, ProbeResult] = {}
        for result in results:
            if result.seq in handed:
                found.setdefault(result.seq, result)
        if not found:
            return
        rows = [(*handed[seq], result) for seq, result in found.items()]
        counts = await self._database.write(partial(queries.record, number=number, start=task.counts.done, rows=rows))
        for seq in found:
            handed.pop(seq, None)
        for outcome, count in counts.items():
            task.counts.add(outcome, count)

    async def _save(self, task: Task, names: Collection[str]) -> None:
        number = self._numbers[task.id]
        await self._database.write(partial(queries.save, number=number, task=task))
        if task.status != "running":
            self._handed.pop(number, None)

    async def _delete(self, task: Task) -> None:
        number = self._numbers[task.id]
        await self._database.write(partial(queries.disown, number=number), durable=True)
        if self._tasks.pop(task.id, None) is None:  # somebody else was faster
            raise TaskNotFound(task.id)
        del self._numbers[task.id]
        self._handed.pop(number, None)
        self._leave_over()

    async def _pending(self, task: Task) -> AsyncIterator[Target]:
        number, turn = self._numbers[task.id], 0
        while task.id in self._tasks:
            window = await self._database.read(partial(queries.read_turns, number=number, start=turn))
            if not window:
                return
            handed = self._handed.setdefault(number, {})
            for turn, target in window:
                handed[target.seq] = _Handed(turn, target.host)
                yield target
            turn += 1

    @contextmanager
    def _reader(self, task: Task) -> Iterator[Reader]:
        number = self._numbers.get(task.id)
        if number is None:
            raise TaskNotFound(task.id)
        self._readers[number] += 1

        async def read(start: int, limit: int, where: ResultFilter) -> ResultPage:
            end = min(start + _SCANNED, task.counts.done)
            return await self._reading.read(
                partial(queries.read_records, number=number, start=start, end=end, limit=limit, where=where)
            )

        try:
            yield read
        finally:
            self._readers[number] -= 1
            if not self._readers[number]:
                del self._readers[number]
                if task.id not in self._tasks:
                    self._leave_over()

    async def stored_bytes(self) -> int:
        """Bytes of the file that are in use, once what is deleted has left it."""
        await self._swept.wait()
        return await self._database.call(queries.size)

    async def check_writable(self) -> None:
        """See that something could be kept now, in the file that has this name; StoreError if not."""
        if self.calls.is_damaged:
            raise StoreDamaged(f"{self._path}: some of it could not be read")
        async with aclosing(Database(self._path, self._writing, self.calls)) as own:
            await own.write(partial(try_out, path=self._path))

    def _found(self, task: Task) -> Sequence[ProbeResult]:
        number, done = self._numbers[task.id], task.counts.done
        return tuple(
            queries.read_records(self._here, number=number, start=0, end=done, limit=done, where=ANY_RESULT).results
        )

    def _know(self, number: int, task: Task) -> None:
        self._tasks[task.id] = task
        self._numbers[task.id] = number

    def _leave_over(self) -> None:
        self._swept.clear()
        self._leftovers.set()

    async def _sweep(self) -> None:
        """Drop the rows of what is no Task any more, a few at a time, and give the disk its space back."""
        while True:
            await self._leftovers.wait()
            self._leftovers.clear()
            try:
                for number in await self._database.call(queries.orphans):
                    while number not in self._coming and number not in self._readers:
                        if not await self._database.write(partial(queries.dropped, number=number)):
                            break
                while await self._database.call(queries.shrink):
                    pass
            except StoreError as error:
                log.error("what is left of deleted tasks could not be dropped, which is tried again later: %s", error)
                self._leftovers.set()
                await asyncio.sleep(_PATIENCE)
            if not self._leftovers.is_set() and self._readers.keys() <= set(self._numbers.values()):
                self._swept.set()  # else what is left may have all the room, and whoever wants some must not go on
