"""One client or target tries to use up a service, while the Task of a neighbour has to get its true results.

    python -m tests.harden.neighbours            # all attacks
    python -m tests.harden.neighbours gzip       # those whose name begins so

Each attack gets a service process of its own. Meanwhile a neighbour probes 60 healthy targets, and asks `/healthz` all
the time. The report has the slowest answer to that, how many of the 60 were not ok, and the memory of the process.
"""

import argparse
import asyncio
import contextlib
import gzip
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import aiohttp
import uvloop

from crawler.runtime.cancellation import cancel_and_wait
from tests.support.exchange import Exchange
from tests.support.site import Site

NEIGHBOURS: Final = 60
PROBE_SECONDS: Final = 10  # the timeout of the neighbour's probes, each of which takes a millisecond
MAX_ANSWER_SECONDS: Final = 1.0
MAX_BYTES: Final = 300 * 2**20  # of the process
LONG: Final = 60_000  # characters of a long path
MIB: Final = 2**20


class Report(NamedTuple):
    """What an attack did to others."""

    attack: str
    slowest_answer: float
    failed_neighbours: int
    rss_bytes: int
    outcome: str

    @property
    def is_good(self) -> bool:
        """Whether no neighbour noticed it."""
        return self.failed_neighbours == 0 and self.slowest_answer < MAX_ANSWER_SECONDS and self.rss_bytes < MAX_BYTES

    def __str__(self) -> str:
        return (
            f"{self.attack:24} slowest answer {self.slowest_answer:7.2f} s, {self.failed_neighbours:2} of {NEIGHBOURS}"
            f" neighbours failed, {self.rss_bytes / MIB:7.0f} MiB: {self.outcome}"
        )


class Victim:
    """A service that is attacked, and the site with the targets."""

    def __init__(self, url: str, site: Site, client: aiohttp.ClientSession) -> None:
        self.url = url
        self.site = site
        self.client = client

    async def post(self, path: str, body: bytes | AsyncIterator[bytes], type_: str, **headers: str) -> str:
        """Send a body. Return the status and the beginning of the answer, or how the connection ended."""
        try:
            async with self.client.post(
                self.url + path, data=body, headers={"Content-Type": type_, **headers}
            ) as response:
                return f"{response.status} {(await response.text())[:100]!r}"
        except aiohttp.ClientError as error:
            return type(error).__name__

    async def submit(self, urls: list[str], **members: Any) -> str:
        """Submit a Task; return its id."""
        async with self.client.post(f"{self.url}/api/v1/tasks", json={"urls": urls, **members}) as response:
            content = await response.json()
            assert response.status == 201, content
            return str(content["id"])

    async def end(self, task_id: str, seconds: float = 120.0) -> Any:
        """Wait for the end of a Task; return its summary."""
        until = time.monotonic() + seconds
        while True:
            async with self.client.get(f"{self.url}/api/v1/tasks/{task_id}?wait=5") as response:
                summary = await response.json()
            if summary["status"] != "running" or time.monotonic() > until:
                return summary


Attack = Callable[[Victim], Awaitable[str]]
ATTACKS: Final[dict[str, Attack]] = {}


def attack(function: Attack) -> Attack:
    ATTACKS[function.__name__.replace("_", " ")] = function
    return function


