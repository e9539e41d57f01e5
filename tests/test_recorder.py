"""Results are recorded together, soon, and at the latest when whoever found them leaves."""

import asyncio
from collections.abc import Sequence

import pytest

from crawler import MemoryRegistry, Options, StoreError, Task, TaskNotFound
from crawler.core.results import ProbeResult
from crawler.worker import Recorder, retry_until_stored

LINES = [f"http://h{number}.example/" for number in range(10)]


class Registry(MemoryRegistry):
    """Remembers how many results it got at a time, and can have them wait."""

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


async def test_what_comes_together_is_recorded_together_and_without_being_asked(registry: Registry, task: Task) -> None:
    async with Recorder(task.id, registry) as recorder, asyncio.timeout(10):
        await recorder.add(result(0))
        await recorder.add(result(1))
        while task.counts.done < 2:
            await registry.wait_for_change(task.id)
    assert registry.sizes == [2]


async def test_who_leaves_has_all_recorded_without_waiting_for_more(
    registry: Registry, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crawler.worker._BREATH", 3_600.0)
    async with asyncio.timeout(10), Recorder(task.id, registry) as recorder:
        for seq in range(10):
            await recorder.add(result(seq))
    assert (registry.sizes, task.counts.ok) == ([10], 10)


async def test_what_comes_while_the_store_works_goes_with_the_next(registry: Registry, task: Task) -> None:
    registry.is_open.clear()
    async with Recorder(task.id, registry) as recorder:
        await recorder.add(result(0))
        await registry.begun.wait()
        for seq in range(1, 10):
            await recorder.add(result(seq))
        registry.is_open.set()
    assert (registry.sizes, task.counts.ok) == ([1, 9], 10)


async def test_those_side_by_side_share_it_until_the_last_leaves(registry: Registry, task: Task) -> None:
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
async def test_one_may_come_while_the_last_leaves(registry: Registry, task: Task, later: int) -> None:
    recorder = Recorder(task.id, registry)

    async def use(seq: int, later: int) -> None:
        for _ in range(later):
            await asyncio.sleep(0)
        async with recorder:
            await recorder.add(result(seq))

    async with asyncio.timeout(10):
        await asyncio.gather(use(0, 0), use(1, later))
    assert task.counts.ok == 2


async def test_whoever_is_cancelled_waits_for_no_store(registry: Registry, task: Task) -> None:
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


async def test_one_that_waits_for_a_store_that_does_not_get_on_adds_no_more(
    registry: Registry, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crawler.worker._WAITING", 3)
    registry.is_open.clear()
    added = 0

    async def use() -> None:
        nonlocal added
        async with Recorder(task.id, registry) as recorder:
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


async def test_all_who_share_it_hear_soon_that_the_task_is_gone(registry: Registry, task: Task) -> None:
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


async def test_who_waits_hears_of_a_fault_and_who_comes_later_begins_anew(registry: Registry, task: Task) -> None:
    recorder = Recorder(task.id, registry)
    registry.faults = 1
    async with asyncio.timeout(10):
        with pytest.raises(ZeroDivisionError):
            async with recorder:
                await recorder.add(result(0))
        async with recorder:
            await recorder.add(result(1))
    assert (registry.sizes, task.counts.ok) == ([1, 1], 1)


async def test_a_fault_of_whoever_probes_loses_nothing_that_was_found(registry: Registry, task: Task) -> None:
    with pytest.raises(ZeroDivisionError):
        async with Recorder(task.id, registry) as recorder:
            await recorder.add(result(0))
            raise ZeroDivisionError
    assert task.counts.ok == 1


async def test_what_a_store_refuses_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
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
