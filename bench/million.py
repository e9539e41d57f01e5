"""Measure a Task of a million URLs: the cost of its intake, its memory, and its effect on other clients.

    python -m bench.million
    python -m bench.million --redis

The service runs on one core, on SQLite, and nginx on the other; with `--redis` it has a worker beside it, and a Valkey
on the core of nginx. Hosts have names and all sizes: a third of the URLs belongs to five hosts, the rest to a long
tail.
"""

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
import time
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
import uvloop

from bench.service import Process, cpu_of, quantile, service
from bench.world import World, build, running_world
from crawler.runtime.cancellation import in_background
from tests.support.redis_server import RedisServer

CONCURRENCY: Final = ["--concurrency", "256", "--per-host", "64", "--ipv4"]
CHUNK_BYTES: Final = 2**16
INTERVAL_SECONDS: Final = 0.25  # between two samples of memory, and between two requests of a client


def urls(world: World, count: int) -> Iterator[str]:
    """Yield the URLs, the same each time."""
    chance = random.Random(1)
    for number in range(count):
        huge = chance.random() < 0.3
        host = chance.randrange(5) if huge else int(chance.paretovariate(0.6)) % (count // 5)
        yield f"http://h{host}.bench.internal:{world.plain}/some/page/{number}"


@dataclass
class Figures:
    """The results: seconds, MiB, microseconds or milliseconds where a name says so."""

    lines: int = 0
    text_cpu: float = 0.0
    json_cpu: float = 0.0
    rss_at_start: float = 0.0
    rss_at_most: float = 0.0
    rate_with_store: float = 0.0
    rate_without: float = 0.0
    cpu_us_with_store: float = 0.0
    cpu_us_without: float = 0.0
    stream_seconds: float = 0.0
    redis_taken_in: float = 0.0
    redis_ready: float = 0.0
    redis_cpu_us: float = 0.0
    look_ms: list[float] = field(default_factory=list)
    submit_ms: list[float] = field(default_factory=list)
    small_task_ms: list[float] = field(default_factory=list)

    def report_lines(self) -> list[str]:
        """Return the lines to print."""
        growth = self.rss_at_most - self.rss_at_start
        return [
            f"{self.lines:,} URLs",
            f"taken in, as text with gzip       {self.text_cpu:8.1f} s of CPU",
            f"taken in, as JSON                 {self.json_cpu:8.1f} s of CPU",
            f"resident at start, at most        {self.rss_at_start:8.0f} {self.rss_at_most:.0f} MiB, {growth:.0f} more",
            f"probes/s with the store, without  {self.rate_with_store:8.0f} {self.rate_without:.0f}, "
            f"{self.rate_with_store / self.rate_without:.2f}",
            f"CPU us a probe with it, without   {self.cpu_us_with_store:8.0f} {self.cpu_us_without:.0f}",
            f"all results streamed in           {self.stream_seconds:8.1f} s",
            *self._redis_lines(),
            *(
                f"{name:<33} {statistics.median(values):8.1f} p50, {quantile(values, 0.99):.1f} p99, of {len(values)}"
                for name, values in (
                    ("GET of the Task, ms", self.look_ms),
                    ("submit of 10 URLs, ms", self.submit_ms),
                    ("... until all 10 are ready, ms", self.small_task_ms),
                )
                if values
            ),
        ]

    def _redis_lines(self) -> list[str]:
        if not self.redis_ready:
            return []
        return [
            f"bytes of Redis a URL, taken in    {self.redis_taken_in:8.0f}",
            f"... with its record               {self.redis_ready:8.0f}",
            f"CPU us of Redis a probe           {self.redis_cpu_us:8.1f}",
        ]


class Fleet:
    """The service, with its worker and its Redis if it has them."""

    def __init__(self, world: World, redis: RedisServer | None) -> None:
        probing = ("--log-level", "error", "--dns", f"127.0.0.1:{world.dns}", *CONCURRENCY)
        self.service, self.worker, self._redis = service(world.directory, *probing), None, redis
        if redis is not None:
            where = ("--redis", redis.url, *probing)
            self.service = Process("-m", "crawler", "serve", "--port", "0", *where)
            self.worker = Process("-m", "crawler", "worker", "--guard", "any", *where)

    @property
    def cpu(self) -> float:
        """Seconds of CPU that service and worker have used so far."""
        return self.service.cpu + (0.0 if self.worker is None else self.worker.cpu)

    @property
    def redis_cpu(self) -> float:
        """Seconds of CPU that Redis has used so far."""
        return 0.0 if self._redis is None else cpu_of(self._redis.pid)

    @property
    def redis_bytes(self) -> int:
        """Bytes that Redis stores."""
        if self._redis is None:
            return 0
        with self._redis.client() as client:
            found: Any = client.info("memory")
        return int(found["used_memory"])


async def measure(world: World, count: int, redis: RedisServer | None) -> Figures:
    """Make all measurements in turn."""
    figures = Figures(lines=count)
    timeout = aiohttp.ClientTimeout(total=None)
    fleet = Fleet(world, redis)
    async with (
        fleet.service as process,
        fleet.worker or nullcontext(),
        aiohttp.ClientSession(process.url, timeout=timeout) as session,
    ):
        for _ in range(20):  # imports, caches, the first table
            await small_task(session, world, Figures())
        figures.rss_at_start = figures.rss_at_most = process.rss
        async with in_background(sample_memory(process, figures)):
            empty = fleet.redis_bytes
            before = process.cpu
            task_id = await submit(session, as_json(world, count), "application/json")
            figures.json_cpu = process.cpu - before
            async with session.delete(f"/api/v1/tasks/{task_id}") as response:
                assert response.status == 204
            before = process.cpu
            task_id = await submit(session, as_gzip(world, count), "text/plain", {"Content-Encoding": "gzip"})
            figures.text_cpu = process.cpu - before
            figures.redis_taken_in = (fleet.redis_bytes - empty) / count
            before, redis_before, started = fleet.cpu, fleet.redis_cpu, time.monotonic()
            async with in_background(act_as_client(session, world, task_id, figures)):
                while (task := await fetch_task(session, task_id, wait=60))["status"] == "running":
                    pass
                assert (task["status"], task["counts"]["ok"]) == ("ready", count), task
                figures.rate_with_store = count / (time.monotonic() - started)
                figures.cpu_us_with_store = (fleet.cpu - before) / count * 1e6
                figures.redis_cpu_us = (fleet.redis_cpu - redis_before) / count * 1e6
                figures.redis_ready = (fleet.redis_bytes - empty) / count
            started = time.monotonic()
            assert await stream(session, task_id) == count
            figures.stream_seconds = time.monotonic() - started
    figures.rate_without, figures.cpu_us_without = await without_store(world, count)
    return figures


async def sample_memory(process: Process, figures: Figures) -> None:
    """Record the peak of resident memory, without end."""
    while True:
        figures.rss_at_most = max(figures.rss_at_most, process.rss)
        await asyncio.sleep(INTERVAL_SECONDS)


async def submit(
    session: aiohttp.ClientSession, body: AsyncIterator[bytes], kind: str, more: dict[str, str] | None = None
) -> str:
    """Submit a body and return the id of its Task."""
    async with session.post("/api/v1/tasks", data=body, headers={"Content-Type": kind, **(more or {})}) as response:
        assert response.status == 201, await response.text()
        return str((await response.json())["id"])


async def as_json(world: World, count: int) -> AsyncIterator[bytes]:
    """Yield the list as one JSON text."""
    opening = '{"urls": ['
    for some in slices(world, count):
        yield (opening + json.dumps(some)[1:-1]).encode()
        opening = ", "
    yield b"]}"


async def as_gzip(world: World, count: int) -> AsyncIterator[bytes]:
    """Yield the list as text, compressed with gzip."""
    packer = zlib.compressobj(wbits=31)
    for some in slices(world, count):
        yield packer.compress("".join(f"{url}\n" for url in some).encode())
    yield packer.flush()


def slices(world: World, count: int) -> Iterator[list[str]]:
    """Yield the list in slices."""
    some: list[str] = []
    for url in urls(world, count):
        some.append(url)
        if len(some) == 10_000:
            yield some
            some = []
    if some:
        yield some


async def fetch_task(session: aiohttp.ClientSession, task_id: str, wait: int = 0) -> dict[str, Any]:
    """Return the summary of a Task."""
    async with session.get(f"/api/v1/tasks/{task_id}?wait={wait}") as response:
        found: dict[str, Any] = await response.json()
        return found


async def act_as_client(session: aiohttp.ClientSession, world: World, task_id: str, figures: Figures) -> None:
    """Send the requests of another client, without end."""
    while True:
        started = time.perf_counter()
        await fetch_task(session, task_id)
        figures.look_ms.append((time.perf_counter() - started) * 1000)
        await small_task(session, world, figures)
        await asyncio.sleep(INTERVAL_SECONDS)


async def small_task(session: aiohttp.ClientSession, world: World, figures: Figures) -> None:
    """Submit ten URLs and wait until they are ready."""
    body = {"urls": [f"http://127.250.0.{1 + n}:{world.plain}/small?{time.time_ns()}" for n in range(10)]}
    started = time.perf_counter()
    async with session.post("/api/v1/tasks", json=body) as response:
        task_id = (await response.json())["id"]
    figures.submit_ms.append((time.perf_counter() - started) * 1000)
    async with session.get(f"/api/v1/tasks/{task_id}?wait=60") as response:
        assert (await response.json())["status"] == "ready"
    figures.small_task_ms.append((time.perf_counter() - started) * 1000)


async def stream(session: aiohttp.ClientSession, task_id: str) -> int:
    """Read every result, and return their number."""
    lines = 0
    url = f"/api/v1/tasks/{task_id}/results"
    async with session.get(url, headers={"Accept": "application/x-ndjson"}) as response:
        async for chunk in response.content.iter_chunked(CHUNK_BYTES):
            lines += chunk.count(b"\n")
    return lines


async def without_store(world: World, count: int) -> tuple[float, float]:
    """Return probes per second and CPU microseconds per probe of `crawler probe` on the same list."""
    file = world.directory / "urls.txt"
    file.write_text("".join(f"{url}\n" for url in urls(world, count)))
    command = ["taskset", "-c", "0", sys.executable, "-m", "crawler", "probe", "--file", str(file)]
    command += ["--output", str(world.directory / "out.ndjson"), "--dns", f"127.0.0.1:{world.dns}", *CONCURRENCY]
    before, started = os.times(), time.monotonic()
    process = await asyncio.create_subprocess_exec(*command)
    assert await process.wait() == 0
    after, seconds = os.times(), time.monotonic() - started
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return count / seconds, cpu / count * 1e6


def main() -> int:
    """Measure, print, and save the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.million", description=__doc__.splitlines()[0])
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--save", type=Path, help="a file for the figures, as JSON")
    parser.add_argument("--redis", action="store_true", help="on a Valkey, with a worker")
    given = parser.parse_args()
    build()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # the servers' core
    with running_world() as world, RedisServer() if given.redis else nullcontext() as redis:
        figures = uvloop.run(measure(world, given.lines, redis))
    print("\n".join(figures.report_lines()))
    if given.save:
        given.save.write_text(json.dumps(asdict(figures), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
