"""Metrics: their values and names; and no labels that a client can make up."""

import json
import os
import re
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from prometheus_client import Metric

import crawler
from crawler import Options, ServiceOptions
from crawler.core.results import Hop, ProbeError, ProbeResult, Timings
from crawler.probing.probe import Probe
from crawler.probing.scheduling.scheduler import Load, Scheduler
from crawler.probing.scheduling.work_queue import WorkQueue
from crawler.runtime.counters import Histogram, ProbeCounters
from crawler.server.app_keys import HEALTH
from crawler.server.metrics import TABLE
from crawler.stores.redis.registry import RedisRegistry
from crawler.stores.sqlite.registry import SqliteRegistry
from tests.support.api import REGISTRIES, Api, read_events, serving_api
from tests.support.app_client import serving
from tests.support.fleet import working
from tests.support.metrics import read_metrics, sum_of
from tests.support.redis_server import RedisServer
from tests.support.site import Site

DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.fixture(params=REGISTRIES)
async def api(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Api]:
    async with serving_api(REGISTRIES[request.param](tmp_path), retries=0) as api:
        yield api


# --- Numbers ---


async def test_the_results_of_a_task_are_counted(api: Api, site: Site) -> None:
    urls = [
        site.url("/ok"),
        site.url("/ok"),
        site.url("/status/404"),
        "http://127.0.0.1:1/",
        "no url",
        site.url("/ok?2"),
    ]
    await api.ended(urls)
    for outcome, count in {"ok": 2, "http_error": 1, "failed": 1, "blocked": 0, "invalid": 1}.items():
        assert await sum_of(api.client, "crawler_probes_total", outcome=outcome) == count
    assert await sum_of(api.client, "crawler_probe_errors_total", type="tcp.refused") == 1
    assert await sum_of(api.client, "crawler_probe_errors_total", type="url.invalid") == 1
    assert await sum_of(api.client, "crawler_probe_errors_total") == 2
    asked = len(site.requests)
    assert await sum_of(api.client, "crawler_hop_phase_seconds_count", phase="wait") == asked
    assert await sum_of(api.client, "crawler_hop_phase_seconds_count", phase="dns") == 0
    assert 0 < await sum_of(api.client, "crawler_hop_phase_seconds_sum", phase="wait") < 60
    assert await sum_of(api.client, "crawler_tasks", status="ready") == 1
    assert await sum_of(api.client, "crawler_tasks", status="running") == 0
    assert await sum_of(api.client, "crawler_lines_pending") == 0


async def test_a_single_url_is_counted_too(api: Api, site: Site) -> None:
    await api.get("/probe", url=site.url("/ok"))
    assert await sum_of(api.client, "crawler_probes_total", outcome="ok") == 1


async def test_slots_and_hosts_of_running_work_are_shown(site: Site) -> None:
    async with serving_api(crawler.MemoryRegistry(), concurrency=3, per_host=2) as api:
        await api.submit([site.url(f"/hang?{number}") for number in range(5)])
        await site.until(lambda: site.active == 2)
        assert await sum_of(api.client, "crawler_slots_in_use") == 2
        assert await sum_of(api.client, "crawler_slots_limit") == 3
        assert await sum_of(api.client, "crawler_hosts_waiting") == 1
        assert await sum_of(api.client, "crawler_tasks", status="running") == 1
        assert await sum_of(api.client, "crawler_lines_pending") == 5


async def test_slots_and_hosts_of_child_processes_are_shown(site: Site) -> None:
    others = children()  # what the tests use serves on
    async with serving_api(crawler.MemoryRegistry(), concurrency=6, per_host=1, processes=2) as api:
        places = [f"127.0.0.{number}" for number in range(1, 5)]
        await api.submit([site.url(f"/hang?{number}", host=place) for place in places for number in range(2)])
        await site.until(lambda: site.active == 4)
        assert await sum_of(api.client, "crawler_slots_in_use") == 4
        assert await sum_of(api.client, "crawler_slots_limit") == 6
        assert await sum_of(api.client, "crawler_hosts_waiting") == 4
        crew = children() - others
        assert len(crew) == 2
        for pid in crew:
            os.kill(pid, signal.SIGKILL)
        assert await sum_of(api.client, "crawler_slots_limit") in (0, 3, 6)  # of those that are there again
        assert await sum_of(api.client, "crawler_lines_pending") == 8


def children() -> set[int]:
    """The running child processes of this one."""
    return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


