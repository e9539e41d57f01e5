"""The first contract, over real sockets: its four operations, and `app["TASKS"]`."""

import asyncio
import gzip
import io
import json
import signal
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

import crawler
from crawler import Options, ServiceOptions
from crawler.server.app_keys import REGISTRY
from crawler.server.first_contract.records import FirstContractResult
from crawler.stores.redis.registry import RedisRegistry
from crawler.stores.sqlite.registry import SqliteRegistry
from tests.support.app_client import Client, check_problem, open_app, serving
from tests.support.fleet import working
from tests.support.results import a_result
from tests.support.served import SERVERS
from tests.support.site import Site


@pytest.fixture(params=["memory", "sqlite", "asgi", "redis"])
async def client(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Client]:
    if request.param == "redis":
        url = request.getfixturevalue("redis_server").url
        async with working(url), serving(open_app(RedisRegistry(url))) as client:
            yield client
        return
    registry = SqliteRegistry(tmp_path / "tasks.db") if request.param == "sqlite" else None
    async with serving(open_app(registry), SERVERS.get(request.param, TestServer)) as client:
        yield client


async def submit(client: Client, urls: list[str]) -> str:
    async with client.post("/submit", data=io.BytesIO(json.dumps({"urls": urls}).encode())) as response:
        assert response.status == 200
        assert response.content_type == "application/json"
        body = await response.json()
    assert list(body) == ["task_id"]
    assert uuid.UUID(body["task_id"]).version == 4
    return str(body["task_id"])


async def look(client: Client, task_id: str) -> Any:
    async with client.get(f"/tasks/{task_id}") as response:
        assert response.status == 200
        return await response.json()


async def finished(client: Client, task_id: str) -> Any:
    """Return the Task once its workers have ended, or the registry has its end."""
    assert client.app is not None
    registry = client.app[REGISTRY]
    if registry.is_shared:
        while registry.task(task_id).status == "running":
            await registry.wait_for_change(task_id)
    else:
        await asyncio.wait(client.app[crawler.TASKS][task_id]["workers"])
    return await look(client, task_id)


# --- The contract ---


async def test_a_batch_from_submit_to_results(client: Client, site: Site) -> None:
    urls = [site.url("/ok"), site.url("/status/404"), site.url("/reset"), "nonsense"]
    task = await finished(client, await submit(client, urls))
    assert task["status"] == "ready"
    assert {url: record["errors"] for url, record in task["result"].items()} == {
        urls[0]: {},
        urls[1]: {"http": 404},
        urls[2]: {"http": "CONNECTION_ERROR"},
        urls[3]: {"http": "INVALID_URL"},
    }
    assert all(type(record["timestamp"]) is int for record in task["result"].values())


async def test_a_task_shows_what_it_has_while_it_runs(client: Client, site: Site) -> None:
    task_id = await submit(client, [site.url("/ok"), site.url("/hang", host="127.0.0.2")])
    await site.until(lambda: len(site.requests) == 2)
    while not (task := await look(client, task_id))["result"]:
        pass
    assert task["status"] == "running"
    assert list(task["result"]) == [site.url("/ok")]


async def test_all_tasks_at_once(client: Client, site: Site) -> None:
    async with client.get("/tasks") as response:
        assert await response.json() == {}
    ids = [await submit(client, [site.url(f"/ok?{number}")]) for number in range(3)]
    for task_id in ids:
        await finished(client, task_id)
    async with client.get("/tasks") as response:
        tasks = await response.json()
    assert list(tasks) == ids
    assert tasks[ids[1]] == await look(client, ids[1])


