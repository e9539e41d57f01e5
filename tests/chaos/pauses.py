"""Stop a service, a child process or a worker process for a while, and check that no healthy target is blamed.

    python -m tests.chaos.pauses        # `make chaos`

Each run submits healthy targets that answer after two seconds, stops one process by SIGSTOP while the requests are in
flight, and continues it after 5, 35 or 120 s. Like real servers, the targets close a connection whose handshake or next
request does not come within four seconds. In the end every target has to be `ok`, with one result.
"""

import argparse
import asyncio
import json
import os
import signal
import ssl
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

import aiohttp
import trustme
import uvloop

from tests.support.process import Served, registry_flags, submit_to, summary_of
from tests.support.redis_server import RedisServer

Stopped = Literal["service", "child", "worker"]

SECONDS: Final = (5.0, 35.0, 120.0)
"""How long processes are stopped."""

_ANSWER_SECONDS: Final = 2.0
_PATIENCE_SECONDS: Final = 4.0  # of the targets, for a handshake or a request
_WAVES: Final = 3  # of targets, one after the other at each host


@dataclass
class Report:
    """What became of the targets of one run.

    Attributes:
        stopped: The process that was stopped.
        seconds: For how long.
        verdicts: How many results of each kind there are.
        doubled: Results beyond one for each target.
        took: Seconds from the submit to the end of the Task.
        requests: How many requests the targets got.
    """

    stopped: Stopped
    seconds: float
    verdicts: Counter[str]
    doubled: int
    took: float
    requests: int

    @property
    def wrong(self) -> int:
        """Healthy targets that are not `ok`."""
        return self.verdicts.total() - self.verdicts["ok"]


class Targets:
    """Healthy targets, http and https, of this number of hosts."""

    def __init__(self, hosts: int) -> None:
        self._hosts = [f"127.0.1.{number}" for number in range(1, hosts + 1)]
        self.requests = 0

    async def __aenter__(self) -> "Targets":
        authority, self._stack = trustme.CA(), AsyncExitStack()
        tls = await asyncio.to_thread(_server_context, authority, self._hosts)
        self.plain = await asyncio.start_server(self._answer, "0.0.0.0", 0)
        self.secure = await asyncio.start_server(self._answer, "0.0.0.0", 0, ssl=tls,
                                                 ssl_handshake_timeout=_PATIENCE_SECONDS)  # fmt: skip
        return self

    async def __aexit__(self, *_: object) -> None:
        self.plain.close()
        self.secure.close()

    @property
    def urls(self) -> list[str]:
        """All targets: half of them https."""
        schemes = {0: ("http", self.plain), 1: ("https", self.secure)}
        return [
            f"{scheme}://{host}:{server.sockets[0].getsockname()[1]}/{wave}"
            for number, host in enumerate(self._hosts)
            for scheme, server in [schemes[number % 2]]
            for wave in range(_WAVES)
        ]

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    await reader.readuntil(b"\r\n\r\n")
                self.requests += 1
                await asyncio.sleep(_ANSWER_SECONDS)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                await writer.drain()
        except (TimeoutError, OSError, EOFError):
            writer.transport.abort()


def _server_context(authority: trustme.CA, names: list[str]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


@asynccontextmanager
async def _service(stopped: Stopped, folder: Path) -> AsyncIterator[tuple[Served, int]]:
    """Run the service; yields it, and the process that is to be stopped."""
    common = ["--guard", "any", "--insecure", "--per-host", "1", "--timeout", "10"]
    async with AsyncExitStack() as stack:
        if stopped != "worker":
            processes = ["--processes", "2"] if stopped == "child" else []
            service = await stack.enter_async_context(Served(*registry_flags(folder), *common, *processes))
            yield service, service.process.pid if stopped == "service" else _child_of(service.process.pid)
            return
        redis = stack.enter_context(RedisServer())
        service = await stack.enter_async_context(Served("--redis", redis.url, *common))
        workers = []
        for _ in range(2):
            worker = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "crawler", "worker", "--redis", redis.url, *common, stdout=asyncio.subprocess.PIPE
            )
            stack.callback(worker.kill)
            assert worker.stdout is not None
            await worker.stdout.readline()
            workers.append(worker)
        yield service, workers[0].pid


def _child_of(pid: int) -> int:
    pids = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return next(
        int(child) for child in pids if b"crawler.distributed.child" in Path(f"/proc/{child}/cmdline").read_bytes()
    )


async def run_pause(stopped: Stopped, seconds: float, hosts: int = 60) -> Report:
    """Stop a process for a while during a Task, and report what became of the targets."""
    with tempfile.TemporaryDirectory() as folder:
        async with Targets(hosts) as targets, _service(stopped, Path(folder)) as (service, pid):
            began = time.monotonic()
            task_id = await submit_to(service, *targets.urls)
            await asyncio.sleep(_ANSWER_SECONDS / 2)
            os.kill(pid, signal.SIGSTOP)
            try:
                await asyncio.sleep(seconds)
            finally:
                with suppress(ProcessLookupError):  # its parent has replaced it
                    os.kill(pid, signal.SIGCONT)
            async with asyncio.timeout(240):
                while (await summary_of(service, task_id))["status"] == "running":
                    pass
            took = time.monotonic() - began
            results = await _results(service, task_id)
    verdicts = Counter(r["outcome"] if r["error"] is None else r["error"]["type"] for r in results)
    doubled = len(results) - len({r["seq"] for r in results})
    return Report(stopped, seconds, verdicts, doubled, took, targets.requests)


async def _results(service: Served, task_id: str) -> list[dict[str, Any]]:
    async with aiohttp.ClientSession() as session:
        path = f"{service.url}/api/v1/tasks/{task_id}/results"
        async with session.get(path, headers={"Accept": "application/x-ndjson"}) as response:
            lines = (await response.text()).splitlines()
    return [json.loads(line) for line in lines]


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.pauses", description=__doc__.splitlines()[0])
    parser.add_argument("--stop", nargs="*", choices=get_args(Stopped), default=get_args(Stopped))
    parser.add_argument("--seconds", nargs="*", type=float, default=SECONDS)
    given = parser.parse_args()
    is_good = True
    for stopped in given.stop:
        for seconds in given.seconds:
            report = uvloop.run(run_pause(stopped, seconds))
            print(report, flush=True)
            is_good &= not report.wrong and not report.doubled
    return 0 if is_good else 1


if __name__ == "__main__":
    raise SystemExit(main())