async def test_slowed_hosts_are_counted_while_they_have_work() -> None:
    scheduler = Scheduler(concurrency=5, per_host=2)

    async def never(_: Probe) -> bool:
        raise AssertionError("nothing runs")

    owner = WorkQueue[Probe](scheduler, never)
    _, queue = [scheduler.open_queue(owner, name) for name in ("a", "b")]
    assert scheduler.load() == Load(active=0, limit=5, waiting=2, slowed=0)
    scheduler.record_refusal("b", 429, 60)
    assert scheduler.load().slowed == 1
    scheduler.leave(owner, [queue])
    assert scheduler.load().slowed == 0
    scheduler.record_shortage()
    assert scheduler.load().limit == 1


async def test_calls_of_a_store_are_timed(tmp_path: Path, site: Site) -> None:
    path = tmp_path / "tasks.db"
    async with serving_api(SqliteRegistry(path)) as api:
        task = await api.ended([site.url("/ok")])
        await api.get(f"/tasks/{task['id']}/results")
        for kind in ("read", "write"):
            assert await sum_of(api.client, "crawler_store_call_duration_seconds_count", kind=kind) >= 2
            assert await sum_of(api.client, "crawler_store_failures_total", kind=kind) == 0
        path.rename(tmp_path / "elsewhere.db")
        await api.client.get("/readyz")
        assert await sum_of(api.client, "crawler_store_failures_total", kind="write") == 1


async def test_the_lag_of_the_event_loop_is_measured(api: Api) -> None:
    while not await sum_of(api.client, "crawler_event_loop_lag_seconds_count"):
        pass  # each look at it takes the loop around


def test_a_histogram_counts_up_to_its_bounds() -> None:
    histogram = Histogram((0.5, 1.0))
    for seconds in (0.1, 0.5, 0.7, 1.5):
        histogram.add(seconds)
    assert histogram.buckets() == [("0.5", 2), ("1.0", 3), ("+Inf", 4)]
    assert histogram.sum == pytest.approx(2.8)


def test_each_phase_of_each_hop_is_counted_where_there_was_one() -> None:
    tally = ProbeCounters()
    hops = [
        Hop("http://a/", "HEAD", 302, None, Timings(dns=20.0, connect=3.0, ssl=40.0, wait=600.0)),
        Hop("http://a/b", "HEAD", None, None, Timings(wait=1500.0), "http.timed_out"),
    ]
    error = ProbeError.of("http.timed_out", "")
    tally.add(ProbeResult(seq=0, url="", timestamp=0, outcome="failed", error=error, hops=hops))
    assert {phase: (each.buckets()[-1][1], each.sum) for phase, each in tally.phases.items()} == {
        "dns": (1, 0.02), "connect": (1, 0.003), "ssl": (1, 0.04), "wait": (2, 2.1),
    }  # fmt: skip
    assert (tally.outcomes["failed"], tally.errors["http.timed_out"]) == (1, 1)


# --- Requests ---


async def test_requests_are_counted_by_route_method_and_class_of_status(api: Api) -> None:
    for path in ("/tasks/1", "/tasks/2", "/nowhere"):
        await api.client.get(path)
    await api.client.delete("/tasks/1")
    await api.client.put("/tasks/1")
    await api.submit(["no url"])
    requests = [
        ("GET", "/tasks/{task_id}", "4xx", 2), ("DELETE", "/tasks/{task_id}", "4xx", 1), ("GET", "other", "4xx", 1),
        ("PUT", "other", "4xx", 1), ("POST", "/api/v1/tasks", "2xx", 1),
    ]  # fmt: skip
    for method, route, status, count in requests:
        labels = {"method": method, "route": route}
        assert await sum_of(api.client, "crawler_http_requests_total", status=status, **labels) == count
        assert await sum_of(api.client, "crawler_http_request_duration_seconds_count", **labels) == count


async def test_faults_of_the_service_are_counted(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.app[HEALTH], "find_faults", None)
    async with api.client.get("/readyz") as response:
        assert response.status == 500
    assert await sum_of(api.client, "crawler_http_requests_total", route="/readyz", status="5xx") == 1


