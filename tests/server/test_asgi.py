"""What only the ASGI application does: its life, its mounts, its messages.

`tests/support/served.py` has the contract held.
"""

import asyncio
import json
import logging
import os
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web
from fastapi import FastAPI

import crawler
from crawler import Options, ServiceOptions, asgi
from crawler.asgi import AsgiApplication
from crawler.server.asgi_bridge import Message, Scope
from crawler.stores.sqlite.registry import SqliteRegistry
from tests.support.app_client import check_problem, open_app
from tests.support.served import served
from tests.support.site import Site


def scope_of(method: str = "GET", path: str = "/", query: str = "", **more: Any) -> Scope:
    return {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "headers": [(b"host", b"crawler.example")],
        "client": ("192.0.2.7", 4711),
        "server": ("192.0.2.1", 80),
        **more,
    }


class Peer:
    """An ASGI server with one request, whose body comes in pieces; the client leaves when `leave` is set."""

    def __init__(self, body: Iterable[bytes] = ()) -> None:
        self._body = iter(body)
        self.taken = 0
        self.sent: list[Message] = []
        self.may_send = asyncio.Event()
        self.may_send.set()
        self.leaves = asyncio.Event()
        self._at_end = False

    async def receive(self) -> Message:
        piece = next(self._body, None)
        if piece is None and self._at_end:
            await self.leaves.wait()
            return {"type": "http.disconnect"}
        self.taken += 1
        self._at_end = piece is None
        return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}

    async def send(self, message: Message) -> None:
        await self.may_send.wait()
        self.sent.append(message)

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)

    @property
    def has_ended(self) -> bool:
        return bool(self.sent) and self.sent[-1].get("more_body") is False


def application(handler: Any) -> AsgiApplication:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    return AsgiApplication(app)


async def ask(app: AsgiApplication, scope: Scope, body: Iterable[bytes] = ()) -> Peer:
    peer = Peer(body)
    async with asyncio.timeout(30):
        await app(scope, peer.receive, peer.send)
    return peer


# --- Messages ---


async def test_an_answer_is_a_head_and_a_body_and_nothing_that_the_server_adds() -> None:
    peer = await ask(asgi.create_app(), scope_of(path="/tasks"))
    assert [message["type"] for message in peer.sent] == ["http.response.start"] + ["http.response.body"] * 3
    assert {name for name, _ in peer.sent[0]["headers"]} == {b"content-type", b"x-request-id"}
    assert (peer.body, peer.has_ended) == (b"{}\n", True)


async def test_no_content_is_nothing_but_a_head() -> None:
    app = asgi.create_app()
    submitted = await ask(app, scope_of("POST", "/submit"), [b'{"urls": ', b'["x"]}'])
    peer = await ask(app, scope_of("DELETE", f"/tasks/{json.loads(submitted.body)['task_id']}"))
    assert peer.sent[0]["status"] == 204
    assert [name for name, _ in peer.sent[0]["headers"]] == [b"x-request-id"]
    assert (peer.body, peer.has_ended) == (b"", True)


async def test_a_request_is_as_the_server_saw_it() -> None:
    async def show(request: web.Request) -> web.Response:
        seen = [request.method, str(request.url), request.remote, request.headers["X-Two"]]
        return web.json_response([*seen, request.query["a"], request.match_info["path"]])

    headers = [(b"host", b"crawler.example:8080"), (b"x-two", "é".encode())]
    scope = scope_of("PUT", "/é%2f b", "a=%20%2b+", scheme="https", headers=headers)
    assert json.loads((await ask(application(show), scope)).body) == [
        "PUT",
        "https://crawler.example:8080/%C3%A9%252f%20b?a=%20%2b+",
        "192.0.2.7",
        "é",
        " + ",
        "é%2f b",
    ]


