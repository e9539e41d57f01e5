"""Slots: bounded, fair, never held by somebody who waits, never lost."""

import asyncio
import gc
import weakref
from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawler.probing.scheduler import Scheduler
from crawler.probing.work_queue import RunItem, WorkQueue
from tests.support.spacing import assert_spaced


class Piece:
    """A piece of work: it runs until it is let go."""

    def __init__(self, host: str, not_before: float = 0.0) -> None:
        self.host = host
        self.not_before = not_before
        self.wants_deferral = False
        self.gate = asyncio.Event()
        self.turns_left = 1


class Works:
    """Runs pieces, and remembers who ran."""

    def __init__(self) -> None:
        self.started: list[Piece] = []
        self.running: set[Piece] = set()

    async def turn(self, piece: Piece) -> bool:
        self.started.append(piece)
        self.running.add(piece)
        try:
            await piece.gate.wait()
        finally:
            self.running.discard(piece)
        piece.turns_left -= 1
        return piece.turns_left == 0

    def running_of(self, host: str) -> int:
        return sum(piece.host == host for piece in self.running)


def fill(queue: WorkQueue[Piece], pieces: Iterable[Piece]) -> list[Piece]:
    put = list(pieces)
    for piece in put:
        queue.put(piece)
    return put


async def settle() -> None:
    """Let everything that can happen without time passing happen."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_no_more_run_at_once_than_there_are_slots() -> None:
    works, scheduler = Works(), Scheduler(concurrency=3, per_host=2)
    async with WorkQueue(scheduler, works.turn) as queue:
        pieces = fill(queue, [Piece(host) for host in "aaabbbccc"])
        queue.seal()
        for _ in pieces:
            await settle()
            assert len(works.running) <= 3
            assert all(works.running_of(host) <= 2 for host in "abc")
            next(iter(works.running)).gate.set()
        assert len([piece async for piece in queue]) == 9
    assert scheduler.active == 0


async def test_a_host_that_is_stuck_holds_its_own_slots_only() -> None:
    works, scheduler = Works(), Scheduler(concurrency=4, per_host=2)
    async with WorkQueue(scheduler, works.turn) as queue:
        fill(queue, [Piece("stuck") for _ in range(1000)])
        quick = fill(queue, [Piece(f"quick{number}") for number in range(100)])
        for piece in quick:
            piece.gate.set()
        finished = [await anext(queue) for _ in quick]
        assert set(finished) == set(quick)
        assert works.running_of("stuck") == 2


async def test_work_queues_take_turns() -> None:
    works, scheduler = Works(), Scheduler(concurrency=2, per_host=2)
    async with WorkQueue(scheduler, works.turn) as big, WorkQueue(scheduler, works.turn) as small:
        crowd = fill(big, [Piece(f"host{number}") for number in range(1000)])
        few = fill(small, [Piece(f"other{number}") for number in range(10)])
        for piece in [*crowd, *few]:
            piece.gate.set()
        for _ in few:
            await anext(small)
        before = works.started.index(few[-1])
        assert before < 2 + 2 * len(few) + 2, f"the small lane's last piece was number {before}"


async def test_work_queues_take_turns_at_one_host() -> None:
    works, scheduler = Works(), Scheduler(concurrency=10, per_host=1)
    async with WorkQueue(scheduler, works.turn) as big, WorkQueue(scheduler, works.turn) as small:
        crowd = fill(big, [Piece("host") for _ in range(1000)])
        few = fill(small, [Piece("host") for _ in range(10)])
        for piece in [*crowd, *few]:
            piece.gate.set()
        for _ in few:
            await anext(small)
        assert works.started.index(few[-1]) < 2 * len(few) + 2


async def test_hosts_take_turns_within_a_work_queue() -> None:
    works, scheduler = Works(), Scheduler(concurrency=1, per_host=1)
    async with WorkQueue(scheduler, works.turn) as queue:
        pieces = fill(queue, [Piece(host) for host in "aaaaabbbbb"])
        queue.seal()
        for piece in pieces:
            piece.gate.set()
        assert "".join([piece.host async for piece in queue]) in ("ababababab", "aababababb", "abababab" + "ab")


async def test_an_unfinished_item_is_queued_again_and_may_change_its_host() -> None:
    works, scheduler = Works(), Scheduler(concurrency=2, per_host=1)
    async with WorkQueue(scheduler, works.turn) as queue:
        traveller, other = Piece("first"), Piece("second")
        traveller.turns_left = 2
        queue.put(other)
        queue.put(traveller)
        queue.seal()
        await settle()
        traveller.host = "second"
        traveller.gate.set()
        await settle()
        assert works.running == {other}, "the second host's only slot is taken"
        other.gate.set()
        assert [piece async for piece in queue] == [other, traveller]


async def test_an_item_that_waits_for_its_time_holds_no_slot() -> None:
    works, scheduler = Works(), Scheduler(concurrency=1, per_host=1)
    loop = asyncio.get_running_loop()
    async with WorkQueue(scheduler, works.turn) as queue:
        later, now = Piece("host", not_before=loop.time() + 0.05), Piece("host")
        later.gate.set()
        now.gate.set()
        queue.put(later)
        queue.put(now)
        queue.seal()
        await settle()
        assert [piece async for piece in queue] == [now, later]
        assert loop.time() >= later.not_before


@pytest.mark.parametrize("when", ["before its first step", "while it runs"])
async def test_leaving_a_work_queue_returns_every_slot(when: str) -> None:
    works, scheduler = Works(), Scheduler(concurrency=5, per_host=2)
    async with WorkQueue(scheduler, works.turn) as queue:
        fill(queue, [Piece(host) for host in "aaaabbbbcccc"])
        fill(queue, [Piece("later", not_before=asyncio.get_running_loop().time() + 0.01)])
        if when == "while it runs":
            await settle()
        assert scheduler.active == 5
    assert scheduler.active == 0
    assert not works.running
    async with WorkQueue(scheduler, works.turn) as queue:
        for piece in fill(queue, [Piece("a"), Piece("a")]):
            piece.gate.set()
        queue.seal()
        assert len([piece async for piece in queue]) == 2


async def test_leaving_a_work_queue_lets_the_others_go_on() -> None:
    works, scheduler = Works(), Scheduler(concurrency=2, per_host=1)
    async with WorkQueue(scheduler, works.turn) as staying:
        async with WorkQueue(scheduler, works.turn) as leaving:
            fill(leaving, [Piece("a") for _ in range(3)])
            pieces = fill(staying, [Piece("a") for _ in range(3)])
            staying.seal()
        for piece in pieces:
            piece.gate.set()
        assert [piece async for piece in staying] == pieces


async def test_hosts_are_forgotten() -> None:
    works, scheduler = Works(), Scheduler(concurrency=100, per_host=1)
    async with WorkQueue(scheduler, works.turn) as queue:
        for piece in fill(queue, [Piece(f"host{number}") for number in range(1000)]):
            piece.gate.set()
        queue.seal()
        assert len([piece async for piece in queue]) == 1000
    assert not scheduler._hosts


async def test_a_work_queue_reads_on_past_a_full_host_but_not_without_end() -> None:
    works, scheduler = Works(), Scheduler(concurrency=10_000, per_host=1)
    async with WorkQueue(scheduler, works.turn) as queue:
        read = 0

        async def feed() -> None:
            nonlocal read
            while True:
                await queue.wait_for_room()
                queue.put(Piece("stuck"))
                read += 1

        feeder = asyncio.ensure_future(feed())
        await settle()
        assert 10_000 < read <= 50_000
        feeder.cancel()


async def test_a_work_queue_reads_no_further_than_it_needs() -> None:
    works, scheduler = Works(), Scheduler(concurrency=10, per_host=1)
    async with WorkQueue(scheduler, works.turn) as queue:
        read = 0

        async def feed() -> None:
            nonlocal read
            while True:
                await queue.wait_for_room()
                queue.put(Piece(f"host{read}"))
                read += 1

        feeder = asyncio.ensure_future(feed())
        await settle()
        assert read < 1000
        feeder.cancel()


async def test_a_work_queue_that_closes_passes_on_the_turn_it_was_given() -> None:
    """Woken for a host's free slot, but the last slot goes elsewhere; then it closes: the next in line has to go."""
    works, scheduler = Works(), Scheduler(concurrency=2, per_host=1)
    async with WorkQueue(scheduler, works.turn) as other, WorkQueue(scheduler, works.turn) as waiting:
        [first] = fill(other, [Piece("host")])
        async with WorkQueue(scheduler, works.turn) as closing:
            fill(closing, [Piece("host")])
            [last] = fill(waiting, [Piece("host")])
            waiting.seal()
            rest = fill(other, [Piece(name) for name in ("one", "two", "three")])
            await settle()
            first.gate.set()
            await settle()
        for piece in [*rest, last]:
            piece.gate.set()
        async with asyncio.timeout(5):
            assert [piece async for piece in waiting] == [last]


