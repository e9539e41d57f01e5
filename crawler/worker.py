"""A Task's pending targets, probed, recorded: what every engine runs."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Coroutine, Iterable
from contextlib import aclosing, suppress
from typing import Any, Final, TypeVar

from crawler.errors import StoreError, TaskNotFound, TransitionError
from crawler.logs import about
from crawler.models import ProbeResult
from crawler.prober import Prober
from crawler.registry import Registry
from crawler.targets import Target
from crawler.tracing import fail, task_span

__all__ = ["insist", "work", "worker"]

T = TypeVar("T")

log = logging.getLogger(__name__)

_BREATH: Final = 0.05  # seconds that results wait for others, to be recorded with them
_WAITING: Final = 5_000  # results that may wait for the store; then probing waits too
_PATIENCE: Final = 30.0  # seconds between two tries to record, at most


async def worker(task_id: str, registry: Registry, prober: Prober) -> None:
    """Bring a Task to its end.

    Cancelled, or once the prober drains, it leaves the Task as far as it is, for another worker to go on.
    """
    with about(task=task_id), task_span(task_id):
        await _bring_to_end(task_id, registry, prober)


async def work(
    task_id: str, targets: Iterable[Target] | AsyncIterable[Target], registry: Registry, prober: Prober
) -> int:
    """Have a Task's targets probed and recorded; gives how many were, before the prober drained."""
    done = 0
    results = prober.probe_many(targets, registry.task(task_id).options)
    async with aclosing(results), aclosing(_batches(results)) as batches:
        async for batch in batches:
            await insist(registry.record, task_id, batch)
            done += len(batch)
    return done


async def insist(call: Callable[..., Coroutine[Any, Any, T]], *arguments: Any) -> T:
    """Do what a store may be unable to do for a while: what is found is not thrown away because a disk is full."""
    patience = 1.0
    while True:
        try:
            return await call(*arguments)
        except StoreError as error:
            log.error("the store does not do its work, which is tried again: %s", error)
            await asyncio.sleep(patience)
            patience = min(2 * patience, _PATIENCE)


async def _bring_to_end(task_id: str, registry: Registry, prober: Prober) -> None:
    try:
        await work(task_id, registry.pending(task_id), registry, prober)
        task = registry.task(task_id)
        if prober.is_draining and task.counts.done < task.total:
            log.info("task %s is left at %d of %d, to go on at the next start", task_id, task.counts.done, task.total)
            return
        await insist(registry.finish, task_id, "ready")
        log.info("task %s is ready", task_id)
    except TaskNotFound:
        log.info("task %s was deleted while it ran", task_id)
    except Exception as error:
        log.exception("task %s cannot go on", task_id)
        fail()
        with suppress(TaskNotFound, TransitionError):
            await insist(registry.finish, task_id, "error", f"{type(error).__name__}: {error}")


async def _batches(results: AsyncGenerator[ProbeResult, None]) -> AsyncGenerator[list[ProbeResult], None]:
    """Results as they come, those together that come within a breath: a store writes many as fast as one."""
    found: list[ProbeResult] = []
    news, room = asyncio.Event(), asyncio.Event()

    async def collect() -> None:
        async for result in results:
            found.append(result)
            news.set()
            if len(found) >= _WAITING:
                room.clear()
                await room.wait()

    collector = asyncio.ensure_future(collect())
    collector.add_done_callback(lambda _: news.set())
    try:
        while not collector.done() or found:
            await news.wait()
            await asyncio.wait({collector}, timeout=_BREATH)
            batch = found[:]
            found.clear()
            news.clear()
            room.set()
            if batch:
                yield batch
        collector.result()
    finally:
        collector.cancel()
        await asyncio.gather(collector, return_exceptions=True)
