"""The log: who reads it knows which request and which Task a line is about, no secret, and what no stranger forged."""

import asyncio
import base64
import io
import json
import logging
import re
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

import crawler
from crawler import Options, ProbeResult, ServiceOptions
from crawler.core.urls import Target, read_targets
from crawler.distributed.messages import ChildReport, ChildRequest, encode_frame, receive_frame
from crawler.distributed.process_pool import ProcessPool
from crawler.distributed.process_prober import ProcessProber
from crawler.probing.factory import open_http_prober
from crawler.probing.probe import Probe
from crawler.probing.scheduling.scheduler import Scheduler
from crawler.probing.scheduling.work_queue import WorkQueue
from crawler.runtime.logs import (
    JsonFormatter,
    LogSettings,
    TextFormatter,
    add_log_fields,
    configure_logging,
    current_log_settings,
    log_fields,
)
from tests.support.app_client import check_problem, serving
from tests.support.commands import end_of, started
from tests.support.documents import ROOT
from tests.support.proxies import HttpProxy
from tests.support.retention import open_retention, submit_ended
from tests.support.site import Site
from tests.support.tokens import ANN, bearer, open_guarded_app
from tests.support.work_items import GatedItem, settle

Line = dict[str, Any]
Read = Callable[[], list[Line]]

UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@pytest.fixture
def logged() -> Iterator[Read]:
    """What has been logged since the test began."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("crawler")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    logger.setLevel(logging.NOTSET)
    logger.removeHandler(handler)


def requests_in(lines: list[Line]) -> list[Line]:
    return [line for line in lines if line["logger"] == "crawler.access_log"]


@asynccontextmanager
async def asked(
    app: web.Application, path: str, *ids: str, method: str = "GET", **headers: str
) -> AsyncIterator[aiohttp.ClientResponse]:
    """The answer of an application to a request with these ids."""
    given = [*headers.items(), *(("X-Request-Id", id_) for id_ in ids)]
    async with serving(app) as client, client.request(method, path, headers=given) as response:
        yield response


# --- Lines ---


def record(message: str, *args: Any, error: BaseException | None = None) -> logging.LogRecord:
    told = None if error is None else (type(error), error, error.__traceback__)
    made = logging.LogRecord("crawler.some", logging.WARNING, __file__, 1, message, args, told)
    made.created = 1_790_000_000.25
    return made


def raised(message: str) -> ValueError:
    try:
        raise ValueError(message)
    except ValueError as error:
        return error


def test_a_line_of_text() -> None:
    with log_fields(request="r-1"):
        add_log_fields(task="t-1")
        line = TextFormatter().format(record("%d things, %s", 2, "as said"))
    assert line == "2026-09-21T14:13:20.250Z warning crawler.some 2 things, as said request=r-1 task=t-1"


def test_a_line_of_json() -> None:
    with log_fields(request="r-1"):
        line = JsonFormatter().format(record("%(count)d things", {"count": 2, "level": "mine"}, error=raised("why")))
    found = json.loads(line)
    assert found.pop("exception").startswith("Traceback ")
    assert found == {
        "time": "2026-09-21T14:13:20.250Z",
        "level": "warning",
        "logger": "crawler.some",
        "message": "2 things",
        "count": 2,
        "request": "r-1",
    }


def test_fields_last_as_long_as_what_they_are_about() -> None:
    def fields() -> str:
        return TextFormatter().format(record("x")).partition(" x")[2]

    with log_fields(request="r"):
        add_log_fields(token="ann")
        with log_fields(task="t"):
            assert fields() == " task=t"
            add_log_fields(more="m")
        assert fields() == " request=r token=ann"
    assert fields() == ""


FORGERIES = ["\n", "\r", "\r\n", "\x1b[2K", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029", "\u202e", "\u2066"]


@pytest.mark.parametrize("character", [*FORGERIES, "\x00", "\x7f", "\x9b", "\ud800", "\u200b", "\t"], ids=ascii)
def test_a_line_cannot_be_forged(character: str) -> None:
    forged = f"a{character}2026-09-21T14:13:20.250Z info crawler.server.middleware.access_log b"
    text = TextFormatter().format(record("%s", forged))
    assert (text.isprintable(), len(text.splitlines())) == (True, 1)
    assert json.loads(JsonFormatter().format(record("%s", forged)))["message"].isprintable()
    whole = TextFormatter().format(record("x", error=raised(forged)))
    assert all(line.isprintable() for line in whole.split("\n"))
    assert [line[:4].strip() for line in whole.split("\n")] == ["2026", *[""] * whole.count("\n")]
    exception = json.loads(JsonFormatter().format(record("x", error=raised(forged))))["exception"]
    assert exception.replace("\n", "").isprintable()


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("http://user:PLANTED@a.test/b", "http://***@a.test/b"),
        ("http://user:PL@PLANTED@a.test/b", "http://***@a.test/b"),
        ("http:user:PLANTED@a.test/b", "***@a.test/b"),
        (r"http:\\user:PLANTED@a.test/b", "***@a.test/b"),
        ("http://user:x\nPLANTED@a.test/", "http://***@a.test/"),
        ("socks5://user:PLANTED@[::1]:1080", "socks5://***@[::1]:1080"),
        ("http://a.test/b?key=PLANTED&x=http://b/?PLANTED end", "http://a.test/b?*** end"),
        ("http://a.test/b#token=PLANTED", "http://a.test/b#***"),
        ("<Request GET /b?key=PLANTED>", "<Request GET /b?***"),
        ("{'Authorization': 'Bearer PLANTED'}", "{'Authorization': 'Bearer ***"),
        ("basic PLANTED", "basic ***"),
        ("whsec_PLANTED", "***"),
        ("is it so? yes. 3 + 4 @ 5: 'a/b' # c", "is it so? yes. 3 + 4 @ 5: 'a/b' # c"),
    ],
)
def test_secrets_are_not_shown(said: str, shown: str) -> None:
    assert TextFormatter().format(record("%s", said)).partition("crawler.some ")[2] == shown
    line = json.loads(JsonFormatter().format(record("%(what)s", {"what": said}, error=raised(said))))
    assert (line["message"], line["what"]) == (shown, shown)
    assert "PLANTED" not in str(line)
    assert "PLANTED" not in TextFormatter().format(record("x", error=raised(said)))


@pytest.mark.parametrize("text", ["a" * 10**6, "a." * 10**6, "http:" * 10**5, "a@" * 10**6, "?" * 10**6, "\n" * 10**6])
def test_a_long_line_takes_no_longer_than_its_length(text: str) -> None:
    TextFormatter().format(record("%s", text))


# --- Who configures ---


async def test_an_application_leaves_logging_as_it_is() -> None:
    root = logging.getLogger()
    before = (list(root.handlers), root.level, logging.getLogger("crawler").handlers)
    app = crawler.create_app(service=ServiceOptions(log_json=True, log_level="error"))
    async with asked(app, "/tasks") as response:
        assert response.status == 200
    assert (root.handlers, root.level, logging.getLogger("crawler").handlers) == before


def test_logging_that_is_set_up_already_stays() -> None:
    root = logging.getLogger()
    before = (list(root.handlers), root.level)
    assert root.handlers  # those of pytest
    configure_logging(LogSettings(logging.DEBUG, as_json=True))
    assert (root.handlers, root.level) == before


@contextmanager
def configured(chosen: LogSettings) -> Iterator[None]:
    """A program that logs as chosen, and had nothing set up before, not even what pytest has."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    root.handlers = []
    configure_logging(chosen)
    try:
        yield
    finally:
        root.handlers = handlers
        root.setLevel(level)


@pytest.mark.parametrize("chosen", [LogSettings(logging.INFO, as_json=True), LogSettings(logging.ERROR, as_json=False)])
def test_child_processes_get_the_log_settings(chosen: LogSettings) -> None:
    with configured(chosen):
        assert current_log_settings() == chosen
        configure_logging(LogSettings(logging.DEBUG))
        assert current_log_settings() == chosen


# --- Requests ---


@pytest.mark.parametrize("given", ["a", "A-b_c.9", "x" * 128])
async def test_the_id_that_a_request_has_is_that_of_its_answer(given: str, logged: Read) -> None:
    async with asked(crawler.create_app(), "/tasks", given) as response:
        assert response.headers.getall("X-Request-Id") == [given]
    assert [line["request"] for line in requests_in(logged())] == [given]


