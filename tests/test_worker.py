"""The recorder: results are recorded in groups, soon, and at the latest when its context ends."""

import asyncio
from collections.abc import Sequence

import pytest

from crawler import MemoryRegistry, Options, StoreError, Task, TaskNotFound
from crawler.core.results import ProbeResult
from crawler.worker import Recorder, retry_until_stored

LINES = [f"http://h{number}.example/" for number in range(10)]


class Registry(MemoryRegistry):
    """Remembers the size of each group, and can delay or fail a call."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []
        self.begun = asyncio.Event()
        self.is_open = asyncio.Event()
        self.is_open.set()
        self.faults = 0

    async def _record(self, task: Task, results: Sequence[ProbeResult]) -> None:
        self.sizes.append(len(results))
        self.begun.set()
        await self.is_open.wait()
        if self.faults:
            self.faults -= 1
            raise ZeroDivisionError
        await super()._record(task, results)


def result(seq: int) -> ProbeResult:
    return ProbeResult(seq=seq, url=LINES[seq], timestamp=0, outcome="ok")


@pytest.fixture
async def registry() -> Registry:
    return Registry()


@pytest.fixture
async def task(registry: Registry) -> Task:
    return await registry.submit(LINES, Options())


async def test_results_that_come_together_are_recorded_together_without_a_flush(registry: Registry, task: Task) -> None:
    async with Recorder(task.id, registry) as recorder, asyncio.timeout(10):
        await recorder.add(result(0))
        await recorder.add(result(1))
        while task.counts.done < 2:
            await registry.wait_for_change(task.id)
    assert registry.sizes == [2]


async def test_leaving_the_context_records_everything_at_once(registry: Registry, task: Task) -> None:
    async with asyncio.timeout(10), Recorder(task.id, registry, collect_seconds=3_600) as recorder:
        for seq in range(10):
            await recorder.add(result(seq))
    assert (registry.sizes, task.counts.ok) == ([10], 10)


async def test_results_added_while_the_store_works_are_the_next_group(registry: Registry, task: Task) -> None:
    registry.is_open.clear()
    async with Recorder(task.id, registry) as recorder:
        await recorder.add(result(0))
        await registry.begun.wait()
        for seq in range(1, 10):
            await recorder.add(result(seq))
        registry.is_open.set()
    assert (registry.sizes, task.counts.ok) == ([1, 9], 10)


async def test_callers_share_the_recorder_until_the_last_one_leaves(registry: Registry, task: Task) -> None:
    recorder = Recorder(task.id, registry)
    async with recorder:
        async with recorder:
            await recorder.add(result(0))
        assert task.counts.ok == 1
        await recorder.add(result(1))
    async with recorder:
        await recorder.add(result(2))
    assert (registry.sizes, task.counts.ok) == ([1, 1, 1], 3)


@pytest.mark.parametrize("later", range(40))
async def test_a_caller_can_enter_while_the_last_one_leaves(registry: Registry, task: Task, later: int) -> None:
    recorder = Recorder(task.id, registry)

    async def use(seq: int, later: int) -> None:
        for _ in range(later):
            await asyncio.sleep(0)
        async with recorder:
            await recorder.add(result(seq))

    async with asyncio.timeout(10):
        await asyncio.gather(use(0, 0), use(1, later))
    assert task.counts.ok == 2


async def test_a_cancelled_caller_does_not_wait_for_the_store(registry: Registry, task: Task) -> None:
    registry.is_open.clear()

    async def use() -> None:
        async with Recorder(task.id, registry) as recorder:
            await recorder.add(result(0))
            await asyncio.Event().wait()

    using = asyncio.ensure_future(use())
    await registry.begun.wait()
    using.cancel()
    async with asyncio.timeout(10):
        await asyncio.wait({using})
    assert using.cancelled()


async def test_adding_waits_while_too_many_results_wait_for_the_store(registry: Registry, task: Task) -> None:
    registry.is_open.clear()
    added = 0

    async def use() -> None:
        nonlocal added
        async with Recorder(task.id, registry, max_waiting=3) as recorder:
            for added in range(10):
                await recorder.add(result(added))

    using = asyncio.ensure_future(use())
    await registry.begun.wait()
    for _ in range(100):
        await asyncio.sleep(0)
    assert added == 2
    registry.is_open.set()
    await using
    assert task.counts.ok == 10


async def test_all_callers_are_told_soon_that_the_task_was_deleted(registry: Registry, task: Task) -> None:
    recorder = Recorder(task.id, registry)
    await registry.delete(task.id)

    told = 0

    async def use(seq: int) -> None:
        nonlocal told
        async with recorder:
            try:
                for _ in range(1_000):
                    await recorder.add(result(seq))
                    await asyncio.sleep(0.001)
            except TaskNotFound:
                told += 1
                raise

    async with asyncio.timeout(10):
        found = await asyncio.gather(*(use(seq) for seq in range(3)), return_exceptions=True)
    assert [type(error) for error in found] == [TaskNotFound] * 3
    assert told == 3


async def test_an_error_is_raised_to_the_caller_and_the_next_caller_starts_afresh(
    registry: Registry, task: Task
) -> None:
    recorder = Recorder(task.id, registry)
    registry.faults = 1
    async with asyncio.timeout(10):
        with pytest.raises(ZeroDivisionError):
            async with recorder:
                await recorder.add(result(0))
        async with recorder:
            await recorder.add(result(1))
    assert (registry.sizes, task.counts.ok) == ([1, 1], 1)


async def test_an_error_in_the_context_loses_no_result(registry: Registry, task: Task) -> None:
    with pytest.raises(ZeroDivisionError):
        async with Recorder(task.id, registry) as recorder:
            await recorder.add(result(0))
            raise ZeroDivisionError
    assert task.counts.ok == 1


async def test_a_call_that_the_store_failed_is_repeated_with_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    async def call(number: int) -> int:
        if len(waited) < 7:
            raise StoreError("full")
        return number

    monkeypatch.setattr("crawler.worker.asyncio.sleep", sleep)
    assert await retry_until_stored(call, 5) == 5
    assert waited == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
