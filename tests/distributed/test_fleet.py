"""A fleet: services and worker processes with one Redis. Any service answers for any Task, and nothing is lost."""

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
from tests.support.api import Api, read_events
from tests.support.exchange import Exchange
from tests.support.fleet import HOSTS, worker_process, working
from tests.support.metrics import sum_of
from tests.support.redis_proxy import proxy_to
from tests.support.redis_server import RedisServer
from tests.support.replica import replica
from tests.support.site import Site


def requests_by_path(site: Site) -> Counter[str]:
    return Counter(request.path for request in site.requests)


async def test_workers_probe_what_one_replica_takes_in_and_any_replica_answers(
    site: Site, redis_server: RedisServer
) -> None:
    urls = [site.url(f"/ok?{number}", host=HOSTS[number % 20]) for number in range(600)]
    async with (
        working(redis_server.url),
        working(redis_server.url),
        replica(redis_server) as one,
        replica(redis_server) as other,
    ):
        task = await one.submit([*urls, *urls[:50], "nonsense"])
        assert (await other.get(f"/tasks/{task['id']}"))["id"] == task["id"], "the other replica knows it at once"
        ended = await other.get(f"/tasks/{task['id']}", wait=60)
        assert (ended["status"], ended["counts"]["ok"], ended["counts"]["invalid"]) == ("ready", 650, 1)
        results = (await one.get(f"/tasks/{task['id']}/results"))["results"]  # a page ends after 16 blocks, too
        assert sorted(result["seq"] for result in results) == list(range(651))
        assert other.app["TASKS"][task["id"]]["status"] == "ready"
    assert set(requests_by_path(site).values()) == {1}


async def test_events_come_from_any_replica(site: Site, redis_server: RedisServer) -> None:
    async with replica(redis_server) as one, replica(redis_server) as other:
        task = await one.submit([site.url(f"/ok?{number}") for number in range(20)])
        async with other.client.get(f"/api/v1/tasks/{task['id']}/events") as response, working(redis_server.url):
            events = [event async for event in read_events(response)]
    assert [event.id for event in events if event.name == "result"] == list(range(1, 21))
    assert events[-1].name == "end"


async def test_cancelling_a_task_at_one_replica_ends_its_requests(site: Site, redis_server: RedisServer) -> None:
    async with replica(redis_server) as one, replica(redis_server) as other, working(redis_server.url):
        task = await one.submit([site.url(f"/hang?{number}", host=host) for host in HOSTS for number in range(10)])
        await site.until(lambda: site.active >= 100)
        await other.ask("POST", f"/tasks/{task['id']}/cancel")
        await site.until(lambda: site.active == 0)
        assert (await one.get(f"/tasks/{task['id']}"))["status"] == "error"
        await one.ask("DELETE", f"/tasks/{task['id']}", 204)
        await other.ask("GET", f"/tasks/{task['id']}", 404)


async def test_deleting_tasks_frees_their_worker(site: Site, redis_server: RedisServer) -> None:
    """Each Task has one chunk; this worker takes eight small ones at once."""
    async with replica(redis_server) as api, working(redis_server.url, concurrency=8):
        for _ in range(9):
            task = await api.submit([site.url("/hang")])
            await site.until(lambda: site.active == 1)
            await api.ask("DELETE", f"/tasks/{task['id']}", 204)
            await site.until(lambda: site.active == 0)
        assert (await api.ended([site.url("/ok")]))["status"] == "ready"


async def test_stuck_small_tasks_do_not_delay_others(site: Site, redis_server: RedisServer) -> None:
    async with replica(redis_server) as api, working(redis_server.url):
        for number in range(20):
            await api.submit([site.url("/hang", host=HOSTS[number])])
        await site.until(lambda: site.active == 20)
        assert (await api.ended([site.url("/ok")]))["status"] == "ready"


