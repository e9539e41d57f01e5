"""The service under a real gunicorn: one worker serves, is replaced and stops; several workers are refused."""

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from tests.support.gate import Gate
from tests.support.redis_server import RedisServer
from tests.support.site import Site

GUNICORN = (
    *(sys.executable, "-m", "gunicorn", "crawler.gunicorn:app"),
    *("--worker-class", "aiohttp.GunicornUVLoopWebWorker", "--bind", "127.0.0.1:0"),
)


class Gunicorn:
    """A process and its output."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said = ""
        self.url = ""

    async def until(self, pattern: str) -> str:
        """Read on to a line that matches, and return its first group."""
        assert self.process.stderr is not None
        while line := (await self.process.stderr.readline()).decode():
            self.said += line
            if found := re.search(pattern, line):
                return found[1]
        raise EOFError(self.said)

    async def rest(self) -> str:
        assert self.process.stderr is not None
        self.said += (await self.process.stderr.read()).decode()
        return self.said


@asynccontextmanager
async def gunicorn(folder: Path, *arguments: str, **environment: str) -> AsyncIterator[Gunicorn]:
    settings = {"CRAWLER_REGISTRY": f"sqlite:///{folder}/tasks.db", "CRAWLER_GUARD": "any", **environment}
    process = await asyncio.create_subprocess_exec(
        *GUNICORN, *arguments, env={**os.environ, **settings}, stderr=asyncio.subprocess.PIPE
    )
    try:
        yield Gunicorn(process)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


@pytest.fixture(params=["sqlite", "memory"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "memory" if request.param == "memory" else f"sqlite:///{tmp_path}/tasks.db"


async def ended(session: ClientSession, url: str, task_id: str) -> Any:
    async with session.get(f"{url}/api/v1/tasks/{task_id}?wait=30") as response:
        return await response.json()


async def submit(session: ClientSession, url: str, *urls: str) -> str:
    async with session.post(f"{url}/submit", data=json.dumps({"urls": urls})) as response:
        assert response.status == 200
        return str((await response.json())["task_id"])


async def test_a_worker_serves_and_its_successor_continues_its_tasks(site: Site, tmp_path: Path) -> None:
    gate = Gate(site)
    async with gunicorn(tmp_path, CRAWLER_PER_HOST="1", CRAWLER_TIMEOUT="60") as served, ClientSession() as session:
        url = await served.until(r"Listening at: (\S+)")
        first = await served.until(r"Booting worker with pid: (\d+)")
        task_id = await submit(session, url, site.url("/gate?1"), site.url("/gate?2"))
        await site.until(lambda: site.active == 1)
        served.process.send_signal(signal.SIGHUP)
        second = await served.until(r"Booting worker with pid: (\d+)")
        assert second != first
        gate.is_open.set()
        task = await ended(session, url, task_id)
        assert (task["status"], task["counts"]["ok"]) == ("ready", 2)
        assert site.count_by_path() == {"/gate?1": 1, "/gate?2": 1}
        served.process.terminate()
        assert "[ERROR]" not in await served.rest()
        assert await served.process.wait() == 0


async def test_a_reload_refuses_no_worker_that_is_alone(registry: str, tmp_path: Path, site: Site) -> None:
    async with gunicorn(tmp_path, CRAWLER_REGISTRY=registry) as served, ClientSession() as session:
        url = await served.until(r"Listening at: (\S+)")
        await served.until(r"(Booting) worker")
        for _ in range(2):
            task_id = await submit(session, url, site.url("/ok"))
            assert (await ended(session, url, task_id))["status"] == "ready"
            served.process.send_signal(signal.SIGHUP)
            await served.until(r"(Booting) worker")
            await served.until(r"Worker (exiting)")
        task_id = await submit(session, url, site.url("/ok"))
        assert (await ended(session, url, task_id))["status"] == "ready"


async def test_several_workers_that_share_their_tasks(redis_server: RedisServer, tmp_path: Path) -> None:
    shared = {"CRAWLER_REDIS": redis_server.url}
    async with gunicorn(tmp_path, "--workers", "2", **shared) as served, ClientSession() as session:
        url = await served.until(r"Listening at: (\S+)")
        task_id = await submit(session, url, "nonsense")
        for _ in range(20):
            close = {"Connection": "close"}
            async with session.get(f"{url}/api/v1/tasks/{task_id}", headers=close) as response:
                assert response.status == 200


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (["--workers", "2"], {}, "Run one worker (--workers 1)"),
        (["--workers", "2"], {"CRAWLER_REGISTRY": "memory"}, "Run one worker (--workers 1)"),
        ([], {"WEB_CONCURRENCY": "2"}, "Run one worker (--workers 1)"),
        ([], {"CRAWLER_TIMEOUT": "never"}, "CRAWLER_TIMEOUT"),
        ([], {"CRAWLER_TOKEN_FILE": "/nowhere"}, "/nowhere"),
        ([], {"CRAWLER_REGISTRY": "sqlite:////proc/nowhere/tasks.db"}, "/proc/nowhere/tasks.db"),
    ],
)
async def test_a_wrong_option_or_file_is_reported_in_one_line(
    arguments: Sequence[str], environment: dict[str, str], words: str, tmp_path: Path
) -> None:
    async with gunicorn(tmp_path, *arguments, **environment) as served:
        said = await served.rest()
        assert await served.process.wait() in (4, 1)  # 1 if a second worker fails while gunicorn ends
    lines = [line for line in said.splitlines() if line.startswith("crawler: ")]
    assert lines and all(words in line for line in lines), said
    assert (
        "crawler/gunicorn.py" not in said
    )  # no traceback of ours; gunicorn can show its own when two workers fail at once
