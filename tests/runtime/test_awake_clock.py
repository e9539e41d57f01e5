"""The clock of deadlines stands still while the process does.

Witnesses: SIGSTOP of Linux (signal(7)), and its CLOCK_BOOTTIME, which is CLOCK_MONOTONIC and "any time that the system
is suspended" (clock_gettime(2)).
"""

import asyncio
import os
import signal
import subprocess
import sys
import time

import pytest

from crawler.runtime.awake_clock import AwakeClock

PROGRAM = """
import asyncio, time
from crawler.runtime.awake_clock import AwakeClock

async def main():
    with AwakeClock() as clock:
        began, steady = clock.now(), time.monotonic()
        print("ready", flush=True)
        while time.monotonic() - steady < 2.5:
            await asyncio.sleep(0.01)
        print(clock.now() - began, clock.missed)

asyncio.run(main())
"""


async def test_time_in_which_the_process_was_stopped_does_not_count() -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", PROGRAM, stdout=subprocess.PIPE)
    assert process.stdout is not None
    await process.stdout.readline()
    os.kill(process.pid, signal.SIGSTOP)
    await asyncio.sleep(2)
    os.kill(process.pid, signal.SIGCONT)
    lived, missed = map(float, (await process.communicate())[0].split())
    assert missed == pytest.approx(2 - 0.375, abs=0.3)
    assert lived == pytest.approx(2.5 - missed, abs=0.2)


async def test_a_late_loop_sees_no_jump() -> None:
    with AwakeClock() as clock:
        began = clock.now()
        time.sleep(1.5)  # noqa: ASYNC251 - what a callback must not do
        assert clock.now() - began <= 0.5
        assert clock.missed_since(0.0) == pytest.approx(1.0, abs=0.2)
        await asyncio.sleep(0.3)  # the next heartbeat
        assert clock.now() - began == pytest.approx(0.8, abs=0.3)


async def test_a_little_lateness_counts() -> None:
    with AwakeClock(beat_seconds=0.05, tolerance_seconds=5.0) as clock:
        began = clock.now()
        time.sleep(0.3)  # noqa: ASYNC251
        assert clock.now() - began >= 0.3
        assert clock.missed_since(0.0) == 0.0


def test_a_suspended_machine_has_missed_time_that_the_clock_never_counted() -> None:
    suspended = 0.0
    clock = AwakeClock(boot_seconds=lambda: time.monotonic() + suspended)
    before = clock.now()
    suspended = 3600.0
    assert clock.missed_since(0.0) == pytest.approx(3600.0, abs=0.1)
    assert clock.now() - before < 1.0
    assert clock.missed_since(clock.missed) == 0.0
