"""What more processes give: probes a second and CPU a probe, by the number of them.

    python -m bench.scale

On targets that take 200 ms, 50 of them at once for each process, so many more should give so many times more. On fast
ones the cores are the limit, of which nginx has its part.
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

AT_ONCE: Final = 50  # requests of one process
SECONDS: Final = 16  # that a run on slow targets takes, if it is linear
FAST: Final = 60_000  # URLs of a run on fast ones


@dataclass(frozen=True)
class Run:
    """One run: so many processes, probes a second, CPU microseconds a probe."""

    workers: int
    rate: float
    cpu_us: float


async def run(workers: int, urls: list[str], at_once: int) -> Run:
    """Probe with so many processes; the clock starts once they are there, and each has been asked once."""
    options = Options(processes=workers, concurrency=at_once, guard="any", timeout=10, retries=0, method="HEAD")
    before = _cpu()
    async with open_prober(options) as prober:
        async with aclosing(prober.probe_many(read_targets(urls[: 8 * workers]))) as results:
            assert {result.status async for result in results} == {200}
        started = time.perf_counter()
        async with aclosing(prober.probe_many(read_targets(urls))) as results:
            found = [result.status async for result in results]
        seconds = time.perf_counter() - started
    assert found == [200] * len(urls), "a wrong answer, however fast, is none"
    return Run(workers, len(urls) / seconds, (_cpu() - before) / len(urls) * 1e6)


def hosts(port: int, count: int) -> list[str]:
    """A URL of each of so many hosts."""
    return [f"http://127.{n // 65536 + 1}.{n // 256 % 256}.{n % 250 + 1}:{port}/{n}" for n in range(count)]


async def measure(world: World, rounds: int) -> Iterator[str]:
    """All runs, those of one round in turn; what is to be printed."""
    slow: dict[int, list[Run]] = {1: [], 2: [], 4: [], 8: []}
    fast: dict[int, list[Run]] = {1: [], 2: []}
    for _ in range(rounds):
        for workers, runs in slow.items():
            count = AT_ONCE * workers * SECONDS * 5
            runs.append(await run(workers, hosts(world.slow, count), AT_ONCE * workers))
        for workers, runs in fast.items():
            runs.append(await run(workers, hosts(world.plain, FAST), 256))
    return _table(slow, fast)


def _table(slow: dict[int, list[Run]], fast: dict[int, list[Run]]) -> Iterator[str]:
    for name, by_workers in (("200 ms", slow), ("fast", fast)):
        base = [one.rate for one in by_workers[1]]
        yield f"{name:<8}processes  probes/s  of linear  CPU us a probe"
        for workers, runs in by_workers.items():
            linear = median(one.rate / first / workers for one, first in zip(runs, base, strict=True))
            rate, cpu = median(one.rate for one in runs), median(one.cpu_us for one in runs)
            yield f"{'':<8}{workers:9} {rate:9.0f} {linear:10.3f} {cpu:15.0f}"


def _cpu() -> float:
    """Seconds of this process and of its children that have ended."""
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
