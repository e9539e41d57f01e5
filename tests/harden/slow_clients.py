"""slowhttptest (https://github.com/shekyan/slowhttptest) against the service, which serves other clients meanwhile."""

import asyncio
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest
from aiohttp import ClientSession, ClientTimeout, TCPConnector

SLOW: Final = Path("/usr/bin/slowhttptest")
CONNECTIONS: Final = 300  # the limit of the service; the tool opens 1,000
ATTACK: Final = ["-c", "1000", "-r", "200", "-l", "25"]
EVERY: Final = 0.1  # seconds between two requests of the well-behaved client
BOUND: Final = 2.0  # seconds that a response may take; with a free connection it takes milliseconds

# The modes of the tool, with their paths: slow heads, slow bodies, ranges of a file, a file that is not read.
MODES: Final = {
    "slow heads": (["-H", "-i", "5"], "/tasks"),
    "slow bodies": (["-B", "-i", "5", "-s", "8192"], "/submit"),
    "ranges": (["-R"], "/docs/swagger-ui-bundle.js"),
    "slow reading": (["-X", "-w", "1", "-y", "512", "-n", "3", "-z", "16", "-k", "3"], "/docs/swagger-ui-bundle.js"),
}


@asynccontextmanager
async def service(folder: Path) -> AsyncIterator[tuple[str, int]]:
    """The command as users run it; gives its URL and its process. It must not print an error."""
    log = folder / "log"
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "crawler", "--port", "0", "--max-connections", str(CONNECTIONS)),
            *("--registry", f"sqlite:///{folder}/tasks.db"),
            stdout=asyncio.subprocess.PIPE,
            stderr=file,
        )
    assert process.stdout is not None
    try:
        yield (await process.stdout.readline()).decode().split()[3].rstrip("."), process.pid
    finally:
        process.terminate()
        await process.wait()
    assert process.returncode == 0
    assert [line for line in log.read_text().splitlines() if line.split()[1] != "info"] == []


async def asked(url: str) -> float:
    """Submit on one connection, and read the Task on another; gives the longer time of both, in seconds."""
    slowest = 0.0
    path, body = "/submit", b'{"urls": ["no url"]}'
    for method in ("POST", "GET"):
        began = time.perf_counter()
        connector = TCPConnector(force_close=True)
        async with (
            ClientSession(url, connector=connector, timeout=ClientTimeout(BOUND)) as session,
            session.request(method, path, data=body if method == "POST" else None) as response,
        ):
            assert response.status == 200, await response.text()
            found = await response.json()
        slowest = max(slowest, time.perf_counter() - began)
        path = f"/tasks/{found.get('task_id')}"
    return slowest


def resident(pid: int) -> int:
    """The memory of a process, in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS:")).split()[1]) // 1024


@pytest.mark.timeout(120)
@pytest.mark.parametrize("mode", MODES)
async def test_slow_clients_do_not_block_other_clients(
    mode: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if not SLOW.exists():
        pytest.fail("`make harden` fetches slowhttptest")
    flags, path = MODES[mode]
    async with service(tmp_path) as (url, pid):
        attack = await asyncio.create_subprocess_exec(
            *(str(SLOW), *flags, *ATTACK, "-u", url + path),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        ended = asyncio.ensure_future(attack.communicate())
        times = []
        while not ended.done():
            times.append(await asked(url))
            await asyncio.sleep(EVERY)
        output, _ = await ended
        memory = resident(pid)
    assert b"service available:" in output, output.decode()
    p99 = statistics.quantiles(times, n=100, method="inclusive")[98]
    with capsys.disabled():
        print(
            f"\n{mode}: {len(times)} requests and submits, p50 {statistics.median(times) * 1000:.0f}, "
            f"p99 {p99 * 1000:.0f}, at most {max(times) * 1000:.0f} ms; {memory} MiB"
        )
