"""Services, workers and their Redis, hurt again and again while clients submit: what was acknowledged, and kept.

    python -m tests.chaos.fleet --rounds 100        # `make chaos`

Each round does one thing: kills a worker, a service, a child of a worker or the Redis, has one of them stand still, or
cuts all connections to the Redis. In the end everything that was ever acknowledged has to be there, whole and counted
once.
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
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec
import uvloop
from redis.asyncio import Redis

from crawler.distributed.chunk_queue import QUEUES
from crawler.runtime.cancellation import end
from tests.chaos.processes import Member
from tests.support.exchange import Exchange
from tests.support.redis_proxy import RedisProxy, proxy_to
from tests.support.redis_server import VALKEY, RedisServer
from tests.support.site import Site

SIZES: Final = (1, 7, 60, 400, 2_000)
"""Lines of batches."""

HOSTS: Final = [f"127.0.0.{number}" for number in range(1, 21)]
_RUNNING: Final = 6  # Tasks at once
_PATIENCE: Final = 60.0  # seconds for a request
_END: Final = 300.0  # seconds for all Tasks to be ready once nothing is hurt any more
_TROUBLE: Final = (aiohttp.ClientError, ConnectionError, TimeoutError)
_LEASE: Final = 25.0  # seconds, of users' workers
_OURS: Final = re.compile(rb"never retrieved|(Assertion|Key|Type|Attribute|Value|Index|Runtime|Lookup)Error.*")
_LEFT: Final = re.compile(rb":(chunks:\d+|chains|starts|suspects)$|^crawler-(small|big):runs:")


@dataclass
class Batch:
    """One acknowledged Task, as its client knows it."""

    lines: list[str]
    seen: dict[int, bytes] = field(default_factory=dict)
    """Records that were read, by position: from then on they are settled."""


@dataclass
class Report:
    """What came of it. All from `lost_tasks` on have to be zero; seconds where a name says so."""

    faults: Counter[str] = field(default_factory=Counter)
    tasks: int = 0
    lines: int = 0
    redelivered: int = 0
    """Workers that were killed while they had chunks."""
    redelivery_seconds: float = 0.0
    lost_tasks: int = 0
    doubled_tasks: int = 0
    lost_lines: int = 0
    doubled_lines: int = 0
    changed_records: int = 0
    miscounted: int = 0
    not_ready: int = 0
    ended_by_themselves: list[str] = field(default_factory=list)
    left_keys: list[str] = field(default_factory=list)
    own_faults: list[str] = field(default_factory=list)

    def is_good(self, within: float) -> bool:
        """Whether every promise was kept; chunks of killed workers are others' within so many seconds."""
        return self.redelivery_seconds <= within and not any(
            (self.lost_tasks, self.doubled_tasks, self.lost_lines, self.doubled_lines, self.changed_records,
             self.miscounted, self.not_ready, self.ended_by_themselves, self.left_keys, self.own_faults)
        )  # fmt: skip


