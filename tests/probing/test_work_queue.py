"""Slots are bounded and fair, never held by an item that waits, and never lost."""

import asyncio
import gc
import weakref
from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawler.probing.scheduling.scheduler import Scheduler
from crawler.probing.scheduling.work_queue import RunItem, WorkQueue
from tests.support.spacing import assert_spaced
from tests.support.work_items import GatedItem, settle


class Runner:
    """Runs items, and records which ran."""

    def __init__(self) -> None:
        self.started: list[GatedItem] = []
        self.running: set[GatedItem] = set()

    async def run(self, item: GatedItem) -> bool:
        self.started.append(item)
        self.running.add(item)
        try:
            await item.gate.wait()
        finally:
            self.running.discard(item)
        item.runs_left -= 1
        return item.runs_left == 0

    def running_of(self, host: str) -> int:
        return sum(item.host == host for item in self.running)


def fill(queue: WorkQueue[GatedItem], items: Iterable[GatedItem]) -> list[GatedItem]:
    put = list(items)
    for item in put:
        queue.put(item)
    return put


async def test_no_more_run_at_once_than_there_are_slots() -> None:
    runner, scheduler = Runner(), Scheduler(concurrency=3, per_host=2)
    async with WorkQueue(scheduler, runner.run) as queue:
        items = fill(queue, [GatedItem(host) for host in "aaabbbccc"])
        queue.seal()
        for _ in items:
            await settle()
            assert len(runner.running) <= 3
            assert all(runner.running_of(host) <= 2 for host in "abc")
            next(iter(runner.running)).gate.set()
        assert len([item async for item in queue]) == 9
    assert scheduler.active == 0


async def test_a_host_that_is_stuck_holds_its_own_slots_only() -> None:
    runner, scheduler = Runner(), Scheduler(concurrency=4, per_host=2)
    async with WorkQueue(scheduler, runner.run) as queue:
        fill(queue, [GatedItem("stuck") for _ in range(1000)])
        quick = fill(queue, [GatedItem(f"quick{number}") for number in range(100)])
        for item in quick:
            item.gate.set()
        finished = [await anext(queue) for _ in quick]
        assert set(finished) == set(quick)
        assert runner.running_of("stuck") == 2


async def test_work_queues_take_turns() -> None:
    runner, scheduler = Runner(), Scheduler(concurrency=2, per_host=2)
    async with WorkQueue(scheduler, runner.run) as big, WorkQueue(scheduler, runner.run) as small:
        crowd = fill(big, [GatedItem(f"host{number}") for number in range(1000)])
        few = fill(small, [GatedItem(f"other{number}") for number in range(10)])
        for item in [*crowd, *few]:
            item.gate.set()
        for _ in few:
            await anext(small)
        before = runner.started.index(few[-1])
        assert before < 2 + 2 * len(few) + 2, f"the small queue's last item was number {before}"


async def test_work_queues_take_turns_at_one_host() -> None:
    runner, scheduler = Runner(), Scheduler(concurrency=10, per_host=1)
    async with WorkQueue(scheduler, runner.run) as big, WorkQueue(scheduler, runner.run) as small:
        crowd = fill(big, [GatedItem("host") for _ in range(1000)])
        few = fill(small, [GatedItem("host") for _ in range(10)])
        for item in [*crowd, *few]:
            item.gate.set()
        for _ in few:
            await anext(small)
        assert runner.started.index(few[-1]) < 2 * len(few) + 2


async def test_hosts_take_turns_within_a_work_queue() -> None:
    runner, scheduler = Runner(), Scheduler(concurrency=1, per_host=1)
    async with WorkQueue(scheduler, runner.run) as queue:
        items = fill(queue, [GatedItem(host) for host in "aaaaabbbbb"])
        queue.seal()
        for item in items:
            item.gate.set()
        assert "".join([item.host async for item in queue]) in ("ababababab", "aababababb", "abababab" + "ab")


