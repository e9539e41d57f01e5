"""One suite for every registry: what it keeps, what it counts, and the rules that hold in every store."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crawler import MemoryRegistry, Options, Registry, TaskNotFound, TransitionError
from crawler.core.tasks import Status
from crawler.registry import PAGE_BYTES, STREAM_BYTES
from crawler.stores.redis.registry import RedisRegistry
from crawler.stores.redis.settings import FleetSettings
from crawler.stores.sqlite.registry import SqliteRegistry
from tests.support.redis_server import RedisServer
from tests.support.registries import make_result, pending_seqs

# "in slices": each Task is too big to be sorted in memory.
REGISTRIES: dict[str, Callable[[Path], Registry]] = {
    "memory": lambda _: MemoryRegistry(),
    "sqlite": lambda folder: SqliteRegistry(folder / "tasks.db"),
    "sqlite-in-slices": lambda folder: SqliteRegistry(folder / "tasks.db", lines_per_write=2),
}


@pytest.fixture(params=[*REGISTRIES, "redis", "redis-in-slices"])
async def registry(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Registry]:
    if request.param.startswith("redis"):
        server: RedisServer = request.getfixturevalue("redis_server")
        settings = FleetSettings(lines_per_slice=2) if request.param.endswith("-in-slices") else None
        made: Registry = RedisRegistry(server.url, settings)
    else:
        made = REGISTRIES[request.param](tmp_path)
    async with made as registry:
        yield registry


async def records(registry: Registry, task_id: str) -> list[tuple[int, str]]:
    return [(result.seq, result.url) async for result in registry.results(task_id)]


async def test_a_new_task_runs_and_has_no_results(registry: Registry) -> None:
    task = await registry.submit(["http://a/", "http://b/"], Options(retries=3))
    assert (task.status, task.total, task.counts.done, task.finished) == ("running", 2, 0, None)
    assert task.options.retries == 3
    assert registry.task(task.id) == registry.tasks[task.id] == task
    assert await pending_seqs(registry, task.id) == [0, 1]
    assert await records(registry, task.id) == []


async def test_tasks_are_listed_oldest_first(registry: Registry) -> None:
    ids = [(await registry.submit(["http://a/"], Options())).id for _ in range(5)]
    assert list(registry.tasks) == ids


async def test_pending_targets_alternate_between_hosts(registry: Registry) -> None:
    lines = ["http://a/1", "http://a/2", "http://a/3", "http://b/1", "nonsense", "http://b/2", "http://c/1"]
    task = await registry.submit(lines, Options())
    assert await pending_seqs(registry, task.id) == [0, 3, 4, 6, 1, 5, 2]


async def test_a_recorded_target_is_not_pending(registry: Registry) -> None:
    task = await registry.submit(["http://a/1", "http://a/2", "http://a/3"], Options())
    await registry.record(task.id, [make_result(1, "http://a/2")])
    assert await pending_seqs(registry, task.id) == [0, 2]
    assert await records(registry, task.id) == [(1, "http://a/2")]
    assert registry.task(task.id).counts.ok == 1


async def test_equal_urls_are_pending_once_and_recorded_for_each_line(registry: Registry) -> None:
    task = await registry.submit(["http://a/", "http://b/", "HTTP://A", "http://a/#x"], Options())
    assert await pending_seqs(registry, task.id) == [0, 1]
    await registry.record(task.id, [make_result(0, "http://a/")])
    assert await records(registry, task.id) == [(0, "http://a/"), (2, "HTTP://A"), (3, "http://a/#x")]
    assert registry.task(task.id).counts.done == 3


async def test_equal_lines_that_are_not_urls_are_one_target(registry: Registry) -> None:
    task = await registry.submit(["nonsense", "nonsense", "other"], Options())
    assert await pending_seqs(registry, task.id) == [0, 2]


async def test_a_result_stays_as_it_was_first_recorded(registry: Registry) -> None:
    task = await registry.submit(["http://a/"], Options())
    await registry.record(task.id, [make_result(0, "http://a/")])
    await registry.record(task.id, [make_result(0, "http://a/", "failed"), make_result(0, "http://a/", "failed")])
    assert [result.outcome async for result in registry.results(task.id)] == ["ok"]
    assert (registry.task(task.id).counts.ok, registry.task(task.id).counts.done) == (1, 1)


async def test_a_task_is_ready_when_every_line_has_a_result(registry: Registry) -> None:
    task = await registry.submit(["http://a/", "http://b/"], Options())
    await registry.record(task.id, [make_result(0, "http://a/")])
    with pytest.raises(TransitionError, match="1 results of 2"):
        await registry.finish(task.id, "ready")
    await registry.record(task.id, [make_result(1, "http://b/")])
    await registry.finish(task.id, "ready")
    assert registry.task(task.id).status == "ready"
    assert registry.task(task.id).finished is not None


async def test_a_finished_task_stays_as_it_is(registry: Registry) -> None:
    task = await registry.submit(["http://a/"], Options())
    await registry.finish(task.id, "error", "the store is full")
    assert registry.task(task.id).detail == "the store is full"
    await registry.record(task.id, [make_result(0, "http://a/")])
    assert await records(registry, task.id) == []
    for status in get_args(Status):
        with pytest.raises(TransitionError):
            await registry.finish(task.id, status)


async def test_fields_of_a_task_can_be_changed_one_by_one(registry: Registry) -> None:
    task = await registry.submit(["http://a/"], Options(), label="old")
    waiting = asyncio.ensure_future(registry.wait_for_change(task.id))
    await asyncio.sleep(0)
    await registry.update(task.id, label="new")
    await asyncio.wait_for(waiting, 5)
    assert registry.task(task.id).label == "new"
    with pytest.raises(TaskNotFound):
        await registry.update("nobody", label="new")


async def test_a_deleted_task_is_unknown_everywhere(registry: Registry) -> None:
    task = await registry.submit(["http://a/"], Options())
    other = await registry.submit(["http://b/"], Options())
    await registry.delete(task.id)
    assert list(registry.tasks) == [other.id]
    with pytest.raises(TaskNotFound):
        registry.task(task.id)
    with pytest.raises(TaskNotFound):
        await registry.record(task.id, [make_result(0)])
    with pytest.raises(TaskNotFound):
        await registry.finish(task.id, "error")
    with pytest.raises(TaskNotFound):
        await registry.delete(task.id)
    with pytest.raises(TaskNotFound):
        await pending_seqs(registry, task.id)
    with pytest.raises(TaskNotFound):
        await records(registry, task.id)


async def test_results_recorded_during_a_read_are_read_too(registry: Registry) -> None:
    task = await registry.submit([f"http://a/{number}" for number in range(3)], Options())
    await registry.record(task.id, [make_result(0, "http://a/0")])
    seen = []
    async for result in registry.results(task.id):
        seen.append(result.seq)
        if result.seq < 2:
            await registry.record(task.id, [make_result(result.seq + 1, f"http://a/{result.seq + 1}")])
    assert seen == [0, 1, 2]


async def test_tasks_cannot_be_changed_through_the_view(registry: Registry) -> None:
    with pytest.raises(TypeError):
        registry.tasks["x"] = None  # type: ignore[index]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    lines=st.lists(
        st.sampled_from(["http://a/", "http://a/#", "http://b/", "http://b/x", "no", "HTTP://A"]), max_size=12
    ),
    repeats=st.integers(1, 2),
    data=st.data(),
)
async def test_counts_equal_the_recorded_results(
    registry: Registry, lines: list[str], repeats: int, data: st.DataObject
) -> None:
    task = await registry.submit(lines, Options())
    targets = await pending_seqs(registry, task.id)
    for seq in data.draw(st.permutations(targets * repeats)):
        await registry.record(task.id, [make_result(seq, lines[seq])])
        assert registry.task(task.id).counts.done == len(await records(registry, task.id))
    assert sorted(await records(registry, task.id)) == list(enumerate(lines))
    assert await pending_seqs(registry, task.id) == []
    await registry.finish(task.id, "ready")


async def test_the_headers_of_an_ended_task_are_read_again_and_not_kept_in_memory(registry: Registry) -> None:
    headers = {"X-Long": "a" * 30_000}
    task = await registry.submit(["http://a/"], Options(headers=headers))
    await registry.finish(task.id, "error", "why")
    await registry.update(task.id, label="later")  # stores the Task again
    assert (await registry.options(task.id)).headers == headers
    kept = registry.task(task.id).options.headers
    assert kept == (headers if isinstance(registry, MemoryRegistry) else {"X-Long": ""})
    await registry.delete(task.id)
    with pytest.raises(TaskNotFound):
        await registry.options(task.id)


async def test_pages_end_at_a_size(registry: Registry) -> None:
    """With limits in rows alone, a thousand records of 640 KB were one text of SQLite, which is too long for it."""
    lines = [f"http://a/{number}?{'a' * 60_000}" for number in range(40)]
    task = await registry.submit(lines, Options())
    assert await pending_seqs(registry, task.id) == list(range(40))
    await registry.record(task.id, [make_result(seq, line) for seq, line in enumerate(lines)])
    place, seqs, pages = 0, list[int](), 0
    while place < 40:
        page = await registry.page(task.id, place, 1_000)
        assert sum(len(result.url) for result in page.results) <= PAGE_BYTES + 60_100
        seqs += [result.seq for result in page.results]
        place, pages = page.next, pages + 1
    assert sorted(seqs) == list(range(40))
    assert pages >= 3
    streamed = [len(results) async for results in registry.pages(task.id)]
    assert sum(streamed) == 40
    assert max(streamed) * 60_000 <= STREAM_BYTES + 60_100
    assert len((await registry.page(task.id, 0, 1, max_bytes=1)).results) == 1
