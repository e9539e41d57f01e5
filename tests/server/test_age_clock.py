"""What the clock of the machine does is not the age of Tasks.

Witness: clocks are set without warning, CLOCK_MONOTONIC is not (clock_gettime(2)); a computer without a battery for its
clock starts at any date.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from crawler import MemoryRegistry, Registry, ServiceOptions
from crawler.core.errors import StoreError
from crawler.server.background.age_clock import AgeClock
from crawler.server.background.retention import Retention
from crawler.stores.redis.registry import RedisRegistry
from crawler.stores.sqlite.registry import SqliteRegistry
from tests.support.redis_server import RedisServer
from tests.support.retention import submit_ended

DAY = 86_400.0
MINUTE = 60.0

OpenStore = Callable[[], AbstractAsyncContextManager[Registry]]


@pytest.fixture(params=["sqlite", "redis"])
async def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[OpenStore]:
    """Opens the same store each time."""
    if request.param == "sqlite":
        yield lambda: SqliteRegistry(tmp_path / "tasks.db")
    else:
        with RedisServer() as server:
            yield lambda: RedisRegistry(server.url)


class Machine:
    """A machine with a clock that can be set; `run` is a service that runs for some time."""

    def __init__(self) -> None:
        self.clock = 20_000 * DAY
        self.steady = 0.0

    def passes(self, seconds: float) -> None:
        self.clock += seconds
        self.steady += seconds

    @asynccontextmanager
    async def serve(self, open_store: OpenStore, keep_days: float = 30) -> AsyncIterator["Running"]:
        async with open_store() as registry:
            running = Running(self, registry, keep_days)
            await running.look()
            yield running


class Running:
    def __init__(self, machine: Machine, registry: Registry, keep_days: float) -> None:
        self._machine = machine
        self.registry = registry
        clock = AgeClock(registry, keep_days * DAY, now=lambda: machine.clock, steady=lambda: machine.steady)
        self.retention = Retention(
            registry, ServiceOptions(keep_days=keep_days), lambda task: registry.delete(task.id), clock=clock
        )

    async def look(self, seconds: float = 0.0) -> list[str]:
        """The labels of the Tasks after some time."""
        self._machine.passes(seconds)
        await self.retention.delete_expired()
        for _ in range(100):  # on Redis, a change that another connection has stored comes by a message
            labels = [task.label or "" for task in self.registry.tasks.values()]
            if all(labels):
                break
            await asyncio.sleep(0.05)
        return labels

    async def ends(self, label: str) -> None:
        task = await submit_ended(self.registry, ["http://a/"])
        await self.registry.update(task.id, label=label, finished=self._machine.clock)


async def test_a_start_with_the_clock_far_ahead_deletes_nothing(open_store: OpenStore) -> None:
    machine = Machine()
    async with machine.serve(open_store) as service:
        await service.ends("old")
        await service.look(10 * DAY)
        await service.ends("young")
    machine.clock += 400 * DAY
    async with machine.serve(open_store) as service:
        assert await service.look() == ["old", "young"]
        await service.ends("new")
        assert await service.look(19 * DAY) == ["old", "young", "new"]
    async with machine.serve(open_store) as service:
        assert await service.look(2 * DAY) == ["young", "new"], "age goes on from where it was"
        assert await service.look(11 * DAY) == [], "a Task that ended after the jump has the usual time"


async def test_a_clock_that_is_set_right_again_deletes_nothing_and_spares_nothing(open_store: OpenStore) -> None:
    machine = Machine()
    async with machine.serve(open_store) as service:
        await service.ends("old")
    machine.clock += 400 * DAY
    async with machine.serve(open_store) as service:
        await service.look(DAY)
    machine.clock -= 400 * DAY
    async with machine.serve(open_store) as service:
        assert await service.look() == ["old"]
        assert await service.look(28 * DAY) == ["old"]
        assert await service.look(4 * DAY) == []


@pytest.mark.parametrize("jump", [1000 * DAY, -1000 * DAY])
async def test_a_clock_that_is_set_while_the_service_runs_deletes_nothing(jump: float, open_store: OpenStore) -> None:
    machine = Machine()
    async with machine.serve(open_store, keep_days=1) as service:
        await service.ends("a")
        await service.look(MINUTE)
        machine.clock += jump
        await service.ends("b")
        assert await service.look(MINUTE) == ["a", "b"]
    async with machine.serve(open_store, keep_days=1) as service:
        assert await service.look(MINUTE) == ["a", "b"]


async def test_a_short_stop_counts_as_age_and_a_long_one_does_not(open_store: OpenStore) -> None:
    machine = Machine()
    async with machine.serve(open_store) as service:
        await service.ends("a")
        await service.look(29.5 * DAY)
    machine.passes(0.4 * DAY)
    async with machine.serve(open_store) as service:
        assert await service.look() == ["a"]
    machine.passes(400 * DAY)
    async with machine.serve(open_store) as service:
        assert await service.look() == ["a"]
        assert await service.look(0.2 * DAY) == []


@pytest.mark.parametrize("note", [None, b"no JSON", b"{}"])
async def test_without_a_stored_time_the_newest_task_tells_it(note: bytes | None, open_store: OpenStore) -> None:
    machine = Machine()
    async with open_store() as registry:
        for label in "ab":
            task = await submit_ended(registry, ["http://a/"])
            await registry.update(task.id, label=label, created=machine.clock, finished=machine.clock)
            machine.passes(10 * DAY)
        if note is not None:
            await registry.write_note("last-use", note)
    machine.clock += 400 * DAY
    async with machine.serve(open_store) as service:
        assert await service.look() == ["a", "b"]
        assert await service.look(21 * DAY) == ["b"]


async def test_a_clock_that_is_never_right_keeps_a_bounded_note(open_store: OpenStore) -> None:
    machine = Machine()
    async with machine.serve(open_store, keep_days=1) as service:
        await service.ends("a")
        for _ in range(400):
            machine.clock += 2 * DAY
            await service.look(MINUTE)
        assert await service.look() == ["a"]
        assert len(await service.registry.read_note("last-use") or b"") < 15_000
        await service.look(DAY)
        assert await service.look(DAY) == []


async def test_nothing_is_deleted_while_the_last_use_cannot_be_read() -> None:
    class Unreadable(MemoryRegistry):
        async def read_note(self, name: str) -> bytes | None:
            raise StoreError("does not answer")

    registry = Unreadable()
    await submit_ended(registry, ["http://a/"])
    retention = Retention(registry, ServiceOptions(keep_days=0), lambda task: registry.delete(task.id))
    with pytest.raises(StoreError):
        await retention.delete_expired()
    assert len(registry.tasks) == 1