async def test_delete_stops_the_requests_in_flight_and_removes_the_task(client: Client, site: Site) -> None:
    task_id = await submit(client, [site.url(f"/hang/{number}") for number in range(50)])
    await site.until(lambda: site.active == 8)
    async with client.delete(f"/tasks/{task_id}") as response:
        assert (response.status, await response.read()) == (204, b"")
    await site.until(lambda: site.active == 0)
    before = len(site.requests)
    async with client.get(f"/tasks/{task_id}") as response:
        assert response.status == 404
    other = await submit(client, [site.url("/ok")])
    assert (await finished(client, other))["status"] == "ready"
    assert len(site.requests) == before + 1


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("task_id", ["unknown", str(uuid.UUID(int=1, version=4)), "%00", "%2e%2e", "a" * 5000])
async def test_an_unknown_task(method: str, task_id: str, client: Client) -> None:
    async with client.request(method, f"/tasks/{task_id}") as response:
        await check_problem(response, 404)


@pytest.mark.parametrize("client", ["memory", "sqlite", "asgi"], indirect=True)  # where the workers are in this process
async def test_a_task_in_the_application_has_the_keys_of_the_first_version(client: Client, site: Site) -> None:
    assert client.app is not None
    tasks = client.app["TASKS"]
    assert tasks is client.app[crawler.TASKS]
    task_id = await submit(client, [site.url("/ok"), site.url("/hang", host="127.0.0.2")])
    assert list(tasks) == [task_id]
    task = tasks[task_id]
    assert {"status", "workers", "result"} <= set(task)
    assert task["status"] == "running"
    [worker] = task["workers"]
    assert isinstance(worker, asyncio.Future)
    assert worker.get_loop() is asyncio.get_running_loop()
    await site.until(lambda: len(site.requests) == 2)
    while not (await look(client, task_id))["result"]:
        pass
    assert tasks[task_id]["result"][site.url("/ok")]["errors"] == {}
    async with client.delete(f"/tasks/{task_id}"):
        pass
    assert not tasks
    assert worker.cancelled()
    with pytest.raises(KeyError):
        tasks[task_id]


async def test_equal_urls_in_one_batch(client: Client, site: Site) -> None:
    urls = [site.url("/count"), site.url("/count"), site.url("/count#x")]
    task = await finished(client, await submit(client, urls))
    assert list(task["result"]) == [urls[0], urls[2]]
    assert len(site.requests) == 1


async def test_any_text_can_be_a_key_of_the_result(client: Client) -> None:
    urls = ["http://[", '"', "\\", "\u2028", "\x00", "é", "\U0001f600", ""]
    task = await finished(client, await submit(client, urls))
    assert list(task["result"]) == urls


@pytest.mark.parametrize(
    "client", ["memory", "sqlite", "asgi"], indirect=True
)  # lines that are no URLs count as one host
async def test_a_large_task_comes_back_whole(client: Client) -> None:
    urls = [f"no url {number}" for number in range(25_000)]
    task = await finished(client, await submit(client, urls))
    assert list(task["result"]) == urls


async def test_head_of_a_task_has_no_body(client: Client) -> None:
    task_id = await submit(client, ["x"])
    async with client.head(f"/tasks/{task_id}") as response:
        assert (response.status, await response.read()) == (200, b"")


def test_a_result_is_shown_with_its_time_and_its_errors() -> None:
    result = msgspec.structs.replace(a_result(), errors={"http": 404})
    assert msgspec.to_builtins(FirstContractResult.of(result)) == {"timestamp": 1_790_000_000, "errors": {"http": 404}}


