"""Send a service requests of all kinds for a long time, and print its memory after each tenth of them."""

import asyncio
import itertools
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from bench.service import service

__all__ = ["run"]

CLIENTS: Final = 16
TENTHS: Final = 10
# A new address of 127/8 each time, so that memory kept for each host shows; nothing listens there.
URL: Final = "http://127.%d.%d.%d:1/"


class Client:
    """A client with one connection that does little work per request, to leave the CPU to the service."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """Send a request, and return the status and the body of the response."""
        length = b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body) if body else b""
        self._writer.write(
            b"%s %s HTTP/1.1\r\nHost: localhost\r\n%s\r\n" % (method.encode(), path.encode(), length) + body
        )
        head = await self._reader.readuntil(b"\r\n\r\n")
        status, lower = int(head[9:12]), head.lower()
        if b"transfer-encoding: chunked" in lower:
            return status, await self._reader.readuntil(b"0\r\n\r\n")  # JSON has no such lines
        _, found, rest = lower.partition(b"content-length: ")
        return status, await self._reader.readexactly(int(rest.partition(b"\r\n")[0])) if found else b""

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()


async def run(requests: int) -> None:
    """Send requests and print the figures."""
    with tempfile.TemporaryDirectory() as folder:
        async with service(Path(folder), "--log-level", "warning") as process:
            port = int(process.url.rpartition(":")[2])
            clients = [Client(*await asyncio.open_connection("127.0.0.1", port)) for _ in range(CLIENTS)]
            kept = await submit(clients[0], [f"no url {number}" for number in range(100)])
            numbers: Iterator[int] = itertools.count()
            seen: Counter[int] = Counter()
            began = time.monotonic()
            print(f"{'requests':>10} {'MiB':>6} {'seconds':>8} {'CPU s':>7}")
            print(f"{0:10,} {process.rss:6.1f} {0:8.0f} {process.cpu:7.1f}", flush=True)
            for tenth in range(1, TENTHS + 1):
                until = requests * tenth // TENTHS
                await asyncio.gather(*(send_requests(client, kept, numbers, seen, until) for client in clients))
                line = f"{seen.total():10,} {process.rss:6.1f} {time.monotonic() - began:8.0f} {process.cpu:7.1f}"
                print(line, flush=True)
            print("answers by status:", dict(sorted(seen.items())))
            for client in clients:
                client.close()


async def submit(client: Client, urls: list[str]) -> str:
    """Submit URLs and return the id of the Task."""
    status, body = await client.ask("POST", "/submit", msgspec.json.encode({"urls": urls}))
    assert status == 200, body
    found: str = msgspec.json.decode(body)["task_id"]
    return found


async def send_requests(client: Client, kept: str, numbers: Iterator[int], seen: Counter[int], until: int) -> None:
    """Send requests of all kinds in turn until `until` responses were counted."""

    async def send(expected: int, method: str, path: str, body: bytes = b"") -> None:
        status, answer = await client.ask(method, path, body)
        assert status == expected, (method, path, status, answer)
        seen[status] += 1

    async def submit_and_delete(number: int) -> None:
        task = await submit(client, [URL % (number >> 16 & 255, number >> 8 & 255, number & 255)])
        seen[200] += 1
        await send(204, "DELETE", f"/tasks/{task}")

    kinds: list[Callable[[int], Awaitable[None]]] = [
        submit_and_delete,
        lambda _: send(200, "GET", f"/tasks/{kept}"),
        lambda _: send(200, "GET", f"/api/v1/tasks/{kept}"),
        lambda _: send(200, "GET", f"/api/v1/tasks/{kept}/results?limit=10"),
        lambda number: send(404, "GET", f"/tasks/{number}"),
        lambda number: send(404, "GET", f"/nowhere/{number}"),
        lambda number: send(400, "POST", "/submit", b'{"urls": ["%d' % number),
        lambda number: send(422, "POST", "/api/v1/tasks", b'{"urls": [%d]}' % number),
    ]
    while seen.total() < until:
        number = next(numbers)
        await kinds[number % len(kinds)](number)
