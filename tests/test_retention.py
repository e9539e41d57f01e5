"""Tasks that have ended are kept for so long, in such a number, and as long as there is room."""

from pathlib import Path

import pytest

from crawler import MemoryRegistry, Options, ProbeResult, Registry, ServiceOptions, Task
from crawler.retention import Retention, outlived
from crawler.stores.sqlite import SqliteRegistry

DAY = 86_400.0


def ended(name: str, days_ago: float | None) -> Task:
    finished = None if days_ago is None else 1000 * DAY - days_ago * DAY
    return Task(id=name, options=Options(), finished=finished, status="running" if finished is None else "ready")


TASKS = [ended("a", 3), ended("b", None), ended("c", 40), ended("d", 1), ended("e", 2)]


@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        (ServiceOptions(), "c"),
        (ServiceOptions(keep_days=2.5), "ca"),
        (ServiceOptions(keep_days=0), "caed"),
        (ServiceOptions(keep_days=100), ""),
        (ServiceOptions(keep_days=100, keep_tasks=3), "c"),
        (ServiceOptions(keep_days=100, keep_tasks=1), "cae"),
        (ServiceOptions(keep_tasks=0), "caed"),
        (ServiceOptions(keep_days=2.5, keep_tasks=1), "cae"),
    ],
)
def test_those_that_ended_first_go_first_and_those_that_run_stay(kept: ServiceOptions, expected: str) -> None:
    assert "".join(task.id for task in outlived(TASKS, kept, 1000 * DAY)) == expected


def test_a_clock_that_went_back_deletes_nothing() -> None:
    assert outlived(TASKS, ServiceOptions(), 900 * DAY) == []


async def finished(registry: Registry, lines: list[str]) -> Task:
    task = await registry.submit(lines, Options())
    found = [ProbeResult(seq=seq, url=line, timestamp=1, outcome="ok") for seq, line in enumerate(lines)]
    await registry.record(task.id, found)
    await registry.finish(task.id, "ready")
    return task


async def test_what_is_outlived_is_deleted() -> None:
    registry = MemoryRegistry()
    tasks = [await finished(registry, ["http://a/"]) for _ in range(5)]
    running = await registry.submit(["http://a/"], Options())
    await Retention(registry, ServiceOptions(keep_tasks=2)).once()
    assert list(registry.tasks) == [tasks[3].id, tasks[4].id, running.id]


async def test_tasks_go_until_the_rest_has_room(tmp_path: Path) -> None:
    async with SqliteRegistry(tmp_path / "tasks.db") as registry:
        small = await finished(registry, ["http://a/"])
        empty = await registry.size()
        big = [await finished(registry, [f"http://a/{n}/{'x' * 500}" for n in range(1000)]) for _ in range(3)]
        each = (await registry.size() - empty) // 3
        await Retention(registry, ServiceOptions(keep_bytes=empty + int(1.5 * each))).once()
        assert list(registry.tasks) == [big[2].id], "those that ended first went, however small"
        assert small.id not in registry.tasks
        running = await registry.submit(["http://a/"], Options())
        await Retention(registry, ServiceOptions(keep_bytes=0)).once()
        assert list(registry.tasks) == [running.id]
