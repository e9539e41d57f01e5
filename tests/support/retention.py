"""Ended Tasks in a registry, and a Retention that deletes them."""

from crawler import Options, ProbeResult, Registry, ServiceOptions, Task
from crawler.server.background.retention import Retention

__all__ = ["open_retention", "submit_ended"]


def open_retention(registry: Registry, service: ServiceOptions) -> Retention:
    """A Retention for this registry, which is not running: tests call `delete_expired`."""
    return Retention(registry, service, lambda task: registry.delete(task.id))


async def submit_ended(registry: Registry, lines: list[str]) -> Task:
    """Submit a Task, record a result for every line, and end it."""
    task = await registry.submit(lines, Options())
    found = [ProbeResult(seq=seq, url=line, timestamp=1, outcome="ok") for seq, line in enumerate(lines)]
    await registry.record(task.id, found)
    await registry.finish(task.id, "ready")
    return task
