"""Queues in Redis that pass nothing on: `/readyz` says so, and what a queue has lost is queued again.

Witness: the pages "Redis data types" (WRONGTYPE) and "Key eviction", whose policies remove keys of any kind; the page
of XINFO STREAM on `entries-added`, "the count of all entries added to the stream during its lifetime".
"""

import asyncio
import time

import pytest

from crawler.stores.redis.settings import FleetSettings
from tests.support.api import Api
from tests.support.fleet import working
from tests.support.redis_server import RedisServer
from tests.support.replica import replica
from tests.support.site import Site

_QUICK = FleetSettings(stalled_check_seconds=0.1, stalled_after_seconds=0.5)
_PATIENT = FleetSettings(stalled_after_seconds=0.5)  # only `/readyz` looks for lost chunks


async def _store(api: Api) -> tuple[int, str]:
    async with api.client.get("/readyz") as response:
        return response.status, (await response.json())["checks"]["store"]


async def _until_store(api: Api, expected: tuple[int, str]) -> None:
    while await _store(api) != expected:  # noqa: ASYNC110 - there is no event for it
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("queue", ["small", "big"])
@pytest.mark.parametrize(
    ("name", "wanted"), [("stream", "stream"), ("queue", "zset"), ("workers", "zset"), ("strikes", "stream")]
)
async def test_a_key_of_a_queue_of_a_wrong_type_is_named(
    redis_server: RedisServer, queue: str, name: str, wanted: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with replica(redis_server) as api, asyncio.timeout(20):
        assert await _store(api) == (200, "ok")
        with redis_server.client() as client:
            client.delete(f"crawler-{queue}:{name}")
            client.rpush(f"crawler-{queue}:{name}", "x")
        await _until_store(api, (503, "is damaged"))
        await api.ask("GET", "/tasks", 200)
        assert f"crawler-{queue}:{name} is a list, not a {wanted}" in caplog.text
        async with api.client.get("/metrics") as response:
            assert response.status == 200
        with redis_server.client() as client:
            client.delete(f"crawler-{queue}:{name}")
        await _until_store(api, (200, "ok"))


@pytest.mark.parametrize("is_worker_there", [False, True])
async def test_chunks_of_a_deleted_stream_are_queued_again(
    site: Site, redis_server: RedisServer, is_worker_there: bool
) -> None:
    """docket still takes them for queued: its records of them are in keys of their own."""
    async with replica(redis_server, settings=_PATIENT) as api, asyncio.timeout(60):
        ids = [(await api.submit([site.url(f"/ok?{number}")]))["id"] for number in range(20)]
        with redis_server.client() as client:
            while client.xlen("crawler-small:stream") < len(ids):  # noqa: ASYNC110 - there is no event for it
                await asyncio.sleep(0.01)
            assert await _store(api) == (200, "ok")
            client.delete("crawler-small:stream")
            if is_worker_there:  # it makes the stream anew
                client.xgroup_create("crawler-small:stream", "docket-workers", "0", mkstream=True)
        await _until_store(api, (503, "has lost queued work, which is queued again"))
        async with working(redis_server.url):
            for id_ in ids:
                assert (await api.get(f"/tasks/{id_}", wait=20))["counts"]["ok"] == 1
            await _until_store(api, (200, "ok"))


async def test_a_chunk_that_was_lost_while_it_was_leased_is_queued_again(site: Site, redis_server: RedisServer) -> None:
    """Its worker process is killed: nothing is left that would redeliver it."""
    async with replica(redis_server, settings=_QUICK) as api, asyncio.timeout(60):
        async with working(redis_server.url):
            task = await api.submit([site.url("/delay/1")])
            await site.until(lambda: len(site.requests) == 1)
            with redis_server.client() as client:
                client.delete("crawler-small:stream")
        async with working(redis_server.url):
            assert (await api.get(f"/tasks/{task['id']}", wait=20))["counts"]["ok"] == 1


async def test_chunks_that_no_worker_process_takes_are_reported(site: Site, redis_server: RedisServer) -> None:
    """Without any worker process the service is ready: it stores Tasks for those that will be started."""
    async with replica(redis_server, settings=_PATIENT) as api, asyncio.timeout(60):
        async with working(redis_server.url):
            assert (await api.ended([site.url("/ok")]))["counts"]["ok"] == 1
        task = await api.submit([site.url("/ok")])
        with redis_server.client() as client:
            client.delete("crawler-small:workers")
            await asyncio.sleep(2.5)  # two checks, which are a second apart
            assert await _store(api) == (200, "ok")
            client.zadd("crawler-small:workers", {"deaf": time.time()})
        await _until_store(api, (503, "has queued work that no worker process takes"))
        async with working(redis_server.url):
            assert (await api.get(f"/tasks/{task['id']}", wait=20))["counts"]["ok"] == 1
            await _until_store(api, (200, "ok"))