# --- Bad input ---


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, ["JSON"]),
        (b"{", 400, ["JSON"]),
        (b"no json", 400, ["JSON"]),
        (b'{"urls": ["a"]} x', 400, ["JSON"]),
        (b"\xff\xfe{\x00}\x00", 422, ["urls"]),
        (b'{"urls": ["\xff"]}', 400, ["JSON"]),
        (b'{"urls": ["\\ud800"]}', 400, ["JSON"]),
        (b'{"urls": [NaN]}', 400, ["JSON"]),
        (b"[" * 100_000, 422, ["object"]),
        (b'{"urls": ' + b"[" * 100_000, 422, ["$.urls[0]"]),
        (b'{"x": ' + b"[" * 100_000, 400, ["ends too early"]),
        (b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, ["deep"]),
        (b"[]", 422, ["object"]),
        (b"null", 422, ["object"]),
        (b'"urls"', 422, ["object"]),
        (b"1" * 5000, 422, ["Number"]),
        (b"{}", 422, ["urls"]),
        (b'{"urls": null}', 422, ["$.urls"]),
        (b'{"urls": {}}', 422, ["$.urls"]),
        (b'{"urls": "http://a"}', 422, ["$.urls"]),
        (b'{"urls": []}', 422, ["$.urls"]),
        (b'{"urls": ["http://a", 1]}', 422, ["$.urls[1]"]),
        (b'{"urls": [["http://a"]]}', 422, ["$.urls[0]"]),
        (b'{"urls": [null]}', 422, ["$.urls[0]"]),
        (b'{"urls": [1e400]}', 422, ["$.urls[0]"]),
    ],
    ids=lambda value: value[:20].decode("latin-1") if isinstance(value, bytes) else "",
)
async def test_a_body_that_is_not_a_batch_is_refused(
    body: bytes, status: int, words: list[str], client: Client
) -> None:
    async with client.post("/submit", data=body) as response:
        await check_problem(response, status, *words)
    async with client.get("/tasks") as response:
        assert await response.json() == {}


async def test_a_body_of_fifty_megabytes(client: Client) -> None:
    async with client.post("/submit", data=io.BytesIO(b'{"urls": ["' + b"a" * 50_000_000 + b'"]}')) as response:
        await check_problem(response, 413, "bytes")


async def test_a_body_that_is_too_large_after_decompression_is_refused(client: Client) -> None:
    packed = gzip.compress(b'{"urls": [' + b" " * 50_000_000 + b'"a"]}')
    async with client.post("/submit", data=packed, headers={"Content-Encoding": "gzip"}) as response:
        await check_problem(response, 413, "bytes")


async def test_a_gzip_body_is_decompressed(client: Client) -> None:
    packed = gzip.compress(b'{"urls": ["x"]}')
    async with client.post("/submit", data=packed, headers={"Content-Encoding": "gzip"}) as response:
        assert response.status == 200


async def test_a_body_that_claims_gzip_and_is_not_is_refused(client: Client) -> None:
    async with client.post("/submit", data=b'{"urls": ["x"]}', headers={"Content-Encoding": "gzip"}) as response:
        assert response.status == 400


async def test_a_chunked_body_has_the_same_limit() -> None:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * 1000

    small = crawler.create_app(Options(guard="any"), service=ServiceOptions(max_body=10_000))
    async with serving(small) as client, client.post("/submit", data=body()) as response:
        await check_problem(response, 413, "10000 bytes")


async def test_a_client_that_disconnects_during_its_body_makes_no_task(client: Client) -> None:
    reader, writer = await asyncio.open_connection(client.host, client.port)
    writer.write(b'POST /submit HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"urls": ["htt')
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert await reader.read() == b""
    async with client.get("/tasks") as response:
        assert await response.json() == {}


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/nowhere", 404), ("PUT", "/tasks", 405), ("GET", "/submit", 405)]
)
async def test_a_request_without_a_route(method: str, path: str, status: int, client: Client) -> None:
    async with client.request(method, path) as response:
        await check_problem(response, status)
        if status == 405:
            assert response.headers["Allow"]


