"""Tasks in this process's memory: the reference store, for tests and for applications that need no durability."""

import asyncio
import weakref
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from operator import attrgetter
from types import MappingProxyType
from typing import Final

from crawler.core.errors import TaskNotFound
from crawler.core.results import ProbeResult
from crawler.core.tasks import ResultFilter, ResultSlice, Task
from crawler.core.urls import Target
from crawler.registry import READER_SECONDS, Lines, PageReader, Registry, passes_filter
from crawler.runtime.iteration import iterate
from crawler.runtime.turns import Turns
from crawler.stores.ordering import LineKey, interleave, line_key

__all__ = ["MemoryRegistry"]

_MAX_SCANNED_RESULTS: Final = 20_000  # one call scans no more results for those that pass a filter


class MemoryRegistry(Registry):
    """Keeps Tasks in a dict; they are lost when the process ends.

    Args:
        reader_seconds: How long readers of a deleted Task can keep its results; then their next read fails.
    """

    def __init__(self, *, reader_seconds: float = READER_SECONDS) -> None:
        super().__init__()
        self._reader_seconds = reader_seconds
        self._tasks: dict[str, Task] = {}
        self._stored: dict[str, _StoredTask] = {}

    @property
    def tasks(self) -> Mapping[str, Task]:
        """All Tasks by id, oldest first."""
        return MappingProxyType(self._tasks)

    async def check_writable(self) -> None:
        """Do nothing: memory is always writable."""

    def results_in_memory(self, task_id: str) -> Sequence[ProbeResult]:
        """Return the results so far."""
        return tuple(self._stored[self.task(task_id).id].results)

    async def _insert(self, task: Task, lines: Lines) -> None:
        stored, firsts, turns = _StoredTask(task.id), dict[LineKey, Target](), Turns()
        async for line in iterate(lines):
            target = Target.of(task.total, line)
            stored.add_line(target, firsts.setdefault(line_key(target), target))
            task.total += 1
            if turns.is_over:
                await turns.next()
        await asyncio.to_thread(stored.sort)  # no step of it keeps the interpreter's lock for long
        self._tasks[task.id], self._stored[task.id] = task, stored

    async def _record(self, task: Task, results: Sequence[ProbeResult]) -> None:
        # Shielded: a line that has its result and not yet those of its duplicates would not be probed again.
        recording = self._record_in_turns(task, self._stored[task.id], results)
        await asyncio.shield(asyncio.ensure_future(recording))

    async def _record_in_turns(self, task: Task, stored: "_StoredTask", results: Sequence[ProbeResult]) -> None:
        turns = Turns()
        for result in results:
            for recorded in stored.record(result):
                task.counts.add(recorded.outcome)
                if turns.is_over:
                    await turns.next()

    async def _save(self, task: Task, names: Collection[str]) -> None:
        pass  # the Task in the dict is the stored one

    async def _delete(self, task: Task) -> None:
        del self._tasks[task.id]
        stored = weakref.ref(self._stored.pop(task.id))  # without readers, it leaves the memory now
        asyncio.get_running_loop().call_later(self._reader_seconds, _drop, stored)

    async def _pending(self, task: Task) -> AsyncIterator[Target]:
        stored = self._stored[task.id]
        for target in stored.targets:
            if target.seq not in stored.recorded:
                yield target

    def _reader(self, task: Task) -> AbstractContextManager[PageReader]:
        return nullcontext(self._stored[task.id].read_page)


def _drop(stored: "weakref.ref[_StoredTask]") -> None:
    if (task := stored()) is not None:
        task.drop()


class _StoredTask:
    """The lines and the results of a Task.

    Attributes:
        task_id: The Task.
        targets: One for equal lines; in probing order once sorted.
        results: In the order in which they were recorded.
        recorded: Positions of the lines that have a result.
    """

    def __init__(self, task_id: str) -> None:
        self.task_id = task_id
        self.targets: list[Target] = []
        self.results: list[ProbeResult] = []
        self.recorded: set[int] = set()
        self._duplicates: dict[int, list[Target]] = {}  # by the position of the first equal line
        self._is_dropped = False

    def drop(self) -> None:
        """Free the memory; the next read fails."""
        self._is_dropped = True
        for held in (self.targets, self.results, self.recorded, self._duplicates):
            held.clear()

    def add_line(self, line: Target, first: Target) -> None:
        """Add a line; `first` is the first line equal to it, perhaps itself."""
        if first is line:
            self.targets.append(line)
        else:
            self._duplicates.setdefault(first.seq, []).append(line)

    def sort(self) -> None:
        """Bring the targets into probing order."""
        self.targets = interleave(self.targets, attrgetter("host"))

    async def read_page(self, start: int, limit: int, where: ResultFilter, max_bytes: int) -> ResultSlice:
        """Read results from a place on, as `Registry.page` does.

        Raises:
            TaskNotFound: The Task was deleted, and its readers have had their time.
        """
        found: list[ProbeResult] = []
        place, size, turns = start, 0, Turns()
        end = min(len(self.results), start + _MAX_SCANNED_RESULTS)
        while place < end and len(found) < limit and size < max_bytes:
            if passes_filter(self.results[place], where):
                found.append(self.results[place])
                size += self.results[place].size
            place += 1
            if turns.is_over:
                await turns.next()
                if self._is_dropped:
                    break
        if self._is_dropped:
            raise TaskNotFound(self.task_id)
        return ResultSlice(found, place)

    def record(self, result: ProbeResult) -> Iterator[ProbeResult]:
        """Record a result for each line of its target that has none; yield what was recorded."""
        if result.seq not in self.recorded:
            yield self._add(result)
            for line in self._duplicates.get(result.seq, ()):
                yield self._add(result.copy_for_line(line.seq, line.text))

    def _add(self, result: ProbeResult) -> ProbeResult:
        self.recorded.add(result.seq)
        self.results.append(result)
        return result
