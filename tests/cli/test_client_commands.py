"""The commands that are clients of a service: processes of their own, against a real one."""

import asyncio
import gzip
import json
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import BaseTestServer, TestServer

from crawler import Options, create_app
from crawler.cli.client import ServiceClient
from crawler.cli.flags import flags_of
from crawler.cli.main import main
from crawler.cli.upload import ListUpload
from crawler.core.task_options import TASK_OPTIONS
from crawler.core.task_summary import Links, Summary
from crawler.core.tasks import Counts, Status
from crawler.stores.memory import MemoryRegistry
from tests.support.commands import Ended, Terminal, end_of, environment, run_crawler, screen, started
from tests.support.exchange import Exchange, rst_on_close
from tests.support.site import Site

CLOSED = "http://127.0.0.1:1"
HEAD = b"HTTP/1.1 200 OK\r\nConnection: close\r\n"
MIB = 2**20


def summary_json(id_: str, status: Status = "ready", total: int = 2) -> bytes:
    """A Task as a service would show it."""
    links = Links(*[f"/api/v1/tasks/{id_}"] * len(Links.__struct_fields__))
    return msgspec.json.encode(
        Summary(
            id=id_, label=None, status=status, detail=None, created=0, finished=None, total=total, counts=Counts(),
            done=0, rate=None, eta=None, options={}, webhook=None, links=links,
        )
    )  # fmt: skip


# --- Helpers ---


class Service:
    """A service in this process, and what it keeps."""

    def __init__(self, server: BaseTestServer, registry: MemoryRegistry) -> None:
        assert server.port is not None
        self.port = server.port
        self.url = f"http://127.0.0.1:{self.port}"
        self.registry = registry

    async def run(self, *arguments: str | bytes, **more: Any) -> Ended:
        """Run a command on it to its end."""
        return await run_crawler(*arguments, env={"CRAWLER_URL": self.url, **more.pop("env", {})}, **more)

    async def submit(self, *arguments: str | bytes, **more: Any) -> str:
        """The id of a new Task."""
        ended = await self.run("submit", *arguments, **more)
        assert (ended.code, ended.err) == (0, "")
        assert re.fullmatch(r"[0-9a-f-]{36}\n", ended.out)
        return ended.out.strip()

    async def done(self, task_id: str) -> Any:
        """A Task once it has ended."""
        task = self.registry.task(task_id)
        while task.status == "running":
            await self.registry.wait_for_change(task_id)
        return task

    async def submitted(self, *arguments: str | bytes, **more: Any) -> list[str]:
        """The URLs of a new Task, by place, once that has ended."""
        task = await self.done(await self.submit(*arguments, **more))
        return [
            record.url for record in sorted(self.registry.results_in_memory(task.id), key=lambda record: record.seq)
        ]


@asynccontextmanager
async def serving(options: Options) -> AsyncIterator[Service]:
    registry = MemoryRegistry()
    async with TestServer(create_app(options, registry=registry)) as server:
        yield Service(server, registry)


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with serving(Options(guard="any", retries=0)) as service:
        yield service


class Relay:
    """Stands between a client and a service, sees what passes, and cuts connections."""

    def __init__(self, port: int) -> None:
        self.resets: list[int] = []  # connections, by number from 1, that are reset before anything passes
        self.unanswered: list[int] = []  # ... that are cut once the answer begins
        self.cuts: list[int] = []  # bytes of events after which a connection is cut, from one to the next
        self.connections = 0
        self.asked = b""
        self._port = port
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.append(asyncio.create_task(self._relay(reader, writer)))

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        self._changed.set()
        if number in self.resets:
            rst_on_close(writer.get_extra_info("socket"))
            writer.close()
            return
        there, out = await asyncio.open_connection("127.0.0.1", self._port)
        ways = [asyncio.create_task(self._up(reader, out)), asyncio.create_task(self._down(there, writer, number))]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for end in (writer, out):
            end.close()
        await asyncio.gather(*ways, return_exceptions=True)

    async def _up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            self.asked += data
            self._changed.set()
            writer.write(data)
            await writer.drain()

    async def _down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        left: int | None = None
        while data := await reader.read(65536):
            if number in self.unanswered:
                return
            if left is None and self.cuts and (begin := data.find(b"text/event-stream")) >= 0:
                left = data.index(b"\r\n\r\n", begin) + 4 + self.cuts.pop(0)
            if left is not None:
                data, left = data[:left], left - len(data)
            writer.write(data)
            await writer.drain()
            if left is not None and left <= 0:
                return