async def test_an_unfinished_item_is_queued_again_and_may_change_its_host() -> None:
    runner, scheduler = Runner(), Scheduler(concurrency=2, per_host=1)
    async with WorkQueue(scheduler, runner.run) as queue:
        traveller, other = GatedItem("first"), GatedItem("second")
        traveller.runs_left = 2
        queue.put(other)
        queue.put(traveller)
        queue.seal()
        await settle()
        traveller.host = "second"
        traveller.gate.set()
        await settle()
        assert runner.running == {other}, "the second host's only slot is taken"
        other.gate.set()
        assert [item async for item in queue] == [other, traveller]


async def test_an_item_that_waits_for_its_time_holds_no_slot() -> None:
    runner, scheduler = Runner(), Scheduler(concurrency=1, per_host=1)
    loop = asyncio.get_running_loop()
    async with WorkQueue(scheduler, runner.run) as queue:
        later, now = GatedItem("host", not_before=loop.time() + 0.05), GatedItem("host")
        later.gate.set()
        now.gate.set()
        queue.put(later)
        queue.put(now)
        queue.seal()
        await settle()
        assert [item async for item in queue] == [now, later]
        assert loop.time() >= later.not_before


@pytest.mark.parametrize("when", ["before its first step", "while it runs"])
async def test_leaving_a_work_queue_returns_every_slot(when: str) -> None:
    runner, scheduler = Runner(), Scheduler(concurrency=5, per_host=2)
    async with WorkQueue(scheduler, runner.run) as queue:
        fill(queue, [GatedItem(host) for host in "aaaabbbbcccc"])
        fill(queue, [GatedItem("later", not_before=asyncio.get_running_loop().time() + 0.01)])
        if when == "while it runs":
            await settle()
        assert scheduler.active == 5
    assert scheduler.active == 0
    assert not runner.running
    async with WorkQueue(scheduler, runner.run) as queue:
        for item in fill(queue, [GatedItem("a"), GatedItem("a")]):
            item.gate.set()
        queue.seal()
        assert len([item async for item in queue]) == 2


async def test_an_item_that_wants_its_host_alone_has_it_alone_where_the_host_was_in_trouble() -> None:
    runner, scheduler = Runner(), Scheduler(concurrency=8, per_host=4)
    async with WorkQueue(scheduler, runner.run) as queue:
        first = fill(queue, [GatedItem("a") for _ in range(3)])
        await settle()
        scheduler.record_answer("a", 0.1)
        assert scheduler.record_failure("a", "tcp.reset", 0.1).may_be_reason
        alone = [GatedItem("a"), GatedItem("a")]
        for item in alone:
            item.wants_host_alone = True
        fill(queue, [*alone, *(GatedItem("b") for _ in range(4))])
        await settle()
        assert runner.running_of("b") == 4, "another host does not wait"
        for item in first:
            assert not runner.running.intersection(alone)
            item.gate.set()
            await settle()
        for item in alone:
            assert runner.running_of("a") == 1
            assert item in runner.running
            item.gate.set()
            await settle()


async def test_an_item_that_wants_its_host_alone_shares_a_host_that_is_well() -> None:
    runner, scheduler = Runner(), Scheduler(concurrency=8, per_host=4)
    async with WorkQueue(scheduler, runner.run) as queue:
        items = [GatedItem("a") for _ in range(4)]
        for item in items:
            item.wants_host_alone = True
        fill(queue, items)
        await settle()
        assert runner.running_of("a") == 4


async def test_deferred_items_are_not_kept_in_memory_by_their_timer() -> None:
    """A list of a million dead hosts defers most of its items for a moment."""
    scheduler = Scheduler(concurrency=8, per_host=8)

    async def run(item: GatedItem) -> bool:
        item.runs_left -= 1
        item.wants_deferral = item.runs_left > 0
        return item.runs_left == 0

    async with WorkQueue(scheduler, run) as queue:
        item = GatedItem("a")
        item.runs_left = 2
        fill(queue, [item])
        queue.seal()
        assert [done async for done in queue] == [item]
        kept = weakref.ref(item)
        del item
        gc.collect()
        assert kept() is None


