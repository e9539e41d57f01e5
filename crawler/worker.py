"""Work on Tasks: the engine that runs workers, the worker of one Task, and the recorder of its results.

A worker takes the pending targets of a Task from the registry, passes them to the prober, and records the results.
"""

import asyncio
import logging
from collections.abc import AsyncIterable, Callable, Coroutine, Iterable
from contextlib import aclosing, suppress
from typing import Any, Final, Protocol, Self, TypeVar

from crawler.core.errors import StoreError, TaskDamaged, TaskNotFound, TransitionError
from crawler.core.options import Options
from crawler.core.results import ProbeResult
from crawler.core.tasks import FleetStatus
from crawler.core.urls import Target
from crawler.probing.prober import Prober
from crawler.registry import Registry
from crawler.runtime.cancellation import cancel_and_wait
from crawler.runtime.logs import log_fields
from crawler.runtime.tracing import mark_span_failed, task_span

__all__ = ["Engine", "LocalEngine", "Recorder", "fail_task", "probe_and_record", "retry_until_stored", "worker"]

T = TypeVar("T")

log = logging.getLogger("crawler.worker")

_COLLECT_SECONDS: Final = 0.05
_MAX_DETAIL: Final = 1_000  # characters; a Task keeps it in memory
_MAX_WAITING_RESULTS: Final = 5_000
_MAX_WAITING_BYTES: Final = 2**23
_FIRST_RETRY_SECONDS: Final = 1.0
_MAX_RETRY_SECONDS: Final = 30.0
_FINAL_RECORD_SECONDS: Final = 3.0  # time for the store to record the last results when the engine drains


class Engine(Protocol):
    """Runs the work on Tasks: in this process, or in worker processes on other machines."""

    def start(self, task_id: str) -> None:
        """Start the work on a Task, and return at once."""

    def workers(self, task_id: str) -> list[asyncio.Future[None]]:
        """Return the workers of a Task in this process."""

    async def stop(self, task_id: str) -> None:
        """Stop the work on a Task; on return, nothing of it runs in this process."""

    async def drain(self, seconds: float) -> None:
        """Start no more probes in this process, and give those in flight `seconds` to finish."""

    async def fleet_status(self) -> FleetStatus | None:
        """Return the queues and the worker processes; None if there are none, or Redis does not answer."""

    async def check(self) -> None:
        """Raise `StoreError` if work that was started does not get to a worker."""

    async def requeue_stalled(self) -> None:
        """Queue Tasks again whose work has stopped, until this call is cancelled."""


class LocalEngine:
    """Runs one worker for each Task on this event loop. The prober's scheduler shares the slots between Tasks."""

    def __init__(self, registry: Registry, prober: Prober) -> None:
        self._registry = registry
        self._prober = prober
        self._workers: dict[str, list[asyncio.Future[None]]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        """Stop all work."""
        for task_id in list(self._workers):
            await self.stop(task_id)

    def start(self, task_id: str) -> None:
        """Start the work on a Task, and return at once."""
        self._workers[task_id] = [asyncio.ensure_future(worker(task_id, self._registry, self._prober))]

    def workers(self, task_id: str) -> list[asyncio.Future[None]]:
        """Return the workers of a Task, including those that have ended; none if it was not started here."""
        return self._workers.get(task_id, [])

    async def stop(self, task_id: str) -> None:
        """Stop the work on a Task, including requests in flight; on return, nothing of it runs."""
        await cancel_and_wait(*self._workers.get(task_id, []))
        self._workers.pop(task_id, None)

    async def drain(self, seconds: float) -> None:
        """Start no more probes, give those in flight `seconds` to finish, and record their results.

        Tasks that are not done keep their pending targets. A Task that is started afterwards probes nothing.
        """
        await self._prober.drain(seconds)
        if workers := [future for workers in self._workers.values() for future in workers]:
            await asyncio.wait(workers, timeout=_FINAL_RECORD_SECONDS)

    async def fleet_status(self) -> FleetStatus | None:
        """Return None: there is no fleet."""
        return None

    async def check(self) -> None:
        """Do nothing: there are no queues."""

    async def requeue_stalled(self) -> None:
        """Do nothing: a worker stops only with this process."""


async def worker(task_id: str, registry: Registry, prober: Prober) -> None:
    """Probe a Task's pending targets, record the results, and finish the Task.

    If the worker is cancelled or the prober drains, the Task keeps its pending targets for another worker.
    """
    with log_fields(task=task_id), task_span(task_id):
        await _complete(task_id, registry, prober)


async def _complete(task_id: str, registry: Registry, prober: Prober) -> None:
    try:
        task = registry.task(task_id)
        await probe_and_record(registry.pending(task_id), task.options, prober, Recorder(task_id, registry))
        if prober.is_draining and task.counts.done < task.total:
            log.info("Task %s stops at %d of %d and goes on at the next start", task_id, task.counts.done, task.total)
            return
        await retry_until_stored(registry.finish, task_id, "ready")
        log.info("Task %s is ready", task_id)
    except TaskNotFound:
        log.info("Task %s was deleted while it ran", task_id)
    except Exception as error:
        mark_span_failed()
        await fail_task(task_id, registry, error)


async def fail_task(task_id: str, registry: Registry, error: Exception) -> None:
    """Log an error that a Task cannot go on after, and end the Task with it."""
    log.error("Task %s cannot go on", task_id, exc_info=error)
    detail = str(error) if isinstance(error, TaskDamaged) else f"{type(error).__name__}: {error}"
    with suppress(TaskNotFound, TransitionError):
        try:
            await retry_until_stored(registry.finish, task_id, "error", detail[:_MAX_DETAIL])
        except TaskDamaged:  # not even this can be stored; then reading finds that there is no such Task
            await retry_until_stored(registry.fetch, task_id)


async def probe_and_record(
    targets: Iterable[Target] | AsyncIterable[Target], options: Options, prober: Prober, recorder: "Recorder"
) -> int:
    """Probe targets and record the results; return how many there were until the end, or until the prober drained."""
    done = 0
    async with recorder, aclosing(prober.probe_many(targets, options)) as results:
        async for result in results:
            await recorder.add(result)
            done += 1
    return done


async def retry_until_stored(call: Callable[..., Coroutine[Any, Any, T]], *arguments: Any) -> T:
    """Call with back-off until the store works again: a full disk must not lose results.

    Raises:
        TaskDamaged: It would fail for ever.
    """
    pause = _FIRST_RETRY_SECONDS
    while True:
        try:
            return await call(*arguments)
        except TaskDamaged:
            raise
        except StoreError as error:
            log.error("the store failed; the next try is in %g s: %s", pause, error)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _MAX_RETRY_SECONDS)


