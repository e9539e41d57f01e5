"""Measure how child processes scale: probes per second and CPU per probe, by their number.

    python -m bench.scale

With targets that answer after 200 ms and 50 requests at once for each process, throughput should grow with the number
of processes. With fast targets the cores are the limit, and nginx needs its part of them.
"""

import argparse
import os
import resource
import time
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass
from statistics import median
from typing import Final

import uvloop

from bench.world import World, build, running_world
from crawler.compose import open_prober
from crawler.core.options import Options
from crawler.core.urls import read_targets
from crawler.runtime.resources import tune_garbage_collector

REQUESTS_PER_PROCESS: Final = 50  # at once
RUN_SECONDS: Final = 16  # of a run on slow targets, if it scales linearly
FAST_URLS: Final = 60_000  # of a run on fast targets


@dataclass(frozen=True)
class Run:
    """One run: its processes, probes per second, CPU microseconds per probe."""

    processes: int
    rate: float
    cpu_us: float


async def run(processes: int, urls: list[str], at_once: int) -> Run:
    """Probe with some processes; the clock starts when all have started and probed once."""
    options = Options(processes=processes, concurrency=at_once, guard="any", timeout=10, retries=0, method="HEAD")
    before = _cpu()
    async with open_prober(options) as prober:
        async with aclosing(prober.probe_many(read_targets(urls[: 8 * processes]))) as results:
            assert {result.status async for result in results} == {200}
        started = time.perf_counter()
        async with aclosing(prober.probe_many(read_targets(urls))) as results:
            found = [result.status async for result in results]
        seconds = time.perf_counter() - started
    assert found == [200] * len(urls), "a wrong answer does not count"
    return Run(processes, len(urls) / seconds, (_cpu() - before) / len(urls) * 1e6)


def hosts(port: int, count: int) -> list[str]:
    """Return a URL for each of `count` hosts."""
    return [f"http://127.{n // 65536 + 1}.{n // 256 % 256}.{n % 250 + 1}:{port}/{n}" for n in range(count)]


async def measure(world: World, rounds: int) -> Iterator[str]:
    """Make all runs, and return the lines to print."""
    slow: dict[int, list[Run]] = {1: [], 2: [], 4: [], 8: []}
    fast: dict[int, list[Run]] = {1: [], 2: []}
    for _ in range(rounds):
        for processes, runs in slow.items():
            count = REQUESTS_PER_PROCESS * processes * RUN_SECONDS * 5
            runs.append(await run(processes, hosts(world.slow, count), REQUESTS_PER_PROCESS * processes))
        for processes, runs in fast.items():
            runs.append(await run(processes, hosts(world.plain, FAST_URLS), 256))
    return _table(slow, fast)


def _table(slow: dict[int, list[Run]], fast: dict[int, list[Run]]) -> Iterator[str]:
    for name, by_workers in (("200 ms", slow), ("fast", fast)):
        base = [one.rate for one in by_workers[1]]
        yield f"{name:<8}processes  probes/s  of linear  CPU us a probe"
        for processes, runs in by_workers.items():
            linear = median(one.rate / first / processes for one, first in zip(runs, base, strict=True))
            rate, cpu = median(one.rate for one in runs), median(one.cpu_us for one in runs)
            yield f"{'':<8}{processes:9} {rate:9.0f} {linear:10.3f} {cpu:15.0f}"


def _cpu() -> float:
    """Return the CPU seconds of this process and of its children that have ended."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    build()
    tune_garbage_collector()
    print(f"{os.cpu_count()} cores")
    with running_world() as world:
        print(*uvloop.run(measure(world, arguments.rounds)), sep="\n")


if __name__ == "__main__":
    main()