async def test_leaving_a_work_queue_lets_the_others_go_on() -> None:
    runner, scheduler = Runner(), Scheduler(concurrency=2, per_host=1)
    async with WorkQueue(scheduler, runner.run) as staying:
        async with WorkQueue(scheduler, runner.run) as leaving:
            fill(leaving, [GatedItem("a") for _ in range(3)])
            items = fill(staying, [GatedItem("a") for _ in range(3)])
            staying.seal()
        for item in items:
            item.gate.set()
        assert [item async for item in staying] == items


async def test_hosts_are_forgotten() -> None:
    runner, scheduler = Runner(), Scheduler(concurrency=100, per_host=1)
    async with WorkQueue(scheduler, runner.run) as queue:
        for item in fill(queue, [GatedItem(f"host{number}") for number in range(1000)]):
            item.gate.set()
        queue.seal()
        assert len([item async for item in queue]) == 1000
    assert not scheduler._hosts


async def test_a_work_queue_reads_on_past_a_full_host_but_not_without_end() -> None:
    runner, scheduler = Runner(), Scheduler(concurrency=10_000, per_host=1)
    async with WorkQueue(scheduler, runner.run) as queue:
        read = 0

        async def feed() -> None:
            nonlocal read
            while True:
                await queue.wait_for_room()
                queue.put(GatedItem("stuck"))
                read += 1

        feeder = asyncio.ensure_future(feed())
        await settle()
        assert 10_000 < read <= 50_000
        feeder.cancel()


async def test_a_work_queue_reads_no_further_than_it_needs() -> None:
    runner, scheduler = Runner(), Scheduler(concurrency=10, per_host=1)
    async with WorkQueue(scheduler, runner.run) as queue:
        read = 0

        async def feed() -> None:
            nonlocal read
            while True:
                await queue.wait_for_room()
                queue.put(GatedItem(f"host{read}"))
                read += 1

        feeder = asyncio.ensure_future(feed())
        await settle()
        assert read < 1000
        feeder.cancel()


async def test_a_work_queue_that_closes_passes_on_the_turn_it_was_given() -> None:
    """It is woken for a host's free slot, but another host gets the last slot. Then it closes: the next has to run."""
    runner, scheduler = Runner(), Scheduler(concurrency=2, per_host=1)
    async with WorkQueue(scheduler, runner.run) as other, WorkQueue(scheduler, runner.run) as waiting:
        [first] = fill(other, [GatedItem("host")])
        async with WorkQueue(scheduler, runner.run) as closing:
            fill(closing, [GatedItem("host")])
            [last] = fill(waiting, [GatedItem("host")])
            waiting.seal()
            rest = fill(other, [GatedItem(name) for name in ("one", "two", "three")])
            await settle()
            first.gate.set()
            await settle()
        for item in [*rest, last]:
            item.gate.set()
        async with asyncio.timeout(5):
            assert [item async for item in waiting] == [last]


async def test_a_work_queue_reads_on_when_its_ready_items_have_to_wait_for_their_hosts() -> None:
    runner, scheduler = Runner(), Scheduler(concurrency=1, per_host=1)
    async with WorkQueue(scheduler, runner.run) as other, WorkQueue(scheduler, runner.run) as queue:
        [busy] = fill(other, [GatedItem("busy")])
        held = [f"held{number}" for number in range(300)]
        fill(queue, [GatedItem(name) for name in held])
        for name in held:
            scheduler.hold(name, 3600)
        feeder = asyncio.ensure_future(queue.wait_for_room())
        await settle()
        assert not feeder.done()
        busy.gate.set()
        await asyncio.wait_for(feeder, 5)


