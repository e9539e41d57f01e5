"""A service that stops finishes its probes and answers, loses nothing, and probes no target twice."""

import asyncio
import json
import signal
import ssl
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web

import crawler
from crawler import Options, Registry, ServiceOptions, Target
from crawler.core.errors import ServiceStopping
from crawler.server.app_keys import REGISTRY, SINGLE_PROBES, TASK_MANAGER
from crawler.server.http.connection_limits import ConnectionLimiter
from crawler.server.http.site import ListeningSite as ListenerSite
from crawler.server.task_manager import TaskManager
from tests.support.api import REGISTRIES
from tests.support.app_client import serving
from tests.support.certs import write_combined_pem
from tests.support.gate import Gate
from tests.support.process import Served, batch_body, field, registry_flags, request, submit_to, summary_of
from tests.support.site import Site

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
FOREVER = ("--timeout", "60", "--retries", "0")


# --- Probes ---


@pytest.mark.parametrize(
    ("number", "processes"), [(signal.SIGTERM, "1"), (signal.SIGINT, "1"), (signal.SIGTERM, "2"), (signal.SIGINT, "2")]
)
async def test_probes_in_flight_are_finished_and_no_target_is_probed_twice(
    number: signal.Signals, processes: str, site: Site, tmp_path: Path
) -> None:
    gate = Gate(site)
    urls = [site.url(f"/gate?{line}", host=f"127.0.0.{1 + line % 3}") for line in range(30)]
    async with Served(*registry_flags(tmp_path), *FOREVER, "--processes", processes, "--per-host", "4") as service:
        task_id = await submit_to(service, *urls)
        await site.until(lambda: site.active == 12)
        await service.stops(number)
        assert site.active == 12
        gate.is_open.set()
        assert await service.process.wait() == 0
    if processes == "1":  # with more, the children hear of it a moment later
        assert len(site.requests) == 12
    async with Served(*registry_flags(tmp_path), *FOREVER) as service:
        task = await summary_of(service, task_id)
    assert (task["status"], task["done"], task["counts"]["ok"]) == ("ready", 30, 30)
    assert site.count_by_path() == Counter(f"/gate?{line}" for line in range(30))


@pytest.mark.parametrize("processes", ["1", "2"])
async def test_a_stuck_target_delays_the_stop_no_longer_than_the_drain(
    processes: str, site: Site, tmp_path: Path
) -> None:
    async with Served(*registry_flags(tmp_path), *FOREVER, "--drain", "0.3", "--processes", processes) as service:
        task_id = await submit_to(service, site.url("/ok"), site.url("/hang", host="127.0.0.2"))
        while (await summary_of(service, task_id, wait=0))["done"] < 1:
            pass
        await site.until(lambda: site.active == 1)
        started = time.monotonic()
        await service.stops()
        assert await service.process.wait() == 0
        assert time.monotonic() - started < 45  # the probe itself would take a minute
    site.on("/hang", OK)
    async with Served(*registry_flags(tmp_path)) as service:
        assert (await summary_of(service, task_id))["counts"]["ok"] == 2
    assert site.count_by_path() == {"/ok": 1, "/hang": 2}


@pytest.mark.parametrize("processes", ["1", "2"])
async def test_a_probe_that_waits_for_its_next_attempt_is_not_waited_for(
    processes: str, site: Site, tmp_path: Path
) -> None:
    waiting = ("--drain", "15", "--timeout", "60", "--method", "GET", "--processes", processes)
    async with Served(*registry_flags(tmp_path), *waiting) as service:
        task_id = await submit_to(service, site.url("/retry-after/40?status=503&times=1"))
        await site.until(lambda: len(site.requests) == 1 and not site.active)
        started = time.monotonic()
        await service.stops()
        assert await service.process.wait() == 0
        assert time.monotonic() - started < 15  # less than --drain allows
    async with Served(*registry_flags(tmp_path)) as service:
        assert (await summary_of(service, task_id))["counts"]["ok"] == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_stops_it_at_once(number: signal.Signals, site: Site, tmp_path: Path) -> None:
    async with Served(*registry_flags(tmp_path), *FOREVER, "--drain", "15") as service:
        task_id = await submit_to(service, site.url("/hang"))
        await site.until(lambda: site.active == 1)
        await service.stops()
        service.process.send_signal(number)
        assert await service.process.wait() == -number  # at the end of --drain it would be 0
    site.on("/hang", OK)
    async with Served(*registry_flags(tmp_path)) as service:
        assert (await summary_of(service, task_id))["status"] == "ready"


