"""The versioned API, over real sockets: submit, list, wait for, cancel and delete Tasks."""

import asyncio
import csv
import gzip
import io
import json
import re
from collections.abc import AsyncIterator, Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, TCPConnector, web

import crawler
from crawler import MemoryRegistry, Options, ServiceOptions, StoreError
from crawler.core.errors import StoreFull
from crawler.core.tasks import Task
from crawler.runtime.counters import CallCounters
from crawler.server.app_keys import KEYS_IN_PROGRESS, SINGLE_PROBES
from crawler.stores.sqlite.connection import connect
from crawler.stores.sqlite.database import Database
from crawler.stores.sqlite.registry import SqliteRegistry
from tests.support.api import ROOT, WAYS, Api, serving_api, serving_as
from tests.support.app_client import serving
from tests.support.exchange import Exchange
from tests.support.site import Site

LINES = ["no url 1", "no, url 2", "no url é"]  # a line that is no URL has its result at once, without a request


@pytest.fixture(params=WAYS)
async def api(request: pytest.FixtureRequest) -> AsyncIterator[Api]:
    async with serving_as(request, ServiceOptions(max_body=4 * 2**20)) as api:
        yield api


def as_csv(lines: list[str], column: str = "url") -> str:
    text = io.StringIO()
    csv.writer(text).writerows([["id", column], *enumerate(lines)])
    return text.getvalue()


BODIES: dict[str, tuple[str, bytes]] = {
    "json": ("application/json", json.dumps({"urls": LINES}).encode()),
    "text": ("text/plain", "\n".join(LINES).encode()),
    "ndjson": ("application/x-ndjson", "\n".join(json.dumps({"url": line}) for line in LINES).encode()),
    "csv": ("text/csv", as_csv(LINES).encode()),
}
EMPTY: dict[str, tuple[str, bytes]] = {
    "json": ("application/json", b'{"urls": []}'),
    "text": ("text/plain; charset=utf-8", b" \n\n"),
    "ndjson": ("application/x-ndjson", b""),
    "csv": ("text/csv", b"url\r\n"),
}


async def lines_of(api: Api, task_id: str) -> list[str]:
    await api.get(f"/tasks/{task_id}", wait=60)
    results = (await api.get(f"/tasks/{task_id}/results"))["results"]
    return [result["url"] for result in sorted(results, key=lambda result: result["seq"])]


async def has_no_task(api: Api) -> None:
    assert await api.get("/tasks") == {"tasks": [], "next": None}


async def hanging(site: Site, api: Api, **members: Any) -> Any:
    """A Task with two results, which keeps running."""
    urls = ["no url", site.url("/ok"), site.url("/hang", host="127.0.0.2")]
    task = await api.submit(urls, **members)
    kept = api.registry.task(task["id"])
    while kept.counts.done < 2:
        await api.registry.wait_for_change(kept.id)
    return await api.get(f"/tasks/{task['id']}")


# --- Batches ---


async def test_a_batch_from_submit_to_summary(api: Api, site: Site) -> None:
    urls = [site.url("/ok"), site.url("/status/404"), site.url("/reset"), "nonsense"]
    answer = await api.ask("POST", "/tasks", 201, json={"urls": urls, "label": "nightly"})
    task = answer.json
    here = f"{ROOT}/tasks/{task['id']}"
    assert answer.headers["Location"] == task["links"]["self"] == here
    assert task["links"]["results"] == f"{here}/results"
    assert (task["status"], task["total"], task["label"], task["finished"]) == ("running", 4, "nightly", None)
    task = await api.get(f"/tasks/{task['id']}", wait=60)
    assert (task["status"], task["done"], task["detail"], task["eta"]) == ("ready", 4, None, None)
    assert task["counts"] == {"ok": 1, "http_error": 1, "failed": 1, "blocked": 0, "invalid": 1}
    assert task["rate"] > 0
    assert task["finished"] >= task["created"]
    assert task["options"]["timeout"] == Options().timeout