@pytest.mark.parametrize(
    ("path", "root", "status", "links"),
    [
        ("/api/v1/tasks", "", 200, "/api/v1/tasks"),
        ("/in/here/api/v1/tasks", "/in/here", 200, "/in/here/api/v1/tasks"),
        ("/api/v1/tasks", "/in", 200, "/in/api/v1/tasks"),  # in older versions of ASGI
        ("/in/api/v1/tasks", "/in/", 200, "/in/api/v1/tasks"),
        ("/a b/api/v1/tasks", "/a b", 200, "/a%20b/api/v1/tasks"),
        ("/api/v1/tasks/", "", 308, "/api/v1/tasks"),
        ("/in/api/v1/tasks/", "/in", 308, "/in/api/v1/tasks"),
        ("/in", "/in", 404, ""),
        ("/", "", 404, ""),
        ("", "", 404, ""),
        ("//api/v1/tasks", "", 404, ""),
        ("/api/v1/tasks", "/a", 200, "/a/api/v1/tasks"),
        ("/\x00\ufffd/../%", "", 404, ""),
        ("*", "", 404, ""),
    ],
)
async def test_paths_below_the_mount(path: str, root: str, status: int, links: str) -> None:
    app = asgi.create_app()
    for _ in range(2):
        await ask(app, scope_of("POST", "/submit"), [b'{"urls": ["x"]}'])
    peer = await ask(app, scope_of(path=path, root_path=root, query="limit=1"))
    assert peer.sent[0]["status"] == status
    headers = dict(peer.sent[0]["headers"])
    if status == 404:
        assert headers[b"content-type"] == b"application/problem+json"
    elif status == 308:
        assert headers[b"location"] == f"{links}?limit=1".encode()
    else:
        [task] = json.loads(peer.body)["tasks"]
        assert task["links"]["self"] == f"{links}/{task['id']}"
        assert headers[b"link"].startswith(f"<{links}?limit=1&cursor=".encode())


async def test_a_body_is_received_no_faster_than_it_is_read() -> None:
    begin, sizes = asyncio.Event(), []

    async def read(request: web.Request) -> web.Response:
        await begin.wait()
        async for chunk in request.content.iter_any():
            sizes.append(len(chunk))
            assert peer.taken <= sum(sizes) // 1000 + 200
        return web.Response()

    peer = Peer([b"x" * 1000] * 20_000)
    answering = asyncio.ensure_future(application(read)(scope_of("POST"), peer.receive, peer.send))
    for _ in range(1000):
        await asyncio.sleep(0)
    assert 100 < peer.taken < 200
    begin.set()
    await answering
    assert sum(sizes) == 20_000_000


async def test_an_answer_is_made_no_faster_than_the_client_reads() -> None:
    made = 0

    async def write(request: web.Request) -> web.StreamResponse:
        nonlocal made
        response = web.StreamResponse()
        await response.prepare(request)
        while made < 100:
            await response.write(b"x")
            made += 1
        return response

    peer = Peer()
    peer.may_send.clear()
    answering = asyncio.ensure_future(application(write)(scope_of(), peer.receive, peer.send))
    for _ in range(1000):
        await asyncio.sleep(0)
    assert made == 0
    peer.may_send.set()
    await answering
    assert (made, peer.body) == (100, b"x" * 100)


