"""Two services with one Redis behind a real proxy with the shipped files, and clients that send requests to them."""

import asyncio
import json
import signal
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import trustme

from tests.support.certs import write_combined_pem
from tests.support.fleet import worker_process
from tests.support.process import Caller, Reply, Served, field, request
from tests.support.shipped import run_proxy
from tests.support.site import Site
from tests.support.webserver import DEADLINE_SECONDS

SECRET: Final = "a-secret-of-the-tests"
AUTHORIZATION: Final = f"Bearer {SECRET}"


class ProxiedFleet:
    """Services with one Redis, and what their clients see.

    Attributes:
        services: The processes that run now.
        proxy: The port of the proxy, and the TLS context of its clients.
        requests: How many requests the clients of `load` have made, by kind.
        failures: A description of each of these that failed.
        submitted: The ids of the Tasks that were acknowledged to these clients.
    """

    proxy: tuple[int, ssl.SSLContext]

    def __init__(self, redis: str, stack: AsyncExitStack) -> None:
        self._flags = ("--redis", redis, "--forwarded-allow", "127.0.0.0/8", "--log-level", "warning")
        self._stack = stack
        self.services: list[Served] = []
        self.requests: Counter[str] = Counter()
        self.failures: list[str] = []
        self.submitted: list[str] = []

    async def start(self, port: int = 0) -> Served:
        """Start one more service."""
        service = Served(*self._flags, port=port, environment={"CRAWLER_TOKEN": f"tests:{SECRET}"})
        return await self._stack.enter_async_context(service)

    async def restart(self, number: int) -> None:
        """Stop a service with SIGTERM, as a supervisor does, and start it again on its port."""
        service = self.services[number]
        service.process.send_signal(signal.SIGTERM)
        assert await service.process.wait() == 0
        self.services[number] = await self.start(service.port)

    async def connect(self) -> Caller:
        """Connect to the proxy."""
        port, trust = self.proxy
        return Caller(*await asyncio.open_connection("127.0.0.1", port, ssl=trust, server_hostname="localhost"))

    async def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> Reply:
        """Send one request on a connection of its own."""
        caller = await self.connect()
        try:
            await caller.send(request(method, path, body, Authorization=AUTHORIZATION, **headers))
            return await caller.reply()
        finally:
            await caller.close()

    @asynccontextmanager
    async def load(self, clients: int, url: str) -> AsyncIterator[None]:
        """While the context lasts, clients submit this URL and read Tasks without a pause, each on one connection."""
        is_over = asyncio.Event()
        running = [asyncio.ensure_future(self._run_client(url, is_over)) for _ in range(clients)]
        try:
            yield
        finally:
            is_over.set()
            await asyncio.gather(*running)

    async def _run_client(self, url: str, is_over: asyncio.Event) -> None:
        caller, task = await self.connect(), ""
        batch = json.dumps({"urls": [url]}).encode()
        while not is_over.is_set():
            for kind, head, body in (
                ("submit", "POST /submit", batch),
                ("submit", "POST /api/v1/tasks", batch),
                ("wait", "GET /api/v1/tasks/{}?wait=0.2", b""),
                ("read", "GET /api/v1/tasks/{}", b""),
                ("read", "GET /api/v1/tasks/{}", b""),
            ):
                method, _, path = head.format(task).partition(" ")
                reply = await self._send(caller, kind, method, path, body)
                self.requests[kind] += 1
                if reply is not None and method == "POST":
                    answer = json.loads(reply.body)
                    task = answer.get("id") or answer["task_id"]
                    self.submitted.append(task)
                if reply is None or field(reply.head, b"connection") == b"close":  # nginx closes after 1,000 requests
                    await caller.close()
                    caller = await self.connect()
        await caller.close()

    async def _send(self, caller: Caller, kind: str, method: str, path: str, body: bytes) -> Reply | None:
        headers = {"Authorization": AUTHORIZATION, "Content_Type": "application/json"}
        try:
            await caller.send(request(method, path, body, **headers))
            reply = await caller.reply()
        except (EOFError, OSError) as error:
            self.failures.append(f"{kind}: {error!r}")
            return None
        if reply.status >= 400:
            self.failures.append(f"{kind}: {reply}")
            return None
        return reply


def make_certificate(folder: Path) -> tuple[str, ssl.SSLContext]:
    """Write a certificate for localhost with its key; returns the path, and a TLS context that trusts it."""
    authority, trust = trustme.CA(), ssl.create_default_context()
    authority.configure_trust(trust)
    return write_combined_pem(authority, folder), trust


@asynccontextmanager
async def fleet_behind(name: str, folder: Path, redis: str) -> AsyncIterator[ProxiedFleet]:
    """Run two services and a worker process with this Redis behind the proxy of this name."""
    certificate, trust = make_certificate(folder)
    async with worker_process(redis, "--log-level", "warning"), AsyncExitStack() as stack:
        fleet = ProxiedFleet(redis, stack)
        fleet.services = [await fleet.start(), await fleet.start()]
        ports = [service.port for service in fleet.services]
        fleet.proxy = stack.enter_context(run_proxy(name, folder, ports, certificate)), trust
        await wait_for_proxy(*fleet.proxy)
        yield fleet


async def wait_for_proxy(port: int, trust: ssl.SSLContext) -> None:
    """Wait until a proxy passes requests on."""
    deadline, answer = time.monotonic() + 3 * DEADLINE_SECONDS, b""
    while time.monotonic() < deadline:
        with suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust, server_hostname="localhost")
            writer.write(request("GET", "/healthz", Connection="close"))
            answer = await reader.read()
            writer.close()
            if answer.startswith(b"HTTP/1.1 200 "):
                return
        await asyncio.sleep(0.02)
    raise AssertionError(f"the proxy does not answer with 200, but with {answer[:2000]!r}")


async def restart_under_load(fleet: ProxiedFleet, site: Site, rounds: int) -> None:
    """Restart the services in turn while clients send requests: no request may fail, and each Task is there once."""
    site.on("/here", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    async with fleet.load(4, site.url("/here")):
        for number in range(rounds):
            before = fleet.requests.total()
            await fleet.restart(number % len(fleet.services))
            assert fleet.requests.total() > before
    assert fleet.failures == []
    assert fleet.submitted
    while running := await _task_ids(fleet, "running"):
        await fleet.ask("GET", f"/api/v1/tasks/{running[0]}?wait=30")
    assert Counter(await _task_ids(fleet, "ready")) == Counter(fleet.submitted)


async def _task_ids(fleet: ProxiedFleet, status: str) -> list[str]:
    ids: list[str] = []
    path = f"/api/v1/tasks?status={status}&limit=1000"
    cursor = ""
    while True:
        reply = await fleet.ask("GET", path + cursor)
        assert reply.status == 200, reply
        page = json.loads(reply.body)
        ids += [task["id"] for task in page["tasks"]]
        if page["next"] is None:
            return ids
        cursor = f"&cursor={page['next']}"