async def test_a_fault_of_the_service_shows_the_client_no_details(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(crawler.MemoryRegistry):
        async def _insert(self, *args: Any) -> None:
            raise LookupError("secret")

    broken = crawler.create_app(Options(guard="any"), registry=Broken())
    async with serving(broken) as client, client.post("/submit", json={"urls": ["http://a"]}) as response:
        await check_problem(response, 500)
        assert "secret" not in await response.text()
    assert "secret" in caplog.text


async def test_a_task_whose_registry_fails_ends_in_error(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    class Full(crawler.MemoryRegistry):
        async def _record(self, *args: Any) -> None:
            raise OSError("no space left")

    async with serving(crawler.create_app(Options(guard="any"), registry=Full())) as client:
        task = await finished(client, await submit(client, [site.url("/ok")]))
        assert task == {"status": "error", "result": {}}
    assert "no space left" in caplog.text


# --- Fairness ---


@pytest.mark.parametrize("client", ["memory", "sqlite"], indirect=True)
async def test_ten_urls_behind_a_hundred_thousand_wait_for_about_as_long_as_ten(client: Client, site: Site) -> None:
    big = await submit(
        client, [site.url(f"/delay/0.01?{n}", host=f"127.0.{n % 40}.{1 + n % 250}") for n in range(100_000)]
    )
    await site.until(lambda: len(site.requests) > 500)
    before = len(site.requests)
    small = await submit(client, [site.url("/ok", host=f"127.9.9.{1 + n}") for n in range(10)])
    assert len((await finished(client, small))["result"]) == 10
    assert len(site.requests) - before < 3000
    async with client.delete(f"/tasks/{big}") as response:
        assert response.status == 204


# --- Embedding and serving ---


async def test_an_application_probes_no_private_address(site: Site) -> None:
    async with serving(crawler.create_app()) as client:
        task = await finished(client, await submit(client, [site.url("/ok")]))
    assert [record["errors"] for record in task["result"].values()] == [{"http": "BLOCKED"}]
    assert site.connections == 0


async def test_mounted_under_another_application(site: Site) -> None:
    root = web.Application()
    inner = crawler.create_app(Options(per_host=1, guard="any"), service=ServiceOptions(max_body=3_000_000))
    root.add_subapp("/crawler", inner)
    async with serving(root) as client:
        urls = [site.url(f"/ok?{'x' * 2000}{number}") for number in range(1000)]  # more than aiohttp's own limit
        async with client.post("/crawler/submit", data=io.BytesIO(json.dumps({"urls": urls}).encode())) as response:
            task_id = (await response.json())["task_id"]
        await asyncio.wait(inner[crawler.TASKS][task_id]["workers"])
        async with client.get(f"/crawler/tasks/{task_id}") as response:
            assert len((await response.json())["result"]) == 1000
        async with client.get("/crawler/nowhere") as response:
            await check_problem(response, 404)


async def test_several_in_one_process(site: Site) -> None:
    async with serving(open_app()) as one, serving(open_app()) as other:
        task_id = await submit(one, [site.url("/ok")])
        async with other.get(f"/tasks/{task_id}") as response:
            assert response.status == 404


async def test_stopping_the_application_stops_its_work(site: Site) -> None:
    async with serving(open_app()) as client:
        await submit(client, [site.url(f"/hang/{number}") for number in range(20)])
        await site.until(lambda: site.active == 8)
    await site.until(lambda: site.active == 0)


@pytest.mark.parametrize("client", ["memory", "sqlite"], indirect=True)
async def test_a_task_deleted_while_all_are_sent_is_left_out_or_sent_whole(client: Client) -> None:
    big = await submit(client, [f"no url {number:01000}" for number in range(10_000)])
    await finished(client, big)
    small = await submit(client, ["x"])
    await finished(client, small)
    async with client.get("/tasks") as response:  # more than the buffers between client and service hold
        async with client.delete(f"/tasks/{small}") as deleted:
            assert deleted.status == 204
        tasks = await response.json()
    assert len(tasks[big]["result"]) == 10_000
    assert tasks.get(small, {"result": {"x": None}})["result"].keys() == {"x"}


async def test_the_service_stops_in_time_though_a_client_is_half_way_through_its_request() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "crawler", "--port", "0", "--drain", "0", stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    port = int((await process.stdout.readline()).split(b":")[2].split(b".")[0])
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b'POST /submit HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"urls"')
    await writer.drain()
    async with ClientSession() as session, session.get(f"http://127.0.0.1:{port}/tasks") as response:
        assert response.status == 200  # so the service has read the half request too
    process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(25):
        assert await process.wait() == 0
    writer.close()
