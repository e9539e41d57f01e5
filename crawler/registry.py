"""The registry, which keeps Tasks, and the rules that every store keeps.

`Registry` has the public methods and all rules: a Task's status changes by `crawler.core.tasks.TRANSITIONS`, each line
gets exactly one result, counts equal the recorded results, equal lines are probed once. A store implements the
primitives at the end of the class: `stores.memory` (the reference), `stores.sqlite` and `stores.redis`. One test suite
runs against all of them.
"""

import asyncio
import math
import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from typing import Any, Final, Self

import msgspec

from crawler.core.errors import TaskNotFound
from crawler.core.options import Options
from crawler.core.results import ProbeResult
from crawler.core.tasks import ANY_RESULT, ResultFilter, ResultSlice, Status, Task
from crawler.core.urls import Target
from crawler.runtime.counters import CallCounters
from crawler.runtime.iteration import iterate

__all__ = ["PAGE_BYTES", "READER_SECONDS", "STREAM_BYTES", "Lines", "PageReader", "Registry", "passes_filter"]

Lines = Iterable[str | bytes] | AsyncIterable[str | bytes]
PageReader = Callable[[int, int, ResultFilter, int], Awaitable[ResultSlice]]  # start, limit, filter, bytes

PAGE_BYTES: Final = 2**20  # of the results of a page; with the one that reaches it, the page ends
STREAM_BYTES: Final = 2**18  # the same of a page that waits until a client has read it
READER_SECONDS: Final = 60.0  # for readers of a deleted Task: one that takes longer holds no disk and no memory
_PAGE_RESULTS: Final = 1_000


