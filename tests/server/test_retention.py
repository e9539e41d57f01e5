"""Retention: ended Tasks are deleted by age, by number and by size."""

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from crawler import MemoryRegistry, Options, ServiceOptions, Task
from crawler.core.errors import TaskNotFound
from crawler.server.background.retention import Retention, find_expired
from crawler.stores.sqlite import queries
from crawler.stores.sqlite.registry import SqliteRegistry
from tests.support.retention import open_retention, submit_ended

DAY = 86_400.0


def ended(name: str, days_ago: float | None) -> Task:
    finished = None if days_ago is None else 1000 * DAY - days_ago * DAY
    return Task(id=name, options=Options(), finished=finished, status="running" if finished is None else "ready")


def days_since(days: float) -> Callable[[float], float]:
    """The age of Tasks on this day."""
    return lambda finished: days * DAY - finished


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
def test_tasks_are_deleted_in_the_order_in_which_they_ended_and_running_ones_stay(
    kept: ServiceOptions, expected: str
) -> None:
    assert "".join(task.id for task in find_expired(TASKS, kept, days_since(1000))) == expected


def test_a_clock_that_is_set_back_deletes_nothing() -> None:
    assert find_expired(TASKS, ServiceOptions(), days_since(900)) == []


async def test_expired_tasks_are_deleted() -> None:
    registry = MemoryRegistry()
    tasks = [await submit_ended(registry, ["http://a/"]) for _ in range(5)]
    running = await registry.submit(["http://a/"], Options())
    await open_retention(registry, ServiceOptions(keep_tasks=2)).delete_expired()
    assert list(registry.tasks) == [tasks[3].id, tasks[4].id, running.id]


async def test_an_unexpected_error_does_not_end_retention() -> None:
    registry, faults, goes = MemoryRegistry(), [RuntimeError("ours")], asyncio.Event()
    task = await submit_ended(registry, ["http://a/"])

    async def delete(task: Task) -> None:
        for _ in range(len(faults)):
            raise faults.pop()
        await registry.delete(task.id)
        goes.set()

    async with Retention(registry, ServiceOptions(keep_tasks=0), delete, interval_seconds=0.01), asyncio.timeout(10):
        await goes.wait()
    assert task.id not in registry.tasks


async def test_tasks_are_deleted_until_the_rest_fits(tmp_path: Path) -> None:
    async with SqliteRegistry(tmp_path / "tasks.db") as registry:
        small = await submit_ended(registry, ["http://a/"])
        empty = await registry.stored_bytes()
        big = [await submit_ended(registry, [f"http://a/{n}/{'x' * 500}" for n in range(1000)]) for _ in range(3)]
        each = (await registry.stored_bytes() - empty) // 3
        await open_retention(registry, ServiceOptions(keep_bytes=empty + int(1.5 * each))).delete_expired()
        assert list(registry.tasks) == [big[2].id], "those that ended first went, however small"
        assert small.id not in registry.tasks
        running = await registry.submit(["http://a/"], Options())
        await open_retention(registry, ServiceOptions(keep_bytes=0)).delete_expired()
        assert list(registry.tasks) == [running.id]


async def test_a_slow_reader_does_not_keep_the_rows_of_a_deleted_task(tmp_path: Path) -> None:
    """The reader gets an error, not an end: a chunked response without its last chunk is incomplete (RFC 9112, 8)."""
    async with SqliteRegistry(tmp_path / "tasks.db", reader_seconds=0.1) as registry:
        empty = await registry.stored_bytes()
        task = await submit_ended(registry, [f"http://a/{n}/{'x' * 1000}" for n in range(4000)])
        pages = registry.pages(task.id)
        await anext(pages)
        await registry.delete(task.id)
        async with asyncio.timeout(20):
            assert await registry.stored_bytes() <= empty, "the rows wait for a reader that does not read"
        with pytest.raises(TaskNotFound):  # no silent end: the reader would take a part for the whole
            async for _ in pages:
                pass


async def test_a_deleted_task_that_is_being_read_does_not_cost_another_task_its_place(tmp_path: Path) -> None:
    async with SqliteRegistry(tmp_path / "tasks.db") as registry:
        tasks = [await submit_ended(registry, [f"http://a/{n}/{'x' * 500}" for n in range(1000)]) for _ in range(3)]
        service = ServiceOptions(keep_bytes=await registry.stored_bytes() - 1)
        reading = registry.results(tasks[0].id)
        await anext(reading)
        tidying = asyncio.ensure_future(open_retention(registry, service).delete_expired())
        await asyncio.wait({tidying}, timeout=0.3)  # time to do wrong
        assert len([result async for result in reading]) == 999
        await tidying
        assert list(registry.tasks) == [task.id for task in tasks[1:]]


async def test_a_deleted_task_whose_rows_remain_does_not_cost_another_task_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    delete_some_rows, failures = queries.delete_some_rows, iter([sqlite3.OperationalError("database or disk is full")])

    def fails_once(connection: sqlite3.Connection, *, number: int) -> bool:
        for error in failures:
            raise error
        return delete_some_rows(connection, number=number)

    async with SqliteRegistry(tmp_path / "tasks.db", sweep_retry_seconds=0.01) as registry:
        tasks = [await submit_ended(registry, [f"http://a/{n}/{'x' * 500}" for n in range(1000)]) for _ in range(3)]
        service = ServiceOptions(keep_bytes=await registry.stored_bytes() - 1)
        monkeypatch.setattr(queries, "delete_some_rows", fails_once)
        await open_retention(registry, service).delete_expired()
        assert "could not be deleted" in caplog.text
        assert list(registry.tasks) == [task.id for task in tasks[1:]]
