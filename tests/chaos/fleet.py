"""Inject faults into services, worker processes and their Redis while clients submit, and check what was lost.

    python -m tests.chaos.fleet --rounds 100        # `make chaos`

Each round injects one fault: it kills a worker process, a service, a child process of a worker process or the Redis,
stops one of them for a while, or cuts all connections to the Redis. In the end every acknowledged Task has to be
complete, and every line counted once.
"""

import argparse
import asyncio
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import uvloop
from redis.asyncio import Redis

from crawler.distributed.chunk_queue import QUEUES
from crawler.runtime.cancellation import cancel_and_wait
from crawler.stores.redis.settings import FleetSettings
from tests.chaos.clients import Clients
from tests.chaos.processes import RestartedProcess
from tests.support.exchange import Exchange
from tests.support.redis_proxy import RedisProxy, proxy_to
from tests.support.redis_server import VALKEY, RedisServer
from tests.support.site import Site

_ALL_READY_SECONDS: Final = 300.0  # after the last fault
_OWN_FAULTS: Final = re.compile(
    rb"never retrieved|(Assertion|Key|Type|Attribute|Value|Index|Runtime|Lookup)Error.*"
)  # in a log: errors of the program itself
_KEYS_OF_WORK: Final = re.compile(rb":(chunks:\d+|chains|starts|suspects)$|^crawler-(small|big):runs:")


@dataclass
class Report:
    """The outcome. All from `lost_tasks` on have to be zero or empty.

    Attributes:
        redelivered: Worker processes that were killed while they had leased chunks.
        redelivery_seconds: The longest time until other worker processes had all their chunks.
    """

    faults: Counter[str] = field(default_factory=Counter)
    tasks: int = 0
    lines: int = 0
    redelivered: int = 0
    redelivery_seconds: float = 0.0
    lost_tasks: int = 0
    duplicate_tasks: int = 0
    lost_lines: int = 0
    duplicate_lines: int = 0
    changed_results: int = 0
    wrong_counts: int = 0
    not_ready: int = 0
    unexpected_ends: list[str] = field(default_factory=list)
    leftover_keys: list[str] = field(default_factory=list)
    own_faults: list[str] = field(default_factory=list)

    def is_good(self, within: float) -> bool:
        """Whether every promise was kept, and each redelivery took at most `within` seconds."""
        return self.redelivery_seconds <= within and not any(
            (self.lost_tasks, self.duplicate_tasks, self.lost_lines, self.duplicate_lines, self.changed_results,
             self.wrong_counts, self.not_ready, self.unexpected_ends, self.leftover_keys, self.own_faults)
        )  # fmt: skip


