"""Tasks that other processes work on, through Redis: any replica answers for any of them, and nothing is lost."""

import asyncio
import re
import signal
import sys
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest

from crawler import Options
from crawler.compose import open_prober
from crawler.distributed.chunk_worker import ChunkWorker
from crawler.stores.redis.registry import RedisRegistry
from crawler.stores.redis.settings import FleetSettings
from tests.probing.test_politeness import Page
from tests.support.api import Api, read_events
from tests.support.fleet import HOSTS, worker_process, working
from tests.support.metrics import value
from tests.support.redis_proxy import proxy_to
from tests.support.redis_server import RedisServer
from tests.support.replica import replica
from tests.support.site import Site


def asked(site: Site) -> Counter[str]:
    return Counter(request.path for request in site.requests)


async def test_workers_probe_what_replicas_take_in_and_any_replica_tells(site: Site, redis_server: RedisServer) -> None:
    urls = [site.url(f"/ok?{number}", host=HOSTS[number % 20]) for number in range(600)]
    async with (
        working(redis_server.url),
        working(redis_server.url),
        replica(redis_server) as one,
        replica(redis_server) as other,
    ):
        task = await one.submit([*urls, *urls[:50], "nonsense"])
        assert (await other.get(f"/tasks/{task['id']}"))["id"] == task["id"], "known to the other at once"
        ended = await other.get(f"/tasks/{task['id']}", wait=60)
        assert (ended["status"], ended["counts"]["ok"], ended["counts"]["invalid"]) == ("ready", 650, 1)
        results = (await one.get(f"/tasks/{task['id']}/results", limit=1000))["results"]
        assert sorted(result["seq"] for result in results) == list(range(651))
        assert other.app["TASKS"][task["id"]]["status"] == "ready"
    assert set(asked(site).values()) == {1}


async def test_events_come_from_any_replica(site: Site, redis_server: RedisServer) -> None:
    async with replica(redis_server) as one, replica(redis_server) as other:
        task = await one.submit([site.url(f"/ok?{number}") for number in range(20)])
        async with other.client.get(f"/api/v1/tasks/{task['id']}/events") as response, working(redis_server.url):
            events = [event async for event in read_events(response)]
    assert [event.id for event in events if event.name == "result"] == list(range(1, 21))
    assert events[-1].name == "end"


async def test_a_task_that_is_cancelled_at_one_replica_is_asked_for_no_more(
    site: Site, redis_server: RedisServer
) -> None:
    async with replica(redis_server) as one, replica(redis_server) as other, working(redis_server.url):
        task = await one.submit([site.url(f"/hang?{number}", host=host) for host in HOSTS for number in range(10)])
        await site.until(lambda: site.active >= 100)
        await other.ask("POST", f"/tasks/{task['id']}/cancel")
        await site.until(lambda: site.active == 0)
        assert (await one.get(f"/tasks/{task['id']}"))["status"] == "error"
        await one.ask("DELETE", f"/tasks/{task['id']}", 204)
        await other.ask("GET", f"/tasks/{task['id']}", 404)


async def test_tasks_that_are_deleted_leave_workers_free(site: Site, redis_server: RedisServer) -> None:
    """Each has a chunk; this worker takes eight small ones at once."""
    async with replica(redis_server) as api, working(redis_server.url, concurrency=8):
        for _ in range(9):
            task = await api.submit([site.url("/hang")])
            await site.until(lambda: site.active == 1)
            await api.ask("DELETE", f"/tasks/{task['id']}", 204)
            await site.until(lambda: site.active == 0)
        assert (await api.ended([site.url("/ok")]))["status"] == "ready"


async def test_small_tasks_that_are_stuck_hold_up_no_other(site: Site, redis_server: RedisServer) -> None:
    async with replica(redis_server) as api, working(redis_server.url):
        for number in range(20):
            await api.submit([site.url("/hang", host=HOSTS[number])])
        await site.until(lambda: site.active == 20)
        assert (await api.ended([site.url("/ok")]))["status"] == "ready"