async def test_a_work_queue_reads_on_when_its_ready_items_have_to_wait_for_their_hosts() -> None:
    works, scheduler = Works(), Scheduler(concurrency=1, per_host=1)
    async with WorkQueue(scheduler, works.turn) as other, WorkQueue(scheduler, works.turn) as queue:
        [busy] = fill(other, [Piece("busy")])
        held = [f"held{number}" for number in range(300)]
        fill(queue, [Piece(name) for name in held])
        for name in held:
            scheduler.hold(name, 3600)
        feeder = asyncio.ensure_future(queue.wait_for_room())
        await settle()
        assert not feeder.done()
        busy.gate.set()
        await asyncio.wait_for(feeder, 5)


# --- Lanes with limits of their own ---


async def test_two_work_queues_have_their_own_limits_at_one_host() -> None:
    scheduler = Scheduler(concurrency=20, per_host=6)
    active = {"gentle": 0, "eager": 0}
    most = {"gentle": 0, "eager": 0, "both": 0}

    def turn_of(name: str) -> RunItem[Piece]:
        async def turn(_: Piece) -> bool:
            active[name] += 1
            most[name] = max(most[name], active[name])
            most["both"] = max(most["both"], sum(active.values()))
            await asyncio.sleep(0)
            active[name] -= 1
            return True

        return turn

    async with (
        WorkQueue(scheduler, turn_of("gentle"), per_host=2) as gentle,
        WorkQueue(scheduler, turn_of("eager")) as eager,
    ):
        for queue in (gentle, eager):
            fill(queue, [Piece("host") for _ in range(30)])
            queue.seal()
        for queue in (gentle, eager):
            assert len([piece async for piece in queue]) == 30
    assert (most["gentle"], most["both"]) == (2, 6)
    assert most["eager"] >= 4
    assert not scheduler._hosts


