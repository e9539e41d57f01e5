"""Where Tasks live: the rules, and the reference that keeps them in a dict.

`Registry` has the public methods and with them every rule: states change only by the table, each line gets exactly one
record, counters equal the records, equal URLs are probed once. A store fills in the primitives at the end of the class.
One suite of tests runs against every store.
"""

import asyncio
import uuid
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from types import MappingProxyType, TracebackType
from typing import Any, Final, Self

import msgspec

from crawler.core.errors import TaskNotFound
from crawler.core.options import Options
from crawler.core.results import ProbeResult
from crawler.core.tasks import ANY_RESULT, ResultFilter, ResultPage, Status, Task
from crawler.core.urls import Target
from crawler.runtime.counters import CallCounter
from crawler.runtime.iteration import iterate

__all__ = ["Lines", "MemoryRegistry", "Registry", "is_wanted"]

Lines = Iterable[str | bytes] | AsyncIterable[str | bytes]
Reader = Callable[[int, int, ResultFilter], Awaitable[ResultPage]]

_SCANNED: Final = 20_000  # records that are looked through at once for some that are wanted
_SLICE: Final = 1_000  # lines that are taken in, and records that are read, at once


class Registry(ABC):
    """Keeps Tasks, their lines and their records; open while its context lasts.

    All methods but `results` and `pending`, which stream, are atomic. An unknown id raises `TaskNotFound` everywhere;
    `StoreError` is raised by a store that cannot do what is asked of it now.

    Attributes:
        calls: What was read and written, if it is not in memory.
        is_shared: Whether other processes have it too.
        submit_listeners: Called with each Task that is new, whoever submitted it; perhaps more than once.
    """

    is_shared = False

    def __init__(self) -> None:
        self.calls = CallCounter()
        self.submit_listeners: set[Callable[[Task], None]] = set()
        self._changes: dict[str, asyncio.Event] = {}
        self._saving = asyncio.Lock()  # a Task is kept as a whole: two changes at once would undo each other

    async def __aenter__(self) -> Self:
        """Open the store, with the Tasks that it has."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the store; what is kept stays. Nobody waits for a change any more."""
        self.wake_waiters()

    @property
    @abstractmethod
    def tasks(self) -> Mapping[str, Task]:
        """All Tasks by id, oldest first: a live, read-only view."""

    async def submit(
        self, lines: Lines, options: Options, *, settle: Callable[[Task], None] | None = None, **fields: Any
    ) -> Task:
        """Take a batch in. When this returns, the Task is kept as safely as the store can.

        Args:
            lines: The URLs as submitted. What their source raises is raised here, and then nothing is kept.
            options: How they are probed.
            settle: Called once the lines have ended, to set those of the Task's fields that are known only then. What
                it raises is as if the lines had raised it.
            **fields: More of the Task's fields, such as `label`.
        """
        task = Task(id=str(uuid.uuid4()), options=options, **fields)
        await self._insert(task, lines if settle is None else _settled(lines, task, settle))
        self._announce(task)
        return task

    async def record(self, task_id: str, results: Sequence[ProbeResult]) -> None:
        """Record what was found, for every line that asks for the same target.

        A line that has its record keeps it, and a Task that does not run takes none: a probe may be repeated after a
        crash, and may end after its Task did.
        """
        task = self.task(task_id)
        if task.status == "running":
            await self._record(task, results)
            self._notify(task_id)

    async def finish(self, task_id: str, status: Status, detail: str | None = None) -> None:
        """End a Task; `ready` needs a record for every line.

        Raises:
            TransitionError: The table of states has no such step.
        """
        async with self._saving:
            task = await self.fetch(task_id)
            ended = msgspec.structs.replace(task)
            ended.change_status(status, detail)
            await self._save(ended, ("status", "detail", "finished"))  # first what is kept, then what is seen
            task.status, task.detail, task.finished = ended.status, ended.detail, ended.finished
        self._notify(task_id)

    async def update(self, task_id: str, **fields: Any) -> None:
        """Change fields of a Task, such as `webhook`; not its status, which `finish` changes."""
        async with self._saving:
            task = self.task(task_id)
            await self._save(msgspec.structs.replace(task, **fields), fields)
            for name, value in fields.items():
                setattr(task, name, value)
        self._notify(task_id)

    async def delete(self, task_id: str) -> None:
        """Forget a Task, its lines and its records."""
        await self._delete(self.task(task_id))
        self._notify(task_id)

    def pending(self, task_id: str) -> AsyncIterator[Target]:
        """The targets that have no record yet: each once, hosts taking turns."""
        return self._pending(self.task(task_id))

    async def page(
        self, task_id: str, start: int = 0, limit: int = _SLICE, where: ResultFilter = ANY_RESULT
    ) -> ResultPage:
        """Some of the records so far, in the order in which they were made.

        Args:
            task_id: Whose.
            start: Place in that order: 0, or the `next` of the page before.
            limit: How many at most, from 1; there may be fewer, even none, and still some after them.
            where: Which ones.

        Returns:
            The records. Those of now are all read once `next` is as many as the Task's counts say are done.
        """
        with self._reader(self.task(task_id)) as read:
            return await read(start, limit, where)

    def results(self, task_id: str, where: ResultFilter = ANY_RESULT) -> AsyncIterator[ProbeResult]:
        """The records, in the order in which they were made, also those made meanwhile; a deletion waits for it."""
        task = self.task(task_id)
        return _follow(task, self._reader(task), where)

    async def stored_bytes(self) -> int:
        """Bytes that all of it takes on a disk."""
        return 0

    @abstractmethod
    async def check_writable(self) -> None:
        """See that something could be kept now; StoreError if not."""

    def found(self, task_id: str) -> Sequence[ProbeResult]:
        """The records so far, all at once: for a Task known to be small."""
        return self._found(self.task(task_id))

    def task(self, task_id: str) -> Task:
        """The Task of this id."""
        try:
            return self.tasks[task_id]
        except KeyError:
            raise TaskNotFound(task_id) from None

    async def fetch(self, task_id: str) -> Task:
        """The same, also if another process has just made or changed it."""
        return self.task(task_id)

    async def refresh(self) -> None:  # noqa: B027 - where one process has it all there is nothing to do
        """Have in `tasks` what other processes have just made or changed."""

    async def find_by_key(self, owner: str | None, key: str) -> Task | None:
        """The Task that its owner submitted under an idempotency key."""
        tasks = self.tasks.values()
        return next(
            (task for task in tasks if task.idempotency and (task.owner, task.idempotency.key) == (owner, key)), None
        )

    def leadership(self) -> AbstractAsyncContextManager[asyncio.Event]:
        """Wait until this process may do what only one does at a time; once the event is set, it may not any more."""
        return nullcontext(asyncio.Event())

    async def wait_for_change(self, task_id: str) -> None:
        """Wait until a Task has more records or another status, or is gone."""
        self.task(task_id)
        await self._changes.setdefault(task_id, asyncio.Event()).wait()

    def wake_waiters(self) -> None:
        """Let all go on that wait for a change."""
        for task_id in list(self._changes):
            self._notify(task_id)

    def _announce(self, task: Task) -> None:
        for tell in self.submit_listeners:
            tell(task)

    def _notify(self, task_id: str) -> None:
        if (change := self._changes.pop(task_id, None)) is not None:
            change.set()

    # What a store fills in. Each gets a Task that exists.

    @abstractmethod
    async def _insert(self, task: Task, lines: Lines) -> None:
        """Keep a Task, as it is once its lines have ended, and them, and set its total; nothing, if `lines` raise."""

    @abstractmethod
    async def _record(self, task: Task, results: Sequence[ProbeResult]) -> None:
        """Keep and count each result once for each line of its target that has no record."""

    @abstractmethod
    async def _save(self, task: Task, names: Collection[str]) -> None:
        """Keep the Task's own fields, of which these have changed.

        Raises:
            TransitionError: Another process has ended the Task meanwhile.
        """

    @abstractmethod
    async def _delete(self, task: Task) -> None:
        """Drop all of the Task."""

    @abstractmethod
    def _pending(self, task: Task) -> AsyncIterator[Target]:
        """Stream the targets without record, one for equal URLs, by rank within the host and then position."""

    @abstractmethod
    def _reader(self, task: Task) -> AbstractContextManager[Reader]:
        """What reads the Task's records, and goes on to while the context lasts, whoever deletes the Task."""

    @abstractmethod
    def _found(self, task: Task) -> Sequence[ProbeResult]:
        """The records in the order in which they were made."""