# --- Work queues with limits of their own ---


async def test_two_work_queues_have_their_own_limits_at_one_host() -> None:
    scheduler = Scheduler(concurrency=20, per_host=6)
    active = {"gentle": 0, "eager": 0}
    most = {"gentle": 0, "eager": 0, "both": 0}

    def run_of(name: str) -> RunItem[GatedItem]:
        async def run_item(_: GatedItem) -> bool:
            active[name] += 1
            most[name] = max(most[name], active[name])
            most["both"] = max(most["both"], sum(active.values()))
            await asyncio.sleep(0)
            active[name] -= 1
            return True

        return run_item

    async with (
        WorkQueue(scheduler, run_of("gentle"), per_host=2) as gentle,
        WorkQueue(scheduler, run_of("eager")) as eager,
    ):
        for queue in (gentle, eager):
            fill(queue, [GatedItem("host") for _ in range(30)])
            queue.seal()
        for queue in (gentle, eager):
            assert len([item async for item in queue]) == 30
    assert (most["gentle"], most["both"]) == (2, 6)
    assert most["eager"] >= 4
    assert not scheduler._hosts


async def test_a_work_queue_at_its_limit_leaves_other_slots_of_a_host_to_others() -> None:
    gentle_runner, runner, scheduler = Runner(), Runner(), Scheduler(concurrency=20, per_host=4)
    async with WorkQueue(scheduler, gentle_runner.run, per_host=1) as gentle, WorkQueue(scheduler, runner.run) as eager:
        fill(gentle, [GatedItem("host") for _ in range(10)])
        fill(eager, [GatedItem("host") for _ in range(10)])
        await settle()
        assert (len(gentle_runner.running), len(runner.running)) == (1, 3)


async def test_work_queues_with_one_slot_for_each_host_take_turns_at_it() -> None:
    scheduler = Scheduler(concurrency=10, per_host=2)
    order: list[int] = []

    def run_of(number: int) -> RunItem[GatedItem]:
        async def run_item(_: GatedItem) -> bool:
            order.append(number)
            for _step in range(1 + len(order) % 3):
                await asyncio.sleep(0)
            return True

        return run_item

    async def run(number: int) -> None:
        async with WorkQueue(scheduler, run_of(number), per_host=1) as queue:
            fill(queue, [GatedItem("host") for _ in range(100)])
            queue.seal()
            assert len([item async for item in queue]) == 100

    await asyncio.gather(*(run(number) for number in range(4)))
    for number in range(4):
        runs = [place for place, who in enumerate(order) if who == number]
        assert runs[9] < 80, "a quarter of the runs are its"


async def test_a_slot_left_by_a_work_queue_at_its_limit_is_taken_at_once() -> None:
    """Two slots of a host become free together, and only one work queue is woken, which cannot use the second."""
    gentle_runner, runner, scheduler = Runner(), Runner(), Scheduler(concurrency=20, per_host=4)
    async with WorkQueue(scheduler, gentle_runner.run, per_host=1) as gentle, WorkQueue(scheduler, runner.run) as eager:
        scheduler.open_queue(eager, "host")
        scheduler.hold("host", 3600)
        fill(gentle, [GatedItem("host") for _ in range(10)])
        fill(eager, [GatedItem("host") for _ in range(10)])
        await settle()
        scheduler.resume("host")
        await settle()
        assert (len(gentle_runner.running), len(runner.running)) == (1, 3)


async def test_a_work_queue_gets_no_more_slots_than_the_scheduler_allows() -> None:
    runner, scheduler = Runner(), Scheduler(concurrency=10, per_host=2)
    async with WorkQueue(scheduler, runner.run, per_host=5) as queue:
        fill(queue, [GatedItem("host") for _ in range(10)])
        await settle()
        assert len(runner.running) == 2