@pytest.fixture
async def relay(service: Service) -> AsyncIterator[Relay]:
    async with Relay(service.port) as relay:
        yield relay


class Held:
    """URLs that answer once they are let go."""

    def __init__(self, site: Site) -> None:
        self.url = site.url("/held", host="127.0.0.2")
        self._go = asyncio.Event()
        site.on("/held", self._answer)

    def release(self) -> None:
        self._go.set()

    async def _answer(self, exchange: Exchange) -> None:
        await self._go.wait()
        await exchange.reply()


@pytest.fixture
def held(site: Site) -> Held:
    return Held(site)


# --- Submit ---


async def test_submit_prints_the_id_alone_and_sends_what_was_chosen(service: Service, site: Site) -> None:
    arguments = [
        "--timeout=5",
        "--label=night run",
        "-H",
        "X-A: b c",
        "--header",
        "X-B: d",
        "--title",
        "--accept=200-404",
    ]
    task = await service.done(await service.submit(site.url("/ok"), site.url("/status/404"), *arguments))
    assert (task.label, task.total, task.counts.ok) == ("night run", 2, 2)
    options = task.options
    assert (options.timeout, options.title, options.accept) == (5.0, True, ("200-404",))
    assert options.headers == {"X-A": "b c", "X-B": "d"}
    assert {request.header("X-A") for request in site.requests} == {"b c"}


async def test_options_that_are_not_given_have_the_values_of_the_service(site: Site) -> None:
    async with serving(Options(guard="any", timeout=7, title=True, user_agent="mine")) as service:
        task = await service.done(await service.submit(site.url("/ok"), env={"CRAWLER_RETRIES": "3"}))
        assert (task.options.timeout, task.options.title, task.options.user_agent) == (7, True, "mine")
        assert task.options.retries == 3


async def test_each_line_of_any_input_is_a_line_of_the_task(service: Service, tmp_path: Path) -> None:
    text, table, packed = tmp_path / "a.txt", tmp_path / "b.csv", tmp_path / "c.ndjson.gz"
    await asyncio.to_thread(text.write_bytes, b"\xef\xbb\xbfx1\r\n\r\n  x2 \nx\xff3\nx4")
    await asyncio.to_thread(table.write_text, 'n,Link\n1,x1\n2,\n3,"x\n3"\n4, x4\n')
    await asyncio.to_thread(packed.write_bytes, gzip.compress(b'{"u": "x\\n1"}\n"x2"\n'))
    assert await service.submitted("x0", "-f", str(text)) == ["x0", "x1", "x2", "x\ufffd3", "x4"]
    assert await service.submitted("-f", str(table), "--column=link") == ["x1", "", "x\n3", " x4"]
    assert await service.submitted("x0", "-f", str(packed), "--column=u") == ["x0", "x\n1", "x2"]
    assert await service.submitted("", "x\ny", " z") == ["", "x\ny", " z"]
    assert await service.submitted("-f", "-", stdin=b"x1\nx2") == ["x1", "x2"]
    assert await service.submitted(b"x\xff") == ["x\ufffd"]


async def test_a_list_that_is_broken_makes_no_task(service: Service, tmp_path: Path) -> None:
    broken, bytes_ = tmp_path / "a.ndjson", tmp_path / "b.csv"
    await asyncio.to_thread(broken.write_text, '"x"\n' * 100_000 + "y\n")
    await asyncio.to_thread(bytes_.write_bytes, b"url\nx\xff\n")
    ended = await service.run("submit", "-f", str(broken))
    assert ended == Ended(2, "", f"crawler: {broken}: line 100001: is not JSON: invalid character (byte 0)\n")
    ended = await service.run("submit", "-f", str(bytes_))
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("crawler: b'x\\xff': is not UTF-8")
    ended = await service.run("submit", "-f", "/nonexistent")
    assert ended == Ended(2, "", "crawler: /nonexistent: No such file or directory\n")
    assert not service.registry.tasks