@pytest.mark.parametrize("format_", BODIES)
@pytest.mark.parametrize("packed", [False, True])
async def test_a_batch_in_every_format(format_: str, packed: bool, api: Api) -> None:
    media_type, body = BODIES[format_]
    headers = {"Content-Type": media_type, **({"Content-Encoding": "gzip"} if packed else {})}
    task = (await api.ask("POST", "/tasks", 201, data=gzip.compress(body) if packed else body, headers=headers)).json
    assert await lines_of(api, task["id"]) == LINES


@pytest.mark.parametrize("format_", BODIES)
@pytest.mark.parametrize("size", [1, 2, 3, 7])
async def test_a_batch_may_be_split_anywhere(format_: str, size: int, api: Api) -> None:
    media_type, body = BODIES[format_]

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), size):
            yield body[start : start + size]

    task = (await api.ask("POST", "/tasks", 201, data=pieces(), headers={"Content-Type": media_type})).json
    assert await lines_of(api, task["id"]) == LINES


@pytest.mark.parametrize("column", ["Address", "2"])
async def test_the_column_of_csv_is_chosen(column: str, api: Api) -> None:
    body, headers = as_csv(LINES, "Address"), {"Content-Type": "text/csv"}
    await api.refuses("POST", "/tasks", 422, "no column 'url'", data=body, headers=headers)
    task = (await api.ask("POST", f"/tasks?column={column}", 201, data=body, headers=headers)).json
    assert await lines_of(api, task["id"]) == LINES


@pytest.mark.parametrize("format_", EMPTY)
async def test_a_batch_without_a_line(format_: str, api: Api) -> None:
    media_type, body = EMPTY[format_]
    await api.refuses("POST", "/tasks", 422, data=body, headers={"Content-Type": media_type})
    await has_no_task(api)


@pytest.mark.parametrize(
    ("media_type", "body", "status", "words"),
    [
        ("application/json", b"no json", 400, ["JSON"]),
        ("application/json", b'{"urls": ["a"]', 400, ["ends too early"]),
        ("application/json", b'{"urls": ["a", 1]}', 422, ["$.urls[1]"]),
        ("application/json", b'{"urls": ["a"], "colour": 1}', 422, ["colour"]),
        ("application/json", b'{"urls": ["a"], "options": {"colour": 1}}', 422, ["colour: there is no such option"]),
        ("application/json", b'{"urls": ["a"], "options": {"concurrency": 1}}', 422, ["concurrency", "per Task"]),
        ("application/json", b'{"options": {"timeout": "5"}, "urls": ["a"]}', 422, ["timeout"]),
        ("application/json", b'{"urls": ["a"], "options": {"per_host": 9}}', 422, ["per_host", "at most 8"]),
        ("application/json", b'{"urls": ["a"], "options": []}', 422, ["$.options"]),
        ("application/json", b'{"urls": ["a"], "label": 1}', 422, ["$.label"]),
        ("application/json", b'{"urls": ["a"], "label": ""}', 422, ["$.label"]),
        ("application/x-ndjson", b'"a"\n{"url": 1}', 422, ["line 2"]),
        ("text/csv", b'a,url\n1,"b', 422, ["line 2"]),
        ("text/html", b"a", 415, ["Content-Type", "text/csv"]),
        ("application/x-www-form-urlencoded", b"a", 415, ["Content-Type"]),
        ("text/plain; charset=latin-1", b"a", 415, ["UTF-8"]),
    ],
)
async def test_a_body_that_is_not_a_batch_is_refused(
    media_type: str, body: bytes, status: int, words: list[str], api: Api
) -> None:
    await api.refuses("POST", "/tasks", status, *words, data=body, headers={"Content-Type": media_type})
    await has_no_task(api)