def state_of(registry: Registry) -> tuple[Any, TaskManager]:
    app = crawler.create_app(Options(guard="any", timeout=60), registry=registry, service=ServiceOptions(drain=15))
    return app, app[TASK_MANAGER]


@pytest.fixture(params=sorted(REGISTRIES))
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Registry]:
    return lambda: REGISTRIES[request.param](tmp_path)


async def test_a_task_with_lines_left_is_never_ready(site: Site, make: Callable[[], Registry]) -> None:
    gate = Gate(site)
    app, state = state_of(make())
    async with serving(app):
        task = await state.submit([site.url(f"/gate?{line}") for line in range(9)])
        await site.until(lambda: site.active == 8)
        stopped = state.stop()
        gate.is_open.set()
        await stopped
        assert (task.status, task.counts.done, task.total) == ("running", 8, 9)
        assert state.engine.workers(task.id)[0].done()
    assert (task.status, task.counts.done) == ("running", 8)
    assert len(site.requests) == 8


async def test_a_task_whose_lines_were_all_in_flight_is_ready(site: Site, make: Callable[[], Registry]) -> None:
    gate = Gate(site)
    app, state = state_of(make())
    async with serving(app):
        task = await state.submit([site.url(f"/gate?{line}") for line in range(8)])
        await site.until(lambda: site.active == 8)
        stopped = state.stop()
        gate.is_open.set()
        await stopped
        assert (task.status, task.counts.done) == ("ready", 8)


async def test_a_batch_that_is_received_during_the_stop_starts_at_the_next_start(site: Site, tmp_path: Path) -> None:
    app, state = state_of(REGISTRIES["sqlite"](tmp_path))
    coming: asyncio.Queue[str | None] = asyncio.Queue()

    async def lines() -> Any:
        while (line := await coming.get()) is not None:
            coming.task_done()
            yield line

    async with serving(app):
        submitting = asyncio.ensure_future(state.submit(lines()))
        coming.put_nowait(site.url("/ok"))
        await coming.join()
        await state.stop()
        coming.put_nowait(None)
        task = await submitting
    assert (task.status, len(site.requests)) == ("running", 0)
    app, state = state_of(REGISTRIES["sqlite"](tmp_path))
    async with serving(app):
        while (task := app[REGISTRY].task(task.id)).status == "running":
            await app[REGISTRY].wait_for_change(task.id)
    assert (task.status, site.count_by_path()) == ("ready", {"/ok": 1})


@pytest.mark.parametrize("processes", [1, 2])
async def test_a_list_that_is_not_read_to_its_end_ends_with_what_was_in_flight(processes: int, site: Site) -> None:
    gate = Gate(site)
    async with crawler.open_prober(Options(timeout=60, processes=processes)) as prober:

        async def probed() -> list[int]:
            lines = (Target.of(line, site.url(f"/gate?{line}")) for line in count())
            return [result.seq async for result in prober.probe_many(lines)]

        probing = asyncio.ensure_future(probed())
        await site.until(lambda: site.active == 8)
        draining = asyncio.ensure_future(prober.drain(15))
        gate.is_open.set()
        found = await probing
        await draining
        assert sorted(f"/gate?{line}" for line in found) == sorted(site.count_by_path().elements())
        if processes == 1:  # with more, the children hear of it a moment later
            assert len(found) == 8
        assert [result async for result in prober.probe_many([Target.of(0, site.url("/gate"))])] == []
        with pytest.raises(ServiceStopping):
            await prober.probe(Target.of(0, site.url("/gate")))


# --- Answers ---