def _packed(start: bytes, filler: bytes, size: int) -> bytes:
    return gzip.compress(start) + gzip.compress(filler * (size // len(filler)), 9)


async def _trickle(body: bytes, pieces: int = 64) -> AsyncIterator[bytes]:
    """The body without a Content-Length."""
    for start in range(0, len(body), max(1, len(body) // pieces)):
        yield body[start : start + max(1, len(body) // pieces)]


# --- Loop time ---


@attack
async def gzip_of_newlines_as_csv(victim: Victim) -> str:
    body = await asyncio.to_thread(_packed, b"url\nhttp://127.0.0.1:1/\n", b"\n", 255 * MIB)
    return await victim.post("/api/v1/tasks", body, "text/csv", **{"Content-Encoding": "gzip"})


@attack
async def gzip_of_newlines_as_text(victim: Victim) -> str:
    body = await asyncio.to_thread(_packed, b"http://127.0.0.1:1/\n", b"\n", 255 * MIB)
    return await victim.post("/api/v1/tasks", body, "text/plain", **{"Content-Encoding": "gzip"})


@attack
async def gzip_of_short_cells(victim: Victim) -> str:
    body = await asyncio.to_thread(_packed, b"url\n", b",\n", 8 * MIB)
    return await victim.post("/api/v1/tasks", body, "text/csv", **{"Content-Encoding": "gzip"})


@attack
async def gzip_of_empty_members(victim: Victim) -> str:
    member = gzip.compress(b"")
    body = gzip.compress(b"http://127.0.0.1:1/\n") + member * (400 * MIB // len(member))
    return await victim.post("/api/v1/tasks", _trickle(body, 4096), "text/plain", **{"Content-Encoding": "gzip"})


@attack
async def nested_ndjson(victim: Victim) -> str:
    line = b'{"url":"http://127.0.0.1:1/","x":[' + b"[]," * 300_000 + b"[]]}\n"
    return await victim.post("/api/v1/tasks", line * 200, "application/x-ndjson")


@attack
async def nested_members(victim: Victim) -> str:
    body = b'{"a":' + b"[" * MIB
    answers = await asyncio.gather(*(victim.post("/api/v1/tasks", body, "application/json") for _ in range(20)))
    return answers[0]


@attack
async def many_members(victim: Victim) -> str:
    body = b"{" + b'"a":1,' * 170_000
    answers = await asyncio.gather(*(victim.post("/api/v1/tasks", body, "application/json") for _ in range(20)))
    return answers[0]


@attack
async def wide_rows(victim: Victim) -> str:
    return await victim.post("/api/v1/tasks", b"url\n" + (b"," * (MIB - 9) + b"\n") * 100, "text/csv")


# --- robots.txt ---


def _serve_robots(site: Site, content: bytes) -> None:
    async def robots(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(content), content))

    site.on("/robots.txt", robots)


async def _obey(victim: Victim, content: bytes, path: str) -> str:
    _serve_robots(victim.site, content[: 500 * 1024])
    urls = [victim.site.url(path + str(number), host=f"127.0.1.{1 + number % 60}") for number in range(300)]
    task_id = await victim.submit(urls, options={"robots": True})
    summary = await victim.end(task_id)
    async with victim.client.get(f"{victim.url}/api/v1/tasks/{task_id}/results?outcome=failed&limit=1") as response:
        errors = [each["error"] for each in (await response.json())["results"]]
    return f"{summary['status']} {summary['counts']} {errors or ''}"


@attack
async def robots_of_wildcards(victim: Victim) -> str:
    rules = b"".join(b"Disallow: %s%d\n" % (b"*" * 480, number) for number in range(1100))
    return await _obey(victim, b"User-agent: *\n" + rules, "/?" + "a" * LONG)


@attack
async def robots_of_pieces(victim: Victim) -> str:
    rules = b"".join(b"Disallow: /*%s%d\n" % (b"a*" * 8000, number) for number in range(32))
    return await _obey(victim, b"User-agent: *\n" + rules, "/?" + "a" * LONG)


@attack
async def robots_and_odd_urls(victim: Victim) -> str:
    return await _obey(victim, b"User-agent: *\nDisallow: /b\n", "/?" + "'" + '"^`{}' * (LONG // 15))


# --- Records ---


def _serve_long_redirects(site: Site, hops: int) -> None:
    async def hop(exchange: Exchange) -> None:
        number = int(exchange.request.path.partition("?")[0].rpartition("/")[2] or 0)
        if number >= hops:
            await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        else:
            location = f"/far/{number + 1}?{'a' * LONG}"
            await exchange.send(f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode())

    for number in range(hops + 1):
        site.on(f"/far/{number}", hop)


@attack
async def long_redirects(victim: Victim) -> str:
    _serve_long_redirects(victim.site, 15)
    urls = [victim.site.url(f"/far/0?{number}", host=f"127.0.1.{1 + number % 60}") for number in range(1500)]
    task_id = await victim.submit(urls, options={"retries": 0})
    summary = await victim.end(task_id)
    sizes, position, status = [], "", 0
    for _ in range(100_000):
        async with victim.client.get(
            f"{victim.url}/api/v1/tasks/{task_id}/results?limit=1000{position and '&cursor=' + position}"
        ) as response:
            body, status = await response.read(), response.status
        sizes.append(len(body))
        if status != 200 or not (cursor := (await asyncio.to_thread(json.loads, body))["next"]):
            break
        position = cursor
    return (
        f"{summary['status']} {summary['counts']}, {sum(sizes) / len(urls) / 1024:.0f} KiB a record, "
        f"{len(sizes)} pages of {max(sizes) / MIB:.1f} MiB at most, the last with status {status}"
    )


@attack
async def long_lines(victim: Victim) -> str:
    urls = ["x:" + "a" * 1_000_000 for _ in range(200)]
    task_id = await victim.submit(urls)
    summary = await victim.end(task_id)
    async with victim.client.get(f"{victim.url}/api/v1/tasks/{task_id}/results?limit=1000") as response:
        body = await response.read()
    return f"{summary['status']} {summary['counts']}, a page of {len(body) / MIB:.1f} MiB"


@attack
async def slow_readers(victim: Victim) -> str:
    """300 clients ask for all results, and read nothing of them."""
    _serve_long_redirects(victim.site, 2)
    urls = [victim.site.url(f"/far/0?{number}", host=f"127.0.1.{1 + number % 60}") for number in range(1000)]
    task_id = await victim.submit(urls, options={"retries": 0})
    await victim.end(task_id)
    host, port = victim.url.removeprefix("http://").split(":")
    writers = []
    for number in range(300):
        _, writer = await asyncio.open_connection(host, int(port), limit=1)
        what = "events" if number % 2 else "results"
        writer.write(f"GET /api/v1/tasks/{task_id}/{what} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        writers.append(writer)
    await asyncio.sleep(5)
    for writer in writers:
        writer.close()
    return "300 readers for 5 s"


# --- Memory of Tasks ---


@attack
async def long_webhooks(victim: Victim) -> str:
    url = "http://127.0.0.1:1/" + "a" * LONG
    accepted, refused = 0, ""
    secret = "whsec_" + "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
    for _ in range(1000):
        async with victim.client.post(
            f"{victim.url}/api/v1/tasks", json={"urls": ["x"], "webhook": {"url": url, "secret": secret}}
        ) as response:
            accepted += response.status == 201
            refused = refused or (await response.text())[:120] * (response.status != 201)
    return f"{accepted} accepted; {refused}"


@attack
async def long_headers(victim: Victim) -> str:
    for number in range(1000):
        await victim.submit(["x"], options={"headers": {f"X-{number}": "a" * 31_000}})
    return "1,000 Tasks with headers of 31 KB"


# --- The measurement ---


def _rss(pid: int, name: str) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(name))


async def _neighbour(victim: Victim, answers: list[float]) -> int:
    """Probe healthy targets, and ask whether the service lives; return how many targets were not ok."""
    urls = [victim.site.url(f"/?{number}") for number in range(NEIGHBOURS)]
    options = {"timeout": PROBE_SECONDS, "retries": 0, "interval": 0.05}
    task_id = await victim.submit(urls, options=options)
    while True:
        began = time.perf_counter()
        async with victim.client.get(f"{victim.url}/api/v1/tasks/{task_id}") as response:
            summary = await response.json()
        answers.append(time.perf_counter() - began)
        if summary["status"] != "running":
            return NEIGHBOURS - int(summary["counts"]["ok"])
        await asyncio.sleep(0.02)


async def _ask(victim: Victim, answers: list[float]) -> None:
    while True:
        began = time.perf_counter()
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with victim.client.get(f"{victim.url}/healthz") as response:
                await response.read()
        answers.append(time.perf_counter() - began)
        await asyncio.sleep(0.02)


async def measure(name: str) -> Report:
    """Attack a new service, and report what others noticed."""
    with tempfile.TemporaryDirectory() as folder:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "crawler", "serve", "--port", "0", "--log-level", "error"),
            *("--registry", f"sqlite:///{folder}/tasks.db"),
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        url = (await process.stdout.readline()).decode().split()[3].rstrip(".")
        try:
            async with (
                Site(host="0.0.0.0") as site,
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(600)) as client,
            ):
                victim, answers = Victim(url, site, client), [0.0]
                asking = asyncio.ensure_future(_ask(victim, answers))
                attacking = asyncio.ensure_future(ATTACKS[name](victim))
                try:
                    await asyncio.sleep(0.1)
                    failed = await _neighbour(victim, answers)
                    outcome = await attacking
                    await asyncio.sleep(0.1)
                finally:
                    await cancel_and_wait(asking, attacking)
                return Report(name, max(answers), failed, _rss(process.pid, "VmHWM"), outcome)
        finally:
            process.kill()
            await process.wait()


def _chosen(names: list[str]) -> Iterator[str]:
    return (name for name in ATTACKS if not names or any(name.startswith(each) for each in names))


async def main(names: list[str]) -> bool:
    """Run attacks; return whether no neighbour noticed any."""
    is_good = True
    for name in _chosen(names):
        try:
            async with asyncio.timeout(300):
                report = await measure(name)
        except (TimeoutError, AssertionError, aiohttp.ClientError) as error:
            print(f"{name:24} {type(error).__name__}: {error}", flush=True)
            is_good = False
            continue
        print(report, flush=True)
        is_good = is_good and report.is_good
    return is_good


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    sys.exit(0 if uvloop.run(main(parser.parse_args().names)) else 1)
