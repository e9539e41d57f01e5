"""Kill a service again and again while a client submits to it, and check what was lost.

    python -m tests.chaos.service --rounds 200        # `make chaos`

Each round starts the service on the same SQLite file, submits batches of random sizes, reads results, and kills the
process at a random moment. In the end every acknowledged Task has to be complete, and every line counted once.
"""

import argparse
import asyncio
import contextlib
import random
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import uvloop

from tests.support.exchange import Exchange
from tests.support.site import Site

SIZES = (1, 5, 40, 400)
"""Lines of batches."""


@dataclass
class Batch:
    """An acknowledged Task, as its client knows it.

    Attributes:
        urls: As submitted.
        read_at: When the result of a URL was first read: from then on it is committed.
    """

    urls: list[str]
    read_at: dict[str, float] = field(default_factory=dict)


@dataclass
class Report:
    """The outcome. All but the first three have to be zero."""

    kills: int = 0
    tasks: int = 0
    lines: int = 0
    lost_tasks: int = 0
    lost_lines: int = 0
    changed_results: int = 0
    wrong_lines: int = 0
    not_ready: int = 0
    probed_again: int = 0

    @property
    def is_good(self) -> bool:
        """Whether every promise was kept."""
        return not any(
            (
                self.lost_tasks,
                self.lost_lines,
                self.changed_results,
                self.wrong_lines,
                self.not_ready,
                self.probed_again,
            )
        )


class Service:
    """Run `crawler serve` on a SQLite file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def __aenter__(self) -> "Service":
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "crawler", "serve", "--port", "0", "--registry", f"sqlite:///{self._folder}/tasks.db",
            "--per-host", "50", stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert self._process.stdout is not None
        words = (await self._process.stdout.readline()).decode().split()
        assert words[:3] == ["crawler", "serves", "on"], words
        self.url = words[3].rstrip(".")
        return self

    def kill(self) -> None:
        """Kill it."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def __aexit__(self, *_: object) -> None:
        self.kill()
        await self._process.wait()


class Chaos:
    """The client and the site that is probed. Both remember everything."""

    def __init__(self, site: Site, session: aiohttp.ClientSession, folder: Path, seed: int) -> None:
        self._site = site
        self._session = session
        self._folder = folder
        self._random = random.Random(seed)
        self._batches: dict[str, Batch] = {}
        self._probed_at: dict[str, float] = {}
        self._number = 0
        self.report = Report()
        site.on("/chaos", self._answer)

    async def run_round(self) -> None:
        """Start, submit and read, and kill at a random moment."""
        async with Service(self._folder) as service:
            using = asyncio.ensure_future(self._use(service))
            await asyncio.wait({using}, timeout=self._random.uniform(0.02, 0.8))
            service.kill()
            self.report.kills += 1
            using.cancel()
            with contextlib.suppress(asyncio.CancelledError, aiohttp.ClientError, ConnectionError):
                await using
        self.report.tasks = len(self._batches)

    async def check(self) -> Report:
        """Wait for the end of all Tasks, and compare them with what the client knows."""
        async with Service(self._folder) as service:
            async with self._session.get(f"{service.url}/tasks") as response:
                tasks = await response.json()
            for task_id, batch in self._batches.items():
                if task_id not in tasks:
                    self.report.lost_tasks += 1
                    continue
                await self._read(service, task_id, batch)
            async with asyncio.timeout(120):
                for task_id, batch in self._batches.items():
                    self._compare(await self._read_ended(service, task_id, batch), batch)
        return self.report

    async def _read_ended(self, service: Service, task_id: str, batch: Batch) -> dict[str, Any]:
        while True:
            task = await self._read(service, task_id, batch)
            if task["status"] != "running":
                return task
            await asyncio.sleep(0.05)

    def _compare(self, task: dict[str, Any], batch: Batch) -> None:
        self.report.not_ready += task["status"] != "ready"
        self.report.lines += len(batch.urls)
        self.report.lost_lines += len(set(batch.urls) - set(task["result"]))
        self.report.wrong_lines += len(set(task["result"]) - set(batch.urls))

    async def _use(self, service: Service) -> None:
        while True:
            urls = [self._make_url() for _ in range(self._random.choice(SIZES))]
            urls += self._random.sample(urls, len(urls) // 10)  # duplicates
            async with self._session.post(f"{service.url}/submit", json={"urls": urls}) as response:
                assert response.status == 200, await response.text()
                self._batches[(await response.json())["task_id"]] = Batch(urls)
            for task_id in self._random.sample(sorted(self._batches), min(3, len(self._batches))):
                await self._read(service, task_id, self._batches[task_id])

    async def _read(self, service: Service, task_id: str, batch: Batch) -> dict[str, Any]:
        async with self._session.get(f"{service.url}/tasks/{task_id}") as response:
            if response.status == 404:
                self.report.lost_tasks += 1
                return {"status": "lost", "result": {}}
            task: dict[str, Any] = await response.json()
        now = time.monotonic()
        self.report.changed_results += len(batch.read_at.keys() - task["result"].keys())
        for url in task["result"]:
            batch.read_at.setdefault(url, now)
            self.report.probed_again += self._probed_at[url] > batch.read_at[url]
        return task

    def _make_url(self) -> str:
        self._number += 1
        return self._site.url(f"/chaos?{self._number}", host=f"127.0.0.{1 + self._number % 5}")

    async def _answer(self, x: Exchange) -> None:
        self._probed_at[f"http://{x.request.host}{x.request.path}"] = time.monotonic()
        await asyncio.sleep(0.02)
        await x.reply()


async def run_service_chaos(rounds: int, folder: Path, seed: int, tasks: int = 0) -> Report:
    """Kill the service `rounds` times, then on until it has acknowledged so many Tasks; check what was lost."""
    async with Site(host="0.0.0.0") as site, aiohttp.ClientSession() as session:
        chaos = Chaos(site, session, folder, seed)
        while chaos.report.kills < rounds or chaos.report.tasks < tasks:
            await chaos.run_round()
        return await chaos.check()


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.service", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    given = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = uvloop.run(run_service_chaos(given.rounds, Path(folder), given.seed))
    print(f"seed {given.seed}, {time.monotonic() - started:.0f} s: {report}")
    return 0 if report.is_good else 1


if __name__ == "__main__":
    raise SystemExit(main())