@pytest.mark.parametrize("given", ["", "a b", "a,b", "\xe9", "a\tb", "x" * 129, "a;b", '"', "a=b"], ids=ascii)
async def test_an_id_that_could_not_stand_in_a_line_is_replaced(given: str, logged: Read) -> None:
    async with asked(crawler.create_app(), "/tasks", given) as response:
        made = response.headers["X-Request-Id"]
    assert re.fullmatch("[0-9a-f]{32}", made)
    assert [line["request"] for line in requests_in(logged())] == [made]


async def test_of_two_ids_there_is_none() -> None:
    async with asked(crawler.create_app(), "/tasks", "a", "b") as response:
        assert re.fullmatch("[0-9a-f]{32}", response.headers["X-Request-Id"])


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/nowhere", {}, 404),
        ("GET", "/tasks/none", {}, 404),
        ("PUT", "/tasks", {}, 405),
        ("POST", "/submit", {}, 400),
        ("GET", "/docs", {}, 200),
        ("GET", "/docs/swagger-ui.css", {}, 200),
        ("HEAD", "/tasks", {}, 200),
        ("GET", "/tasks", {"Expect": "nothing"}, 417),
    ],
)
async def test_every_answer_has_the_id(method: str, path: str, headers: dict[str, str], status: int) -> None:
    async with asked(crawler.create_app(), path, "mine", method=method, **headers) as response:
        assert (response.status, response.headers["X-Request-Id"]) == (status, "mine")


async def test_an_answer_to_who_has_no_token_has_it_too() -> None:
    async with asked(open_guarded_app(), "/tasks") as response:
        await check_problem(response, 401)
        assert response.headers["X-Request-Id"]


async def test_a_request_behind_a_proxy_keeps_its_id(logged: Read) -> None:
    service = ServiceOptions(forwarded_allow=("127.0.0.0/8",))
    headers = {"X-Request-Id": "mine", "X-Forwarded-For": "203.0.113.9", "X-Forwarded-Host": "a.test"}
    async with serving(crawler.create_app(service=service)) as client:
        for path in ("/tasks", "/openapi.json"):  # one is streamed
            async with client.get(path, headers=headers) as response:
                assert response.headers["X-Request-Id"] == "mine"
    assert [line["request"] for line in requests_in(logged())] == ["mine", "mine"]


async def test_a_fault_of_ours_can_be_found_by_its_id(logged: Read) -> None:
    class Broken(crawler.MemoryRegistry):
        async def page(self, *_: Any) -> Any:
            raise RuntimeError("cannot read http://user:PLANTED@a.test/?key=PLANTED")

    async with serving(crawler.create_app(registry=Broken())) as client:
        async with client.post("/submit", json={"urls": ["no url"]}) as response:
            task = (await response.json())["task_id"]
        async with client.get(f"/api/v1/tasks/{task}/results?limit=1", headers={"X-Request-Id": "mine"}) as response:
            await check_problem(response, 500)
            assert response.headers["X-Request-Id"] == "mine"
    (line,) = [line for line in logged() if "exception" in line]
    assert (line["request"], line["task"]) == ("mine", task)
    assert "RuntimeError: cannot read http://***@a.test/?***" in line["exception"]


async def test_a_request_is_one_line(logged: Read) -> None:
    async with serving(open_guarded_app()) as client:
        headers = bearer(ANN) | {"X-Request-Id": "mine"}
        async with client.post("/submit", json={"urls": ["no url"]}, headers=headers) as response:
            task = (await response.json())["task_id"]
        async with client.get(f"/tasks/{task}?key=PLANTED", headers=headers) as response:
            body = await response.read()
        async with client.get("/PLANTED?key=PLANTED", headers=headers) as response:
            assert response.status == 404
        async with client.delete("/tasks/PLANTED") as response:
            assert response.status == 401
    lines = requests_in(logged())
    assert "PLANTED" not in str(lines)
    assert [(line["method"], line["route"], line["status"]) for line in lines] == [
        ("POST", "/submit", 200),
        ("GET", "/tasks/{task_id}", 200),
        ("GET", "-", 404),
        ("DELETE", "/tasks/{task_id}", 401),
    ]
    assert [(line["level"], line.get("token"), line.get("task")) for line in lines] == [
        ("info", "ann", task),
        ("info", "ann", task),
        ("info", "ann", None),
        ("info", None, None),
    ]
    assert all(0 < line["ms"] < 60_000 for line in lines)
    assert all(line["bytes"] > 100 for line in lines)  # it is known what has been sent
    assert len(body) < lines[1]["bytes"] < len(body) + 1000
    assert lines[1]["message"].startswith("GET /tasks/{task_id} status=200 ms=")