async def test_answers_in_progress_are_finished_and_no_connection_is_kept(site: Site, tmp_path: Path) -> None:
    gate = Gate(site)
    body = batch_body(site.url("/gate?later"))
    async with Served(*registry_flags(tmp_path), *FOREVER) as service:
        task_id = await submit_to(service, site.url("/gate"))
        idle, polling, watching, probing, uploading, reading, refused, half = [
            await service.connect() for _ in range(8)
        ]
        await idle.send(request("GET", "/api/v1/tasks"))
        assert (await idle.reply()).status == 200
        await polling.send(request("GET", f"/api/v1/tasks/{task_id}?wait=60"))
        await watching.send(request("GET", f"/api/v1/tasks/{task_id}/events"))
        await probing.send(request("GET", f"/api/v1/probe?url={site.url('/gate?now')}"))
        await uploading.send(request("POST", "/submit", body)[:-5])
        for caller in (reading, refused, half):
            await caller.send(b"GET /")
        await site.until(lambda: site.active == 2)
        # The service reads in order: with this response, each earlier connection has been served.
        await service.ask("GET", "/api/v1/tasks")
        await service.stops()

        assert await idle.rest() == b""
        reply = await polling.reply()
        assert (reply.status, json.loads(reply.body)["status"]) == (200, "running")
        assert (await watching.rest()).endswith(b"0\r\n\r\n")
        await reading.send(request("GET", f"/api/v1/tasks/{task_id}")[5:])
        reply = await reading.reply()
        assert (reply.status, field(reply.head, b"connection")) == (200, b"close")
        assert await reading.rest() == b""
        await refused.send(request("GET", f"/api/v1/probe?url={site.url('/never')}")[5:])
        reply = await refused.reply()
        assert (reply.status, field(reply.head, b"connection")) == (503, b"close")
        assert field(reply.head, b"content-type").startswith(b"application/problem+json")
        assert int(field(reply.head, b"retry-after")) > 0
        await uploading.send(body[-5:])
        reply = await uploading.reply()
        assert (reply.status, field(reply.head, b"connection")) == (200, b"close")
        later_id = json.loads(reply.body)["task_id"]
        gate.is_open.set()
        reply = await probing.reply()
        assert (reply.status, json.loads(reply.body)["status"]) == (200, 200)
        await half.close()
        assert await service.process.wait() == 0
    async with Served(*registry_flags(tmp_path)) as service:
        assert (await summary_of(service, task_id))["status"] == "ready"
        assert (await summary_of(service, later_id))["status"] == "ready"
    assert site.count_by_path() == {"/gate": 1, "/gate?now": 1, "/gate?later": 1}


async def test_a_stream_that_had_begun_is_its_connections_last_answer() -> None:
    going = asyncio.Event()

    async def streamed(asked: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(asked)
        await response.write(b"begun")
        await going.wait()
        await response.write_eof()
        return response

    app, listener = web.Application(), ConnectionLimiter(30, 10)
    app.router.add_get("/", streamed)
    app.middlewares.append(listener.middleware)
    app.on_response_prepare.append(listener.announce_close)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    async with listener:
        await ListenerSite(runner, listener, ("127.0.0.1", 0), keep_alive=60).start()
        reader, writer = await asyncio.open_connection(*runner.addresses[0])
        writer.write(request("GET", "/"))
        await reader.readuntil(b"begun")
        draining = asyncio.ensure_future(listener.drain(60))
        await asyncio.sleep(0)
        assert listener.is_draining
        going.set()
        async with asyncio.timeout(20):
            assert (await reader.read()).endswith(b"0\r\n\r\n")
            await draining
        writer.close()
    await runner.cleanup()


@pytest.mark.parametrize("path", ["/submit", "/api/v1/tasks"])
async def test_a_batch_that_comes_while_it_stops_is_refused(path: str, site: Site) -> None:
    app = crawler.create_app(Options(guard="any"))
    async with serving(app) as client:
        await app[TASK_MANAGER].stop()
        async with client.post(path, json={"urls": [site.url("/ok")]}) as response:
            assert response.status == 503
            assert response.content_type == "application/problem+json"
            assert int(response.headers["Retry-After"]) > 0
        async with client.get("/tasks") as response:
            assert await response.json() == {}


async def test_a_single_probe_during_the_stop_is_answered_503(site: Site) -> None:
    app = crawler.create_app(Options(guard="any", per_host=1, timeout=60), service=ServiceOptions(drain=0))
    async with serving(app) as client:
        asking = [asyncio.ensure_future(client.get("/api/v1/probe", params={"url": site.url("/hang")})) for _ in "12"]
        await site.until(lambda: site.active == 1)
        async with client.get("/tasks"):  # when this is answered, the other request has been read too
            assert app[SINGLE_PROBES].places.in_use == 2
        await app[TASK_MANAGER].stop()
        for response in await asyncio.gather(*asking):
            assert response.status == 503
            response.release()


async def test_an_unfinished_handshake_at_the_stop_leads_to_no_request(site: Site, tmp_path: Path) -> None:
    Gate(site)
    authority, context = trustme.CA(), ssl.create_default_context()
    authority.configure_trust(context)
    async with Served(*FOREVER, "--drain", "15", "--tls-cert", write_combined_pem(authority, tmp_path)) as service:
        late = await service.connect()
        caller = await service.connect(context)
        await caller.send(request("GET", f"/api/v1/probe?url={site.url('/gate')}"))
        await site.until(lambda: site.active == 1)
        await service.stops()
        with suppress(ConnectionError):  # the connection may be cut in several ways
            async with asyncio.timeout(20):
                assert await late.rest() == b""
        assert site.active == 1  # the service is still running: the request did not end with it
