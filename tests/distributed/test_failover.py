"""A Redis that becomes a replica, and connections that go silent: work goes on as soon as a new connection can be made.

What the servers do is Redis's own: the page "Redis replication" says that a replica is read-only by default and refuses
writes with READONLY, `REPLICAOF` that it keeps its data while it has no master, and CLIENT UNBLOCK's UNBLOCKED is also
what a blocked client gets when "a master turns into a replica". None of them closes connections of clients.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from crawler.core.options import Options
from crawler.stores.redis.registry import RedisRegistry
from crawler.stores.redis.settings import FleetSettings
from tests.support.api import Api, serving_api
from tests.support.fleet import HOSTS, working
from tests.support.redis_proxy import RedisProxy, proxy_to
from tests.support.redis_server import RedisServer
from tests.support.site import Site

# A chunk that Redis hands out into the silence comes back when its lease lapses.
_QUICK = FleetSettings(answer_seconds=0.5, chunk_lease_seconds=2.0)
_NOWHERE = ("127.0.0.1", 1)  # no server is there


@asynccontextmanager
async def fleet(proxy: RedisProxy) -> AsyncIterator[Api]:
    async with serving_api(RedisRegistry(proxy.url, _QUICK)) as api, working(proxy.url, _QUICK, concurrency=8):
        yield api


async def _readiness(api: Api) -> tuple[int, str]:
    async with api.client.get("/readyz") as response:
        return response.status, (await response.json())["checks"]["store"]


async def _replicated(server: RedisServer, port: int) -> None:
    """Make a server a replica of the one at a port, and wait until it has its data."""
    with server.client() as client:
        client.replicaof("127.0.0.1", port)
        async with asyncio.timeout(20):
            while client.info("replication")["master_link_status"] != "up":  # noqa: ASYNC110 - there is no event for it
                await asyncio.sleep(0.05)


async def test_a_failover_behind_a_name_is_followed_and_no_line_is_lost(
    site: Site,
) -> None:
    urls = [site.url(f"/delay/0.1?{number}", host=HOSTS[number % 20]) for number in range(400)]
    with RedisServer() as first, RedisServer() as second:
        async with (
            proxy_to(first.url, over_tcp=True) as link,
            proxy_to(first.url) as name,
            fleet(name) as api,
            asyncio.timeout(60),
        ):
            await _replicated(second, int(link.url.rpartition(":")[2]))
            task = await api.submit(urls)
            await site.until(lambda: len(site.requests) >= 60)
            with first.client() as old, second.client() as new:
                old.wait(1, 5_000)  # else the results of the last moment are only in the old master
                new.replicaof("NO", "ONE")
                name.redirect(second.url)
                old.replicaof(*_NOWHERE)
                ended = await api.get(f"/tasks/{task['id']}", wait=40)
                assert (ended["status"], ended["counts"]["ok"]) == ("ready", 400)
                assert await _readiness(api) == (200, "ok")
                assert old.info("clients")["connected_clients"] <= 1 + 2 * 2, "docket's subscriptions, without use"
            headers = {"Accept": "application/x-ndjson"}
            found = await api.ask("GET", f"/tasks/{task['id']}/results", headers=headers)
    assert sorted(json.loads(line)["seq"] for line in found.body.splitlines()) == list(range(400))


async def test_a_replica_is_named_by_readyz_and_work_goes_on_when_it_is_the_master_again(site: Site) -> None:
    urls = [site.url(f"/delay/0.1?{number}", host=HOSTS[number % 20]) for number in range(200)]
    with RedisServer() as server, server.client() as client:
        async with proxy_to(server.url) as proxy, fleet(proxy) as api, asyncio.timeout(60):
            task = await api.submit(urls)
            await site.until(lambda: len(site.requests) >= 40)
            client.replicaof(*_NOWHERE)
            assert await _readiness(api) == (503, "is a replica, which accepts no writes")
            refused = await api.ask("POST", "/tasks", 503, json={"urls": urls})
            assert b"is a replica" in refused.body
            client.replicaof("NO", "ONE")
            ended = await api.get(f"/tasks/{task['id']}", wait=40)
            assert (ended["status"], ended["counts"]["ok"]) == ("ready", 200)


@pytest.mark.parametrize("command", [b"", b"XREADGROUP", b"XADD", b"SUBSCRIBE"], ids=["all", "queue", "add", "news"])
async def test_connections_that_go_silent_are_given_up(site: Site, redis_server: RedisServer, command: bytes) -> None:
    """Silence as a firewall makes that forgets a connection: no FIN, no RST (RFC 5382, section 5, on idle timeouts)."""
    async with proxy_to(redis_server.url) as proxy, fleet(proxy) as api, asyncio.timeout(60):
        assert (await api.ended([site.url("/ok")]))["counts"]["ok"] == 1
        proxy.silence(command)
        async with asyncio.timeout(20):
            body = {"urls": [site.url("/ok?2")]}
            while (answer := await api.client.post("/api/v1/tasks", json=body)).status == 503:
                pass
            task = await api.get(f"/tasks/{(await answer.json())['id']}", wait=15)
        assert (task["status"], task["counts"]["ok"]) == ("ready", 1)


async def test_news_arrive_again_after_the_subscription_went_silent(redis_server: RedisServer) -> None:
    async with (
        proxy_to(redis_server.url) as proxy,
        RedisRegistry(proxy.url, _QUICK) as reader,
        RedisRegistry(redis_server.url) as writer,
        asyncio.timeout(20),
    ):
        assert proxy.silence(b"SUBSCRIBE") == 1
        task = await writer.submit(["http://a.test/"], Options())
        while task.id not in reader.tasks:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.05)


async def test_news_arrive_again_after_their_master_became_a_replica_of_none() -> None:
    """A process that only reads would never be refused: the test of a quiet subscription is a write."""
    with RedisServer() as first, RedisServer() as second, first.client() as old:
        async with (
            proxy_to(first.url) as name,
            RedisRegistry(name.url, _QUICK) as reader,
            RedisRegistry(second.url) as writer,
            asyncio.timeout(20),
        ):
            name.redirect(second.url)
            old.replicaof(*_NOWHERE)
            task = await writer.submit(["http://a.test/"], Options())
            while task.id not in reader.tasks:  # noqa: ASYNC110 - there is no event for it
                await asyncio.sleep(0.05)