async def test_an_interval_spaces_the_items_of_its_own_work_queue_only() -> None:
    loop = asyncio.get_running_loop()
    scheduler = Scheduler(concurrency=10, per_host=10)
    times: dict[str, list[float]] = {"host": [], "other": [], "quick": []}
    started = loop.time()

    async def run_item(item: GatedItem) -> bool:
        times[item.host].append(loop.time())
        return True

    async def run_other(_: GatedItem) -> bool:
        times["quick"].append(loop.time())
        return True

    async with WorkQueue(scheduler, run_item, interval=0.2) as slow, WorkQueue(scheduler, run_other) as quick:
        fill(slow, [GatedItem(host) for host in ["host", "other"] * 4])
        fill(quick, [GatedItem("host") for _ in range(100)])
        slow.seal()
        quick.seal()
        assert len([item async for item in quick]) == 100
        assert len([item async for item in slow]) == 8
    for host in ("host", "other"):
        assert_spaced(times[host], 0.2, started)
    assert times["other"][0] < times["host"][1]
    assert times["quick"][-1] < times["host"][2], "another work queue does not wait for this interval"


async def test_an_interval_outlasts_the_queued_items_of_a_host() -> None:
    loop = asyncio.get_running_loop()
    runner, scheduler = Runner(), Scheduler(concurrency=10, per_host=10)
    async with WorkQueue(scheduler, runner.run, interval=0.05) as queue:
        [first] = fill(queue, [GatedItem("host")])
        first.gate.set()
        started = loop.time()
        assert await anext(queue) is first
        [second] = fill(queue, [GatedItem("host")])
        second.gate.set()
        assert await anext(queue) is second
        assert loop.time() - started >= 0.045


async def test_a_work_queue_with_items_held_back_reads_on() -> None:
    runner, scheduler = Runner(), Scheduler(concurrency=300, per_host=300)
    async with WorkQueue(scheduler, runner.run) as other, WorkQueue(scheduler, runner.run, per_host=1) as queue:
        busy = fill(other, [GatedItem("busy") for _ in range(300)])
        fill(queue, [GatedItem(f"host{number % 300}") for number in range(600)])
        feeder = asyncio.ensure_future(queue.wait_for_room())
        await settle()
        assert not feeder.done()
        for item in busy:
            item.gate.set()
        await asyncio.wait_for(feeder, 5)


async def test_a_work_queue_that_was_left_is_not_kept_in_memory_by_its_interval() -> None:
    runner, scheduler = Runner(), Scheduler(concurrency=10, per_host=2)
    queue = WorkQueue(scheduler, runner.run, interval=3600)
    async with queue:
        fill(queue, [GatedItem("host") for _ in range(10)])
        await settle()
    left = weakref.ref(queue)
    del queue
    await settle()
    gc.collect()
    assert left() is None


@pytest.mark.parametrize(("per_host", "interval"), [(1, 0.0), (8, 3600.0), (1, 3600.0)])
async def test_leaving_a_work_queue_with_items_held_back_lets_the_others_go_on(per_host: int, interval: float) -> None:
    runner, scheduler = Runner(), Scheduler(concurrency=10, per_host=2)
    async with WorkQueue(scheduler, runner.run) as staying:
        async with WorkQueue(scheduler, runner.run, per_host, interval) as leaving:
            fill(leaving, [GatedItem("host") for _ in range(10)])
            items = fill(staying, [GatedItem("host") for _ in range(10)])
            staying.seal()
            await settle()
        for item in items:
            item.gate.set()
        async with asyncio.timeout(5):
            assert len([item async for item in staying]) == 10
    assert scheduler.active == 0
    assert not scheduler._hosts


class Step:
    """An item that goes from host to host, with one run for each."""

    def __init__(self, hosts: list[str]) -> None:
        self.hosts = hosts
        self.not_before = 0.0
        self.wants_deferral = False
        self.wants_host_alone = False

    @property
    def host(self) -> str:
        return self.hosts[0]