async def test_what_the_service_refuses_is_told(service: Service) -> None:
    ended = await service.run("submit", "-f", "-")  # which is /dev/null
    assert (ended.code, ended.out) == (2, "")
    assert re.fullmatch(rf"crawler: {service.url}: .+\n", ended.err)
    ended = await service.run("submit", "x", "--per-host=100")
    assert ended == Ended(2, "", f"crawler: {service.url}: per_host: must be at most 8, the service's limit\n")


async def test_a_submit_is_repeated_until_it_gets_through(service: Service, relay: Relay, tmp_path: Path) -> None:
    file = tmp_path / "urls"
    await asyncio.to_thread(file.write_text, "x\n" * 1000)
    relay.resets = [1, 2, 3]
    await service.submit("-f", str(file), env={"CRAWLER_URL": relay.url})
    assert relay.connections == 4
    [task] = service.registry.tasks.values()
    assert task.total == 1000


async def test_a_submit_whose_answer_is_lost_makes_one_task(service: Service, relay: Relay) -> None:
    relay.unanswered = [1, 2]
    task_id = await service.submit("x", env={"CRAWLER_URL": relay.url})
    assert relay.connections == 3
    assert list(service.registry.tasks) == [task_id]


async def test_a_submit_that_never_gets_through_is_told(service: Service, relay: Relay) -> None:
    relay.resets = list(range(1, 10))
    ended = await service.run("submit", "x", env={"CRAWLER_URL": relay.url})
    lost = "(Connection reset by peer|Broken pipe|the connection was lost)"  # by where it was noticed
    assert (ended.code, ended.out) == (2, "")
    assert re.fullmatch(f"crawler: {relay.url}: {lost}\n", ended.err)
    assert relay.connections == 4


async def test_standard_input_that_was_read_is_not_read_again(service: Service, relay: Relay) -> None:
    relay.unanswered = [1, 2, 3, 4]
    ended = await service.run("submit", "-f", "-", stdin=b"x\n", env={"CRAWLER_URL": relay.url})
    assert ended == Ended(2, "", f"crawler: {relay.url}: Server disconnected\n")
    assert relay.connections == 1


async def test_a_service_that_starts_late_is_waited_for_even_with_standard_input() -> None:
    """A connection that is refused has read nothing."""
    registry = MemoryRegistry()
    with socket.socket() as sock:  # has the port, and does not listen yet
        sock.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"

        async def pieces() -> AsyncIterator[bytes]:
            yield b"x\n"

        upload = ListUpload("text/plain", pieces, is_repeatable=False)
        async with ServiceClient(url) as client:
            submitting = asyncio.create_task(client.submit(upload, {}))
            done, _ = await asyncio.wait([submitting], timeout=0.1)  # by then it was refused, here or on a slow machine
            assert not done
            async with TestServer(create_app(registry=registry), socket_factory=lambda *_: sock) as _:
                task = await submitting
    assert list(registry.tasks) == [task.id]


async def test_a_hint_stands_on_a_terminal(service: Service) -> None:
    terminal = Terminal()
    ended = await service.run("submit", "x", stderr=terminal.slave)
    said = await asyncio.to_thread(terminal.read)
    assert f"crawler watch {ended.out.strip()} " in said


async def peak_of(*arguments: str, env: dict[str, str]) -> int:
    """The most memory that a command has had."""
    measured = (
        "import sys; from crawler.cli.main import main; code = main(sys.argv[1:]);"
        "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr); sys.exit(code)"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", measured, *arguments, env=environment(**env), stdout=-3, stderr=-1
    )
    _, err = await process.communicate()
    assert process.returncode == 0, err
    return int(err) * 1024


