"""Faults in a fleet: targets that crash workers, stopped workers, dead services, a Redis without memory."""

import asyncio
import json
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from crawler import Options, ServiceOptions, Task
from crawler.core.errors import QuotaExceeded
from crawler.server.quotas import Quotas
from crawler.server.settings import ServerSettings
from crawler.stores.redis.registry import RedisRegistry
from crawler.stores.redis.settings import FleetSettings
from tests.chaos.processes import RestartedProcess
from tests.support.api import Api
from tests.support.exchange import Exchange, Request
from tests.support.fleet import HOSTS, worker_process, working
from tests.support.redis_server import RedisServer
from tests.support.replica import replica
from tests.support.site import Site

TEXT = {"Content-Type": "text/plain"}


async def records(api: Api, task_id: str) -> list[dict[str, Any]]:
    answer = await api.ask("GET", f"/tasks/{task_id}/results", headers={"Accept": "application/x-ndjson"})
    return [json.loads(line) for line in answer.body.splitlines()]


# --- Workers ---


async def test_a_target_that_crashes_workers_is_found_and_the_others_are_probed(
    site: Site, redis_server: RedisServer
) -> None:
    settings = FleetSettings(chunk_lease_seconds=1.0)
    urls = [site.url(f"/ok?{number}", host=HOSTS[number]) for number in range(12)]
    poison = site.url("/hang?poison", host=HOSTS[15])
    crashes = 0
    async with replica(redis_server) as api, asyncio.timeout(60):
        task = await api.submit([*urls[:6], poison, poison, *urls[6:]])
        while (await api.get(f"/tasks/{task['id']}"))["status"] == "running":
            asked = Counter(request.path for request in site.requests)["/hang?poison"]
            async with working(redis_server.url, settings):  # ends, as if killed, when the target is probed again
                ended = asyncio.ensure_future(api.get(f"/tasks/{task['id']}", wait=30))
                crashed = asyncio.ensure_future(_asked_again(site, asked))
                await asyncio.wait({ended, crashed}, return_when=asyncio.FIRST_COMPLETED)
                crashes += not ended.done()
                ended.cancel()
                crashed.cancel()
        found = await records(api, task["id"])
        counts = (await api.get(f"/tasks/{task['id']}"))["counts"]
    assert (counts["ok"], counts["failed"]) == (12, 2)
    assert {each["error"]["type"] for each in found if each["outcome"] == "failed"} == {"unknown"}
    assert 4 <= crashes <= 9, "three that may be by chance, then the chunk is halved until one line is left"


async def _asked_again(site: Site, before: int) -> None:
    await site.until(lambda: Counter(request.path for request in site.requests)["/hang?poison"] > before)


async def test_a_chunk_that_crashed_workers_is_probed_alone(site: Site, redis_server: RedisServer) -> None:
    async def slow(x: Exchange) -> None:
        beside[x.request.path] = site.active - 1
        await asyncio.sleep(0.3)
        beside[x.request.path] += site.active - 1
        await x.reply()

    beside: dict[str, int] = {}
    site.on("/slow", slow)
    async with replica(redis_server) as api:
        tasks = [await api.submit([site.url(f"/slow?{number}", host=HOSTS[number])]) for number in range(4)]
        with redis_server.client() as client:
            client.hset(f"crawler:task:{tasks[1]['id']}:starts", "0.0", "3/another-start")
        async with working(redis_server.url):
            for task in tasks:
                assert (await api.get(f"/tasks/{task['id']}", wait=20))["status"] == "ready"
    assert beside["/slow?1"] == 0


async def test_a_worker_that_was_stopped_for_longer_than_its_lease_records_nothing_twice(
    site: Site, redis_server: RedisServer
) -> None:
    urls = [site.url(f"/delay/0.1?{number}", host=HOSTS[number % 20]) for number in range(400)]
    async with replica(redis_server) as api, worker_process(redis_server.url, "--concurrency", "40") as process:
        task = await api.submit(urls)
        await site.until(lambda: len(site.requests) >= 60)
        process.send_signal(signal.SIGSTOP)
        before = len(site.requests)
        async with working(redis_server.url, FleetSettings(chunk_lease_seconds=0.5), concurrency=40):
            await site.until(lambda: len(site.requests) >= before + 100)
            process.send_signal(signal.SIGCONT)
            ended = await api.get(f"/tasks/{task['id']}", wait=60)
        found = await records(api, task["id"])
    assert (ended["status"], ended["counts"]["ok"]) == ("ready", 400)
    assert sorted(record["seq"] for record in found) == list(range(400))


