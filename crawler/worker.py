"""Bring Tasks to their end: the engine that runs workers, the worker of one Task, and the recorder of its results."""

import asyncio
import logging
from collections.abc import AsyncIterable, Callable, Coroutine, Iterable
from contextlib import aclosing, suppress
from types import TracebackType
from typing import Any, Final, Protocol, Self, TypeVar

from crawler.core.errors import StoreError, TaskNotFound, TransitionError
from crawler.core.options import Options
from crawler.core.results import ProbeResult
from crawler.core.tasks import FleetStatus
from crawler.core.urls import Target
from crawler.probing.prober import Prober
from crawler.registry import Registry
from crawler.runtime.cancellation import end
from crawler.runtime.logs import about
from crawler.runtime.tracing import fail, task_span

__all__ = ["Engine", "LocalEngine", "Recorder", "probe_and_record", "retry_until_stored", "worker"]

T = TypeVar("T")

log = logging.getLogger("crawler.worker")

_BREATH: Final = 0.05  # seconds that results wait for others, to be recorded with them
_WAITING: Final = 5_000  # results that may wait for the store; then probing waits too
_PATIENCE: Final = 30.0  # seconds between two tries to record, at most
_RECORDING: Final = 3.0  # seconds for the store to take in what was found


class Engine(Protocol):
    """Has Tasks worked on."""

    def start(self, task_id: str) -> None:
        """Start work on a Task; returns at once."""

    def workers(self, task_id: str) -> list[asyncio.Future[None]]:
        """The workers of a Task in this process."""

    async def stop(self, task_id: str) -> None:
        """Stop the work on a Task; returns when nothing of it runs in this process."""

    async def drain(self, seconds: float) -> None:
        """Have no more probes begun in this process; those under way have so many seconds."""

    async def fleet_status(self) -> FleetStatus | None:
        """What waits for workers in other processes, and who they are; None if there are none, or nobody answers."""

    async def requeue_stalled(self) -> None:
        """See that all work is done in the end, for as long as this is not cancelled."""