async def test_clients_cannot_create_label_values(api: Api) -> None:
    await read_metrics(api.client)  # the first request of its kind adds samples
    before = {name: len(family.samples) for name, family in (await read_metrics(api.client)).items()}
    for method in ("GET", "PROPFIND", "SUBSCRIBE"):
        for number in range(3):
            await api.client.request(method, f"/secret/{number}?secret=secret")
    await api.client.get("/docs/secret")
    after = await read_metrics(api.client)
    grown = {name: len(family.samples) - before[name] for name, family in after.items()}
    requests = {
        (each.labels["route"], each.labels["method"]): each.value for each in after["crawler_http_requests"].samples
    }
    assert requests["other", "other"] == 6
    assert requests["/docs/{name}", "GET"] == 1
    assert grown["crawler_http_requests"] == 3
    assert {name for name, more in grown.items() if more} == {
        "crawler_http_requests", "crawler_http_request_duration_seconds",
    }  # fmt: skip


async def test_nothing_of_targets_and_tokens_is_shown(site: Site) -> None:
    service = ServiceOptions(tokens=("planted-name:read:planted-token", "other:planted-too"))
    app = crawler.create_app(Options(guard="any"), service=service)
    async with serving(app) as client:
        headers = {"Authorization": "Bearer planted-too"}
        body = json.dumps({"urls": [site.url("/ok?planted"), "http://planted.invalid/"]})
        async with client.post("/submit", data=body.encode(), headers=headers) as response:
            task = (await response.json())["task_id"]
        await client.get(f"/api/v1/tasks/{task}?wait=60", headers=headers)
        async with client.get("/metrics", headers={"Authorization": "Bearer planted-token"}) as response:
            text = await response.text()
    assert 'outcome="ok"} 1' in text
    assert "planted" not in text
    assert task not in text


async def test_a_request_that_wants_to_wait_is_not_slow(api: Api, site: Site) -> None:
    task = await api.submit([site.url("/hang")])
    began = time.perf_counter()
    await api.get(f"/tasks/{task['id']}", wait="0.5")
    took = time.perf_counter() - began
    labels = {"route": "/api/v1/tasks/{task_id}", "method": "GET"}
    assert await sum_of(api.client, "crawler_http_request_duration_seconds_count", **labels) == 1
    assert await sum_of(api.client, "crawler_http_request_duration_seconds_sum", **labels) < took - 0.49


async def test_a_stream_is_counted_when_it_begins(api: Api, site: Site) -> None:
    task = await api.submit([site.url("/hang")])
    labels = {"route": "/api/v1/tasks/{task_id}/events", "method": "GET"}
    async with api.client.get(f"/api/v1/tasks/{task['id']}/events") as response:
        assert (await anext(read_events(response))).name == "progress"
        assert await sum_of(api.client, "crawler_http_request_duration_seconds_count", **labels) == 1
    assert await sum_of(api.client, "crawler_http_requests_total", **labels) == 1


async def test_a_service_that_is_mounted_counts_its_own() -> None:
    root, inner = web.Application(), crawler.create_app()
    root.add_subapp("/crawler", inner)
    async with serving(root) as client:
        await client.get("/crawler/tasks")
        await client.get("/nowhere")
        found = await read_metrics(client, "/crawler/metrics")
    assert [(each.labels["route"], each.value) for each in found["crawler_http_requests"].samples] == [("/tasks", 1)]


async def test_responses_of_outer_applications_are_not_counted() -> None:
    @web.middleware
    async def closed(request: web.Request, handler: Any) -> web.Response:
        return web.Response(status=503) if request.path == "/crawler/tasks" else await handler(request)

    root = web.Application(middlewares=[closed])
    root.add_subapp("/crawler", crawler.create_app())
    async with serving(root) as client:
        async with client.get("/crawler/tasks") as response:
            assert response.status == 503
        assert (await read_metrics(client, "/crawler/metrics"))["crawler_http_requests"].samples == []


async def test_applications_mounted_in_it_are_answered() -> None:
    async def hello(_: web.Request) -> web.Response:
        return web.Response(text="hello")

    app, other = crawler.create_app(), web.Application()
    other.router.add_get("/hello", hello)
    app.add_subapp("/other", other)
    async with serving(app) as client, client.get("/other/hello") as response:
        assert (response.status, await response.text()) == (200, "hello")


async def test_two_services_of_one_process_count_separately(site: Site) -> None:
    async with (
        serving_api(crawler.MemoryRegistry()) as one,
        serving_api(crawler.MemoryRegistry()) as other,
    ):
        await one.get("/probe", url=site.url("/ok"))
        assert await sum_of(one.client, "crawler_probes_total", outcome="ok") == 1
        assert await sum_of(other.client, "crawler_probes_total", outcome="ok") == 0