async def test_a_long_list_is_sent_in_constant_memory(tmp_path: Path) -> None:
    few, many = tmp_path / "few", tmp_path / "many"
    line = b"http://a.test/" + b"x" * 986
    await asyncio.to_thread(few.write_bytes, line + b"\n")
    await asyncio.to_thread(many.write_bytes, b"".join(b"%s%06d\n" % (line[:-6], number) for number in range(100_000)))
    received = []

    async def count(request: web.Request) -> web.Response:
        size = lines = 0
        assert request.headers["Content-Encoding"] == "gzip"
        async for chunk in request.content.iter_any():  # unpacked by aiohttp
            size += len(chunk)
            lines += chunk.count(b"\n")
        received.append((size, lines))
        return web.Response(body=summary_json("a", "running", lines), content_type="application/json")

    app = web.Application(client_max_size=0)
    app.router.add_post("/api/v1/tasks", count)
    async with TestServer(app) as server:
        env = {"CRAWLER_URL": f"http://127.0.0.1:{server.port}"}
        small = await peak_of("submit", "-f", str(few), env=env)
        large = await peak_of("submit", "-f", str(many), env=env)
    assert received == [(1001, 1), (100_100_000, 100_000)]
    assert large - small < 24 * MIB


async def test_a_refusal_is_told_while_there_is_more_to_send(service: Service) -> None:
    env = {"CRAWLER_URL": service.url}
    async with started("submit", "-f", "-", "--per-host=100", env=env, stdin=asyncio.subprocess.PIPE) as process:
        assert process.stdin
        process.stdin.write(b"x\n" * 100_000)
        assert process.stderr
        assert b"per_host" in await process.stderr.readline()
        assert await process.wait() == 2
    assert not service.registry.tasks


async def test_a_service_under_a_path_is_found() -> None:
    app = web.Application()
    app.add_subapp("/sub/", create_app())
    async with TestServer(app) as server:
        env = {"CRAWLER_URL": f"http://127.0.0.1:{server.port}/sub/"}
        ended = await run_crawler("submit", "--watch", "x", env=env)
        assert ended.code == 1
        assert ended.err.endswith(": ready, 1 of 1 done (1 invalid)\n")
        assert (await run_crawler("results", ended.out.strip(), env=env)).outcomes == ["invalid"]


# --- Watch ---


async def test_watch_says_in_a_line_how_it_ended(service: Service, site: Site) -> None:
    good = await service.submit(site.url("/ok"))
    bad = await service.submit(site.url("/ok"), site.url("/status/404"), "x")
    assert await service.run("watch", good) == Ended(0, "", f"Task {good}: ready, 1 of 1 done (1 ok)\n")
    line = f"Task {bad}: ready, 3 of 3 done (1 ok, 1 http error, 1 invalid)\n"
    assert await service.run("watch", bad) == Ended(1, "", line)


async def test_watch_waits_for_the_end(service: Service, relay: Relay, held: Held) -> None:
    task_id = await service.submit(held.url)
    async with started("watch", task_id, "--url", relay.url) as process:
        await relay.until(lambda: b"/events" in relay.asked)
        held.release()
        ended = await end_of(process)
    assert ended == Ended(0, "", f"Task {task_id}: ready, 1 of 1 done (1 ok)\n")


async def test_watch_shows_a_bar_on_a_terminal(service: Service, relay: Relay, site: Site, held: Held) -> None:
    terminal = Terminal()
    task_id = await service.submit(held.url, site.url("/ok"), site.url("/status/404"))
    async with started("watch", task_id, "--url", relay.url, stderr=terminal.slave) as process:
        await relay.until(lambda: b"/events" in relay.asked)
        held.release()
        ended = await end_of(process)
    assert (ended.code, ended.out) == (1, "")
    *_, bar, line, below = screen(await asyncio.to_thread(terminal.read))
    assert re.fullmatch(r"\S+ 3/3 \d+/s \S+ 2 ok  1 http error", bar)
    assert line == f"Task {task_id}: ready, 3 of 3 done (2 ok, 1 http error)"
    assert below == ""