async def test_a_worker_takes_more_chunks_at_once_than_redis_py_has_connections(
    site: Site, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """With redis-py's default of 100 connections docket would think that Redis is down."""
    async with replica(redis_server) as api:
        lines = [[site.url(f"/ok?{number}", host=HOSTS[number % 20])] for number in range(300)]
        tasks = await asyncio.gather(*(api.manager.submit(each) for each in lines))
        async with working(redis_server.url, concurrency=2000):
            ended = [await api.get(f"/tasks/{task.id}", wait=20) for task in tasks]
    assert {summary["status"] for summary in ended} == {"ready"}
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


@pytest.mark.parametrize("drains", [False, True])
async def test_a_worker_forgets_the_lines_of_a_cancelled_task(
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
        if drains:  # then the chunk waits to be handed over
            await prober.drain(0)
        await api.ask("POST", f"/tasks/{task['id']}/cancel")
        async with asyncio.timeout(20):
            while await registry.chunks.find_lines(task["id"], {0}):  # noqa: ASYNC110 - there is no event for it
                await asyncio.sleep(0.01)


async def test_a_stopped_worker_hands_over_what_it_has_not_started(site: Site, redis_server: RedisServer) -> None:
    urls = [site.url(f"/delay/0.3?{number}", host=HOSTS[number % 20]) for number in range(400)]
    async with replica(redis_server) as api:
        task = await api.submit(urls)
        async with worker_process(redis_server.url, "--concurrency", "40") as process:
            await site.until(lambda: len(site.requests) >= 60)
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
        before = (await api.get(f"/tasks/{task['id']}"))["counts"]["ok"]
        assert 60 <= before < 400, "what was under way is recorded, and no more is started"
        with redis_server.client() as client:
            assert client.keys("*:starts") == [], "a released chunk has no crashes"
        async with working(redis_server.url):
            ended = await api.get(f"/tasks/{task['id']}", wait=20)
    assert (ended["status"], ended["counts"]["ok"]) == ("ready", 400)
    assert set(requests_by_path(site).values()) == {1}, "each was requested once"


async def test_another_worker_probes_the_chunks_of_a_killed_one(site: Site, redis_server: RedisServer) -> None:
    urls = [site.url(f"/delay/0.2?{number}", host=HOSTS[number % 20]) for number in range(400)]
    async with replica(redis_server) as api:
        task = await api.submit(urls)
        async with worker_process(redis_server.url, "--concurrency", "40") as process:
            await site.until(lambda: len(site.requests) >= 100)
            process.kill()
            await process.wait()
        async with working(redis_server.url, FleetSettings(chunk_lease_seconds=2.0)):
            ended = await api.get(f"/tasks/{task['id']}", wait=40)
    assert (ended["status"], ended["counts"]["ok"]) == ("ready", 400)
    assert max(requests_by_path(site).values()) == 2, "only what was under way is requested again"


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


async def test_a_worker_takes_more_chunks_after_redis_was_down_during_its_work(site: Site) -> None:
    with RedisServer() as server:
        async with replica(server) as api, working(server.url):
            await api.submit([site.url("/hang")])
            await site.until(lambda: site.active == 1)
            await server.restart(1.0)
            await api.submit([site.url("/ok")])
            await site.until(lambda: "/ok" in requests_by_path(site))
            assert requests_by_path(site) == {"/hang": 1, "/ok": 1}, "the running probe was not started again"


async def test_a_worker_keeps_its_leases_though_connections_break(site: Site, redis_server: RedisServer) -> None:
    settings = FleetSettings(chunk_lease_seconds=1.0)
    async with replica(redis_server) as api, proxy_to(redis_server.url) as proxy, working(proxy.url, settings):
        await api.submit([site.url("/hang")])
        await site.until(lambda: site.active == 1)
        await proxy.cut()
        async with working(redis_server.url, settings):
            await asyncio.sleep(3 * settings.chunk_lease_seconds)  # a lease that is not renewed lapses meanwhile
            await api.ended([site.url("/ok")])
        assert requests_by_path(site)["/hang"] == 1


async def test_an_unreadable_message_in_a_queue_ends_no_worker(
    site: Site, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with replica(redis_server) as api, working(redis_server.url):
        await api.ended([site.url("/ok?1")])
        with redis_server.client() as client:
            client.xadd("crawler-small:stream", {"unknown": "message"})
        async with asyncio.timeout(20):
            while "no small chunks are taken for now" not in caplog.text:  # noqa: ASYNC110 - there is no event for a log record
                await asyncio.sleep(0.01)
        assert (await api.ended([site.url("/ok?2")]))["status"] == "ready"


async def test_the_next_chunk_of_a_host_keeps_the_interval(site: Site, redis_server: RedisServer) -> None:
    async def answer(x: Exchange) -> None:
        times.append(asyncio.get_running_loop().time())
        await x.reply()

    times: list[float] = []
    site.on("/page", answer)
    urls = [site.url(f"/page?{number}") for number in range(5)]
    settings = FleetSettings(targets_per_chunk=2)
    async with replica(redis_server, settings=settings) as api, working(redis_server.url), working(redis_server.url):
        await api.ended(urls, options={"interval": 0.5, "method": "GET"})
    assert all(later - earlier > 0.25 for earlier, later in pairwise(times)), times


@pytest.mark.parametrize("name", ["bits", "blocks", "chains", "starts", "records:0", "chunks:0"])
async def test_other_keys_of_a_task_are_not_tasks(name: str, site: Site, redis_server: RedisServer) -> None:
    async with replica(redis_server) as api, working(redis_server.url):
        ended = await api.ended([site.url("/ok")])
        await api.submit([site.url("/hang")])
        for task in (await api.get("/tasks"))["tasks"]:
            await api.ask("GET", f"/tasks/{task['id']}:{name}", 404)
        assert ended["status"] == "ready"


# --- The status of the fleet ---


async def test_workers_and_queues_are_reported(site: Site, redis_server: RedisServer) -> None:
    async with replica(redis_server) as api:
        task = await api.submit([site.url(f"/hang?{host}", host=host) for host in HOSTS])
        assert (await fleet_of(api))["workers"] == 0
        async with working(redis_server.url) as worker:
            await site.until(lambda: site.active == 20)
            await until_fleet_is(api, workers=1, pending=1, redelivered=0)
            assert await sum_of(api.client, "crawler_chunks_pending", queue="small", state="running") == 1
            assert await sum_of(api.client, "crawler_chunks_pending", queue="big") == 0
            assert await sum_of(api.client, "crawler_workers") == 1
            assert await sum_of(api.client, "crawler_chunks_redelivered_total") == 0
            listed = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "crawler", "workers", "--redis", redis_server.url, stdout=asyncio.subprocess.PIPE
            )
            output = (await listed.communicate())[0].decode()
            assert worker.name in output
            assert re.search(r"small +0 +1 ", output)
        await api.ask("DELETE", f"/tasks/{task['id']}", 204)


async def fleet_of(api: Api) -> Any:
    async with api.client.get("/readyz") as response:
        assert response.status == 200
        return (await response.json())["fleet"]


async def until_fleet_is(api: Api, **expected: int) -> None:
    """The status is up to a second old, and workers send a heartbeat every two seconds."""
    async with asyncio.timeout(20):
        while not expected.items() <= (await fleet_of(api)).items():  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("command", ["worker", "workers"])
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "crawler: --redis: is required"),
        (["--redis", "redis://127.0.0.1:1"], "crawler: redis://127.0.0.1:1: cannot be used: "),
        (["--redis", "http://127.0.0.1"], "crawler: http://127.0.0.1: "),
    ],
)
async def test_a_missing_redis_is_reported_in_one_line(command: str, flags: list[str], message: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "crawler", command, *flags, stderr=asyncio.subprocess.PIPE
    )
    error = (await process.communicate())[1].decode()
    assert process.returncode == 2
    assert error.startswith(message)
    assert error.count("\n") == 1