async def test_a_small_task_does_not_wait_behind_a_big_one(site: Site, redis_server: RedisServer) -> None:
    big = [site.url(f"/delay/0.05?{number}", host=HOSTS[number % 20]) for number in range(4_000)]
    async with replica(redis_server) as api, working(redis_server.url, concurrency=32):
        task = await api.submit(big)
        await site.until(lambda: len(site.requests) >= 100)
        small = await api.ended([site.url(f"/ok?{number}", host="127.9.9.9") for number in range(10)])
        assert small["counts"]["ok"] == 10
        assert (await api.get(f"/tasks/{task['id']}"))["counts"]["ok"] < 2_000
        await api.ask("DELETE", f"/tasks/{task['id']}", 204)


# --- Services ---


async def test_one_idempotency_key_at_two_replicas_at_once_makes_one_task(redis_server: RedisServer) -> None:
    async with replica(redis_server) as one, replica(redis_server) as other:
        batch = "http://a.test/\n" * 2_500
        for number in range(3):
            headers = {"Idempotency-Key": f"key-{number}", **TEXT}
            both = [api.client.post("/api/v1/tasks", data=batch, headers=headers) for api in (one, other)]
            answers = await asyncio.gather(*both)
            assert sorted(answer.status for answer in answers)[0] in (200, 201)
            assert {answer.status for answer in answers} <= {200, 201, 409}
            again = [await api.ask("POST", "/tasks", data=batch, headers=headers) for api in (one, other)]
            assert len({answer.json["id"] for answer in again}) == 1
        assert len((await one.get("/tasks"))["tasks"]) == 3
        with redis_server.client() as client:
            assert client.keys("crawler:coming") == []


async def test_a_quota_of_tasks_holds_over_all_replicas(redis_server: RedisServer) -> None:
    """Two replicas that are asked at once have no time to tell each other. draft-ietf-httpapi-ratelimit-headers, 2.1: a
    quota is allocated "to a client", not to a server.
    """
    async with RedisRegistry(redis_server.url) as one, RedisRegistry(redis_server.url) as other:
        for registry in (one, other):
            Quotas(registry, ServiceOptions(token_tasks=3, max_tasks=5))

        async def submit(registry: RedisRegistry, owner: str | None) -> Task | QuotaExceeded:
            try:
                return await registry.submit(["http://a.test/"], Options(), owner=owner)
            except QuotaExceeded as error:
                return error

        async def count(owner: str | None) -> tuple[list[Task], set[str]]:
            both = await asyncio.gather(*(submit(registry, owner) for _ in range(4) for registry in (one, other)))
            refusals = {each.policy for each in both if isinstance(each, QuotaExceeded)}
            return [each for each in both if isinstance(each, Task)], refusals

        of_ann, refusals = await count("ann")
        assert (len(of_ann), refusals) == (3, {"token-tasks"})
        of_bob, refusals = await count("bob")
        assert (len(of_bob), refusals) == (2, {"running-tasks"})
        await other.finish((await other.fetch(of_ann[0].id)).id, "error")
        await one.refresh()
        await one.delete(of_ann[1].id)
        with redis_server.client() as client:
            client.hset("crawler:running", "of-an-older-version", "ann")  # which has ended it without this hash
            again, refusals = await count("ann")
            assert (len(again), refusals) == (2, {"token-tasks"})
            assert client.hlen("crawler:running") == 5
            assert not client.exists("crawler:coming")


async def test_stalled_tasks_are_queued_again(site: Site, redis_server: RedisServer) -> None:
    settings = FleetSettings(stalled_check_seconds=0.1, stalled_after_seconds=0.2)
    async with (
        replica(redis_server, settings=settings) as api,
        working(redis_server.url),
        RedisRegistry(redis_server.url) as registry,
    ):
        # As if a service died after it had stored the Task.
        task = await registry.submit([site.url("/ok")], Options(guard="any"))
        assert (await api.get(f"/tasks/{task.id}", wait=20))["status"] == "ready"
        # As if a worker process died after it had recorded the last line.
        other = await registry.submit([site.url("/ok")], Options(guard="any"))
        found = (await registry.page(task.id)).results
        await registry.record(other.id, found)
        await registry.chunks.drop(other.id)
        assert (await api.get(f"/tasks/{other.id}", wait=20))["status"] == "ready"