async def test_a_stream_is_logged_when_it_ends(site: Site, logged: Read) -> None:
    async with serving(crawler.create_app(Options(guard="any"))) as client:
        async with client.post("/submit", json={"urls": [site.url("/hang")]}) as response:
            task = (await response.json())["task_id"]
        async with client.get(f"/api/v1/tasks/{task}/events", headers={"X-Request-Id": "mine"}) as response:
            assert response.headers["X-Request-Id"] == "mine"
            await response.content.readline()
            assert not [line for line in logged() if line.get("request") == "mine"]
            async with client.delete(f"/tasks/{task}") as deleted:
                assert deleted.status == 204
            await response.read()
    (line,) = [line for line in logged() if line.get("request") == "mine"]
    assert (line["route"], line["status"], line["task"]) == ("/api/v1/tasks/{task_id}/events", 200, task)


async def test_a_mounted_application_has_ids_and_lines_as_well(logged: Read) -> None:
    root = web.Application()
    root.add_subapp("/crawler", crawler.create_app())
    async with serving(root) as client:
        for path in ("/crawler/tasks", "/crawler/nowhere"):
            async with client.get(path, headers={"X-Request-Id": "mine"}) as response:
                assert response.headers["X-Request-Id"] == "mine"
    assert [(line["route"], line["request"]) for line in requests_in(logged())] == [("/tasks", "mine"), ("-", "mine")]


async def test_a_request_that_is_sent_again_is_about_the_same_task(logged: Read) -> None:
    headers = {"Idempotency-Key": "k"}
    async with serving(crawler.create_app()) as client:
        for _ in range(2):
            async with client.post("/api/v1/tasks", json={"urls": ["no url"]}, headers=headers) as response:
                task = (await response.json())["id"]
    assert [line["task"] for line in requests_in(logged())] == [task, task]


async def test_requests_of_machines_that_watch_are_for_who_wants_all(logged: Read) -> None:
    watched = ["/healthz", "/readyz", "/metrics"]
    async with serving(crawler.create_app()) as client:
        for path in watched:
            async with client.get(path) as response:
                await response.read()
    assert [(line["route"], line["level"]) for line in requests_in(logged())] == [(path, "debug") for path in watched]


# --- Tasks ---


async def test_lines_of_a_turn_are_about_the_task_whose_lane_it_is_in() -> None:
    seen: list[str] = []

    async def turn(piece: GatedItem) -> bool:
        add_log_fields(piece=str(pieces.index(piece)))
        await piece.gate.wait()
        seen.append(TextFormatter().format(record("x")).partition(" x ")[2])
        return True

    scheduler = Scheduler(concurrency=2, per_host=2)
    pieces = [GatedItem(host) for host in "aabb"]
    with log_fields(task="a"):
        first = WorkQueue[GatedItem](scheduler, turn)
    with log_fields(task="b"):
        second = WorkQueue[GatedItem](scheduler, turn)
    async with first, second:
        with log_fields(request="r"):
            for piece in pieces:
                (first if piece.host == "a" else second).put(piece)
        first.seal()
        second.seal()
        await settle()  # two of the first have begun; the others begin when these end
        for piece in pieces:
            piece.gate.set()
        async for _ in first:
            pass
        async for _ in second:
            pass
    assert sorted(seen) == [f"task={piece.host} piece={number}" for number, piece in enumerate(pieces)]


