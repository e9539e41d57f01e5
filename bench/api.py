"""Compare the API with a minimal aiohttp application that returns the same JSON: requests per second and latency.

    python -m bench.api             # wrk against both in turn
    python -m bench.api --memory    # memory after each 100,000 of a million requests of all kinds

The service runs on one core, with its Tasks in SQLite on disk; wrk or the client runs on another.
"""

import argparse
import json
import os
import re
import socket
import sqlite3
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import aiohttp
import uvloop

from bench import soak
from bench.minimal_app import ANSWERS
from bench.service import Process, service
from crawler.stores.sqlite.connection import connect, transaction

CONNECTIONS: Final = "-c16"
WRK: Final = ["wrk", "-t1", "--latency", "--timeout", "30s"]
TASK_LINES: Final = 1_000  # of the Task whose results are read
FLAGS: Final = ["--log-level", "warning", "--concurrency", "1", "--timeout", "3600", "--max-tasks", "1000000"]
POST: Final = 'wrk.method = "POST"\nwrk.body = %s\nwrk.headers["Content-Type"] = "application/json"\n'


class Run(NamedTuple):
    """A run of wrk: requests per second, and latencies in milliseconds."""

    rate: float
    p50: float
    p99: float


async def measure(rounds: int, seconds: int) -> dict[str, dict[str, list[Run]]]:
    """Send every kind of request to both applications in turn."""
    runs: dict[str, dict[str, list[Run]]] = {}
    with tempfile.TemporaryDirectory() as name, socket.create_server(("127.0.0.1", 0)) as silent:
        folder = Path(name)
        script = folder / "submit.lua"
        # A host that never answers: submitted URLs wait, and their probes cost nothing.
        port = silent.getsockname()[1]
        urls = [f"http://127.0.0.1:{port}/some/page/{number}" for number in range(10)]
        script.write_text(POST % json.dumps(json.dumps({"urls": urls})))
        for turn in range(rounds):
            (folder / str(turn)).mkdir()  # a new store each round: the Tasks of the last round still run
            async with service(folder / str(turn), *FLAGS) as ours:
                task = await prepare_tasks(ours.url, folder)
                async with Process("-m", "bench.minimal_app", name) as minimal:
                    for title, path, more in (
                        ("GET /tasks/{id}", f"/tasks/{task['one']}", [CONNECTIONS]),
                        ("GET /api/v1/tasks/{id}", f"/api/v1/tasks/{task['one']}", [CONNECTIONS]),
                        ("GET .../results?limit=100", f"/api/v1/tasks/{task['all']}/results?limit=100", [CONNECTIONS]),
                        ("POST /submit, 10 URLs", "/submit", [CONNECTIONS, "-s", str(script)]),
                        ("the same, one at a time", "/submit", ["-c1", "-s", str(script)]),
                    ):
                        sides = [("ours", ours.url), ("bare", minimal.url)]
                        for side, url in sides if turn % 2 else reversed(sides):
                            run = wrk(url + path, seconds, more)
                            runs.setdefault(title, {}).setdefault(side, []).append(run)
    return runs


async def prepare_tasks(url: str, folder: Path) -> dict[str, str]:
    """Submit a small and a large Task, save the answers for the minimal application, and return the ids."""
    ids = {}
    async with aiohttp.ClientSession(url) as session:
        for name, lines in (("one", 10), ("all", TASK_LINES)):
            body = {"urls": [f"no url, of some length as they have it {number}" for number in range(lines)]}
            async with session.post("/submit", json=body) as response:
                ids[name] = (await response.json())["task_id"]
            async with session.get(f"/api/v1/tasks/{ids[name]}?wait=60") as response:
                assert (await response.json())["status"] == "ready"
        paths = (f"/tasks/{ids['one']}", f"/api/v1/tasks/{ids['one']}", f"/api/v1/tasks/{ids['all']}/results?limit=100")
        for file, path in zip(ANSWERS, paths, strict=True):
            async with session.get(path) as response:
                (folder / file).write_bytes(await response.read())
    return ids


def wrk(url: str, seconds: int, more: list[str]) -> Run:
    """Run wrk once; every answer must be 2xx."""
    done = subprocess.run([*WRK, f"-d{seconds}s", *more, url], capture_output=True, text=True, check=True)
    assert "Non-2xx" not in done.stdout and "Socket errors" not in done.stdout, done.stdout
    rate = re.search(r"Requests/sec: +([\d.]+)", done.stdout)
    parts = dict(re.findall(r"(50|99)% +([\d.]+[mu]?s)", done.stdout))
    assert rate, done.stdout
    return Run(float(rate[1]), milliseconds(parts["50"]), milliseconds(parts["99"]))


def milliseconds(text: str) -> float:
    """Parse a duration as wrk writes it, such as `1.50ms`."""
    number, unit = re.fullmatch(r"([\d.]+)([mu]?s)", text).groups()  # type: ignore[union-attr]
    return float(number) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[unit]


def measure_commits(count: int = 500) -> tuple[float, float]:
    """Return the median milliseconds of a small SQLite transaction: of a durable one, and of one without a sync."""

    def median(connection: sqlite3.Connection, *, durable: bool) -> float:
        times = []
        for number in range(count):
            began = time.perf_counter()
            with transaction(connection, durable=durable):
                connection.execute("INSERT INTO some VALUES (?, 'https://example.org/some/page')", (number,))
            times.append(time.perf_counter() - began)
        return statistics.median(times) * 1000

    with tempfile.TemporaryDirectory() as folder:
        connection = connect(Path(folder) / "some.db", create=True)
        connection.execute("CREATE TABLE some (number, text)")
        runs = median(connection, durable=True), median(connection, durable=False)
        connection.close()
    return runs


def report(runs: dict[str, dict[str, list[Run]]]) -> Iterator[str]:
    """Yield the lines of a table: medians over the rounds, and the ratio within a round with its range."""
    yield f"{'':26}{'ours/s':>8}{'p50 ms':>8}{'p99 ms':>8}{'bare/s':>9}{'p50 ms':>8}{'p99 ms':>8}   bare/ours"
    for title, sides in runs.items():
        cells = [
            f"{statistics.median(run[place] for run in sides[side]):8.{digits}f}"
            for side in ("ours", "bare")
            for place, digits in ((0, 0), (1, 2), (2, 2))
        ]
        ratios = sorted(bare.rate / ours.rate for ours, bare in zip(sides["ours"], sides["bare"], strict=True))
        spread = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f}-{ratios[-1]:.2f})"
        yield f"{title:26}{''.join(cells[:3])} {''.join(cells[3:])}   {spread}"
    durable, other = measure_commits()
    yield f"a commit: durable {durable:.2f} ms, without a sync {other:.2f} ms"


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.api", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5, help="of each run of wrk")
    parser.add_argument("--memory", action="store_true", help="send a million requests of all kinds instead")
    parser.add_argument("--requests", type=int, default=1_000_000, help="number of requests with --memory")
    given = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # the other core
    if given.memory:
        uvloop.run(soak.run(given.requests))
    else:
        print("\n".join(report(uvloop.run(measure(given.rounds, given.seconds)))))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