async def test_a_worker_takes_as_many_chunks_at_once_as_it_has_room_for(
    site: Site, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """More than redis-py has connections by default: docket takes that for a Redis which is lost."""
    async with replica(redis_server) as api:
        lines = [[site.url(f"/ok?{number}", host=HOSTS[number % 20])] for number in range(300)]
        tasks = await asyncio.gather(*(api.state.submit(each) for each in lines))
        async with working(redis_server.url, concurrency=2000):
            ended = [await api.get(f"/tasks/{task.id}", wait=20) for task in tasks]
    assert {summary["status"] for summary in ended} == {"ready"}
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


@pytest.mark.parametrize("drains", [False, True])
async def test_nothing_is_remembered_of_a_task_that_is_cancelled(
    drains: bool, site: Site, redis_server: RedisServer
) -> None:
    options = Options(guard="any")
    async with (
        replica(redis_server) as api,
        RedisRegistry(redis_server.url) as registry,
        open_prober(options) as prober,
        ChunkWorker(registry, prober, options).running(),
    ):
        task = await api.submit([site.url("/hang")])
        await site.until(lambda: site.active == 1)
        assert await registry.chunks.find_lines(task["id"], {0})
        if drains:  # then the chunk is left for another worker
            await prober.drain(0)
        await api.ask("POST", f"/tasks/{task['id']}/cancel")
        async with asyncio.timeout(20):
            while await registry.chunks.find_lines(task["id"], {0}):  # noqa: ASYNC110 - nothing tells of what is not remembered
                await asyncio.sleep(0.01)


async def test_a_worker_that_is_stopped_gives_back_at_once_what_it_has_not_begun(
    site: Site, redis_server: RedisServer
) -> None:
    urls = [site.url(f"/delay/0.3?{number}", host=HOSTS[number % 20]) for number in range(400)]
    async with replica(redis_server) as api:
        task = await api.submit(urls)
        async with worker_process(redis_server.url, "--concurrency", "40") as process:
            await site.until(lambda: len(site.requests) >= 60)
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
        before = (await api.get(f"/tasks/{task['id']}"))["counts"]["ok"]
        assert 60 <= before < 400, "what was under way is recorded, and no more is begun"
        with redis_server.client() as client:
            assert client.keys("*:starts") == [], "that it was begun and left is held against no chunk"
        async with working(redis_server.url):
            ended = await api.get(f"/tasks/{task['id']}", wait=20)
    assert (ended["status"], ended["counts"]["ok"]) == ("ready", 400)
    assert set(asked(site).values()) == {1}, "and asked once"


async def test_what_a_worker_had_that_was_killed_is_probed_by_another(site: Site, redis_server: RedisServer) -> None:
    urls = [site.url(f"/delay/0.2?{number}", host=HOSTS[number % 20]) for number in range(400)]
    async with replica(redis_server) as api:
        task = await api.submit(urls)
        async with worker_process(redis_server.url, "--concurrency", "40") as process:
            await site.until(lambda: len(site.requests) >= 100)
            process.kill()
            await process.wait()
        async with working(redis_server.url, FleetSettings(chunk_lease_seconds=1.0)):
            ended = await api.get(f"/tasks/{task['id']}", wait=40)
    assert (ended["status"], ended["counts"]["ok"]) == ("ready", 400)
    assert max(asked(site).values()) == 2, "what was under way"


async def test_per_host_limits_hold_over_all_workers(site: Site, redis_server: RedisServer) -> None:
    big = [site.url(f"/delay/0.01?{number}") for number in range(500)]
    others = [site.url(f"/ok?{number}", host=HOSTS[number % 20]) for number in range(500)]
    async with replica(redis_server) as api, working(redis_server.url), working(redis_server.url):
        ended = await api.ended([*big, *others], options={"per_host": 3})
    assert ended["counts"]["ok"] == 1000
    assert site.peak_of("127.0.0.1") <= 3


async def test_a_redis_that_restarts_loses_nothing(site: Site) -> None:
    with RedisServer() as server:
        async with replica(server) as api, working(server.url):
            task = await api.submit([site.url(f"/delay/0.1?{n}", host=HOSTS[n % 20]) for n in range(600)])
            await site.until(lambda: len(site.requests) >= 200)
            await server.restart(1.0)
            async with asyncio.timeout(40):
                while (await api.get(f"/tasks/{task['id']}", wait=5))["status"] == "running":
                    pass
            ended = await api.get(f"/tasks/{task['id']}")
    assert (ended["status"], ended["counts"]["ok"]) == ("ready", 600)


async def test_a_worker_takes_more_though_redis_was_away_while_it_was_at_work(site: Site) -> None:
    with RedisServer() as server:
        async with replica(server) as api, working(server.url):
            await api.submit([site.url("/hang")])
            await site.until(lambda: site.active == 1)
            await server.restart(1.0)
            await api.submit([site.url("/ok")])
            await site.until(lambda: "/ok" in asked(site))
            assert asked(site) == {"/hang": 1, "/ok": 1}, "it was at work all the time"


async def test_what_a_worker_is_at_stays_its_own_though_connections_break(
    site: Site, redis_server: RedisServer
) -> None:
    settings = FleetSettings(chunk_lease_seconds=0.5)
    async with replica(redis_server) as api, proxy_to(redis_server.url) as proxy, working(proxy.url, settings):
        await api.submit([site.url("/hang")])
        await site.until(lambda: site.active == 1)
        await proxy.cut()
        async with working(redis_server.url, settings):
            for number in range(40):  # meanwhile a lease ends that nobody keeps up
                await api.ended([site.url(f"/delay/0.05?{number}")])
        assert asked(site)["/hang"] == 1


async def test_a_message_that_cannot_be_read_ends_no_worker(
    site: Site, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with replica(redis_server) as api, working(redis_server.url):
        await api.ended([site.url("/ok?1")])
        with redis_server.client() as client:
            client.xadd("crawler-small:stream", {"words": "of whoever"})
        async with asyncio.timeout(20):
            while "no small chunks are taken for now" not in caplog.text:  # noqa: ASYNC110 - nothing else tells of it
                await asyncio.sleep(0.01)
        assert (await api.ended([site.url("/ok?2")]))["status"] == "ready"


async def test_the_next_chunk_of_a_host_keeps_its_distance(site: Site, redis_server: RedisServer) -> None:
    page = Page(site)
    settings = FleetSettings(targets_per_chunk=2)
    async with replica(redis_server, settings=settings) as api, working(redis_server.url), working(redis_server.url):
        await api.ended(page.urls("127.0.0.2", 6), options={"interval": 0.2, "method": "GET"})
    assert all(later - earlier > 0.15 for earlier, later in pairwise(page.times["127.0.0.2"]))


@pytest.mark.parametrize("name", ["bits", "blocks", "chains", "starts", "records:0", "chunks:0"])
async def test_what_else_there_is_of_a_task_is_none(name: str, site: Site, redis_server: RedisServer) -> None:
    async with replica(redis_server) as api, working(redis_server.url):
        ended = await api.ended([site.url("/ok")])
        await api.submit([site.url("/hang")])
        for task in (await api.get("/tasks"))["tasks"]:
            await api.ask("GET", f"/tasks/{task['id']}:{name}", 404)
        assert ended["status"] == "ready"


# --- What is told of it ---


async def test_who_works_and_what_waits_is_told(site: Site, redis_server: RedisServer) -> None:
    async with replica(redis_server) as api:
        task = await api.submit([site.url(f"/hang?{host}", host=host) for host in HOSTS])
        assert (await fleet_of(api))["workers"] == 0
        async with working(redis_server.url) as worker:
            await site.until(lambda: site.active == 20)
            await until_told(api, workers=1, pending=1, redelivered=0)
            assert await value(api.client, "crawler_chunks_pending", queue="small", state="running") == 1
            assert await value(api.client, "crawler_chunks_pending", queue="big") == 0
            assert await value(api.client, "crawler_workers") == 1
            assert await value(api.client, "crawler_chunks_redelivered_total") == 0
            listed = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "crawler", "workers", "--redis", redis_server.url, stdout=asyncio.subprocess.PIPE
            )
            said = (await listed.communicate())[0].decode()
            assert worker.name in said
            assert re.search(r"small +0 +1 ", said)
        await api.ask("DELETE", f"/tasks/{task['id']}", 204)


async def fleet_of(api: Api) -> Any:
    async with api.client.get("/readyz") as response:
        assert response.status == 200
        return (await response.json())["fleet"]


async def until_told(api: Api, **expected: int) -> None:
    """It is looked at once a second, and workers give signs of life every other."""
    async with asyncio.timeout(20):
        while not expected.items() <= (await fleet_of(api)).items():  # noqa: ASYNC110 - nothing tells of a look
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("command", ["worker", "workers"])
@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ([], "crawler: --redis: is needed"),
        (["--redis", "redis://127.0.0.1:1"], "crawler: redis://127.0.0.1:1: cannot be used: "),
        (["--redis", "http://127.0.0.1"], "crawler: http://127.0.0.1: "),
    ],
)
async def test_who_has_no_redis_is_told_so(command: str, flags: list[str], says: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "crawler", command, *flags, stderr=asyncio.subprocess.PIPE
    )
    said = (await process.communicate())[1].decode()
    assert process.returncode == 2
    assert said.startswith(says)
    assert said.count("\n") == 1
