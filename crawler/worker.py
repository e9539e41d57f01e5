"""A Task's pending targets, probed, recorded: what every engine runs."""

import logging
from collections.abc import AsyncIterable, Iterable
from contextlib import aclosing, suppress

from crawler.core.errors import TaskNotFound, TransitionError
from crawler.core.options import Options
from crawler.core.urls import Target
from crawler.probing.prober import Prober
from crawler.recorder import Recorder, insist
from crawler.registry import Registry
from crawler.runtime.logs import about
from crawler.runtime.tracing import fail, task_span

__all__ = ["work", "worker"]

log = logging.getLogger("crawler.worker")


async def worker(task_id: str, registry: Registry, prober: Prober) -> None:
    """Bring a Task to its end.

    Cancelled, or once the prober drains, it leaves the Task as far as it is, for another worker to go on.
    """
    with about(task=task_id), task_span(task_id):
        await _bring_to_end(task_id, registry, prober)


async def work(
    targets: Iterable[Target] | AsyncIterable[Target], options: Options, prober: Prober, recorder: Recorder
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
        await work(registry.pending(task_id), task.options, prober, Recorder(task_id, registry))
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
