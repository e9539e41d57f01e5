"""Clients that submit, read and listen while faults are injected, and remember all answers."""

import asyncio
import random
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
import msgspec

from tests.chaos.processes import RestartedProcess
from tests.support.fleet import HOSTS
from tests.support.site import Site

__all__ = ["Batch", "Clients"]

SIZES: Final = (1, 7, 60, 400, 2_000)
"""Lines of batches."""

_MAX_RUNNING_TASKS: Final = 6
_REQUEST_SECONDS: Final = 60.0
_FAULTS: Final = (aiohttp.ClientError, ConnectionError, TimeoutError)


@dataclass
class Batch:
    """An acknowledged Task, as its client knows it.

    Attributes:
        lines: As submitted.
        results: The results that were read, by position: they may not change any more.
    """

    lines: list[str]
    results: dict[int, bytes] = field(default_factory=dict)


class Clients:
    """Send each request to a random service.

    Args:
        site: Answers the probes.
        services: Where the requests go.
        chance: The source of all random choices.

    Attributes:
        batches: What was acknowledged, by Task id.
        changed_results: How often a result, or the order of events, differed from what had been read before.
        has_enough: An event that ends `submit`.
    """

    def __init__(self, site: Site, services: list[RestartedProcess], chance: random.Random) -> None:
        self.batches: dict[str, Batch] = {}
        self.changed_results = 0
        self.has_enough = False
        self._site = site
        self._services = services
        self._chance = chance
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_REQUEST_SECONDS))
        self._lines = 0

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def submit(self) -> None:
        """Submit batches until `has_enough`; wait while too many Tasks run."""
        running: set[str] = set()
        while not self.has_enough:
            while len(running) >= _MAX_RUNNING_TASKS:
                for task_id in list(running):
                    if (await self.summary(task_id))["status"] != "running":
                        running.discard(task_id)
                await asyncio.sleep(0.1)
            batch = self._make_batch()
            task_id = await self._submit_until_acknowledged(batch)
            self.batches[task_id] = batch
            running.add(task_id)

    async def read(self) -> None:
        """Read results and listen to events, without end."""
        while True:
            if not self.batches:
                await asyncio.sleep(0.05)
                continue
            task_id = self._chance.choice(list(self.batches)[-2 * _MAX_RUNNING_TASKS :])
            with suppress(*_FAULTS):
                async with asyncio.timeout(self._chance.uniform(0.1, 5)):
                    await self._chance.choice((self.results, self._listen))(task_id)
            await asyncio.sleep(self._chance.uniform(0, 0.2))

    async def summary(self, task_id: str, wait: float = 0.0) -> dict[str, Any]:
        """A Task's summary, asked for until a service answers; `status` is `lost` if it is not found.

        Args:
            task_id: The Task.
            wait: Seconds that the service waits for the end of the Task.
        """
        while True:
            with suppress(*_FAULTS):
                async with self._session.get(self._url(f"/tasks/{task_id}?wait={wait}")) as response:
                    if response.status == 404:
                        return {"status": "lost"}
                    if response.status == 200:
                        summary: dict[str, Any] = await response.json()
                        return summary
            await asyncio.sleep(0.1)

    async def results(self, task_id: str) -> list[dict[str, Any]]:
        """The results so far."""
        headers = {"Accept": "application/x-ndjson"}
        async with self._session.get(self._url(f"/tasks/{task_id}/results"), headers=headers) as response:
            return [self._compare(task_id, line) async for line in response.content] if response.status == 200 else []

    def _compare(self, task_id: str, line: bytes) -> dict[str, Any]:
        """Parse a result, and compare it with the one that was read before."""
        result: dict[str, Any] = msgspec.json.decode(line)
        body = msgspec.json.encode(result)
        self.changed_results += self.batches[task_id].results.setdefault(result["seq"], body) != body
        return result

    async def _listen(self, task_id: str) -> None:
        last = 0
        async with self._session.get(self._url(f"/tasks/{task_id}/events")) as response:
            async for line in response.content:
                if line.startswith(b"id: "):
                    self.changed_results += int(line[4:]) != last + 1
                    last += 1
                elif line.startswith(b"data: ") and b'"seq":' in line:
                    self._compare(task_id, line[6:])

    async def _submit_until_acknowledged(self, batch: Batch) -> str:
        body = msgspec.json.encode({"urls": batch.lines})
        headers = {"Content-Type": "application/json", "Idempotency-Key": str(uuid.uuid4())}
        while True:
            with suppress(*_FAULTS):
                async with self._session.post(self._url("/tasks"), data=body, headers=headers) as response:
                    if response.status in (200, 201):
                        return str((await response.json())["id"])
                    assert response.status in (409, 503), await response.text()
            await asyncio.sleep(0.1)

    def _url(self, path: str) -> str:
        return f"{self._chance.choice(self._services).url}/api/v1{path}"

    def _make_batch(self) -> Batch:
        lines = [self._make_line() for _ in range(self._chance.choice(SIZES))]
        lines += self._chance.sample(lines, len(lines) // 10)  # duplicates
        return Batch(lines)

    def _make_line(self) -> str:
        self._lines += 1
        kind = self._chance.random()
        if kind < 0.02:
            return f"nonsense {self._lines}"
        if kind < 0.04:
            return f"http://{self._lines}{'a' * 300}/"
        return self._site.url(f"/chaos?{self._lines}", host=self._chance.choice(HOSTS))