async def test_a_batch_that_never_became_a_task_is_dropped(redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        client.zadd("crawler:coming", {"gone": 1.0})
        client.hset("crawler:task:gone:chains", mapping={"0": "0/1"})
        client.hset("crawler:task:gone:chunks:0", "0.0", b"x")
        async with replica(redis_server, settings=FleetSettings(stalled_check_seconds=0.1)), asyncio.timeout(10):
            while client.exists("crawler:coming", "crawler:task:gone:chains", "crawler:task:gone:chunks:0"):  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.01)


async def test_a_webhook_is_delivered_once_though_the_leader_dies(
    site: Site, redis_server: RedisServer, tmp_path: Path
) -> None:
    settings = FleetSettings(leader_lease_seconds=1.0)
    site.on("/hook", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    webhook = {"url": site.url("/hook"), "secret": "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3"}
    leader = RestartedProcess(["serve", "--port", "0", "--redis", redis_server.url], tmp_path / "log", lease=1.0)
    try:
        await leader.wait_until_up()
        async with replica(redis_server, settings=settings) as api, working(redis_server.url):
            for number in range(1, 3):
                task = await api.ended([site.url(f"/ok?{number}")], webhook=webhook)
                await _until_delivered(api, task["id"])
                assert len(_deliveries(site)) == number
                leader.kill()
            assert len({request.header("webhook-id") for request in _deliveries(site)}) == 2
    finally:
        await leader.close()


def _deliveries(site: Site) -> list[Request]:
    return [request for request in site.requests if request.path == "/hook"]


async def _until_delivered(api: Api, task_id: str) -> None:
    async with asyncio.timeout(30):
        while (await api.get(f"/tasks/{task_id}"))["webhook"]["status"] != "delivered":  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.02)


async def test_one_of_all_replicas_deletes_old_tasks(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "crawler.server.background.retention")
    service = ServiceOptions(drain=0, keep_tasks=1)
    settings = ServerSettings(retention_seconds=0.1)
    async with (
        replica(redis_server, service, server_settings=settings) as one,
        replica(redis_server, service, server_settings=settings) as other,
    ):
        async with working(redis_server.url):
            for _ in range(4):
                await one.ended(["nonsense"])
        async with asyncio.timeout(20):
            while len((await other.get("/tasks"))["tasks"]) > 1:
                pass
    assert caplog.text.count("kept for long enough") == 3


async def test_a_task_that_is_deleted_while_its_results_are_read_is_read_whole(redis_server: RedisServer) -> None:
    async with replica(redis_server) as one, replica(redis_server) as other:
        async with working(redis_server.url):
            task = await one.ended([f"nonsense {number:02000}" for number in range(6_000)])
        headers = {"Accept": "application/x-ndjson"}
        async with one.client.get(f"/api/v1/tasks/{task['id']}/results", headers=headers) as response:
            lines = [await response.content.readline()]
            await other.ask("DELETE", f"/tasks/{task['id']}", 204)
            lines += [line async for line in response.content]
        assert len(lines) == 6_000
        await one.ask("GET", f"/tasks/{task['id']}/results", 404)


async def test_a_redis_without_memory_refuses_tasks_and_goes_on_later(site: Site) -> None:
    with RedisServer() as server, server.client() as client:
        async with replica(server) as api:
            task = await api.submit([site.url(f"/ok?{number}", host=HOSTS[number % 20]) for number in range(100)])
            before = set(client.keys("crawler:task:*"))
            client.config_set("maxmemory", "1mb")
            await api.refuses("POST", "/tasks", 507, "no space left", data="http://a.test/", headers=TEXT)
            assert set(client.keys("crawler:task:*")) == before
            assert client.exists("crawler:coming") == 0
            async with api.client.get("/readyz") as response:
                assert (response.status, (await response.json())["checks"]["store"]) == (503, "has no space left")
            async with working(server.url):
                await asyncio.sleep(0.5)
                client.config_set("maxmemory", "0")
                ended = await api.get(f"/tasks/{task['id']}", wait=30)
    assert (ended["status"], ended["counts"]["ok"]) == ("ready", 100)