async def test_a_work_queue_at_its_limit_leaves_other_slots_of_a_host_to_others() -> None:
    gentle_works, works, scheduler = Works(), Works(), Scheduler(concurrency=20, per_host=4)
    async with WorkQueue(scheduler, gentle_works.turn, per_host=1) as gentle, WorkQueue(scheduler, works.turn) as eager:
        fill(gentle, [Piece("host") for _ in range(10)])
        fill(eager, [Piece("host") for _ in range(10)])
        await settle()
        assert (len(gentle_works.running), len(works.running)) == (1, 3)


async def test_work_queues_with_one_slot_for_each_host_take_turns_at_it() -> None:
    scheduler = Scheduler(concurrency=10, per_host=2)
    order: list[int] = []

    def turn_of(number: int) -> RunItem[Piece]:
        async def turn(_: Piece) -> bool:
            order.append(number)
            for _step in range(1 + len(order) % 3):
                await asyncio.sleep(0)
            return True

        return turn

    async def run(number: int) -> None:
        async with WorkQueue(scheduler, turn_of(number), per_host=1) as queue:
            fill(queue, [Piece("host") for _ in range(100)])
            queue.seal()
            assert len([piece async for piece in queue]) == 100

    await asyncio.gather(*(run(number) for number in range(4)))
    for number in range(4):
        turns = [place for place, who in enumerate(order) if who == number]
        assert turns[9] < 80, "a quarter of the turns are its"


async def test_a_slot_left_by_a_work_queue_at_its_limit_is_taken_at_once() -> None:
    """Two slots of a host are free at once, and only one queue is woken: its lane cannot use the second."""
    gentle_works, works, scheduler = Works(), Works(), Scheduler(concurrency=20, per_host=4)
    async with WorkQueue(scheduler, gentle_works.turn, per_host=1) as gentle, WorkQueue(scheduler, works.turn) as eager:
        scheduler.open_queue(eager, "host")
        scheduler.hold("host", 3600)
        fill(gentle, [Piece("host") for _ in range(10)])
        fill(eager, [Piece("host") for _ in range(10)])
        await settle()
        scheduler.resume("host")
        await settle()
        assert (len(gentle_works.running), len(works.running)) == (1, 3)