# --- Forms ---


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/html", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/plain;version=1.0.0", "text/plain; version=1.0.0; charset=utf-8; escaping=underscores"),
        ("application/openmetrics-text;version=1.0.0,text/plain;q=0.5", "application/openmetrics-text; version=1.0.0"),
        ("application/openmetrics-text;version=x", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/plain;version=1.x", "text/plain; version=0.0.4; charset=utf-8"),
    ],
)
async def test_the_reader_chooses_the_format(accept: str, media_type: str, api: Api) -> None:
    async with api.client.get("/metrics", headers={"Accept": accept}) as response:
        assert response.status == 200
        assert response.headers["Content-Type"].startswith(media_type)
        text = await response.text()
    assert text.endswith("# EOF\n") == ("openmetrics" in media_type)


@pytest.fixture
async def everything(site: Site, redis_server: RedisServer) -> dict[str, Metric]:
    """The metrics of a service with worker processes, after some of everything has happened."""
    async with serving_api(RedisRegistry(redis_server.url)) as api, working(redis_server.url):
        await api.ended([site.url("/ok"), "no url"])
        return await read_metrics(api.client)


def test_the_table_has_every_metric_as_it_is(everything: dict[str, Metric]) -> None:
    found = {name: each for name, each in everything.items() if name.startswith("crawler_")}
    assert {name.removesuffix("_total") for name in TABLE} == found.keys()
    for name, row in TABLE.items():
        family = found[name.removesuffix("_total")]
        assert (family.type, family.documentation) == (row.kind, row.meaning)
        assert name.endswith("_total") == (row.kind == "counter")
        assert {tuple(label for label in each.labels if label != "le") for each in family.samples} == {
            tuple(sorted(row.labels, key=list(family.samples[0].labels).index))
        }


async def test_the_process_has_its_usual_metrics(api: Api) -> None:
    assert await sum_of(api.client, "process_resident_memory_bytes") > 2**20
    assert await sum_of(api.client, "process_open_fds") > 0


# --- Dashboard and alerts ---


def queries(file: Path) -> list[str]:
    """The PromQL expressions of a dashboard, or of a file of rules."""
    if file.suffix == ".json":
        return [found["expr"] for found in objects(json.loads(file.read_text())) if "expr" in found]
    return re.findall(r"^\s+expr: (.+)$", file.read_text(), re.M)


def objects(content: Any) -> list[Any]:
    """Every object in a JSON text."""
    below = content.values() if isinstance(content, dict) else content if isinstance(content, list) else ()
    return ([content] if isinstance(content, dict) else []) + [found for each in below for found in objects(each)]


@pytest.mark.parametrize("name", ["grafana/crawler.json", "prometheus/alerts.yml"])
def test_queries_of_dashboard_and_alerts_name_existing_metrics(name: str, everything: dict[str, Metric]) -> None:
    samples = [each for family in everything.values() for each in family.samples]
    labels_of = {each.name: set(each.labels) | {"le"} for each in samples}
    found = queries(DEPLOY / name)
    assert found
    for query in found:
        names = re.findall(r"\b(?:crawler|process)_\w+", query)
        assert names, query
        assert set(names) <= labels_of.keys(), query
        labels = {label for group in re.findall(r"by \((.*?)\)", query) for label in group.split(", ")}
        assert labels <= set().union(*(labels_of[name] for name in names)) | {"instance"}, query
        for name, wanted in re.findall(r"\b((?:crawler|process)_\w+)\{(.*?)\}", query):
            assert set(re.findall(r"(\w+)[=!]~?\"", wanted)) <= labels_of[name] | {"job", "instance"}, query


def test_the_dashboard_shows_every_metric() -> None:
    shown = " ".join(queries(DEPLOY / "grafana/crawler.json"))
    assert [name for name in TABLE if name not in shown] == []


def test_the_dashboard_fits_any_grafana() -> None:
    dashboard = json.loads((DEPLOY / "grafana/crawler.json").read_text())
    assert dashboard["id"] is None
    variables = {each["name"]: each["type"] for each in dashboard["templating"]["list"]}
    assert variables == {"datasource": "datasource", "job": "query", "instance": "query"}
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert {panel["datasource"]["uid"] for panel in panels} == {"${datasource}"}
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in dashboard["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells)), "panels lie over each other"
    assert max(x for x, _ in cells) < 24