async def test_submit_can_watch(service: Service, site: Site) -> None:
    ended = await service.run("submit", "--watch", site.url("/ok"), site.url("/reset"))
    assert ended.code == 1
    assert ended.err == f"Task {ended.out.strip()}: ready, 2 of 2 done (1 ok, 1 failed)\n"


async def test_ctrl_c_stops_watching_and_not_the_task(service: Service, relay: Relay, held: Held) -> None:
    task_id = await service.submit(held.url)
    async with started("watch", task_id, "--url", relay.url) as process:
        await relay.until(lambda: b"/events" in relay.asked)
        process.send_signal(signal.SIGINT)
        ended = await end_of(process)
    assert ended == Ended(130, "", f"crawler: Task {task_id} keeps running\n")
    assert service.registry.task(task_id).status == "running"
    held.release()
    assert (await service.done(task_id)).counts.ok == 1


async def test_watch_ends_with_sigterm(service: Service, relay: Relay, held: Held) -> None:
    task_id = await service.submit(held.url)
    async with started("watch", task_id, "--url", relay.url) as process:
        await relay.until(lambda: b"/events" in relay.asked)
        process.send_signal(signal.SIGTERM)
        ended = await end_of(process)
    assert ended == Ended(143, "", "")


async def test_watch_goes_on_after_its_connection_is_lost(service: Service, relay: Relay, held: Held) -> None:
    task_id = await service.submit(held.url)
    relay.cuts = [0, 1, 50]
    async with started("watch", task_id, "--url", relay.url) as process:
        await relay.until(lambda: relay.asked.count(b"/events") == 4)
        held.release()
        ended = await end_of(process)
    assert ended == Ended(0, "", f"Task {task_id}: ready, 1 of 1 done (1 ok)\n")


async def test_watch_of_a_task_that_is_deleted_says_so(service: Service, relay: Relay, held: Held) -> None:
    task_id = await service.submit(held.url)
    async with started("watch", task_id, "--url", relay.url) as process:
        await relay.until(lambda: b"/events" in relay.asked)
        assert await service.run("cancel", "--delete", task_id) == Ended(0, "", "")
        ended = await end_of(process)
    assert ended == Ended(2, "", f"crawler: {relay.url}: no Task '{task_id}'\n")


# --- Results ---


async def test_results_come_in_each_format(service: Service, site: Site, tmp_path: Path) -> None:
    task_id = await service.submit(site.url("/ok"), "=x\x1b[2J")
    await service.done(task_id)
    file, terminal = tmp_path / "results", Terminal()
    ndjson, table, csv_, to_file, shown = await asyncio.gather(
        service.run("results", task_id),
        service.run("results", task_id, "--format=table"),
        service.run("results", task_id, "--format=csv"),
        service.run("results", task_id, "-o", str(file)),
        service.run("results", task_id, stdout=terminal.slave),
    )
    assert [ended.code for ended in (ndjson, table, csv_, to_file, shown)] == [0] * 5
    assert ndjson.outcomes == ["ok", "invalid"]
    assert (await asyncio.to_thread(file.read_text), to_file.out) == (ndjson.out, "")
    assert csv_.out.count("\r\n") == 3
    assert "'=x" in csv_.out
    rows = screen(await asyncio.to_thread(terminal.read))
    assert sorted(row.split()[0] for row in rows[:3]) == ["invalid", "ok", "outcome"]
    assert table.out.split()[:4] == ["outcome", "status", "ms", "url"]


async def test_results_are_chosen(service: Service, site: Site) -> None:
    urls = [site.url("/ok"), site.url("/status/404"), site.url("/reset"), site.url("/ok", host="127.0.0.2"), "x"]
    task_id = await service.submit(*urls)
    await service.done(task_id)
    chosen = {
        "--outcome=ok": [0, 3],
        "--status=404": [1],
        "--error=tcp.reset": [2],
        "--host=127.0.0.2": [3],
        "--host=0x7f.2": [3],
        "--host=127.0.0.1 --outcome=failed": [2],
        "--host=else.test": [],
    }
    for flags, places in chosen.items():
        for more in ([], ["--follow"]):
            ended = await service.run("results", task_id, *flags.split(), *more)
            assert (ended.code, sorted(record["seq"] for record in ended.records)) == (0, places), flags