class MemoryRegistry(Registry):
    """The reference: all in this process, gone with it."""

    def __init__(self) -> None:
        super().__init__()
        self._tasks: dict[str, Task] = {}
        self._batches: dict[str, _StoredTask] = {}

    @property
    def tasks(self) -> Mapping[str, Task]:
        """All Tasks by id, oldest first."""
        return MappingProxyType(self._tasks)

    async def check_writable(self) -> None:
        """Nothing: memory takes everything in."""

    async def _insert(self, task: Task, lines: Lines) -> None:
        batch = _StoredTask()
        async for line in iterate(lines):
            batch.take(Target.of(batch.total, line))
            if batch.total % _SLICE == 0:
                await asyncio.sleep(0)  # others have work too
        task.total = batch.total
        self._tasks[task.id], self._batches[task.id] = task, batch

    async def _record(self, task: Task, results: Sequence[ProbeResult]) -> None:
        for result in results:
            for record in self._batches[task.id].add(result):
                task.counts.add(record.outcome)

    async def _save(self, task: Task, names: Collection[str]) -> None:
        pass  # the Task in the dict is all there is

    async def _delete(self, task: Task) -> None:
        del self._tasks[task.id], self._batches[task.id]

    async def _pending(self, task: Task) -> AsyncIterator[Target]:
        batch = self._batches[task.id]
        for target in batch.by_turns():
            if target.seq not in batch.recorded:
                yield target

    def _reader(self, task: Task) -> AbstractContextManager[Reader]:
        return nullcontext(self._batches[task.id].read)

    def _found(self, task: Task) -> Sequence[ProbeResult]:
        return tuple(self._batches[task.id].records)