class Registry(ABC):
    """Keeps Tasks, their lines and their results; open while its context lasts.

    Every method is atomic, except `results` and `pending`, which stream. Every method that takes a Task's id raises
    `TaskNotFound` if there is no such Task, and `StoreError` if the store cannot do its work now.

    Attributes:
        calls: Duration and failures of the reads and writes of a store outside this process's memory.
        is_shared: Whether other processes use the same Tasks.
        submit_listeners: Called with each new Task, whichever process submitted it; perhaps more than once.
        most_running: How many Tasks may run at once. A shared store checks it as it stores a Task, and raises
            `QuotaExceeded`: no other process could know of all submits.
        most_running_of_owner: The same for the Tasks of one owner.
    """

    is_shared = False
    most_running = most_running_of_owner = 2**53

    def __init__(self) -> None:
        self.calls = CallCounters()
        self.submit_listeners: set[Callable[[Task], None]] = set()
        self._changes: dict[str, asyncio.Event] = {}
        self._save_lock = asyncio.Lock()  # a Task is saved as a whole: of two concurrent changes one would be lost

    async def __aenter__(self) -> Self:
        """Open the store and load its Tasks."""
        return self

    async def __aexit__(self, *exception: object) -> None:
        """Close the store, which keeps its Tasks, and end all waits for changes."""
        self.wake_waiters()

    @property
    @abstractmethod
    def tasks(self) -> Mapping[str, Task]:
        """All Tasks by id, oldest first: a live, read-only view."""

    async def submit(
        self, lines: Lines, options: Options, *, finalize: Callable[[Task], None] | None = None, **fields: Any
    ) -> Task:
        """Store a new Task. On return, the Task is as durable as the store can make it.

        Args:
            lines: The URLs as submitted. If iterating raises, the error is passed on and nothing is stored.
            options: How the lines are probed.
            finalize: Called after the last line, to set fields of the Task that are known only then. If it raises, the
                error is passed on and nothing is stored.
            **fields: Further fields of the Task, for example `label`.
        """
        task = Task(id=str(uuid.uuid4()), options=options, **fields)
        await self._insert(task, lines if finalize is None else _finalized(lines, task, finalize))
        self._announce(task)
        return task

    async def record(self, task_id: str, results: Sequence[ProbeResult]) -> None:
        """Record results, each for its own line and for all lines equal to that.

        A line that has a result keeps it, and a Task that has ended takes no results: a probe can be repeated after a
        crash, and can end later than its Task.
        """
        task = self.task(task_id)
        if task.status == "running":
            await self._record(task, results)
            self._notify(task_id)

    async def finish(self, task_id: str, status: Status, detail: str | None = None) -> None:
        """End a Task; the status `ready` needs a result for every line.

        Raises:
            TransitionError: The Task cannot go from its status to this one.
        """
        async with self._save_lock:
            task = await self.fetch(task_id)
            ended = msgspec.structs.replace(task)
            ended.change_status(status, detail)
            await self._save(ended, ("status", "detail", "finished"))  # stored before any reader can see it
            task.status, task.detail, task.finished = ended.status, ended.detail, ended.finished
            self._release(task)
        self._notify(task_id)

    async def update(self, task_id: str, **fields: Any) -> None:
        """Change fields of a Task, for example `webhook`. `finish` changes the status."""
        async with self._save_lock:
            task = self.task(task_id)
            await self._save(msgspec.structs.replace(task, **fields), fields)
            for name, value in fields.items():
                setattr(task, name, value)
        self._notify(task_id)

    async def delete(self, task_id: str) -> None:
        """Delete a Task with its lines and results."""
        await self._delete(self.task(task_id))
        self._notify(task_id)

    def pending(self, task_id: str) -> AsyncIterator[Target]:
        """Stream the targets without a result: one for equal lines, in the order of `stores.ordering`."""
        return self._pending(self.task(task_id))

    async def page(
        self,
        task_id: str,
        start: int = 0,
        limit: int = _PAGE_RESULTS,
        where: ResultFilter = ANY_RESULT,
        max_bytes: int = PAGE_BYTES,
    ) -> ResultSlice:
        """Read some of the results so far, in the order in which they were recorded.

        Args:
            task_id: The Task.
            start: Position in that order: 0, or `next` of the previous page.
            limit: Most results to return, at least 1. There may be fewer, even none, although more follow.
            where: Which results are wanted.
            max_bytes: With the result that reaches this size of JSON the page ends.

        Returns:
            The page. It is the last one for now if its `next` equals the Task's `counts.done`.
        """
        with self._reader(self.task(task_id)) as read:
            return await read(start, limit, where, max_bytes)

    def results(self, task_id: str, where: ResultFilter = ANY_RESULT) -> AsyncIterator[ProbeResult]:
        """Stream the results in the order in which they were recorded, including those recorded meanwhile.

        If the Task is deleted meanwhile, the stream continues to its end, for `READER_SECONDS`: a read after this time
        raises `TaskNotFound`.
        """
        task = self.task(task_id)
        return _read_all(task, self._reader(task), where)

    def pages(self, task_id: str, where: ResultFilter = ANY_RESULT) -> AsyncIterator[Sequence[ProbeResult]]:
        """Stream the same as `results`, in pages of `STREAM_BYTES`.

        The stream itself keeps no page: a reader that has written a page waits for its client with these bytes alone.
        """
        task = self.task(task_id)
        return _read_pages(task, self._reader(task), where)

    async def options(self, task_id: str) -> Options:
        """Return a Task's options. Those in `Task.options` may lack the values of headers once the Task has ended."""
        return self.task(task_id).options

    def results_in_memory(self, task_id: str) -> Sequence[ProbeResult] | None:
        """Return the results so far if this process has all of them in memory; None if they must be read."""
        return None if self.task(task_id).counts.done else ()

    async def stored_bytes(self) -> int:
        """Return how many bytes the Tasks take on disk, or in Redis."""
        return 0

    async def room_bytes(self) -> float:
        """Return how many bytes new Tasks may take; infinity if the store knows no bound."""
        return math.inf

    async def read_note(self, name: str) -> bytes | None:
        """Return what `write_note` stored last under this name, perhaps in another process; or None."""
        return None

    async def write_note(self, name: str, note: bytes) -> None:  # noqa: B027 - memory has no next process
        """Keep a short text for the next process that uses the store."""

    @abstractmethod
    async def check_writable(self) -> None:
        """Raise `StoreError` if nothing could be stored now."""

    def task(self, task_id: str) -> Task:
        """Return the Task with this id, as this process knows it."""
        try:
            return self.tasks[task_id]
        except KeyError:
            raise TaskNotFound(task_id) from None

    async def fetch(self, task_id: str) -> Task:
        """Return the Task with this id, including changes that another process has just made."""
        return self.task(task_id)

    async def refresh(self) -> None:  # noqa: B027 - a store of one process has nothing to do
        """Update `tasks` with changes that other processes have just made."""

    async def find_by_key(self, owner: str | None, key: str) -> Task | None:
        """Return the Task that this owner submitted with an idempotency key, or None."""
        tasks = self.tasks.values()
        return next(
            (task for task in tasks if task.idempotency and (task.owner, task.idempotency.key) == (owner, key)), None
        )

    def leadership(self) -> AbstractAsyncContextManager[asyncio.Event]:
        """Wait until this process is the leader; the event is set when it has lost the leadership again."""
        return nullcontext(asyncio.Event())

    async def wait_for_change(self, task_id: str) -> None:
        """Wait until a Task has more results, changed fields or another status, or is deleted."""
        self.task(task_id)
        await self._changes.setdefault(task_id, asyncio.Event()).wait()

    def wake_waiters(self) -> None:
        """End all waits for changes."""
        for task_id in list(self._changes):
            self._notify(task_id)

    def _announce(self, task: Task) -> None:
        for listener in self.submit_listeners:
            listener(task)

    def _notify(self, task_id: str) -> None:
        if (change := self._changes.pop(task_id, None)) is not None:
            change.set()

    def _release(self, task: Task) -> None:  # noqa: B027 - a store in memory has nothing else
        """Drop what `options` can read again from the memory of a Task that has ended."""

    # The primitives that a store implements. They get a Task that exists.

    @abstractmethod
    async def _insert(self, task: Task, lines: Lines) -> None:
        """Store a Task and its lines, and set its `total`; store nothing if iterating `lines` raises.

        The Task's fields are final only after the last line.
        """

    @abstractmethod
    async def _record(self, task: Task, results: Sequence[ProbeResult]) -> None:
        """Store and count each result, once for each line of its target that has none."""

    @abstractmethod
    async def _save(self, task: Task, names: Collection[str]) -> None:
        """Store the Task's own fields, of which `names` have changed.

        Raises:
            TransitionError: Another process has ended the Task meanwhile.
        """

    @abstractmethod
    async def _delete(self, task: Task) -> None:
        """Delete everything of the Task."""

    @abstractmethod
    def _pending(self, task: Task) -> AsyncIterator[Target]:
        """Stream the targets without a result, one for equal lines, in the order of `stores.ordering`."""

    @abstractmethod
    def _reader(self, task: Task) -> AbstractContextManager[PageReader]:
        """Return a reader of the Task's results that works while its context lasts.

        If the Task is deleted, it works for `READER_SECONDS` more.
        """


def passes_filter(result: ProbeResult, where: ResultFilter) -> bool:
    """Return whether a result has all values that the filter names."""
    return (
        where.outcome in (None, result.outcome)
        and where.status in (None, result.status)
        and where.error in (None, result.error and result.error.type)
        and (where.host is None or where.host == Target.of(result.seq, result.url).host)
    )


async def _finalized(lines: Lines, task: Task, finalize: Callable[[Task], None]) -> AsyncIterator[str | bytes]:
    async for line in iterate(lines):
        yield line
    finalize(task)


async def _read_all(
    task: Task, reader: AbstractContextManager[PageReader], where: ResultFilter
) -> AsyncIterator[ProbeResult]:
    async for results in _read_pages(task, reader, where):
        for result in results:
            yield result


async def _read_pages(
    task: Task, reader: AbstractContextManager[PageReader], where: ResultFilter
) -> AsyncIterator[Sequence[ProbeResult]]:
    place = 0
    with reader as read:
        while place < task.counts.done:
            page = await read(place, _PAGE_RESULTS, where, STREAM_BYTES)
            place, results = page.next, [page.results]
            del page
            yield results.pop()  # and keep nothing of it