async def test_a_work_queue_gets_no_more_slots_than_the_scheduler_allows() -> None:
    works, scheduler = Works(), Scheduler(concurrency=10, per_host=2)
    async with WorkQueue(scheduler, works.turn, per_host=5) as queue:
        fill(queue, [Piece("host") for _ in range(10)])
        await settle()
        assert len(works.running) == 2


async def test_an_interval_spaces_the_items_of_its_own_work_queue_only() -> None:
    loop = asyncio.get_running_loop()
    scheduler = Scheduler(concurrency=10, per_host=10)
    times: dict[str, list[float]] = {"host": [], "other": [], "quick": []}
    started = loop.time()

    async def turn(piece: Piece) -> bool:
        times[piece.host].append(loop.time())
        return True

    async def turn_of_others(_: Piece) -> bool:
        times["quick"].append(loop.time())
        return True

    async with WorkQueue(scheduler, turn, interval=0.2) as slow, WorkQueue(scheduler, turn_of_others) as quick:
        fill(slow, [Piece(host) for host in ["host", "other"] * 4])
        fill(quick, [Piece("host") for _ in range(100)])
        slow.seal()
        quick.seal()
        assert len([piece async for piece in quick]) == 100
        assert len([piece async for piece in slow]) == 8
    for host in ("host", "other"):
        assert_spaced(times[host], 0.2, started)
    assert times["other"][0] < times["host"][1]
    assert times["quick"][-1] < times["host"][2], "those of others do not wait for an interval that is not theirs"


async def test_an_interval_outlasts_the_queued_items_of_a_host() -> None:
    loop = asyncio.get_running_loop()
    works, scheduler = Works(), Scheduler(concurrency=10, per_host=10)
    async with WorkQueue(scheduler, works.turn, interval=0.05) as queue:
        [first] = fill(queue, [Piece("host")])
        first.gate.set()
        started = loop.time()
        assert await anext(queue) is first
        [second] = fill(queue, [Piece("host")])
        second.gate.set()
        assert await anext(queue) is second
        assert loop.time() - started >= 0.045


async def test_a_work_queue_with_items_held_back_reads_on() -> None:
    works, scheduler = Works(), Scheduler(concurrency=300, per_host=300)
    async with WorkQueue(scheduler, works.turn) as other, WorkQueue(scheduler, works.turn, per_host=1) as queue:
        busy = fill(other, [Piece("busy") for _ in range(300)])
        fill(queue, [Piece(f"host{number % 300}") for number in range(600)])
        feeder = asyncio.ensure_future(queue.wait_for_room())
        await settle()
        assert not feeder.done()
        for piece in busy:
            piece.gate.set()
        await asyncio.wait_for(feeder, 5)


async def test_a_work_queue_that_was_left_is_not_kept_in_memory_by_its_interval() -> None:
    works, scheduler = Works(), Scheduler(concurrency=10, per_host=2)
    queue = WorkQueue(scheduler, works.turn, interval=3600)
    async with queue:
        fill(queue, [Piece("host") for _ in range(10)])
        await settle()
    left = weakref.ref(queue)
    del queue
    await settle()
    gc.collect()
    assert left() is None


@pytest.mark.parametrize(("per_host", "interval"), [(1, 0.0), (8, 3600.0), (1, 3600.0)])
async def test_leaving_a_work_queue_with_items_held_back_lets_the_others_go_on(per_host: int, interval: float) -> None:
    works, scheduler = Works(), Scheduler(concurrency=10, per_host=2)
    async with WorkQueue(scheduler, works.turn) as staying:
        async with WorkQueue(scheduler, works.turn, per_host, interval) as leaving:
            fill(leaving, [Piece("host") for _ in range(10)])
            pieces = fill(staying, [Piece("host") for _ in range(10)])
            staying.seal()
            await settle()
        for piece in pieces:
            piece.gate.set()
        async with asyncio.timeout(5):
            assert len([piece async for piece in staying]) == 10
    assert scheduler.active == 0
    assert not scheduler._hosts