class Chaos:
    """The fleet, the faults that are injected into it, and the checks at the end."""

    def __init__(
        self, server: RedisServer, proxy: RedisProxy, folder: Path, chance: random.Random, lease: float | None
    ) -> None:
        common, log = ["--redis", proxy.url, "--per-host", "4"], folder / "log"
        service, worker = ["serve", "--port", "0", *common], ["worker", *common, "--guard", "any", "--drain", "2"]
        self.services = [RestartedProcess(service, log, lease) for _ in range(2)]
        self.workers = [RestartedProcess([*worker, *more], log, lease) for more in ([], [], ["--processes", "2"])]
        self.report = Report()
        self._server, self._proxy, self._log, self._chance = server, proxy, log, chance
        self._lease = lease or FleetSettings().chunk_lease_seconds
        self._redis: Any = Redis.from_url(server.url)
        self._stopped: RestartedProcess | None = None
        self._resuming: asyncio.Task[None] | None = None

    @property
    def processes(self) -> list[RestartedProcess]:
        """All processes but the Redis."""
        return self.services + self.workers

    async def run_round(self, number: int) -> None:
        """Inject one fault; the rounds go through all of them."""
        faults: list[Callable[[], Awaitable[None]]] = [
            self.kill_worker, self.cut_connections, self.stop_worker, self.kill_redis, self.kill_child,
            self.kill_service, self.stop_redis,
        ]  # fmt: skip
        fault = faults[number % len(faults)]
        await asyncio.sleep(self._chance.uniform(0.2, 2.0))
        self.report.faults[fault.__name__] += 1
        await fault()
        await self._wait_until_up()

    async def kill_worker(self) -> None:
        """Kill a worker process, and measure how long its chunks wait for another one."""
        worker = self._chance.choice([each for each in self.workers if each is not self._stopped])
        name, killed_at = worker.worker_name, time.monotonic()
        worker.kill()
        if leased := await self._count_leased(name):
            while leased:
                await asyncio.sleep(0.1)
                leased = await self._count_leased(name)
            self.report.redelivered += 1
            self.report.redelivery_seconds = max(self.report.redelivery_seconds, time.monotonic() - killed_at)

    async def kill_service(self) -> None:
        """Kill a service."""
        self._chance.choice(self.services).kill()

    async def kill_child(self) -> None:
        """Kill a child process of the worker process that has some."""
        for pid in self.workers[-1].children[:1]:
            with suppress(ProcessLookupError):  # it may just have ended
                os.kill(pid, signal.SIGKILL)

    async def stop_worker(self) -> None:
        """Stop a worker process for longer than its lease, while the others work on."""
        if self._stopped is None:
            self._stopped = self._chance.choice(self.workers)
            self._stopped.send(signal.SIGSTOP)
            self._resuming = asyncio.ensure_future(self._resume())

    async def kill_redis(self) -> None:
        """Kill the Redis, and start it again at once."""
        await self._server.restart()

    async def stop_redis(self) -> None:
        """Stop the Redis for a while."""
        self._server.pause()
        await asyncio.sleep(min(10.0, self._lease * 0.4))
        self._server.resume()

    async def cut_connections(self) -> None:
        """Cut all connections to the Redis."""
        await self._proxy.cut()

    async def settle(self) -> None:
        """Wait until all processes work again."""
        if self._resuming is not None:
            await self._resuming
        await self._wait_until_up()

    async def close(self) -> None:
        """Kill all processes but the Redis."""
        if self._resuming is not None:
            await cancel_and_wait(self._resuming)
        await asyncio.gather(*(process.close() for process in self.processes))
        await self._redis.aclose()

    async def check(self, clients: Clients) -> Report:
        """Wait for the end of all Tasks, and compare them with what the clients know."""
        report = self.report
        report.tasks = len(clients.batches)
        deadline = time.monotonic() + _ALL_READY_SECONDS
        for task_id, batch in clients.batches.items():
            while (task := await clients.summary(task_id, wait=10))["status"] == "running":
                if time.monotonic() > deadline:
                    break
            if task["status"] == "lost":
                report.lost_tasks += 1
                continue
            report.not_ready += task["status"] != "ready"
            results = await clients.results(task_id)
            per_line = Counter(result["seq"] for result in results)
            report.lines += len(batch.lines)
            report.lost_lines += len(batch.lines) - len(per_line)
            report.duplicate_lines += sum(per_line.values()) - len(per_line)
            outcomes = Counter(result["outcome"] for result in results)
            counts = {name: count for name, count in task["counts"].items() if count}
            report.wrong_counts += counts | {"done": 0, "total": 0} != outcomes | {"done": 0, "total": 0}
        report.changed_results = clients.changed_results
        report.duplicate_tasks = await self._redis.zcard("crawler:tasks") - report.tasks + report.lost_tasks
        report.unexpected_ends = [end for process in self.processes for end in process.unexpected_ends]
        report.leftover_keys = await self._find_leftover_keys()
        report.own_faults = sorted({each.group().decode() for each in _OWN_FAULTS.finditer(self._log.read_bytes())})
        return report

    async def _find_leftover_keys(self) -> list[str]:
        """Keys of work that is done, without those that are marked to be dropped later."""
        marked = [id_.decode() for id_ in await self._redis.zrange("crawler:coming", 0, -1)]
        keys = [key.decode() async for key in self._redis.scan_iter(count=1000) if _KEYS_OF_WORK.search(key)]
        return [key for key in keys if not any(id_ in key for id_ in marked)]

    async def _count_leased(self, worker_name: str) -> int:
        """How many chunks a worker process has leased."""
        leased = [
            await self._redis.xpending_range(f"crawler-{queue}:stream", "docket-workers", "-", "+", 100, worker_name)
            for queue in QUEUES
        ]
        return sum(map(len, leased))

    async def _wait_until_up(self) -> None:
        await asyncio.gather(*(process.wait_until_up() for process in self.processes))

    async def _resume(self) -> None:
        assert self._stopped is not None
        await asyncio.sleep(self._lease * 4 / 3)
        self._stopped.send(signal.SIGCONT)
        self._stopped = None


@asynccontextmanager
async def running_fleet(server: RedisServer, seed: int, lease: float | None) -> AsyncIterator[tuple[Chaos, Clients]]:
    """Start a fleet and its clients."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="fleet-") as folder:
        async with Site(host="0.0.0.0") as site, proxy_to(server.url) as proxy:
            site.on("/chaos", _answer)
            chaos = Chaos(server, proxy, Path(folder), chance, lease)
            clients = Clients(site, chaos.services, chance)
            try:
                await asyncio.gather(*(process.wait_until_up() for process in chaos.processes))
                yield chaos, clients
            finally:
                await clients.close()
                await chaos.close()


async def _answer(x: Exchange) -> None:
    await asyncio.sleep(0.2)
    await x.reply()


async def run_fleet_chaos(rounds: int, server: RedisServer, seed: int, lease: float | None = None) -> Report:
    """Inject faults, and check what was lost.

    Args:
        rounds: How many faults.
        server: The Redis.
        seed: Of all random choices.
        lease: Seconds of all leases; those of the product if not given.
    """
    async with running_fleet(server, seed, lease) as (chaos, clients):
        submitting = [asyncio.ensure_future(clients.submit()) for _ in range(2)]
        reading = [asyncio.ensure_future(clients.read()) for _ in range(2)]
        try:
            for number in range(rounds):
                await chaos.run_round(number)
            clients.has_enough = True
            await asyncio.gather(*submitting)
        finally:
            await cancel_and_wait(*submitting, *reading)
        await chaos.settle()
        return await chaos.check(clients)


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.fleet", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--server", default=VALKEY, help="the binary of a Redis or Valkey")
    given = parser.parse_args()
    started = time.monotonic()
    with RedisServer(given.server, fsync="always") as server:
        report = uvloop.run(run_fleet_chaos(given.rounds, server, given.seed))
    print(f"seed {given.seed}, {time.monotonic() - started:.0f} s: {report}")
    return 0 if report.is_good(within=45.0) else 1


if __name__ == "__main__":
    sys.exit(main())