@pytest.mark.parametrize("format_", BODIES)
async def test_a_truncated_gzip_batch_is_refused(format_: str, api: Api) -> None:
    media_type, body = BODIES[format_]
    headers = {"Content-Type": media_type, "Content-Encoding": "gzip"}
    packed = gzip.compress(body + b" " * 100_000)
    for end in (1, 9, len(packed) // 2, len(packed) - 8, len(packed) - 1):
        await api.refuses("POST", "/tasks", 400, "gzip", data=packed[:end], headers=headers)
    await has_no_task(api)


async def test_a_body_that_claims_gzip_and_is_not_is_refused(api: Api) -> None:
    headers = {"Content-Type": "text/plain", "Content-Encoding": "gzip"}
    await api.refuses("POST", "/tasks", 400, "gzip", data=b"http://a/", headers=headers)
    await has_no_task(api)


async def test_a_gzip_batch_of_several_members_is_read(api: Api) -> None:
    headers = {"Content-Type": "text/plain", "Content-Encoding": "gzip"}
    packed = b"".join(gzip.compress(line.encode() + b"\n") for line in LINES)
    task = (await api.ask("POST", "/tasks", 201, data=packed, headers=headers)).json
    assert await lines_of(api, task["id"]) == LINES


@pytest.mark.parametrize("encoding", ["deflate", "br", "zstd", "gzip, gzip", "x"])
async def test_another_content_encoding_is_refused(encoding: str, api: Api) -> None:
    headers = {"Content-Type": "text/plain", "Content-Encoding": encoding}
    answer = await api.refuses("POST", "/tasks", 415, "gzip", data=b"x", headers=headers)
    assert answer.headers["Accept-Encoding"] == "gzip"


async def test_a_gzip_bomb_is_measured_after_decompression(api: Api) -> None:
    packed = gzip.compress(b" " * 50_000_000)
    assert len(packed) < 100_000
    headers = {"Content-Type": "text/plain", "Content-Encoding": "gzip"}
    await api.refuses("POST", "/tasks", 413, "4194304 bytes", data=packed, headers=headers)
    await api.refuses("POST", "/tasks", 413, "4194304 bytes", data=io.BytesIO(b" " * 5_000_000), headers=headers)
    await has_no_task(api)


async def test_a_client_that_disconnects_during_its_batch_makes_no_task(api: Api) -> None:
    reader, writer = await asyncio.open_connection(api.client.host, api.client.port)
    writer.write(b"POST /api/v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\n")
    writer.write(b"Content-Length: 100\r\n\r\nhttp://a/\nhttp://")
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert await reader.read() == b""
    await has_no_task(api)


# --- Options ---


@pytest.mark.parametrize(
    "body",
    [
        {"options": {"timeout": 5, "headers": {"A": "b"}}, "label": "mine", "urls": LINES},
        {"urls": LINES, "options": {"timeout": 5, "headers": {"A": "b"}}, "label": "mine"},
    ],
    ids=["before the URLs", "after them"],
)
async def test_options_in_json_replace_those_of_the_query_by_name(body: Any, api: Api) -> None:
    query = {"timeout": "7", "retries": "3", "accept": "200\n300-399", "label": "other"}
    task = (await api.ask("POST", "/tasks", 201, json=body, params=query)).json
    options = task["options"]
    assert (options["timeout"], options["headers"]) == (5, {"A": "..."})
    assert (options["retries"], options["accept"]) == (3, ["200", "300-399"])
    assert task["label"] == "mine"
    kept = api.registry.task(task["id"])
    assert (kept.options.timeout, kept.options.retries, kept.label) == (5, 3, "mine")


async def test_options_by_query_where_the_body_has_none(api: Api) -> None:
    headers = {"Content-Type": "text/plain"}
    query = "timeout=5&robots=true&accept=200&accept=404&headers=A:+b&label=nightly"
    task = (await api.ask("POST", f"/tasks?{query}", 201, data=b"x", headers=headers)).json
    options = task["options"]
    assert (options["timeout"], options["robots"], options["accept"]) == (5, True, ["200", "404"])
    assert (options["headers"], task["label"]) == ({"A": "..."}, "nightly")


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ("timout=5", "timout: there is no such option"),
        ("timeout=0", "timeout"),
        ("timeout=nan", "timeout"),
        ("timeout=1&timeout=2", "timeout"),
        ("guard=any", "guard: cannot be set per Task"),
        ("ipv4=true&ipv6=true", "ipv4"),
        ("label=", "label"),
        ("label=a&label=b", "label: given twice"),
        ("column=url", "column"),
    ],
)
async def test_a_query_that_is_wrong(query: str, word: str, api: Api) -> None:
    await api.refuses("POST", f"/tasks?{query}", 422, word, json={"urls": ["x"]})
    await has_no_task(api)


async def test_options_reach_the_probes(api: Api, site: Site) -> None:
    task = await api.ended([site.url("/status/404")], options={"accept": ["404"]})
    assert task["counts"]["ok"] == 1