class Recorder:
    """Records the results of a Task in groups: one call for many results costs as little as for one.

    It runs in the background while at least one caller is in its context; several can share it.

    Args:
        task_id: The Task.
        registry: Keeps the Task.
        collect_seconds: How long a result waits for others to be recorded with it.
        max_waiting: Results that can wait for the store; with more, or with 8 MiB of them, `add` waits too.
    """

    def __init__(
        self,
        task_id: str,
        registry: Registry,
        *,
        collect_seconds: float = _COLLECT_SECONDS,
        max_waiting: int = _MAX_WAITING_RESULTS,
    ) -> None:
        self._task_id = task_id
        self._registry = registry
        self._collect_seconds = collect_seconds
        self._max_waiting = max_waiting
        self._callers = 0
        self._has_results = asyncio.Event()
        self._flush_requested = asyncio.Event()
        self._progress = asyncio.Event()  # set, and replaced, after each group

    async def __aenter__(self) -> Self:
        if not self._callers:
            self._waiting: list[ProbeResult] = []
            self._waiting_bytes = 0
            self._added = self._recorded = 0
            self._recording = asyncio.ensure_future(self._record_groups())
        self._callers += 1
        return self

    async def __aexit__(self, kind: object, error: object, trace: object) -> None:
        """Record all results that were added, unless the caller was cancelled."""
        try:
            if not isinstance(error, asyncio.CancelledError):
                await self.flush()
        finally:
            self._callers -= 1
            if not self._callers:
                await cancel_and_wait(self._recording)

    async def add(self, result: ProbeResult) -> None:
        """Record a result soon; if too many results wait for the store, wait until they are recorded.

        Raises:
            TaskNotFound: The Task was deleted.
        """
        self._waiting.append(result)
        self._waiting_bytes += result.size
        self._added += 1
        self._has_results.set()
        is_full = len(self._waiting) >= self._max_waiting or self._waiting_bytes >= _MAX_WAITING_BYTES
        if is_full or self._recording.done():
            await self.flush()

    async def flush(self) -> None:
        """Wait until all results that were added are recorded.

        Raises:
            TaskNotFound: The Task was deleted.
        """
        wanted = self._added
        while self._recorded < wanted:
            if self._recording.done():
                self._recording.result()
            if self._waiting:
                self._flush_requested.set()
            await self._progress.wait()

    async def _record_groups(self) -> None:
        try:
            while True:
                await self._has_results.wait()
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._collect_seconds):
                        await self._flush_requested.wait()
                results, self._waiting, self._waiting_bytes = self._waiting, [], 0
                self._has_results.clear()
                self._flush_requested.clear()
                await retry_until_stored(self._registry.record, self._task_id, results)
                self._recorded += len(results)
                self._notify()
        finally:
            asyncio.get_running_loop().call_soon(self._notify)  # by then `_recording` is done

    def _notify(self) -> None:
        progress, self._progress = self._progress, asyncio.Event()
        progress.set()
