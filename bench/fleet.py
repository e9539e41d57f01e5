"""Measure how worker processes on one Redis scale: probes per second, and CPU per probe, by their number.

    python -m bench.fleet

Targets answer after 200 ms, and each worker sends 50 requests at once, so throughput should grow with the number of
workers. A run is one Task with a host for each URL, from its 201 until it is `ready`, with the time of the last chunks.
"""

import argparse
import os
import time
from contextlib import AsyncExitStack
from statistics import median
from typing import Final

import aiohttp
import uvloop

from bench.scale import REQUESTS_PER_PROCESS, Run, hosts
from bench.service import Process, cpu_of
from bench.world import World, build, running_world
from tests.support.redis_server import RedisServer

URLS_PER_WORKER: Final = 10_000
WORKERS: Final = (1, 2, 4, 8)


async def run(workers: int, urls: list[str], server: RedisServer) -> tuple[Run, float]:
    """Probe with some workers; return the run, and the CPU microseconds that Redis took per probe."""
    redis, cores = ("--redis", server.url, "--log-level", "error"), f"0-{(os.cpu_count() or 1) - 1}"
    serving = Process("-m", "crawler", "serve", "--port", "0", *redis, cores=cores)
    command = (
        "-m",
        "crawler",
        "worker",
        *redis,
        "--guard",
        "any",
        "--concurrency",
        str(REQUESTS_PER_PROCESS),
        "--retries",
        "0",
    )
    working = [Process(*command, cores=cores) for _ in range(workers)]
    async with AsyncExitStack() as stack:
        for process in (serving, *working):
            await stack.enter_async_context(process)
        session = await stack.enter_async_context(aiohttp.ClientSession(f"{serving.url}/api/v1/"))

        def cpu() -> float:
            return sum(process.cpu for process in (serving, *working))

        before, redis_before = cpu(), cpu_of(server.pid)
        async with session.post("tasks", json={"urls": urls, "options": {"method": "HEAD"}}) as response:
            assert response.status == 201, await response.text()
            task = await response.json()
        started = time.perf_counter()
        while task["status"] == "running":
            async with session.get(f"tasks/{task['id']}?wait=60") as response:
                task = await response.json()
        seconds = time.perf_counter() - started
        assert (task["status"], task["counts"]["ok"]) == ("ready", len(urls)), task
        share = 1e6 / len(urls)
        found = Run(workers, len(urls) / seconds, (cpu() - before) * share)
        return found, (cpu_of(server.pid) - redis_before) * share


async def measure(world: World, rounds: int) -> None:
    """Make all runs, and print a table of them."""
    found: dict[int, list[tuple[Run, float]]] = {workers: [] for workers in WORKERS}
    for _ in range(rounds):
        for workers, runs in found.items():
            with RedisServer() as server:
                runs.append(await run(workers, hosts(world.slow, URLS_PER_WORKER * workers), server))
    print("workers  probes/s  of linear  CPU us a probe  of Redis")
    for workers, runs in found.items():
        linear = median(one.rate / first.rate / workers for (one, _), (first, _) in zip(runs, found[1], strict=True))
        rate, cpu = median(one.rate for one, _ in runs), median(one.cpu_us for one, _ in runs)
        print(f"{workers:7} {rate:9.0f} {linear:10.3f} {cpu:15.0f} {median(of for _, of in runs):9.0f}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.fleet", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    build()
    print(f"{os.cpu_count()} cores")
    with running_world() as world:
        uvloop.run(measure(world, arguments.rounds))


if __name__ == "__main__":
    main()