# --- Idempotency ---


async def test_the_same_key_and_request_make_one_task(api: Api) -> None:
    request: dict[str, Any] = {"json": {"urls": LINES, "label": "x"}, "headers": {"Idempotency-Key": "k"}}
    first = await api.ask("POST", "/tasks", 201, **request)
    again = await api.ask("POST", "/tasks", 200, **request)
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.headers["Location"] == first.headers["Location"]
    assert again.json["id"] == first.json["id"]
    assert len((await api.get("/tasks"))["tasks"]) == 1


async def test_a_compressed_request_has_the_same_digest(api: Api) -> None:
    headers = {"Idempotency-Key": "k", "Content-Type": "text/plain"}
    await api.ask("POST", "/tasks", 201, data=b"x", headers=headers)
    packed = gzip.compress(b"x")
    await api.ask("POST", "/tasks", 200, data=packed, headers={**headers, "Content-Encoding": "gzip"})


async def test_the_same_key_with_another_request_is_refused(api: Api) -> None:
    headers = {"Idempotency-Key": "k", "Content-Type": "text/plain"}
    task = (await api.ask("POST", "/tasks", 201, data=b"x", headers=headers)).json
    csv_headers = {**headers, "Content-Type": "text/csv"}
    await api.refuses("POST", "/tasks", 409, "Idempotency-Key", task["id"], data=b"y", headers=headers)
    await api.refuses("POST", "/tasks?timeout=5", 409, "Idempotency-Key", data=b"x", headers=headers)
    await api.refuses("POST", "/tasks", 409, "Idempotency-Key", data=b"x", headers=csv_headers)
    assert len((await api.get("/tasks"))["tasks"]) == 1


async def test_a_request_that_failed_leaves_its_key_free(api: Api) -> None:
    headers = {"Idempotency-Key": "k"}
    await api.refuses("POST", "/tasks", 422, json={"urls": ["x"], "colour": 1}, headers=headers)
    await api.ask("POST", "/tasks", 201, json={"urls": ["x"]}, headers=headers)


async def test_a_deleted_task_leaves_its_key_free(api: Api) -> None:
    request: dict[str, Any] = {"json": {"urls": LINES}, "headers": {"Idempotency-Key": "k"}}
    first = (await api.ask("POST", "/tasks", 201, **request)).json
    await api.ask("DELETE", f"/tasks/{first['id']}", 204)
    assert (await api.ask("POST", "/tasks", 201, **request)).json["id"] != first["id"]


async def test_the_same_key_while_the_first_request_is_in_progress(api: Api) -> None:
    headers = {"Idempotency-Key": "k", "Content-Type": "text/plain"}
    go_on = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"http://a"
        await go_on.wait()
        yield b".invalid/"

    first = asyncio.ensure_future(api.ask("POST", "/tasks", 201, data=slow(), headers=headers))
    while not api.app[KEYS_IN_PROGRESS]:
        await has_no_task(api)
    await api.refuses("POST", "/tasks", 409, "in progress", data=b"x", headers=headers)
    await api.ask("POST", "/tasks", 201, data=b"x", headers={**headers, "Idempotency-Key": "other"})
    go_on.set()
    task = (await first).json
    again = await api.ask("POST", "/tasks", 200, data=b"http://a.invalid/", headers=headers)
    assert again.json["id"] == task["id"]


@pytest.mark.parametrize("key", ["", "a b", "é", "x" * 256])
async def test_a_malformed_key_is_refused(key: str, api: Api) -> None:
    headers = {"Idempotency-Key": key}
    await api.refuses("POST", "/tasks", 422, "Idempotency-Key", json={"urls": ["x"]}, headers=headers)


async def test_two_keys_in_one_request_are_refused(api: Api) -> None:
    headers = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    await api.refuses("POST", "/tasks", 422, "Idempotency-Key", json={"urls": ["x"]}, headers=headers)


