"""Slots: bounded, fair, never held by somebody who waits, never lost."""

import asyncio
from collections.abc import Iterable

import pytest

from crawler.lane import Lane
from crawler.throttle import Throttle


class Piece:
    """A piece of work: it runs until it is let go."""

    def __init__(self, host: str, not_before: float = 0.0) -> None:
        self.host = host
        self.not_before = not_before
        self.last_look = False
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


def fill(lane: Lane[Piece], pieces: Iterable[Piece]) -> list[Piece]:
    put = list(pieces)
    for piece in put:
        lane.put(piece)
    return put


async def settle() -> None:
    """Let everything that can happen without time passing happen."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_no_more_run_at_once_than_there_are_slots() -> None:
    works, throttle = Works(), Throttle(concurrency=3, per_host=2)
    async with Lane(throttle, works.turn) as lane:
        pieces = fill(lane, [Piece(host) for host in "aaabbbccc"])
        lane.seal()
        for _ in pieces:
            await settle()
            assert len(works.running) <= 3
            assert all(works.running_of(host) <= 2 for host in "abc")
            next(iter(works.running)).gate.set()
        assert len([piece async for piece in lane]) == 9
    assert throttle.active == 0


async def test_a_host_that_is_stuck_holds_its_own_slots_only() -> None:
    works, throttle = Works(), Throttle(concurrency=4, per_host=2)
    async with Lane(throttle, works.turn) as lane:
        fill(lane, [Piece("stuck") for _ in range(1000)])
        quick = fill(lane, [Piece(f"quick{number}") for number in range(100)])
        for piece in quick:
            piece.gate.set()
        finished = [await anext(lane) for _ in quick]
        assert set(finished) == set(quick)
        assert works.running_of("stuck") == 2


async def test_lanes_take_turns() -> None:
    works, throttle = Works(), Throttle(concurrency=2, per_host=2)
    async with Lane(throttle, works.turn) as big, Lane(throttle, works.turn) as small:
        crowd = fill(big, [Piece(f"host{number}") for number in range(1000)])
        few = fill(small, [Piece(f"other{number}") for number in range(10)])
        for piece in [*crowd, *few]:
            piece.gate.set()
        for _ in few:
            await anext(small)
        before = works.started.index(few[-1])
        assert before < 2 + 2 * len(few) + 2, f"the small lane's last piece was number {before}"


async def test_lanes_take_turns_at_one_host() -> None:
    works, throttle = Works(), Throttle(concurrency=10, per_host=1)
    async with Lane(throttle, works.turn) as big, Lane(throttle, works.turn) as small:
        crowd = fill(big, [Piece("host") for _ in range(1000)])
        few = fill(small, [Piece("host") for _ in range(10)])
        for piece in [*crowd, *few]:
            piece.gate.set()
        for _ in few:
            await anext(small)
        assert works.started.index(few[-1]) < 2 * len(few) + 2


async def test_hosts_take_turns_within_a_lane() -> None:
    works, throttle = Works(), Throttle(concurrency=1, per_host=1)
    async with Lane(throttle, works.turn) as lane:
        pieces = fill(lane, [Piece(host) for host in "aaaaabbbbb"])
        lane.seal()
        for piece in pieces:
            piece.gate.set()
        assert "".join([piece.host async for piece in lane]) in ("ababababab", "aababababb", "abababab" + "ab")


async def test_an_unfinished_piece_goes_back_and_may_change_its_host() -> None:
    works, throttle = Works(), Throttle(concurrency=2, per_host=1)
    async with Lane(throttle, works.turn) as lane:
        traveller, other = Piece("first"), Piece("second")
        traveller.turns_left = 2
        lane.put(other)
        lane.put(traveller)
        lane.seal()
        await settle()
        traveller.host = "second"
        traveller.gate.set()
        await settle()
        assert works.running == {other}, "the second host's only slot is taken"
        other.gate.set()
        assert [piece async for piece in lane] == [other, traveller]


async def test_a_piece_that_waits_for_its_time_holds_no_slot() -> None:
    works, throttle = Works(), Throttle(concurrency=1, per_host=1)
    loop = asyncio.get_running_loop()
    async with Lane(throttle, works.turn) as lane:
        later, now = Piece("host", not_before=loop.time() + 0.05), Piece("host")
        later.gate.set()
        now.gate.set()
        lane.put(later)
        lane.put(now)
        lane.seal()
        await settle()
        assert [piece async for piece in lane] == [now, later]
        assert loop.time() >= later.not_before


@pytest.mark.parametrize("when", ["before its first step", "while it runs"])
async def test_leaving_a_lane_gives_every_slot_back(when: str) -> None:
    works, throttle = Works(), Throttle(concurrency=5, per_host=2)
    async with Lane(throttle, works.turn) as lane:
        fill(lane, [Piece(host) for host in "aaaabbbbcccc"])
        fill(lane, [Piece("later", not_before=asyncio.get_running_loop().time() + 0.01)])
        if when == "while it runs":
            await settle()
        assert throttle.active == 5
    assert throttle.active == 0
    assert not works.running
    async with Lane(throttle, works.turn) as lane:
        for piece in fill(lane, [Piece("a"), Piece("a")]):
            piece.gate.set()
        lane.seal()
        assert len([piece async for piece in lane]) == 2


async def test_leaving_a_lane_lets_the_others_go_on() -> None:
    works, throttle = Works(), Throttle(concurrency=2, per_host=1)
    async with Lane(throttle, works.turn) as staying:
        async with Lane(throttle, works.turn) as leaving:
            fill(leaving, [Piece("a") for _ in range(3)])
            pieces = fill(staying, [Piece("a") for _ in range(3)])
            staying.seal()
        for piece in pieces:
            piece.gate.set()
        assert [piece async for piece in staying] == pieces


async def test_hosts_are_forgotten() -> None:
    works, throttle = Works(), Throttle(concurrency=100, per_host=1)
    async with Lane(throttle, works.turn) as lane:
        for piece in fill(lane, [Piece(f"host{number}") for number in range(1000)]):
            piece.gate.set()
        lane.seal()
        assert len([piece async for piece in lane]) == 1000
    assert not throttle._hosts


async def test_a_lane_reads_on_past_a_host_that_is_full_but_not_without_end() -> None:
    works, throttle = Works(), Throttle(concurrency=10_000, per_host=1)
    async with Lane(throttle, works.turn) as lane:
        read = 0

        async def feed() -> None:
            nonlocal read
            while True:
                await lane.room()
                lane.put(Piece("stuck"))
                read += 1

        feeder = asyncio.ensure_future(feed())
        await settle()
        assert 10_000 < read <= 50_000
        feeder.cancel()


async def test_a_lane_reads_no_further_than_it_needs() -> None:
    works, throttle = Works(), Throttle(concurrency=10, per_host=1)
    async with Lane(throttle, works.turn) as lane:
        read = 0

        async def feed() -> None:
            nonlocal read
            while True:
                await lane.room()
                lane.put(Piece(f"host{read}"))
                read += 1

        feeder = asyncio.ensure_future(feed())
        await settle()
        assert read < 1000
        feeder.cancel()


async def test_a_lane_that_closes_passes_on_the_turn_it_was_given() -> None:
    """Woken for a host's free slot, but the last slot goes elsewhere; then it closes: the next in line has to go."""
    works, throttle = Works(), Throttle(concurrency=2, per_host=1)
    async with Lane(throttle, works.turn) as other, Lane(throttle, works.turn) as waiting:
        [first] = fill(other, [Piece("host")])
        async with Lane(throttle, works.turn) as closing:
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


async def test_a_lane_reads_on_when_what_it_has_ready_has_to_wait_for_its_host() -> None:
    works, throttle = Works(), Throttle(concurrency=1, per_host=1)
    async with Lane(throttle, works.turn) as other, Lane(throttle, works.turn) as lane:
        [busy] = fill(other, [Piece("busy")])
        held = [f"held{number}" for number in range(300)]
        fill(lane, [Piece(name) for name in held])
        for name in held:
            throttle.hold(name, 3600)
        feeder = asyncio.ensure_future(lane.room())
        await settle()
        assert not feeder.done()
        busy.gate.set()
        await asyncio.wait_for(feeder, 5)