class Clients:
    """Submit, read and listen, at whichever service answers, and remember everything."""

    def __init__(self, site: Site, services: list[Member], chance: random.Random) -> None:
        self.batches: dict[str, Batch] = {}
        self.changed = 0
        self.is_enough = False
        self._site = site
        self._services = services
        self._chance = chance
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_PATIENCE))
        self._number = 0

    async def close(self) -> None:
        """Leave."""
        await self._session.close()

    async def submit(self) -> None:
        """Submit until it is enough, as long as not too many Tasks run."""
        running: set[str] = set()
        while not self.is_enough:
            while len(running) >= _RUNNING:
                for task_id in list(running):
                    if (await self.look(task_id))["status"] != "running":
                        running.discard(task_id)
                await asyncio.sleep(0.1)
            batch = self._batch()
            task_id = await self._until_acknowledged(batch)
            self.batches[task_id] = batch
            running.add(task_id)

    async def read(self) -> None:
        """Read results, and listen to events, without end."""
        while True:
            if not self.batches:
                await asyncio.sleep(0.05)
                continue
            task_id = self._chance.choice(list(self.batches)[-2 * _RUNNING :])
            with suppress(*_TROUBLE):
                async with asyncio.timeout(self._chance.uniform(0.1, 5)):
                    await self._chance.choice((self.records, self._listen))(task_id)
            await asyncio.sleep(self._chance.uniform(0, 0.2))

    async def look(self, task_id: str, wait: float = 0.0) -> dict[str, Any]:
        """A Task's summary, from whoever answers, after so many seconds if it still runs."""
        while True:
            with suppress(*_TROUBLE):
                async with self._session.get(self._at(f"/tasks/{task_id}?wait={wait}")) as response:
                    if response.status == 404:
                        return {"status": "lost"}
                    if response.status == 200:
                        found: dict[str, Any] = await response.json()
                        return found
            await asyncio.sleep(0.1)

    async def records(self, task_id: str) -> list[dict[str, Any]]:
        """All records, as far as they come."""
        headers = {"Accept": "application/x-ndjson"}
        async with self._session.get(self._at(f"/tasks/{task_id}/results"), headers=headers) as response:
            return [self._see(task_id, line) async for line in response.content] if response.status == 200 else []

    def _see(self, task_id: str, line: bytes) -> dict[str, Any]:
        record: dict[str, Any] = msgspec.json.decode(line)
        body = msgspec.json.encode(record)
        self.changed += self.batches[task_id].seen.setdefault(record["seq"], body) != body
        return record

    async def _listen(self, task_id: str) -> None:
        last = 0
        async with self._session.get(self._at(f"/tasks/{task_id}/events")) as response:
            async for line in response.content:
                if line.startswith(b"id: "):
                    self.changed += int(line[4:]) != last + 1
                    last += 1
                elif line.startswith(b"data: ") and b'"seq":' in line:
                    self._see(task_id, line[6:])

    async def _until_acknowledged(self, batch: Batch) -> str:
        body = msgspec.json.encode({"urls": batch.lines})
        headers = {"Content-Type": "application/json", "Idempotency-Key": str(uuid.uuid4())}
        while True:
            with suppress(*_TROUBLE):
                async with self._session.post(self._at("/tasks"), data=body, headers=headers) as response:
                    if response.status in (200, 201):
                        return str((await response.json())["id"])
                    assert response.status in (409, 503), await response.text()
            await asyncio.sleep(0.1)

    def _at(self, path: str) -> str:
        return f"{self._chance.choice(self._services).url}/api/v1{path}"

    def _batch(self) -> Batch:
        lines = [self._line() for _ in range(self._chance.choice(SIZES))]
        lines += self._chance.sample(lines, len(lines) // 10)  # some are there twice
        return Batch(lines)

    def _line(self) -> str:
        self._number += 1
        kind = self._chance.random()
        if kind < 0.02:
            return f"nonsense {self._number}"
        if kind < 0.04:
            return f"http://{self._number}{'a' * 300}/"
        return self._site.url(f"/chaos?{self._number}", host=self._chance.choice(HOSTS))


class Chaos:
    """Does the harm, and looks at the end."""

    def __init__(
        self, server: RedisServer, proxy: RedisProxy, folder: Path, chance: random.Random, lease: float | None
    ) -> None:
        where, log = ["--redis", proxy.url, "--per-host", "4"], folder / "log"
        served = [["serve", "--port", "0", *where] for _ in range(2)]
        working = [
            ["worker", *where, "--guard", "any", "--drain", "2", *more] for more in ([], [], ["--processes", "2"])
        ]
        self.services = [Member(each, log, lease) for each in served]
        self.workers = [Member(each, log, lease) for each in working]
        self.report = Report()
        self._server, self._proxy, self._log, self._chance = server, proxy, log, chance
        self._lease = lease or _LEASE
        self._redis: Any = Redis.from_url(server.url)
        self._standing: Member | None = None
        self._beside: set[asyncio.Task[None]] = set()

    @property
    def members(self) -> list[Member]:
        """All processes but the Redis."""
        return self.services + self.workers

    async def round(self, number: int) -> None:
        """Do one thing: each in turn, so that none is left out."""
        faults: list[Callable[[], Awaitable[None]]] = [
            self.kill_worker, self.cut_connections, self.stop_worker, self.kill_redis, self.kill_child,
            self.kill_service, self.stop_redis,
        ]  # fmt: skip
        fault = faults[number % len(faults)]
        await asyncio.sleep(self._chance.uniform(0.2, 2.0))
        self.report.faults[fault.__name__] += 1
        await fault()
        await asyncio.gather(*(member.up() for member in self.members))

    async def kill_worker(self) -> None:
        """Kill a worker, and see how long what it has waits for another one."""
        worker = self._chance.choice([each for each in self.workers if each is not self._standing])
        name, killed = worker.name, time.monotonic()
        worker.kill()
        if held := await self._held(name):
            while held:
                await asyncio.sleep(0.1)
                held = await self._held(name)
            self.report.redelivered += 1
            self.report.redelivery_seconds = max(self.report.redelivery_seconds, time.monotonic() - killed)

    async def kill_service(self) -> None:
        """Kill a service."""
        self._chance.choice(self.services).kill()

    async def kill_child(self) -> None:
        """Kill one of the processes that probe for a worker."""
        for pid in self.workers[-1].children[:1]:
            with suppress(ProcessLookupError):  # it may just have ended
                os.kill(pid, signal.SIGKILL)

    async def stop_worker(self) -> None:
        """Have a worker stand still for longer than its lease, while the others go on."""
        if self._standing is None:
            self._standing = self._chance.choice(self.workers)
            self._standing.send(signal.SIGSTOP)
            self._begin(self._go_on())

    async def kill_redis(self) -> None:
        """Kill the Redis, and start it again at once."""
        await self._server.restart()

    async def stop_redis(self) -> None:
        """Have the Redis stand still."""
        self._server.pause()
        await asyncio.sleep(min(10.0, self._lease * 0.4))
        self._server.go_on()

    async def cut_connections(self) -> None:
        """Cut all connections to the Redis."""
        await self._proxy.cut()

    async def settle(self) -> None:
        """Let what is hurt get well."""
        await asyncio.gather(*self._beside)
        await asyncio.gather(*(member.up() for member in self.members))

    async def close(self) -> None:
        """End all."""
        for task in self._beside:
            task.cancel()
        await asyncio.gather(*self._beside, return_exceptions=True)
        await asyncio.gather(*(member.close() for member in self.members))
        await self._redis.aclose()

    async def judge(self, clients: Clients) -> Report:
        """Wait for all Tasks, and look what became of them."""
        report = self.report
        report.tasks = len(clients.batches)
        until = time.monotonic() + _END
        for task_id, batch in clients.batches.items():
            while (task := await clients.look(task_id, wait=10))["status"] == "running" and time.monotonic() < until:
                pass
            if task["status"] == "lost":
                report.lost_tasks += 1
                continue
            report.not_ready += task["status"] != "ready"
            records = await clients.records(task_id)
            found = Counter(record["seq"] for record in records)
            report.lines += len(batch.lines)
            report.lost_lines += len(batch.lines) - len(found)
            report.doubled_lines += sum(found.values()) - len(found)
            outcomes = Counter(record["outcome"] for record in records)
            counts = {name: count for name, count in task["counts"].items() if count}
            report.miscounted += counts | {"done": 0, "total": 0} != outcomes | {"done": 0, "total": 0}
        report.changed_records = clients.changed
        report.doubled_tasks = await self._redis.zcard("crawler:tasks") - report.tasks + report.lost_tasks
        report.ended_by_themselves = [end for member in self.members for end in member.ends]
        report.left_keys = await self._left()
        report.own_faults = sorted({each.group().decode() for each in _OURS.finditer(self._log.read_bytes())})
        return report

    async def _left(self) -> list[str]:
        """Keys of work that is done, and that nobody will sweep."""
        swept = [id_.decode() for id_ in await self._redis.zrange("crawler:coming", 0, -1)]
        left = [key.decode() async for key in self._redis.scan_iter(count=1000) if _LEFT.search(key)]
        return [key for key in left if not any(id_ in key for id_ in swept)]

    async def _held(self, name: str) -> int:
        """How many chunks a worker has."""
        held = [
            await self._redis.xpending_range(f"crawler-{kind}:stream", "docket-workers", "-", "+", 100, name)
            for kind in QUEUES
        ]
        return sum(map(len, held))

    async def _go_on(self) -> None:
        assert self._standing is not None
        await asyncio.sleep(self._lease * 4 / 3)
        self._standing.send(signal.SIGCONT)
        self._standing = None

    def _begin(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)


@asynccontextmanager
async def running(server: RedisServer, seed: int, lease: float | None) -> AsyncIterator[tuple[Chaos, Clients]]:
    """A fleet and its clients."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="fleet-") as folder:
        async with Site(host="0.0.0.0") as site, proxy_to(server.url) as proxy:
            site.on("/chaos", _answer)
            chaos = Chaos(server, proxy, Path(folder), chance, lease)
            clients = Clients(site, chaos.services, chance)
            try:
                await asyncio.gather(*(member.up() for member in chaos.members))
                yield chaos, clients
            finally:
                await clients.close()
                await chaos.close()


async def _answer(x: Exchange) -> None:
    await asyncio.sleep(0.2)
    await x.reply()


async def chaos_fleet(rounds: int, server: RedisServer, seed: int, lease: float | None = None) -> Report:
    """So many faults; what came of them."""
    async with running(server, seed, lease) as (chaos, clients):
        submitting = [asyncio.ensure_future(clients.submit()) for _ in range(2)]
        reading = [asyncio.ensure_future(clients.read()) for _ in range(2)]
        try:
            for number in range(rounds):
                await chaos.round(number)
            clients.is_enough = True
            await asyncio.gather(*submitting)
        finally:
            await end(submitting + reading)
        await chaos.settle()
        return await chaos.judge(clients)


def main() -> int:
    """The long one, from the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.fleet", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--server", default=VALKEY, help="the binary of a Redis or Valkey")
    given = parser.parse_args()
    started = time.monotonic()
    with RedisServer(given.server, fsync="always") as server:
        report = uvloop.run(chaos_fleet(given.rounds, server, given.seed))
    print(f"seed {given.seed}, {time.monotonic() - started:.0f} s: {report}")
    return 0 if report.is_good(within=45.0) else 1


if __name__ == "__main__":
    sys.exit(main())