async def test_keys_and_cursors_hold_over_a_restart(tmp_path: Path) -> None:
    request: dict[str, Any] = {"json": {"urls": LINES}, "headers": {"Idempotency-Key": "k"}}
    async with serving_api(SqliteRegistry(tmp_path / "tasks.db")) as api:
        first = (await api.ask("POST", "/tasks", 201, **request)).json
        await api.get(f"/tasks/{first['id']}", wait=60)
        others = [(await api.submit(["x"]))["id"] for _ in range(2)]
        tasks = await api.get("/tasks", limit=2)
        results = await api.get(f"/tasks/{first['id']}/results", limit=2)
    assert [task["id"] for task in tasks["tasks"]] == others[::-1]
    async with serving_api(SqliteRegistry(tmp_path / "tasks.db")) as api:
        again = await api.ask("POST", "/tasks", 200, **request)
        assert again.json["id"] == first["id"]
        assert again.json["rate"] is None
        more = await api.get("/tasks", cursor=tasks["next"])
        assert ([task["id"] for task in more["tasks"]], more["next"]) == ([first["id"]], None)
        rest = await api.get(f"/tasks/{first['id']}/results", limit=2, cursor=results["next"])
        assert [result["seq"] for result in results["results"] + rest["results"]] == [0, 1, 2]
        assert rest["next"] is None


# --- Lists ---


async def test_tasks_are_listed_newest_first_in_pages(api: Api) -> None:
    ids = [(await api.ended([f"no url {number}"]))["id"] for number in range(7)][::-1]
    found, query = [], {"limit": "3"}
    while True:
        answer = await api.ask("GET", "/tasks", params=query)
        found += [task["id"] for task in answer.json["tasks"]]
        if answer.json["next"] is None:
            break
        link = re.fullmatch(r'<([^>]*)>; rel="next"', answer.headers["Link"])
        assert link is not None
        async with api.client.get(link[1]) as linked:
            query = {"limit": "3", "cursor": answer.json["next"]}
            assert await linked.json() == await api.get("/tasks", **query)
    assert found == ids
    assert "Link" not in answer.headers


async def test_a_cursor_stays_valid_while_tasks_come_and_go(api: Api) -> None:
    ids = [(await api.submit(["x"]))["id"] for _ in range(6)][::-1]
    page = await api.get("/tasks", limit=3)
    await api.ask("DELETE", f"/tasks/{ids[2]}", 204)  # the one that the cursor points to
    await api.ask("DELETE", f"/tasks/{ids[3]}", 204)
    await api.submit(["x"])
    rest = await api.get("/tasks", limit=3, cursor=page["next"])
    assert [task["id"] for task in rest["tasks"]] == ids[4:]


async def test_tasks_by_status_and_label(api: Api, site: Site) -> None:
    running = await hanging(site, api, label="a")
    ready = await api.ended(["x"], label="a")
    other = await api.ended(["x"])

    async def ids(**query: str) -> list[str]:
        return [task["id"] for task in (await api.get("/tasks", **query))["tasks"]]

    assert await ids(status="running") == [running["id"]]
    assert await ids(status="ready") == [other["id"], ready["id"]]
    assert await ids(label="a") == [ready["id"], running["id"]]
    assert await ids(label="a", status="ready") == [ready["id"]]
    assert await ids(label="b") == await ids(status="error") == []


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("/tasks?limit=0", "limit"),
        ("/tasks?limit=1001", "limit"),
        ("/tasks?limit=x", "limit"),
        ("/tasks?limit=1&limit=2", "limit"),
        ("/tasks?status=done", "status"),
        ("/tasks?cursor=", "cursor"),
        ("/tasks?cursor=x", "cursor"),
        ("/tasks?cursor=W10", "cursor"),
        ("/tasks?cursor=%C3%A9", "cursor"),
        ("/tasks?lable=x", "lable: unknown parameter"),
        ("/tasks/{id}?wait=61", "wait"),
        ("/tasks/{id}?wait=-1", "wait"),
        ("/tasks/{id}?wait=nan", "wait"),
        ("/tasks/{id}?x", "x"),
        ("/probe", "url"),
        ("/probe?url=x&timout=1", "timout"),
    ],
)
async def test_a_wrong_query_is_refused(path: str, word: str, api: Api) -> None:
    task = await api.submit(["x"])
    await api.refuses("GET", path.replace("{id}", task["id"]), 422, word)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("DELETE", ""),
        ("GET", "/results"),
        ("GET", "/events"),
        ("POST", "/cancel"),
        ("POST", "/recheck"),
    ],
)
async def test_an_unknown_task_and_an_unknown_parameter(method: str, path: str, api: Api) -> None:
    await api.refuses(method, f"/tasks/unknown{path}", 404, "unknown")
    task = await api.ended(["x"])
    await api.refuses(method, f"/tasks/{task['id']}{path}?colour=1", 422, "colour")
    assert (await api.get(f"/tasks/{task['id']}"))["status"] == "ready"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nowhere", 404), ("GET", "", 404), ("PUT", "/tasks", 405), ("GET", "/tasks/x/cancel", 405)],
)
async def test_a_request_without_a_route_is_answered_404_or_405(method: str, path: str, status: int, api: Api) -> None:
    answer = await api.refuses(method, path, status)
    if status == 405:
        assert answer.headers["Allow"]


