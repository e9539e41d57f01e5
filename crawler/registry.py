"""Where Tasks live: the rules, and the reference that keeps them in a dict.

`Registry` has the public methods and with them every rule: states change only by the table, each line gets exactly one
record, counters equal the records, equal URLs are probed once. A store fills in the primitives at the end of the class.
One suite of tests runs against every store.
"""

import asyncio
import uuid
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from crawler.errors import TaskNotFound
from crawler.models import ProbeResult, Status, Task
from crawler.options import Options
from crawler.targets import Target, Url, targets

__all__ = ["MemoryRegistry", "Registry"]

_SLICE: Final = 1_000  # lines that are taken in at once


class Registry(ABC):
    """Keeps Tasks, their lines and their records.

    All methods but `results` and `pending`, which stream, are atomic. An unknown id raises `TaskNotFound` everywhere.
    """

    @property
    @abstractmethod
    def tasks(self) -> Mapping[str, Task]:
        """All Tasks by id, oldest first: a live, read-only view."""

    async def submit(self, lines: Iterable[str], options: Options) -> Task:
        """Take a batch in. When this returns, the Task is kept as safely as the store can."""
        task = Task(id=str(uuid.uuid4()), options=options)
        await self._insert(task, targets(lines))
        return task

    async def record(self, task_id: str, results: Sequence[ProbeResult]) -> None:
        """Record what was found, for every line that asks for the same target.

        A line that has its record keeps it, and a Task that does not run takes none: a probe may be repeated after a
        crash, and may end after its Task did.
        """
        task = self.task(task_id)
        if task.status == "running":
            await self._record(task, results)

    async def finish(self, task_id: str, status: Status, detail: str | None = None) -> None:
        """End a Task; `ready` needs a record for every line.

        Raises:
            TransitionError: The table of states has no such step.
        """
        task = self.task(task_id)
        task.become(status, detail)
        await self._save(task)

    async def delete(self, task_id: str) -> None:
        """Forget a Task, its lines and its records."""
        await self._delete(self.task(task_id))

    def pending(self, task_id: str) -> AsyncIterator[Target]:
        """The targets that have no record yet: each once, hosts taking turns."""
        return self._pending(self.task(task_id))

    def results(self, task_id: str) -> AsyncIterator[ProbeResult]:
        """The records so far, in the order in which they were made."""
        return self._results(self.task(task_id))

    def found(self, task_id: str) -> Sequence[ProbeResult]:
        """The records so far, all at once: for a Task known to be small."""
        return self._found(self.task(task_id))

    def task(self, task_id: str) -> Task:
        """The Task of this id."""
        try:
            return self.tasks[task_id]
        except KeyError:
            raise TaskNotFound(task_id) from None

    # What a store fills in. Each gets a Task that exists.

    @abstractmethod
    async def _insert(self, task: Task, lines: Iterable[Target]) -> None:
        """Keep a new Task and its lines, and set `task.total`."""

    @abstractmethod
    async def _record(self, task: Task, results: Sequence[ProbeResult]) -> None:
        """Keep and count each result once for each line of its target that has no record."""

    @abstractmethod
    async def _save(self, task: Task) -> None:
        """Keep the Task's own fields."""

    @abstractmethod
    async def _delete(self, task: Task) -> None:
        """Drop all of the Task."""

    @abstractmethod
    def _pending(self, task: Task) -> AsyncIterator[Target]:
        """Stream the targets without record, one for equal URLs, by rank within the host and then position."""

    @abstractmethod
    def _results(self, task: Task) -> AsyncIterator[ProbeResult]:
        """Stream the records in the order in which they were made."""

    @abstractmethod
    def _found(self, task: Task) -> Sequence[ProbeResult]:
        """The records in the order in which they were made."""


class MemoryRegistry(Registry):
    """The reference: all in this process, gone with it."""

    def __init__(self) -> None:
        self._tasks: dict[str, Task] = {}
        self._batches: dict[str, _Batch] = {}

    @property
    def tasks(self) -> Mapping[str, Task]:
        """All Tasks by id, oldest first."""
        return MappingProxyType(self._tasks)

    async def _insert(self, task: Task, lines: Iterable[Target]) -> None:
        batch = _Batch()
        for target in lines:
            batch.take(target)
            if batch.total % _SLICE == 0:
                await asyncio.sleep(0)  # others have work too
        task.total = batch.total
        self._tasks[task.id], self._batches[task.id] = task, batch

    async def _record(self, task: Task, results: Sequence[ProbeResult]) -> None:
        for result in results:
            for record in self._batches[task.id].add(result):
                task.counts.add(record.outcome)

    async def _save(self, task: Task) -> None:
        pass  # the Task in the dict is the one that was changed

    async def _delete(self, task: Task) -> None:
        del self._tasks[task.id], self._batches[task.id]

    async def _pending(self, task: Task) -> AsyncIterator[Target]:
        batch = self._batches[task.id]
        for target in batch.by_turns():
            if target.seq not in batch.recorded:
                yield target

    def _results(self, task: Task) -> AsyncIterator[ProbeResult]:
        return self._batches[task.id].follow()

    def _found(self, task: Task) -> Sequence[ProbeResult]:
        return tuple(self._batches[task.id].records)


class _Batch:
    """The lines of a Task and what is recorded of them."""

    def __init__(self) -> None:
        self.total = 0
        self.records: list[ProbeResult] = []
        self.recorded: set[int] = set()
        # By what they ask for; the first of each is the one probed.
        self._lines: dict[tuple[str, str | None], list[Target]] = {}
        self._firsts: dict[int, tuple[str, str | None]] = {}

    def take(self, target: Target) -> None:
        """Take one more line in."""
        self.total += 1
        same = self._lines.setdefault(target.wanted, [])
        if not same:
            self._firsts[target.seq] = target.wanted
        same.append(target)

    async def follow(self) -> AsyncIterator[ProbeResult]:
        """The records, by position, for their list grows while this waits for its reader."""
        position = 0
        while position < len(self.records):
            yield self.records[position]
            position += 1

    def add(self, result: ProbeResult) -> Iterator[ProbeResult]:
        """Record a result for every line that asks for its target and has none; gives those records."""
        for line in self._lines[self._firsts[result.seq]]:
            if line.seq not in self.recorded:
                record = result if line.seq == result.seq else result.restamp(line.seq, line.text)
                self.recorded.add(line.seq)
                self.records.append(record)
                yield record

    def by_turns(self) -> list[Target]:
        """One target of each kind, by rank within the host and then position: hosts take turns."""
        seen: Counter[str] = Counter()
        ranked = []
        for same in self._lines.values():
            target = same[0]
            host = target.url.host if isinstance(target.url, Url) else ""
            ranked.append((seen[host], target.seq, target))
            seen[host] += 1
        return [target for *_, target in sorted(ranked, key=lambda entry: entry[:2])]