async def test_lines_of_a_child_are_like_those_of_its_parent(capfd: pytest.CaptureFixture[str], site: Site) -> None:
    options = Options(guard="any")
    with configured(LogSettings(logging.INFO, as_json=True)):
        async with ProcessPool(options, 1) as pool:
            reader, writer = await pool.connect(0)
            broken = Probe.of(Target.of(7, site.url("/ok")), options, asyncio.get_running_loop().time)
            broken.state.method = "\N{SNOWMAN}"
            writer.write(encode_frame(ChildRequest(options, moved=[broken.state], log_fields={"task": "t-1"})))
            results: list[ProbeResult] = []
            while not results:
                results = (await receive_frame(reader, ChildReport)).results
            writer.close()
    (line,) = map(json.loads, capfd.readouterr().err.splitlines())
    assert (line["logger"], line["task"]) == ("crawler.probing.probe_run", "t-1")
    assert "UnicodeEncodeError" in line["exception"]


class RedirectedPool(ProcessPool):
    """Connects to the server at a path instead of a child."""

    path = ""

    async def connect(self, index: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(self.path)


async def test_a_child_is_told_what_its_lines_are_about(tmp_path: Path) -> None:
    told: asyncio.Future[ChildRequest] = asyncio.get_running_loop().create_future()
    connections = []

    async def child(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        told.set_result(await receive_frame(reader, ChildRequest))

    options, pool = Options(guard="any"), RedirectedPool(Options(), 1)
    pool.path = str(tmp_path / "child.sock")
    async with await asyncio.start_unix_server(child, pool.path), open_http_prober(options) as here:
        with log_fields(task="t-1"):
            results = ProcessProber(here, pool).probe_many(read_targets(["http://a.test/"]))
            asking = asyncio.ensure_future(anext(results))
        orders = await told
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await results.aclose()
        connections[0].close()
    assert orders.log_fields == {"task": "t-1"}


async def test_lines_of_retention_are_about_the_task_that_goes(logged: Read) -> None:
    registry = crawler.MemoryRegistry()
    tasks = [await submit_ended(registry, ["http://a/"]) for _ in range(2)]
    await open_retention(registry, ServiceOptions(keep_tasks=0)).delete_expired()
    assert [line["task"] for line in logged()] == [task.id for task in tasks]


# --- The process ---

SECRET = "pl4ntedS3cret"
WEBHOOK_SECRET = "whsec_" + SECRET * 4
HIDDEN = (SECRET, base64.b64encode(f"user:{SECRET}".encode()).decode().rstrip("="))


class Service:
    """A service in a process of its own, and what it writes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.out = ""
        self.err = ""

    async def says(self, words: str) -> None:
        """Wait until it has logged these words."""
        assert self.process.stderr
        while words not in self.err:
            line = await self.process.stderr.readline()
            assert line, self.err
            self.err += line.decode()

    async def address(self) -> str:
        """Wait until it listens."""
        assert self.process.stdout
        while not (found := re.search(r"on (http://127\.0\.0\.1:\d+)\.", self.out)):
            line = await self.process.stdout.readline()
            assert line, await end_of(self.process)
            self.out += line.decode()
        return found[1]

    async def stop(self) -> None:
        self.process.terminate()
        ended = await end_of(self.process)
        assert ended.code == 0
        self.out += ended.out
        self.err += ended.err


@asynccontextmanager
async def service(*arguments: str) -> AsyncIterator[tuple[Service, aiohttp.ClientSession]]:
    async with started("--port=0", "--retries=0", *arguments) as process:
        running = Service(process)
        async with aiohttp.ClientSession(await running.address()) as client:
            yield running, client


def with_secrets(url: str) -> str:
    return url.replace("//", f"//user:{SECRET}@") + f"?key={SECRET}#{SECRET}"


@pytest.fixture(params=["json", "text"])
async def flags(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[list[str]]:
    """All that can be told to a service and is nobody's business; one of the two works through a proxy."""
    (tmp_path / "tokens").write_text(f"bob:{SECRET}-bobs\n")
    async with HttpProxy() as proxy:
        yield [
            "--log-json" if request.param == "json" else "--proxy=" + proxy.url.replace("//", f"//user:{SECRET}@"),
            "--log-level=debug",
            f"--token=ann:{SECRET}",
            f"--token-file={tmp_path / 'tokens'}",
            f"--webhook-secret={WEBHOOK_SECRET}",
            f"--header=X-Key: {SECRET}",
            f"--registry=sqlite:///{tmp_path / 'tasks.db'}",
        ]


async def test_no_secret_is_in_what_a_process_writes(flags: list[str], site: Site, tmp_path: Path) -> None:
    paths = ("/ok", "/reset", "/status/500", f"/redirect-to?url=http%3A%2F%2Fuser%3A{SECRET}%40[")
    places = [*map(site.url, paths), "http://no.such.invalid/", "http://[/", "http://"]
    urls = [with_secrets(place) for place in places]
    webhook = {"url": with_secrets(site.url("/status/410")), "secret": WEBHOOK_SECRET}
    batch = {"urls": urls, "options": {"headers": {"Authorization": SECRET}}, "webhook": webhook}
    headers = bearer(SECRET) | {
        "Idempotency-Key": SECRET,
        "Cookie": f"a={SECRET}",
        "X-Request-Id": f"{SECRET} {SECRET}",
    }
    async with service(*flags) as (process, client):

        async def asks(status: int, method: str, path: str, **more: Any) -> Any:
            async with client.request(method, path, **{"headers": headers, **more}) as response:
                assert response.status == status, await response.text()
                return await response.json() if status < 204 else None

        task = (await asks(201, "POST", "/api/v1/tasks", json=batch))["id"]
        await process.says(f"the webhook of Task {task}, attempt 1")
        hanging = (await asks(200, "POST", "/submit", json={"urls": [site.url(f"/hang?{SECRET}"), *urls]}))["task_id"]
        await asks(204, "DELETE", f"/tasks/{hanging}")
        await asks(404, "GET", f"/{SECRET}?key={SECRET}")
        await asks(404, "GET", f"/docs/{SECRET}")
        await asks(404, "GET", f"/tasks/{SECRET}")
        await asks(200, "GET", "/api/v1/probe", params={"url": urls[0]})
        await asks(422, "GET", "/api/v1/tasks", params={"key": SECRET})
        await asks(400, "POST", "/submit", data=f'{{"urls": ["{SECRET}')
        await asks(401, "GET", "/tasks", headers=bearer(SECRET + "-no-more"))
        with closing(sqlite3.connect(tmp_path / "tasks.db")) as connection:
            connection.execute("DROP TABLE tasks")
        await asks(503, "DELETE", f"/tasks/{task}?key={SECRET}")
        await process.stop()
    for hidden in HIDDEN:
        assert hidden not in process.out + process.err
    for word in (f"Task {task} is ready", "DELETE /tasks/{task_id} status=204", hanging, "Traceback", "no such table"):
        assert word in process.err
    if "--log-json" in flags:
        for line in map(json.loads, process.err.splitlines()):
            named = UUID.search(line["message"])
            assert named is None or line["task"] == named[0]
            assert line["logger"] != "crawler.worker" or "request" not in line  # of which it is long after
    else:
        assert all(re.match(r"\d{4}-\d\d-\d\dT\S+Z \w+ \S+ |    ", line) for line in process.err.splitlines())


def steady(line: str) -> str:
    """What is the same each time."""
    line = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME", UUID.sub("TASK", line))
    return re.sub(r"\b[0-9a-f]{32}\b", "ID", re.sub(r'(ms"?[=:])[\d.]+', r"\1MS", line))


@pytest.mark.parametrize(("language", "more"), [("text", []), ("json", ["--log-json"])])
async def test_the_document_shows_what_is_logged(language: str, more: list[str]) -> None:
    async with service("--token=ann:secret", "--registry=memory", *more) as (process, client):
        async with client.post("/submit", json={"urls": ["no url"]}, headers=bearer("secret")) as response:
            assert response.status == 200
        await process.says("is ready")
        await process.stop()
    section = (ROOT / "docs/watch.md").read_text(encoding="utf-8").partition("## Logs")[2]
    shown = section.partition(f"```{language}\n")[2].partition("```")[0]
    assert sorted(map(steady, process.err.splitlines())) == sorted(map(steady, shown.splitlines()))


async def test_less_is_logged_if_less_is_wanted() -> None:
    async with service("--log-level=warning") as (process, client):
        async with client.get("/tasks") as response:
            assert response.status == 200
        await process.stop()
    assert process.err == ""