@pytest.mark.parametrize("path", ["/tasks", "/tasks/{id}", "/tasks/{id}/results", "/tasks/{id}/events", "/probe?url=x"])
async def test_head_has_no_body(path: str, api: Api) -> None:
    task = await api.ended(LINES)
    for _ in range(2):  # on the same connection
        assert (await api.ask("HEAD", path.replace("{id}", task["id"]))).body == b""
    assert len(await lines_of(api, task["id"])) == 3


# --- Waiting ---


async def test_a_waiting_request_is_answered_when_the_task_ends(api: Api, site: Site) -> None:
    task = await hanging(site, api)
    waiting = asyncio.ensure_future(api.get(f"/tasks/{task['id']}", wait=60))
    while (await api.get(f"/tasks/{task['id']}"))["done"] < 2:
        pass
    assert not waiting.done()
    await api.ask("POST", f"/tasks/{task['id']}/cancel")
    assert (await waiting)["status"] == "error"


async def test_a_waiting_request_is_answered_after_its_time(api: Api, site: Site) -> None:
    task = await hanging(site, api)
    seen = await api.get(f"/tasks/{task['id']}", wait="0.05")
    assert (seen["status"], seen["done"]) == ("running", 2)
    assert seen["rate"] > 0
    assert seen["eta"] > 0


async def test_a_waiting_request_is_answered_404_when_the_task_is_deleted(api: Api, site: Site) -> None:
    task = await hanging(site, api)
    waiting = asyncio.ensure_future(api.refuses("GET", f"/tasks/{task['id']}?wait=60", 404))
    while not waiting.done():
        with suppress(AssertionError):
            await api.ask("DELETE", f"/tasks/{task['id']}", 204)
    await waiting


async def test_the_service_stops_while_a_request_waits(site: Site) -> None:
    waits = asyncio.Event()

    class Watched(MemoryRegistry):
        async def wait_for_change(self, task_id: str) -> None:
            waits.set()
            await super().wait_for_change(task_id)

    async with serving_api(Watched()) as api:
        task = await hanging(site, api)
        waits.clear()
        waiting = asyncio.ensure_future(api.get(f"/tasks/{task['id']}", wait=60))
        await waits.wait()
        await api.client.server.close()
        assert (await waiting)["status"] == "running"


# --- Ends ---


async def test_cancel_keeps_the_results(api: Api, site: Site) -> None:
    task = await hanging(site, api)
    cancelled = (await api.ask("POST", f"/tasks/{task['id']}/cancel")).json
    assert (cancelled["status"], cancelled["detail"], cancelled["done"]) == ("error", "cancelled", 2)
    await site.until(lambda: site.active == 0)
    assert (await api.ask("POST", f"/tasks/{task['id']}/cancel")).json == cancelled
    assert len((await api.get(f"/tasks/{task['id']}/results"))["results"]) == 2


async def test_cancel_leaves_a_task_that_has_ended_as_it_is(api: Api) -> None:
    task = await api.ended(LINES)
    assert (await api.ask("POST", f"/tasks/{task['id']}/cancel")).json == task


async def test_a_task_is_cancelled_by_many_at_once(api: Api, site: Site) -> None:
    task = await hanging(site, api)
    path = f"{ROOT}/tasks/{task['id']}/cancel"

    async def status() -> int:
        async with api.client.request("POST", path) as response:
            return response.status

    assert await asyncio.gather(*(status() for _ in range(10))) == [200] * 10


