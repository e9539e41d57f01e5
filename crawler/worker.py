"""A Task's pending targets, probed, recorded: what every engine runs."""

import logging
from contextlib import aclosing

from crawler.errors import TaskNotFound
from crawler.prober import Prober
from crawler.registry import Registry

__all__ = ["worker"]

log = logging.getLogger(__name__)


async def worker(task_id: str, registry: Registry, prober: Prober) -> None:
    """Bring a Task to its end. Cancelled, it leaves the Task as far as it is, for another worker to go on."""
    try:
        async with aclosing(prober.probe_many(registry.pending(task_id))) as results:
            async for result in results:
                await registry.record(task_id, [result])
        await registry.finish(task_id, "ready")
    except TaskNotFound:
        log.info("task %s was deleted while it ran", task_id)
    except Exception as error:
        log.exception("task %s cannot go on", task_id)
        await registry.finish(task_id, "error", f"{type(error).__name__}: {error}")