async def test_results_are_those_of_now_unless_followed(service: Service, site: Site, held: Held) -> None:
    task_id = await service.submit(held.url, site.url("/ok"))
    while not service.registry.task(task_id).counts.done:
        await service.registry.wait_for_change(task_id)
    assert (await service.run("results", task_id)).outcomes == ["ok"]
    async with started("results", "--follow", task_id, env={"CRAWLER_URL": service.url}) as process:
        assert process.stdout
        assert json.loads(await process.stdout.readline())["url"] == site.url("/ok")
        held.release()
        ended = await end_of(process)
    assert [record["url"] for record in ended.records] == [held.url]
    assert (ended.code, ended.err) == (0, "")


async def test_a_follower_misses_nothing_and_gets_nothing_twice(service: Service, relay: Relay) -> None:
    task_id = await service.submit("-f", "-", stdin=b"".join(b"x%d\n" % number for number in range(2000)))
    relay.cuts = [0, 500, 1_000, 50_000, 100_000]
    ended = await service.run("results", "--follow", task_id, env={"CRAWLER_URL": relay.url})
    assert (ended.code, ended.err) == (0, "")
    assert sorted(record["seq"] for record in ended.records) == list(range(2000))
    assert relay.asked.count(b"/events") == 6
    assert b"Last-Event-ID: " in relay.asked


async def test_for_an_unknown_task_no_file_is_touched(service: Service, tmp_path: Path) -> None:
    file = tmp_path / "results"
    await asyncio.to_thread(file.write_text, "before")
    ended = await service.run("results", "bogus", "-o", str(file))
    assert ended == Ended(2, "", f"crawler: {service.url}: no Task 'bogus'\n")
    assert await asyncio.to_thread(file.read_text) == "before"


async def test_results_that_are_cut_off_are_not_taken_for_all(site: Site) -> None:
    record = b'{"seq": 0, "url": "x", "timestamp": 0, "outcome": "invalid"}\n'
    chunk = b"%x\r\n%s\r\n" % (len(record), record)
    site.on("/api/v1/tasks/a", HEAD + b"\r\n" + summary_json("a"))
    site.on("/api/v1/tasks/a/results", HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk)
    ended = await run_crawler("results", "a", "--url", site.url(""))
    assert (ended.code, len(ended.records)) == (2, 1)
    assert ended.err == f"crawler: {site.url('')}: the answer was cut off\n"


async def test_many_results_are_read_in_constant_memory(site: Site) -> None:
    async def answer(exchange: Exchange, count: int) -> None:
        await exchange.send(HEAD + b"\r\n")
        filler = b"x" * 900
        for start in range(0, count, 100):
            await exchange.send(
                b"".join(
                    b'{"seq":%d,"url":"%s","timestamp":0,"outcome":"invalid"}\n' % (number, filler)
                    for number in range(start, start + 100)
                )
            )
        exchange.keeps_open = False

    async def few(exchange: Exchange) -> None:
        await answer(exchange, 100)

    async def many(exchange: Exchange) -> None:
        await answer(exchange, 100_000)

    env = {"CRAWLER_URL": site.url("")}
    for name, handler in (("few", few), ("many", many)):
        about = b"\r\n" + summary_json(name)
        site.on(f"/api/v1/tasks/{name}", HEAD + about)
        site.on(f"/api/v1/tasks/{name}/results", handler)
    small = await peak_of("results", "few", env=env)
    assert await peak_of("results", "many", env=env) - small < 24 * MIB


async def test_a_reader_who_leaves_ends_it_quietly(service: Service) -> None:
    task_id = await service.submit("-f", "-", stdin=b"".join(b"x%d\n" % number for number in range(2000)))
    reading, writing = os.pipe()
    async with started("results", "--follow", task_id, "--url", service.url, stdout=writing) as process:
        os.close(writing)
        assert await asyncio.to_thread(os.read, reading, 1)
        os.close(reading)
        ended = await end_of(process)
    assert (ended.code, ended.err) == (1, "")