async def test_a_task_is_ended_by_many_at_once(api: Api, site: Site) -> None:
    task = await hanging(site, api)
    path = f"/tasks/{task['id']}"

    async def status(method: str, path: str) -> int:
        async with api.client.request(method, ROOT + path) as response:
            return response.status

    asked = [status("POST", f"{path}/cancel") if number % 2 else status("DELETE", path) for number in range(20)]
    statuses = await asyncio.gather(*asked)
    assert statuses.count(204) == 1
    assert set(statuses) <= {200, 204, 404}
    await has_no_task(api)


async def test_a_task_deleted_during_its_cancellation_stays_deleted(site: Site, tmp_path: Path) -> None:
    async with serving_api(SqliteRegistry(tmp_path / "tasks.db")) as api:
        task = await hanging(site, api)
        kept = api.registry.task(task["id"])
        await asyncio.gather(api.manager.delete(kept), api.manager.cancel(kept), return_exceptions=True)
    async with serving_api(SqliteRegistry(tmp_path / "tasks.db")) as api:
        await has_no_task(api)


async def test_delete_stops_the_work_and_removes_the_task(api: Api, site: Site) -> None:
    task = await hanging(site, api)
    assert (await api.ask("DELETE", f"/tasks/{task['id']}", 204)).body == b""
    await site.until(lambda: site.active == 0)
    await api.refuses("DELETE", f"/tasks/{task['id']}", 404)
    await has_no_task(api)


class NoRoom(MemoryRegistry):
    """A registry that can store no change of a Task until there is space."""

    has_room = False

    async def _save(self, task: Task, names: Collection[str]) -> None:
        if not self.has_room:
            raise StoreFull("no space")

    async def _delete(self, task: Task) -> None:
        if not self.has_room:
            raise StoreFull("no space")
        await super()._delete(task)


@pytest.mark.parametrize(("method", "path"), [("POST", "/cancel"), ("DELETE", "")])
async def test_work_continues_if_the_store_cannot_end_the_task(method: str, path: str, site: Site) -> None:
    registry = NoRoom()
    async with serving_api(registry) as api:
        task = await hanging(site, api)
        await site.until(lambda: site.active == 1)
        await api.refuses(method, f"/tasks/{task['id']}{path}", 507)
        [work] = api.manager.engine.workers(task["id"])
        assert not work.done()
        await site.until(lambda: sum(request.path == "/hang" for request in site.requests) == 2)
        registry.has_room = True
        await api.ask(method, f"/tasks/{task['id']}{path}", 200 if path else 204)


# --- Recheck ---


async def test_a_recheck_probes_the_failed_lines_again(api: Api, site: Site) -> None:
    urls = [site.url("/ok"), site.url("/status/404"), site.url("/reset"), "nonsense", site.url("/status/404")]
    task = await api.ended(urls, options={"retries": 0, "method": "GET"}, label="nightly")
    answer = await api.ask("POST", f"/tasks/{task['id']}/recheck", 201)
    again = answer.json
    assert answer.headers["Location"] == f"{ROOT}/tasks/{again['id']}"
    assert (again["total"], again["options"], again["label"]) == (3, task["options"], "nightly")
    assert sorted(await lines_of(api, again["id"])) == sorted([urls[1], urls[2], urls[4]])


async def test_a_recheck_with_other_options(api: Api, site: Site) -> None:
    task = await api.ended([site.url("/status/404")], options={"retries": 0, "timeout": 5})
    body = {"options": {"accept": ["404"], "timeout": 6}, "label": "again"}
    again = (await api.ask("POST", f"/tasks/{task['id']}/recheck", 201, json=body)).json
    options = again["options"]
    assert (options["retries"], options["timeout"], options["accept"]) == (0, 6, ["404"])
    again = await api.get(f"/tasks/{again['id']}", wait=60)
    assert (again["counts"]["ok"], again["label"]) == (1, "again")