class LocalEngine:
    """Runs one worker per Task on this event loop. Fairness between Tasks is the prober's throttle's."""

    def __init__(self, registry: Registry, prober: Prober) -> None:
        self._registry = registry
        self._prober = prober
        self._workers: dict[str, list[asyncio.Future[None]]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop all work."""
        for task_id in list(self._workers):
            await self.stop(task_id)

    def start(self, task_id: str) -> None:
        """Start work on a Task; returns at once."""
        self._workers[task_id] = [asyncio.ensure_future(worker(task_id, self._registry, self._prober))]

    def workers(self, task_id: str) -> list[asyncio.Future[None]]:
        """The workers of a Task, also those that have ended; none for a Task that was never started here."""
        return self._workers.get(task_id, [])

    async def stop(self, task_id: str) -> None:
        """Stop the work on a Task, requests in flight included; returns when nothing of it runs."""
        workers = self._workers.get(task_id, [])
        for future in workers:
            future.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        self._workers.pop(task_id, None)

    async def drain(self, seconds: float) -> None:
        """Have no more probes begun; those under way have so many seconds, and what they find is recorded.

        The Tasks stay as far as they are. Of one that is started now, nothing is probed.
        """
        await self._prober.drain(seconds)
        if workers := [future for workers in self._workers.values() for future in workers]:
            await asyncio.wait(workers, timeout=_RECORDING)

    async def fleet_status(self) -> FleetStatus | None:
        """None: all is done here."""
        return None

    async def requeue_stalled(self) -> None:
        """Do nothing: what is started here is not left lying while this process lives."""


async def worker(task_id: str, registry: Registry, prober: Prober) -> None:
    """Bring a Task to its end.

    Cancelled, or once the prober drains, it leaves the Task as far as it is, for another worker to go on.
    """
    with about(task=task_id), task_span(task_id):
        await _bring_to_end(task_id, registry, prober)


async def probe_and_record(
    targets: Iterable[Target] | AsyncIterable[Target], options: Options, prober: Prober, recorder: "Recorder"
) -> int:
    """Have targets probed and recorded; gives how many were, before the prober drained."""
    done = 0
    async with recorder, aclosing(prober.probe_many(targets, options)) as results:
        async for result in results:
            await recorder.add(result)
            done += 1
    return done


async def _bring_to_end(task_id: str, registry: Registry, prober: Prober) -> None:
    try:
        task = registry.task(task_id)
        await probe_and_record(registry.pending(task_id), task.options, prober, Recorder(task_id, registry))
        if prober.is_draining and task.counts.done < task.total:
            log.info("task %s is left at %d of %d, to go on at the next start", task_id, task.counts.done, task.total)
            return
        await retry_until_stored(registry.finish, task_id, "ready")
        log.info("task %s is ready", task_id)
    except TaskNotFound:
        log.info("task %s was deleted while it ran", task_id)
    except Exception as error:
        log.exception("task %s cannot go on", task_id)
        fail()
        with suppress(TaskNotFound, TransitionError):
            await retry_until_stored(registry.finish, task_id, "error", f"{type(error).__name__}: {error}")


async def retry_until_stored(call: Callable[..., Coroutine[Any, Any, T]], *arguments: Any) -> T:
    """Do what a store may be unable to do for a while: what is found is not thrown away because a disk is full."""
    patience = 1.0
    while True:
        try:
            return await call(*arguments)
        except StoreError as error:
            log.error("the store does not do its work, which is tried again: %s", error)
            await asyncio.sleep(patience)
            patience = min(2 * patience, _PATIENCE)


class Recorder:
    """Has a Task's results recorded as they come, those together that come within a breath: many cost as little as one.

    It works while somebody is in its context: one, or several side by side.

    Args:
        task_id: Whose results.
        registry: Where to.
    """

    def __init__(self, task_id: str, registry: Registry) -> None:
        self._task_id = task_id
        self._registry = registry
        self._users = 0
        self._news = asyncio.Event()
        self._hurry = asyncio.Event()
        self._step = asyncio.Event()

    async def __aenter__(self) -> Self:
        if not self._users:
            self._found: list[ProbeResult] = []
            self._added = self._recorded = 0
            self._recording = asyncio.ensure_future(self._record_all())
        self._users += 1
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """What was added is recorded, unless whoever leaves was cancelled."""
        try:
            if not isinstance(error, asyncio.CancelledError):
                await self.flush()
        finally:
            self._users -= 1
            if not self._users:
                recording = self._recording  # others may come from now on, for whom there is another one
                await end([recording])
                if not recording.cancelled():
                    recording.exception()  # whoever waited for it has heard of it

    async def add(self, result: ProbeResult) -> None:
        """Have a result recorded soon; while too many wait for the store, this does too.

        Raises:
            TaskNotFound: The Task is gone.
        """
        self._found.append(result)
        self._added += 1
        self._news.set()
        if len(self._found) >= _WAITING or self._recording.done():
            await self.flush()

    async def flush(self) -> None:
        """Wait until all that was added is recorded.

        Raises:
            TaskNotFound: The Task is gone.
        """
        wanted = self._added
        while self._recorded < wanted:
            if self._recording.done():
                self._recording.result()
            if self._found:
                self._hurry.set()
            await self._step.wait()

    async def _record_all(self) -> None:
        try:
            while True:
                await self._news.wait()
                with suppress(TimeoutError):
                    async with asyncio.timeout(_BREATH):
                        await self._hurry.wait()
                found, self._found = self._found, []
                self._news.clear()
                self._hurry.clear()
                await retry_until_stored(self._registry.record, self._task_id, found)
                self._recorded += len(found)
                self._tell()
        finally:
            asyncio.get_running_loop().call_soon(self._tell)  # by then this is done

    def _tell(self) -> None:
        step, self._step = self._step, asyncio.Event()
        step.set()