# --- Cancel and list ---


async def test_cancel_stops_a_task_and_delete_forgets_it(service: Service, site: Site, held: Held) -> None:
    task_id = await service.submit(held.url, "x")
    await site.until(lambda: len(site.requests) == 1)
    while not service.registry.task(task_id).counts.done:
        await service.registry.wait_for_change(task_id)
    line = f"Task {task_id}: error (cancelled), 1 of 2 done (1 invalid)\n"
    assert await service.run("cancel", task_id) == Ended(0, "", line)
    assert await service.run("cancel", task_id) == Ended(0, "", line)
    assert await service.run("watch", task_id) == Ended(1, "", line)
    assert await service.run("cancel", "--delete", task_id) == Ended(0, "", "")
    assert not service.registry.tasks
    unknown = Ended(2, "", f"crawler: {service.url}: no Task '{task_id}'\n")
    for command in (["cancel"], ["cancel", "--delete"], ["watch"], ["results"]):
        assert await service.run(*command, task_id) == unknown


async def test_tasks_are_lines_in_a_pipe_and_a_table_on_a_terminal(service: Service, site: Site, held: Held) -> None:
    first = await service.submit(site.url("/ok"), "x", "--label=one\x1b[2J\u202e")
    await service.done(first)
    second = await service.submit(held.url)
    terminal = Terminal()
    piped, running, limited, shown = await asyncio.gather(
        service.run("tasks"),
        service.run("tasks", "--status=running"),
        service.run("tasks", "--limit=1"),
        service.run("tasks", stdout=terminal.slave),
    )
    assert [task["id"] for task in piped.records] == [second, first]
    assert piped.records[1]["counts"] == {"ok": 1, "http_error": 0, "failed": 0, "blocked": 0, "invalid": 1}
    assert [[task["id"] for task in ended.records] for ended in (running, limited)] == [[second], [second]]
    assert (shown.code, shown.err) == (0, "")
    head, *rows, _ = screen(await asyncio.to_thread(terminal.read))
    assert head.split() == ["id", "label", "status", "done", "results", "age"]
    assert re.fullmatch(rf"{second}\s+running\s+0/1\s+\d+s", rows[0])
    assert re.fullmatch(rf"{first}\s+one\ufffd\[2J\ufffd\s+ready\s+2/2\s+1 ok  1 invalid\s+\d+s", rows[1])


async def test_more_tasks_than_a_page_has_are_listed(service: Service) -> None:
    for number in range(1005):
        await service.registry.submit(["x"], Options(), label=str(number))
    ended = await service.run("tasks", "--limit=1003")
    assert [task["label"] for task in ended.records] == [str(number) for number in range(1004, 1, -1)]


# --- What is wrong ---


STRANGER = "the server there is not crawler, or has another version"
STRANGERS = {
    "a page": (
        b"HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n<h1>no</h1>",
        f"{STRANGER} (404 Not Found, text/html)",
    ),
    "a page that is fine": (
        HEAD + b"Content-Type: text/html\r\n\r\n<h1>hi</h1>",
        f"{STRANGER} (JSON is malformed",
    ),
    "other json": (
        HEAD + b"Content-Type: application/json\r\n\r\n{}",
        f"{STRANGER} (Object missing required field",
    ),
    "an id that steers the terminal": (
        HEAD + b"\r\n" + summary_json("a").replace(b'"id":"a"', b'"id":"a\\u001b[2J"'),
        f"{STRANGER} (the id is not one of a Task",
    ),
    "a redirect": (
        b"HTTP/1.1 301 Moved Permanently\r\nLocation: /else\r\nConnection: close\r\n\r\n",
        f"{STRANGER} (301 Moved Permanently, ",
    ),
    "no http": (b"SSH-2.0-OpenSSH_9.2p1\r\n", f"{STRANGER} ("),
    "a problem that steers the terminal": (
        b"HTTP/1.1 418 x\r\nContent-Type: application/problem+json\r\nConnection: close\r\n\r\n"
        b'{"detail": "a\\u001b[2J\\u009b\\u202eb"}',
        "a\ufffd[2J\ufffd\ufffdb\n",
    ),
    "a page without end": (
        b"HTTP/1.1 500 x\x1b[2J\r\nConnection: close\r\n\r\n" + b"x" * 10 * MIB,
        f"{STRANGER} (",
    ),
}