class _StoredTask:
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
        same = self._lines.setdefault(target.dedupe_key, [])
        if not same:
            self._firsts[target.seq] = target.dedupe_key
        same.append(target)

    async def read(self, start: int, limit: int, where: ResultFilter) -> ResultPage:
        """Some of the records."""
        found: list[ProbeResult] = []
        place = start
        while place < len(self.records) and place < start + _SCANNED and len(found) < limit:
            if is_wanted(self.records[place], where):
                found.append(self.records[place])
            place += 1
        return ResultPage(found, place)

    def add(self, result: ProbeResult) -> Iterator[ProbeResult]:
        """Record a result for every line that asks for its target and has none; gives those records."""
        for line in self._lines[self._firsts[result.seq]]:
            if line.seq not in self.recorded:
                record = result if line.seq == result.seq else result.copy_for_line(line.seq, line.text)
                self.recorded.add(line.seq)
                self.records.append(record)
                yield record

    def by_turns(self) -> list[Target]:
        """One target of each kind, by rank within the host and then position: hosts take turns."""
        seen: Counter[str] = Counter()
        ranked = []
        for same in self._lines.values():
            target = same[0]
            ranked.append((seen[target.host], target.seq, target))
            seen[target.host] += 1
        return [target for *_, target in sorted(ranked, key=lambda entry: entry[:2])]


def is_wanted(result: ProbeResult, where: ResultFilter) -> bool:
    """Whether a record is one of these."""
    return (
        where.outcome in (None, result.outcome)
        and where.status in (None, result.status)
        and where.error in (None, result.error and result.error.type)
        and (where.host is None or where.host == Target.of(result.seq, result.url).host)
    )


async def _settled(lines: Lines, task: Task, settle: Callable[[Task], None]) -> AsyncIterator[str | bytes]:
    async for line in iterate(lines):
        yield line
    settle(task)


async def _follow(
    task: Task, reader: AbstractContextManager[Reader], where: ResultFilter
) -> AsyncIterator[ProbeResult]:
    place = 0
    with reader as read:
        while place < task.counts.done:
            page = await read(place, _SLICE, where)
            for result in page.results:
                yield result
            place = page.next
