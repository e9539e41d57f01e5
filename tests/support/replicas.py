"""Two services with one Redis behind a real proxy with the shipped files, and clients that keep asking."""

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

from tests.server.test_proxied import pem
from tests.support.fleet import worker_process
from tests.support.process import Caller, Reply, Served, field, request
from tests.support.shipped import proxy
from tests.support.site import Site
from tests.support.webserver import DEADLINE_SECONDS

SECRET: Final = "a-secret-of-the-tests"
AUTHORIZATION: Final = f"Bearer {SECRET}"


class Fleet:
    """Services with one Redis, and what clients see of them.

    Attributes:
        services: They, as they run now.
        proxy: The port of the proxy, and what clients trust.
        asked: Requests that clients made, by what they are.
        failures: What came of those that failed.
        submitted: Ids of the Tasks that clients were told.
    """

    proxy: tuple[int, ssl.SSLContext]

    def __init__(self, redis: str, stack: AsyncExitStack) -> None:
        self._flags = ("--redis", redis, "--forwarded-allow", "127.0.0.0/8", "--log-level", "warning")
        self._stack = stack
        self.services: list[Served] = []
        self.asked: Counter[str] = Counter()
        self.failures: list[str] = []
        self.submitted: list[str] = []

    async def start(self, port: int = 0) -> Served:
        """One more service."""
        service = Served(*self._flags, port=port, environment={"CRAWLER_TOKEN": f"tests:{SECRET}"})
        return await self._stack.enter_async_context(service)

    async def restart(self, number: int) -> None:
        """Stop one as a supervisor does, and start it again on its port."""
        service = self.services[number]
        service.process.send_signal(signal.SIGTERM)
        assert await service.process.wait() == 0
        self.services[number] = await self.start(service.port)

    async def connect(self) -> Caller:
        """A connection to the proxy."""
        port, trust = self.proxy
        return Caller(*await asyncio.open_connection("127.0.0.1", port, ssl=trust, server_hostname="localhost"))

    async def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> Reply:
        """One request on a connection of its own."""
        caller = await self.connect()
        try:
            await caller.send(request(method, path, body, Authorization=AUTHORIZATION, **headers))
            return await caller.reply()
        finally:
            await caller.close()

    @asynccontextmanager
    async def load(self, clients: int, url: str) -> AsyncIterator[None]:
        """So many clients ask without a pause, each on a connection that it keeps, and submit this URL."""
        over = asyncio.Event()
        working = [asyncio.ensure_future(self._client(url, over)) for _ in range(clients)]
        try:
            yield
        finally:
            over.set()
            await asyncio.gather(*working)

    async def _client(self, url: str, over: asyncio.Event) -> None:
        caller, task = await self.connect(), ""
        batch = json.dumps({"urls": [url]}).encode()
        while not over.is_set():
            for kind, head, body in (
                ("submit", "POST /submit", batch),
                ("submit", "POST /api/v1/tasks", batch),
                ("wait", "GET /api/v1/tasks/{}?wait=0.2", b""),
                ("look", "GET /api/v1/tasks/{}", b""),
                ("look", "GET /api/v1/tasks/{}", b""),
            ):
                method, _, path = head.format(task).partition(" ")
                reply = await self._answer(caller, kind, method, path, body)
                self.asked[kind] += 1
                if reply is not None and method == "POST":
                    told = json.loads(reply.body)
                    task = told.get("id") or told["task_id"]
                    self.submitted.append(task)
                if reply is None or field(reply.head, b"connection") == b"close":  # nginx ends it after 1,000 requests
                    await caller.close()
                    caller = await self.connect()
        await caller.close()

    async def _answer(self, caller: Caller, kind: str, method: str, path: str, body: bytes) -> Reply | None:
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


def certified(scratch: Path) -> tuple[str, ssl.SSLContext]:
    """A certificate with its key, for localhost, and who trusts it."""
    authority, trust = trustme.CA(), ssl.create_default_context()
    authority.configure_trust(trust)
    return pem(authority, scratch), trust


@asynccontextmanager
async def behind(name: str, scratch: Path, redis: str) -> AsyncIterator[Fleet]:
    """Two services and a worker with this Redis, behind the proxy of this name."""
    certificate, trust = certified(scratch)
    async with worker_process(redis, "--log-level", "warning"), AsyncExitStack() as stack:
        fleet = Fleet(redis, stack)
        fleet.services = [await fleet.start(), await fleet.start()]
        ports = [service.port for service in fleet.services]
        fleet.proxy = stack.enter_context(proxy(name, scratch, ports, certificate)), trust
        await begun(*fleet.proxy)
        yield fleet


async def begun(port: int, trust: ssl.SSLContext) -> None:
    """Wait until a proxy listens, and has read all that it was given."""
    until = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < until:
        with suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust, server_hostname="localhost")
            writer.write(request("GET", "/healthz", Connection="close"))
            answer = await reader.read()
            writer.close()
            if answer.startswith(b"HTTP/1.1 200 "):
                return
        await asyncio.sleep(0.02)
    raise AssertionError("the proxy does not begin")


async def restarted_under_load(fleet: Fleet, site: Site, rounds: int) -> None:
    """Restart both in turn while clients ask, who may see nothing of it: no failure, and each Task once."""
    site.on("/here", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    async with fleet.load(4, site.url("/here")):
        for number in range(rounds):
            before = sum(fleet.asked.values())
            await fleet.restart(number % len(fleet.services))
            assert sum(fleet.asked.values()) > before
    assert fleet.failures == []
    assert fleet.submitted
    while running := await _tasks(fleet, "running"):
        await fleet.ask("GET", f"/api/v1/tasks/{running[0]}?wait=30")
    assert Counter(await _tasks(fleet, "ready")) == Counter(fleet.submitted)


async def _tasks(fleet: Fleet, status: str) -> list[str]:
    found: list[str] = []
    path = f"/api/v1/tasks?status={status}&limit=1000"
    cursor = ""
    while True:
        reply = await fleet.ask("GET", path + cursor)
        assert reply.status == 200, reply
        page = json.loads(reply.body)
        found += [task["id"] for task in page["tasks"]]
        if page["next"] is None:
            return found
        cursor = f"&cursor={page['next']}"