@pytest.mark.parametrize(("answer", "message"), STRANGERS.values(), ids=STRANGERS)
async def test_a_server_that_is_not_crawler_is_told(answer: bytes, message: str, site: Site) -> None:
    site.on("/api/v1/tasks/a", answer)
    ended = await run_crawler("watch", "a", "--url", site.url(""))
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(f"crawler: {site.url('')}: {message}")
    assert ended.err[:-1].isprintable()
    assert ended.err.endswith("\n")


@pytest.mark.parametrize("command", [["submit", "x"], ["tasks"], ["watch", "a"], ["results", "a"], ["cancel", "a"]])
async def test_a_service_that_is_not_there_is_told_in_one_line(command: list[str]) -> None:
    assert await run_crawler(*command, "--url", CLOSED) == Ended(
        2, "", f"crawler: {CLOSED}: Connection refused; crawler serve starts a service\n"
    )


async def test_a_password_in_the_url_is_not_shown() -> None:
    ended = await run_crawler("tasks", "--url", "http://me:secret@127.0.0.1:1/sub/")
    assert ended == Ended(2, "", f"crawler: {CLOSED}/sub: Connection refused; crawler serve starts a service\n")


USAGE = {
    "no url": (["submit"], "URL"),
    "too small": (["submit", "x", "--timeout=0"], "--timeout"),
    "no header": (["submit", "x", "--header=nocolon"], "--header"),
    "both families": (["submit", "x", "-4", "-6"], "--ipv4"),
    "what the service chooses": (["submit", "x", "--concurrency=1"], "--concurrency"),
    "no id": (["watch"], "ID"),
    "no format": (["results", "a", "--format=xml"], "--format"),
    "no outcome": (["results", "a", "--outcome=bad"], "--outcome"),
    "no error type": (["results", "a", "--error=bad"], "--error"),
    "no host": (["results", "a", "--host=a/b"], "--host"),
    "a host with a name before it": (["results", "a", "--host=u@a"], "--host"),
    "a host with a fragment": (["results", "a", "--host=a#"], "--host"),
    "no status": (["tasks", "--status=bad"], "--status"),
    "no limit": (["tasks", "--limit=0"], "--limit"),
    "no service": (["tasks", "--url=bogus"], "--url: 'bogus' is not the URL of a service"),
    "another scheme": (["tasks", "--url=ftp://a"], "--url: 'ftp://a' is not the URL of a service"),
    "half an address": (["tasks", "--url=http://[a"], "--url: 'http://[a' is not the URL of a service"),
    "no id of a task": (["cancel", "../x", f"--url={CLOSED}"], "no Task '../x'"),
}


@pytest.mark.parametrize(("arguments", "named"), USAGE.values(), ids=USAGE)
def test_wrong_usage_is_told_and_names_it(arguments: list[str], named: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    out, err = capfd.readouterr()
    assert out == ""
    [line] = err.splitlines()
    assert line.startswith("crawler: ")
    assert named in line


def test_help_of_submit_has_the_options_of_a_task_and_no_others(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["submit", "--help"]) == 0
    out = capfd.readouterr().out
    for flag in flags_of(Options):
        for name in (*flag.names, flag.variable.name):
            mentioned = re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", out) is not None
            assert mentioned == (flag.field in TASK_OPTIONS), name


async def test_probe_needs_no_client() -> None:
    code = (
        "import sys; from crawler.cli.main import main; main(['probe', 'x', '-o', '/dev/null']);"
        "print([name for name in ('aiohttp', 'crawler.cli.client', 'rich.table') if name in sys.modules])"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=-1, env=environment())
    out, _ = await process.communicate()
    assert out == b"[]\n"