async def test_each_piece_is_sent_at_once() -> None:
    async def write(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        assert [message["type"] for message in peer.sent] == ["http.response.start"]
        await response.write(b"1")
        assert peer.body == b"1"
        return response

    peer, others = Peer(), asyncio.all_tasks()
    await application(write)(scope_of(), peer.receive, peer.send)
    assert peer.has_ended
    assert len(asyncio.all_tasks() - others) == 1  # the application itself; the task that receives the body has ended


async def test_a_client_that_disconnects_during_an_answer_gets_no_more_of_it() -> None:
    async def write(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        peer.leaves.set()
        while True:
            await response.write(b"x")
            await asyncio.sleep(0)

    peer = Peer()
    async with asyncio.timeout(30):
        await application(write)(scope_of(), peer.receive, peer.send)
    assert not peer.has_ended


async def test_a_server_may_report_a_disconnect_by_an_error() -> None:
    async def send(message: Message) -> None:
        raise OSError("gone")

    await asgi.create_app()(scope_of(path="/tasks"), Peer().receive, send)


async def test_an_answer_that_is_cut_off_has_no_end() -> None:
    async def write(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"half")
        assert request.transport is not None
        request.transport.abort()
        return response

    peer = await ask(application(write), scope_of())
    assert (peer.body, peer.has_ended) == (b"half", False)


async def test_a_client_that_disconnects_during_its_body_makes_no_task(caplog: pytest.LogCaptureFixture) -> None:
    inner = open_app()

    async def receive() -> Message:
        return messages.pop(0)

    messages: list[Message] = [
        {"type": "http.request", "body": b'{"urls": ["x"', "more_body": True},
        {"type": "http.disconnect"},
    ]
    peer = Peer()
    await AsgiApplication(inner)(scope_of("POST", "/submit"), receive, peer.send)
    assert (peer.sent, len(inner[crawler.TASKS]), caplog.records) == ([], 0, [])


async def test_an_exchange_that_the_server_cancels_ends() -> None:
    begun = asyncio.Event()

    async def hang(request: web.Request) -> web.Response:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    peer = Peer()
    answering = asyncio.ensure_future(application(hang)(scope_of(), peer.receive, peer.send))
    await begun.wait()
    answering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await answering


async def test_a_redirect_that_is_raised_is_an_answer() -> None:
    async def redirect(request: web.Request) -> web.Response:
        raise web.HTTPSeeOther("/there")

    peer = await ask(application(redirect), scope_of())
    assert (peer.sent[0]["status"], dict(peer.sent[0]["headers"])[b"location"]) == (303, b"/there")


async def test_a_websocket_is_refused() -> None:
    peer = Peer()
    with pytest.raises(ValueError, match="websocket"):
        await asgi.create_app()({"type": "websocket"}, peer.receive, peer.send)


def test_files_are_sent_on_asyncios_own_loop_too() -> None:
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        peer = runner.run(ask(asgi.create_app(), scope_of(path="/docs")))
    assert b"<html" in peer.body
    assert int(dict(peer.sent[0]["headers"])[b"content-length"]) == len(peer.body)


# --- Its life ---


class Life:
    """The lifespan, as a server drives it."""

    def __init__(self, app: AsgiApplication) -> None:
        self._events: asyncio.Queue[Message] = asyncio.Queue()
        self._said: asyncio.Queue[Message] = asyncio.Queue()
        self.running = asyncio.ensure_future(app({"type": "lifespan"}, self._events.get, self._said.put))

    async def goes(self, event: str) -> Message:
        await self._events.put({"type": f"lifespan.{event}"})
        return await self._said.get()


async def test_it_stops_its_work_with_the_server(site: Site) -> None:
    app = AsgiApplication(open_app())
    life = Life(app)
    assert await life.goes("startup") == {"type": "lifespan.startup.complete"}
    await ask(app, scope_of("POST", "/submit"), [json.dumps({"urls": [site.url("/hang")]}).encode()])
    await site.until(lambda: site.active == 1)
    assert await life.goes("shutdown") == {"type": "lifespan.shutdown.complete"}
    await life.running
    await site.until(lambda: site.active == 0)
    with pytest.raises(RuntimeError, match="stopped"):
        await ask(app, scope_of(path="/tasks"))


async def test_the_first_request_starts_it_once() -> None:
    made = 0

    def make() -> web.Application:
        nonlocal made
        made += 1
        return open_app()

    app = AsgiApplication(make)
    peers = await asyncio.gather(*(ask(app, scope_of(path="/tasks")) for _ in range(10)))
    assert ([peer.body for peer in peers], made) == ([b"{}\n"] * 10, 1)


def test_started_by_a_request_it_stops_with_the_loop(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with asyncio.Runner() as runner:
        app = asgi.create_app(registry=SqliteRegistry(tmp_path / "tasks.db"))
        runner.run(ask(app, scope_of("POST", "/submit"), [b'{"urls": ["http://192.0.2.1/"]}']))
        assert len(list(tmp_path.glob("tasks.db-*"))) > 0
    assert not list(tmp_path.glob("tasks.db-*"))  # the database was closed properly
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


async def test_a_first_request_that_is_cancelled_leaves_it_starting() -> None:
    class Slow(crawler.MemoryRegistry):
        async def __aenter__(self) -> Any:
            entered.set()
            await asyncio.sleep(0)
            return await super().__aenter__()

    entered = asyncio.Event()
    app = asgi.create_app(registry=Slow())
    first = asyncio.ensure_future(ask(app, scope_of(path="/tasks")))
    await entered.wait()
    first.cancel()
    with suppress(asyncio.CancelledError):
        await first
    assert (await ask(app, scope_of(path="/tasks"))).body == b"{}\n"


@pytest.mark.parametrize("fault", [crawler.InputError("cannot be read", "tokens"), OSError("no disk")])
async def test_a_failed_start_reports_its_reason(fault: Exception, caplog: pytest.LogCaptureFixture) -> None:
    def make() -> web.Application:
        raise fault

    life = Life(AsgiApplication(make))
    assert await life.goes("startup") == {"type": "lifespan.startup.failed", "message": f"crawler: {fault}"}
    await life.running
    assert ("Traceback" in caplog.text) == isinstance(fault, OSError)


# --- In a host, and alone ---


@asynccontextmanager
async def mounted(host: FastAPI, probes: AsgiApplication) -> AsyncIterator[ClientSession]:
    host.mount("/crawler", probes)
    async with served(host) as port, ClientSession(f"http://127.0.0.1:{port}") as client:
        yield client


async def test_a_mounted_application_that_is_not_started_starts_with_its_first_request(site: Site) -> None:
    probes = asgi.create_app(Options(guard="any"), service=ServiceOptions(root_path="/proxy"))
    async with mounted(FastAPI(), probes) as client:
        batch = {"urls": [site.url("/ok")]}
        async with client.post("/crawler/api/v1/tasks", json=batch) as response:
            assert response.status == 201
            location = response.headers["Location"]
            assert location.startswith("/proxy/crawler/api/v1/tasks/")
        async with client.get(location.removeprefix("/proxy"), params={"wait": 30}) as response:
            assert (await response.json())["counts"]["ok"] == 1
        for path in ("/crawler/nowhere", "/crawler/", "/crawler/tasks/x/y"):
            async with client.get(path) as response:
                await check_problem(response, 404)
        async with client.get("/nowhere") as response:
            assert await response.json() == {"detail": "Not Found"}


async def test_a_mounted_application_started_by_its_host(site: Site) -> None:
    probes = asgi.create_app(Options(guard="any"), service=ServiceOptions(drain=0))
    async with mounted(FastAPI(lifespan=probes.lifespan), probes) as client:
        async with client.post("/crawler/submit", json={"urls": [site.url("/hang")]}) as response:
            assert response.status == 200
        await site.until(lambda: site.active == 1)
    await site.until(lambda: site.active == 0)


async def test_a_client_that_expects_100_continue_gets_it() -> None:
    async with served(asgi.create_app()) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /submit HTTP/1.1\r\nHost: x\r\nContent-Length: 15\r\nExpect: 100-continue\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b'{"urls": ["x"]}')
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        writer.close()


@asynccontextmanager
async def uvicorn_with(**environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`uvicorn crawler.asgi:app` in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "uvicorn", "crawler.asgi:app", "--port", "0", "--no-access-log"),
        env={**os.environ, **environment},
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            await process.communicate()


async def test_alone_it_has_its_options_from_the_environment(tmp_path: Path) -> None:
    database = tmp_path / "tasks.db"
    async with uvicorn_with(CRAWLER_REGISTRY=f"sqlite:///{database}", CRAWLER_TOKEN="ann:s3cret") as process:
        assert process.stderr is not None
        async for line in process.stderr:
            if b"running on" in line:
                break
        address = line.split()[4].decode()
        assert database.exists()
        async with ClientSession(address, headers={"Authorization": "Bearer s3cret"}) as client:
            async with client.get("/tasks") as response:
                assert response.status == 200
            async with client.get("/tasks", headers={"Authorization": "Bearer none"}) as response:
                await check_problem(response, 401)
        process.terminate()
        rest = await process.stderr.read()
        assert b"Application shutdown complete" in rest
        assert b"rror" not in rest


async def test_alone_it_is_refused_a_wrong_option() -> None:
    async with uvicorn_with(CRAWLER_TIMEOUT="-1") as process:
        _, errors = await process.communicate()
    assert process.returncode == 3
    assert b"crawler: " in errors
    assert b"CRAWLER_TIMEOUT" in errors
    assert b"Traceback" not in errors


async def test_alone_and_without_a_token_it_answers_this_machine_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRAWLER_REGISTRY", "memory")
    app = AsgiApplication(asgi.from_environment)
    here = ("127.0.0.1", 4711)
    assert (await ask(app, scope_of(path="/tasks", client=here))).sent[0]["status"] == 421
    named: Scope = {"path": "/tasks", "headers": [(b"host", b"localhost:8000")]}
    assert (await ask(app, scope_of(**named))).sent[0]["status"] == 403  # Host alone proves nothing
    twice: Scope = {"path": "/tasks", "headers": [(b"host", b"localhost"), (b"host", b"crawler.example")]}
    assert (await ask(app, scope_of(**twice, client=here))).sent[0]["status"] == 421
    for client in (here, None):  # None: through a Unix socket
        assert (await ask(app, scope_of(**named, client=client))).sent[0]["status"] == 200
    monkeypatch.setenv("CRAWLER_ALLOW_ANONYMOUS", "1")
    anyone = AsgiApplication(asgi.from_environment)
    assert (await ask(anyone, scope_of(path="/tasks"))).sent[0]["status"] == 200
