"""`app["TASKS"]` shows what is in memory without I/O; reading the rest is awaited."""

import asyncio
from pathlib import Path

import pytest

from crawler import MemoryRegistry, Options, Registry, TaskNotFound
from crawler.core.errors import ResultsNotInMemory
from crawler.server.first_contract.live_tasks import LiveTasks
from crawler.stores.redis.registry import RedisRegistry
from crawler.stores.sqlite.registry import SqliteRegistry
from tests.support.redis_server import RedisServer
from tests.support.registries import make_result
from tests.support.retention import submit_ended

SHOWN = {"timestamp": 1, "errors": {}}


def live_tasks(registry: Registry) -> LiveTasks:
    return LiveTasks(registry, lambda _: [])


async def test_all_results_of_a_memory_registry_are_shown_as_they_are_recorded() -> None:
    registry = MemoryRegistry()
    tasks = live_tasks(registry)
    lines = [f"http://a/{number}" for number in range(2_000)]
    task = await registry.submit(lines, Options())
    shown = tasks[task.id]
    assert dict(shown) == {"status": "running", "workers": [], "result": {}}
    await registry.record(task.id, [make_result(seq, line) for seq, line in enumerate(lines)])
    assert shown["result"] == dict.fromkeys(lines, SHOWN)
    await registry.finish(task.id, "ready")
    assert tasks[task.id] == await tasks.read(task.id)


async def test_a_small_task_in_a_file_is_shown_and_a_big_one_is_read(tmp_path: Path) -> None:
    async with SqliteRegistry(tmp_path / "tasks.db") as registry:
        tasks = live_tasks(registry)
        small = await submit_ended(registry, ["http://a/", "http://b/"])
        big = await submit_ended(registry, [f"http://a/{number}" for number in range(1_001)])
        assert tasks[small.id]["result"] == {"http://a/": SHOWN, "http://b/": SHOWN}
        assert (tasks[big.id]["status"], tasks[big.id]["workers"], len(tasks)) == ("ready", [], 2)
        with pytest.raises(ResultsNotInMemory, match=rf"{big.id}.*TASKS\]\.read"):
            tasks[big.id]["result"]
        assert set(tasks[big.id]) == {"status", "workers", "result"}
        assert len((await tasks.read(big.id))["result"]) == 1_001
    async with SqliteRegistry(tmp_path / "tasks.db") as registry:
        tasks = live_tasks(registry)
        with pytest.raises(ResultsNotInMemory):
            tasks[small.id]["result"]
        assert (await tasks.read(small.id))["result"] == {"http://a/": SHOWN, "http://b/": SHOWN}


async def test_results_in_redis_are_read(redis_server: RedisServer) -> None:
    async with RedisRegistry(redis_server.url) as registry:
        tasks = live_tasks(registry)
        task = await registry.submit(["http://a/"], Options())
        assert tasks[task.id]["result"] == {}
        await registry.record(task.id, [make_result(0, "http://a/")])
        with pytest.raises(ResultsNotInMemory):
            tasks[task.id]["result"]
        assert (await tasks.read(task.id))["result"] == {"http://a/": SHOWN}
        await registry.delete(task.id)
        with pytest.raises(TaskNotFound):
            await tasks.read(task.id)
        with pytest.raises(KeyError):
            tasks[task.id]


async def test_looking_at_a_task_while_its_results_are_recorded_shows_all_that_are_counted(tmp_path: Path) -> None:
    lines = [f"http://a/{number}" for number in range(50)]
    async with SqliteRegistry(tmp_path / "tasks.db") as registry:
        tasks = live_tasks(registry)
        task = await registry.submit(lines, Options())
        recording = [asyncio.ensure_future(registry.record(task.id, [make_result(n, lines[n])])) for n in range(50)]
        while task.counts.done < 50:
            assert len(tasks[task.id]["result"]) == task.counts.done
            await asyncio.sleep(0)
        await asyncio.gather(*recording)
