"""Long work on the loop takes turns; the watchdog of the tests finds work that does not."""

import asyncio
import sys
import time
from pathlib import Path

import pytest

from crawler.runtime.turns import STEP_SECONDS, Steps, Turns, complete, complete_in_turns, cut
from tests.support.loop_watchdog import MAX_STEP_SECONDS, collected_holds

ROOT = Path(__file__).parents[2]


def work(seconds: float) -> None:
    """Use the processor for some time of this thread."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


async def long_work(steps: int, order: list[str], name: str) -> None:
    turns = Turns()
    for _ in range(steps):
        work(STEP_SECONDS)
        order.append(name)
        if turns.is_over:
            await turns.next()


async def test_other_work_runs_between_two_steps_and_only_one_step_of_all_long_work() -> None:
    order: list[str] = []
    done = asyncio.Event()

    async def short_work() -> None:
        while not done.is_set():
            order.append("short")
            await asyncio.sleep(0)

    short = asyncio.ensure_future(short_work())
    await asyncio.gather(*(long_work(5, order, name) for name in "abc"))
    done.set()
    await short
    steps = "".join(name[0] for name in order)
    # After the first steps, which nobody could know of, never two of them without a turn of the others.
    assert "s" in steps
    assert all(len(run) <= 1 for run in steps.split("s")[2:])
    assert {name: order.count(name) for name in "abc"} == {"a": 5, "b": 5, "c": 5}


async def test_work_that_is_cancelled_while_it_waits_does_not_stop_the_others() -> None:
    order: list[str] = []
    first, second = (asyncio.ensure_future(long_work(50, order, name)) for name in "ab")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    first.cancel()
    await second
    assert order.count("b") == 50
    with pytest.raises(asyncio.CancelledError):
        await first


def count(number: int) -> Steps[int]:
    for _ in range(number):
        yield
    return number


async def test_steps_give_the_same_at_once_and_in_turns() -> None:
    assert complete(count(1000)) == await complete_in_turns(count(1000)) == 1000


def test_data_is_cut_into_pieces() -> None:
    assert [*cut(b"", 4)] == [b""]
    assert [*cut(b"abcd", 4)] == [b"abcd"]
    assert [*cut(b"abcdefghi", 4)] == [b"abcd", b"efgh", b"i"]


HOLDING = """
import asyncio
from crawler.formats.url_lists import open_reader

async def test_that_holds_the_loop():
    open_reader("csv").feed(b"url\\n" + b"a\\n" * 3_000_000)

async def test_that_takes_turns():
    reader = open_reader("csv")
    reader.feed(b"url\\n")
    for _ in range(100):
        reader.feed(b"a\\n" * 1_000)
        await asyncio.sleep(0)
"""


async def test_a_test_that_holds_the_loop_fails_with_the_stack(tmp_path: Path) -> None:
    """This takes seconds, because it starts pytest."""
    file = tmp_path / "test_holding.py"
    file.write_text(HOLDING)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pytest", "-c", str(ROOT / "setup.cfg"), "-p", "tests.conftest", str(file)),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    output = (await process.communicate())[0].decode()
    assert process.returncode == 1
    assert "2 passed, 1 error" in output
    assert "test_that_holds_the_loop held the loop for" in output
    assert "csv_reader.py" in output


async def test_time_that_a_step_waits_is_not_time_that_it_holds_the_processor() -> None:
    async def sleep_badly() -> None:
        time.sleep(3 * MAX_STEP_SECONDS)  # noqa: ASYNC251 - as a busy machine makes it wait

    with collected_holds() as holds:
        await asyncio.ensure_future(sleep_badly())
    assert holds == []