LIMITS = st.tuples(st.integers(1, 5), st.sampled_from([0.0, 0.0, 0.001, 0.003]))
JOURNEYS = st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=3), max_size=12)


@given(
    slots=st.integers(1, 6),
    own=LIMITS,
    queues=st.lists(st.tuples(LIMITS, JOURNEYS), min_size=1, max_size=4),
    failing=st.sets(st.integers(0, 40)),
)
async def test_every_item_is_finished_under_any_limits(
    slots: int,
    own: tuple[int, float],
    queues: list[tuple[tuple[int, float], list[list[str]]]],
    failing: set[int],
) -> None:
    scheduler = Scheduler(slots, *own)
    active: Counter[tuple[int, str]] = Counter()
    runs = 0

    async def run(number: int, per_host: int, interval: float, journeys: list[list[str]]) -> None:
        async def run_item(step: Step) -> bool:
            nonlocal runs
            runs += 1
            at = (number, step.host)
            active[at] += 1
            assert active[at] <= min(per_host, own[0])
            assert scheduler.active <= slots
            for _ in range(runs % 3):
                await asyncio.sleep(0)
            if runs in failing:
                scheduler.record_refusal(step.host, 429, 0.001)
            active[at] -= 1
            step.hosts = step.hosts[1:]
            return not step.hosts

        async with WorkQueue(scheduler, run_item, per_host, interval) as queue:
            for journey in journeys:
                queue.put(Step(list(journey)))
            queue.seal()
            assert len([step async for step in queue]) == len(journeys)

    async with asyncio.timeout(20):
        await asyncio.gather(*(run(number, *limits, journeys) for number, (limits, journeys) in enumerate(queues)))
    assert runs == sum(len(journey) for _, journeys in queues for journey in journeys)
    assert scheduler.active == 0
    assert not scheduler._hosts
    assert not scheduler._turns


# --- Draining ---


async def test_a_drain_starts_nothing_and_lets_running_items_end() -> None:
    runner, scheduler = Runner(), Scheduler(concurrency=2, per_host=2)
    async with WorkQueue(scheduler, runner.run) as queue, WorkQueue(scheduler, runner.run) as empty:
        items = fill(queue, [GatedItem("host") for _ in range(5)])
        await settle()
        draining = asyncio.ensure_future(scheduler.drain(60))
        assert [item async for item in empty] == []
        fill(queue, [GatedItem("late")])
        await settle()
        assert runner.started == items[:2]
        assert not draining.done()
        for item in items:
            item.gate.set()
        assert [item async for item in queue] == items[:2]
        await draining
        assert runner.started == items[:2]
    assert scheduler.active == 0


async def test_an_item_that_needs_another_run_does_not_delay_a_drain() -> None:
    runner, scheduler = Runner(), Scheduler(concurrency=2, per_host=2)
    async with WorkQueue(scheduler, runner.run) as queue:
        again, once = fill(queue, [GatedItem("host"), GatedItem("other")])
        again.runs_left = 2
        await settle()
        draining = asyncio.ensure_future(scheduler.drain(60))
        again.gate.set()
        once.gate.set()
        assert [item async for item in queue] == [once]
        await draining


async def test_a_drain_cancels_slow_items_and_ignores_what_they_return() -> None:
    ended: list[GatedItem] = []

    async def stubborn(item: GatedItem) -> bool:
        try:
            await item.gate.wait()
        except asyncio.CancelledError:
            ended.append(item)
        return True

    scheduler = Scheduler(concurrency=2, per_host=2)
    async with WorkQueue(scheduler, stubborn) as queue:
        items = fill(queue, [GatedItem("host"), GatedItem("host")])
        await settle()
        await scheduler.drain(0)
        assert [item async for item in queue] == []
    assert sorted(ended, key=items.index) == items
    assert scheduler.active == 0