class Step:
    """An item that goes from host to host, a turn with each."""

    def __init__(self, hosts: list[str]) -> None:
        self.hosts = hosts
        self.not_before = 0.0
        self.wants_deferral = False

    @property
    def host(self) -> str:
        return self.hosts[0]


LIMITS = st.tuples(st.integers(1, 5), st.sampled_from([0.0, 0.0, 0.001, 0.003]))
JOURNEYS = st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=3), max_size=12)


@given(
    slots=st.integers(1, 6),
    own=LIMITS,
    lanes=st.lists(st.tuples(LIMITS, JOURNEYS), min_size=1, max_size=4),
    trouble=st.sets(st.integers(0, 40)),
)
async def test_every_item_is_finished_under_any_limits(
    slots: int,
    own: tuple[int, float],
    lanes: list[tuple[tuple[int, float], list[list[str]]]],
    trouble: set[int],
) -> None:
    scheduler = Scheduler(slots, *own)
    active: Counter[tuple[int, str]] = Counter()
    turns = 0

    async def run(number: int, per_host: int, interval: float, journeys: list[list[str]]) -> None:
        async def turn(step: Step) -> bool:
            nonlocal turns
            turns += 1
            at = (number, step.host)
            active[at] += 1
            assert active[at] <= min(per_host, own[0])
            assert scheduler.active <= slots
            for _ in range(turns % 3):
                await asyncio.sleep(0)
            if turns in trouble:
                scheduler.record_refusal(step.host, 0.001)
            active[at] -= 1
            step.hosts = step.hosts[1:]
            return not step.hosts

        async with WorkQueue(scheduler, turn, per_host, interval) as queue:
            for journey in journeys:
                queue.put(Step(list(journey)))
            queue.seal()
            assert len([step async for step in queue]) == len(journeys)

    async with asyncio.timeout(20):
        await asyncio.gather(*(run(number, *limits, journeys) for number, (limits, journeys) in enumerate(lanes)))
    assert turns == sum(len(journey) for _, journeys in lanes for journey in journeys)
    assert scheduler.active == 0
    assert not scheduler._hosts
    assert not scheduler._rota


# --- Draining ---


async def test_a_drain_starts_nothing_and_lets_running_items_end() -> None:
    works, scheduler = Works(), Scheduler(concurrency=2, per_host=2)
    async with WorkQueue(scheduler, works.turn) as queue, WorkQueue(scheduler, works.turn) as empty:
        pieces = fill(queue, [Piece("host") for _ in range(5)])
        await settle()
        draining = asyncio.ensure_future(scheduler.drain(60))
        assert [piece async for piece in empty] == []
        fill(queue, [Piece("late")])
        await settle()
        assert works.started == pieces[:2]
        assert not draining.done()
        for piece in pieces:
            piece.gate.set()
        assert [piece async for piece in queue] == pieces[:2]
        await draining
        assert works.started == pieces[:2]
    assert scheduler.active == 0


async def test_an_item_that_needs_another_run_does_not_delay_a_drain() -> None:
    works, scheduler = Works(), Scheduler(concurrency=2, per_host=2)
    async with WorkQueue(scheduler, works.turn) as queue:
        again, once = fill(queue, [Piece("host"), Piece("other")])
        again.turns_left = 2
        await settle()
        draining = asyncio.ensure_future(scheduler.drain(60))
        again.gate.set()
        once.gate.set()
        assert [piece async for piece in queue] == [once]
        await draining


async def test_a_drain_cancels_slow_items_and_ignores_what_they_return() -> None:
    ended: list[Piece] = []

    async def stubborn(piece: Piece) -> bool:
        try:
            await piece.gate.wait()
        except asyncio.CancelledError:
            ended.append(piece)
        return True

    scheduler = Scheduler(concurrency=2, per_host=2)
    async with WorkQueue(scheduler, stubborn) as queue:
        pieces = fill(queue, [Piece("host"), Piece("host")])
        await settle()
        await scheduler.drain(0)
        assert [piece async for piece in queue] == []
    assert sorted(ended, key=pieces.index) == pieces
    assert scheduler.active == 0