async def test_a_recheck_that_is_not_possible_is_refused(api: Api, site: Site) -> None:
    running = await hanging(site, api)
    await api.refuses("POST", f"/tasks/{running['id']}/recheck", 409, "runs")
    task = await api.ended([site.url("/ok"), "nonsense"])
    await api.refuses("POST", f"/tasks/{task['id']}/recheck", 422, "failed")
    path = f"/tasks/{(await api.ended([site.url('/status/404')]))['id']}/recheck"
    await api.refuses("POST", path, 422, "timout", json={"options": {"timout": 1}})
    await api.refuses("POST", path, 422, "urls", json={"urls": ["x"]})
    await api.refuses("POST", path, 400, "JSON", data=b"{")
    assert len((await api.get("/tasks"))["tasks"]) == 3


# --- One URL ---


async def test_one_url_now(api: Api, site: Site) -> None:
    result = await api.get("/probe", url=site.url("/status/404"))
    assert (result["outcome"], result["status"], result["seq"]) == ("http_error", 404, 0)
    assert (await api.get("/probe", url=site.url("/status/404"), accept="404"))["outcome"] == "ok"
    assert (await api.get("/probe", url="nonsense"))["outcome"] == "invalid"
    await has_no_task(api)


async def test_the_number_of_single_probes_is_limited(api: Api, site: Site) -> None:
    go_on = asyncio.Event()

    async def answer(x: Exchange) -> None:
        await go_on.wait()
        await x.reply()

    site.on("/gate", answer)
    async with ClientSession(api.client.make_url("/"), connector=TCPConnector(limit=0)) as many:

        async def probe(number: int) -> str:
            async with many.get(f"{ROOT}/probe", params={"url": site.url(f"/gate?{number}")}) as response:
                return str((await response.json())["outcome"])

        probes = [asyncio.ensure_future(probe(number)) for number in range(100)]
        while api.app[SINGLE_PROBES].places.in_use < 100:
            await has_no_task(api)
        answered = await api.refuses("GET", "/probe", 503, "again", params={"url": site.url("/ok")})
        assert int(answered.headers["Retry-After"]) > 0
        go_on.set()
        assert await asyncio.gather(*probes) == ["ok"] * 100
    assert (await api.get("/probe", url=site.url("/ok")))["outcome"] == "ok"


# --- The store ---


@pytest.mark.parametrize(("fault", "status"), [(StoreFull, 507), (StoreError, 503)])
async def test_a_store_that_fails_is_answered_503_or_507(
    fault: type[Exception], status: int, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(MemoryRegistry):
        async def _insert(self, *args: Any) -> None:
            raise fault("/secret/tasks.db")

    async with serving_api(Broken()) as api:
        answer = await api.refuses("POST", "/tasks", status, json={"urls": ["x"]})
        assert int(answer.headers["Retry-After"]) > 0
        assert b"secret" not in answer.body
    assert "secret" in caplog.text


async def test_a_full_file_is_a_store_full_error_and_another_fault_is_not(tmp_path: Path) -> None:
    connect(tmp_path / "small.db", create=True).close()
    database = Database(tmp_path / "small.db", asyncio.Lock(), CallCounters())
    await database.call(lambda connection: connection.execute("PRAGMA max_page_count = 4"))
    await database.call(lambda connection: connection.execute("CREATE TABLE lines (text)"))
    with pytest.raises(StoreFull):
        await database.call(lambda connection: connection.execute("INSERT INTO lines VALUES (zeroblob(100000))"))
    with pytest.raises(StoreError) as caught:
        await database.call(lambda connection: connection.execute("SELECT * FROM nothing"))
    assert not isinstance(caught.value, StoreFull)
    await database.aclose()


# --- Mounted ---


async def test_mounted_under_another_application() -> None:
    root = web.Application()
    root.add_subapp("/crawler", crawler.create_app(Options(guard="any")))
    async with serving(root) as client:
        headers = {"Content-Type": "text/plain", "Content-Encoding": "gzip"}
        packed = gzip.compress("\n".join(LINES).encode())
        async with client.post("/crawler/api/v1/tasks", data=packed, headers=headers) as response:
            assert response.status == 201
            task = await response.json()
        assert response.headers["Location"] == f"/crawler/api/v1/tasks/{task['id']}"
        async with client.get(task["links"]["self"], params={"wait": "60"}) as response:
            assert (await response.json())["counts"]["invalid"] == 3
