"""A service that is killed again and again while clients submit to it: what it acknowledged, and what became of that.

    python -m tests.chaos.service --rounds 200        # `make chaos`

Each round starts the service on the same file, submits batches of random sizes, reads results, and kills the process
at a random moment. In the end everything that was ever acknowledged has to be there, whole and counted once.
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

LINES = (1, 5, 40, 400)
"""Sizes of batches."""


@dataclass
class Batch:
    """One acknowledged Task, as its client knows it."""

    urls: list[str]
    seen: dict[str, float] = field(default_factory=dict)
    """When a result was first read: from then on it is committed."""


@dataclass
class Report:
    """What came of it. All but the first three have to be zero."""

    kills: int = 0
    tasks: int = 0
    lines: int = 0
    lost_tasks: int = 0
    lost_lines: int = 0
    changed_results: int = 0
    miscounted: int = 0
    not_ready: int = 0
    probed_again: int = 0

    @property
    def is_good(self) -> bool:
        """Whether every promise was kept."""
        return not any(
            (self.lost_tasks, self.lost_lines, self.changed_results, self.miscounted, self.not_ready, self.probed_again)
        )


class Service:
    """`python -m crawler` on a file, in a process of its own."""

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
        """Kill it, as nobody can refuse."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def __aexit__(self, *_: object) -> None:
        self.kill()
        await self._process.wait()


class Chaos:
    """The client, and the site that is probed, which both remember everything."""

    def __init__(self, site: Site, session: aiohttp.ClientSession, folder: Path, seed: int) -> None:
        self._site = site
        self._session = session
        self._folder = folder
        self._random = random.Random(seed)
        self._batches: dict[str, Batch] = {}
        self._asked: dict[str, float] = {}
        self._number = 0
        self.report = Report()
        site.on("/chaos", self._answer)

    async def round(self) -> None:
        """Start, submit and read, and kill at a random moment."""
        async with Service(self._folder) as service:
            work = asyncio.ensure_future(self._use(service))
            await asyncio.wait({work}, timeout=self._random.uniform(0.02, 0.8))
            service.kill()
            self.report.kills += 1
            work.cancel()
            with contextlib.suppress(asyncio.CancelledError, aiohttp.ClientError, ConnectionError):
                await work

    async def end(self) -> Report:
        """Let all come to its end, and look."""
        async with Service(self._folder) as service:
            async with self._session.get(f"{service.url}/tasks") as response:
                tasks = await response.json()
            self.report.tasks = len(self._batches)
            for task_id, batch in self._batches.items():
                if task_id not in tasks:
                    self.report.lost_tasks += 1
                    continue
                await self._look(service, task_id, batch)
            async with asyncio.timeout(120):
                for task_id, batch in self._batches.items():
                    self._judge(await self._ended(service, task_id, batch), batch)
        return self.report

    async def _ended(self, service: Service, task_id: str, batch: Batch) -> dict[str, Any]:
        while True:
            task = await self._look(service, task_id, batch)
            if task["status"] != "running":
                return task
            await asyncio.sleep(0.05)

    def _judge(self, task: dict[str, Any], batch: Batch) -> None:
        self.report.not_ready += task["status"] != "ready"
        self.report.lines += len(batch.urls)
        self.report.lost_lines += len(set(batch.urls) - set(task["result"]))
        self.report.miscounted += len(set(task["result"]) - set(batch.urls))

    async def _use(self, service: Service) -> None:
        while True:
            urls = [self._url() for _ in range(self._random.choice(LINES))]
            urls += self._random.sample(urls, len(urls) // 10)  # some are there twice
            async with self._session.post(f"{service.url}/submit", json={"urls": urls}) as response:
                assert response.status == 200, await response.text()
                self._batches[(await response.json())["task_id"]] = Batch(urls)
            for task_id in self._random.sample(sorted(self._batches), min(3, len(self._batches))):
                await self._look(service, task_id, self._batches[task_id])

    async def _look(self, service: Service, task_id: str, batch: Batch) -> dict[str, Any]:
        async with self._session.get(f"{service.url}/tasks/{task_id}") as response:
            if response.status == 404:
                self.report.lost_tasks += 1
                return {"status": "lost", "result": {}}
            task: dict[str, Any] = await response.json()
        now = time.monotonic()
        self.report.changed_results += len(batch.seen.keys() - task["result"].keys())
        for url in task["result"]:
            batch.seen.setdefault(url, now)
            self.report.probed_again += self._asked[url] > batch.seen[url]
        return task

    def _url(self) -> str:
        self._number += 1
        return self._site.url(f"/chaos?{self._number}", host=f"127.0.0.{1 + self._number % 5}")

    async def _answer(self, x: Exchange) -> None:
        self._asked[f"http://{x.request.host}{x.request.path}"] = time.monotonic()
        await asyncio.sleep(0.02)
        await x.reply()


async def chaos(rounds: int, folder: Path, seed: int) -> Report:
    """So many kills; what came of it."""
    async with Site(host="0.0.0.0") as site, aiohttp.ClientSession() as session:
        chaos = Chaos(site, session, folder, seed)
        for _ in range(rounds):
            await chaos.round()
        return await chaos.end()


def main() -> int:
    """The long one, from the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.service", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    given = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = uvloop.run(chaos(given.rounds, Path(folder), given.seed))
    print(f"seed {given.seed}, {time.monotonic() - started:.0f} s: {report}")
    return 0 if report.is_good else 1


if __name__ == "__main__":
    raise SystemExit(main())
