"""Parts of a Task that are of a wrong type, damaged or lost: the Task ends, and gives back what it has of the fleet.

Witness: the page "Redis data types" and the error text of the server, "WRONGTYPE Operation against a key holding the
wrong kind of value"; for keys that are gone, the page "Key eviction", whose policies remove keys of any kind.
"""

import asyncio

import pytest

from crawler.core.options import Options
from crawler.stores.redis.registry import RedisRegistry
from crawler.stores.redis.settings import FleetSettings
from tests.support.api import Api
from tests.support.fleet import working
from tests.support.redis_server import RedisServer
from tests.support.replica import replica
from tests.support.site import Site

_CHUNKS_AT_ONCE = 8  # of a worker process with eight slots
_TASKS_QUEUED_AT_ONCE = 32  # of a service
_TYPES = {"bits": "string", "blocks": "zset"}  # the others are hashes
_QUICK = FleetSettings(stalled_check_seconds=0.1, stalled_after_seconds=0.5)


def _spoil(server: RedisServer, id_: str, part: str) -> None:
    """Give a part of a Task another type."""
    key = f"crawler:task:{id_}{part}"
    with server.client() as client:
        client.delete(key)
        client.rpush(key, "x")


async def _is_served(api: Api, site: Site) -> bool:
    return bool((await api.ended([site.url("/ok?after")]))["counts"]["ok"] == 1)


@pytest.mark.parametrize("part", ["chunks:0", "chains", "starts", "suspects", "bits", "blocks", "records:0"])
async def test_a_task_with_a_part_of_a_wrong_type_ends_and_keeps_no_others_waiting(
    site: Site, redis_server: RedisServer, part: str
) -> None:
    async with replica(redis_server) as api, asyncio.timeout(60):
        ids = [(await api.submit([site.url("/ok")]))["id"] for _ in range(_CHUNKS_AT_ONCE + 1)]
        for id_ in ids:
            _spoil(redis_server, id_, f":{part}")
        async with working(redis_server.url, concurrency=_CHUNKS_AT_ONCE):
            assert await _is_served(api, site)
            for id_ in ids:
                ended = await api.get(f"/tasks/{id_}", wait=20)
                fault = f"crawler:task:{id_}:{part} is a list, not a {_TYPES.get(part, 'hash')}"
                assert (ended["status"], ended["detail"]) == ("error", f"its stored data is damaged: {fault}")
                await api.ask("DELETE", f"/tasks/{id_}", 204)
    with redis_server.client() as client:
        assert client.zcard("crawler:coming") == 0, "the chunks of a Task could not be dropped"


async def test_a_part_that_gets_a_wrong_type_while_its_lines_are_probed_ends_the_task(
    site: Site, redis_server: RedisServer
) -> None:
    """What is counted can be read: nothing is counted before all keys have been looked at."""
    async with replica(redis_server) as api, asyncio.timeout(60), working(redis_server.url, concurrency=8):
        task = await api.submit([site.url("/delay/0.5")])
        await site.until(lambda: len(site.requests) == 1)
        _spoil(redis_server, task["id"], ":blocks")
        ended = await api.get(f"/tasks/{task['id']}", wait=20)
        assert (ended["status"], ended["counts"]["ok"], ended["counts"]["failed"]) == ("error", 0, 0)
        assert await _is_served(api, site)


async def test_a_task_whose_own_key_gets_a_wrong_type_is_left_out_and_keeps_no_others_waiting(
    site: Site, redis_server: RedisServer
) -> None:
    """Its end cannot be stored. It does not count as running, either: that would refuse all submits."""
    async with (
        replica(redis_server) as api,
        asyncio.timeout(60),
        working(redis_server.url, concurrency=_CHUNKS_AT_ONCE),
    ):
        ids = [(await api.submit([site.url("/delay/0.5")]))["id"] for _ in range(_CHUNKS_AT_ONCE)]
        await site.until(lambda: len(site.requests) == _CHUNKS_AT_ONCE)
        ids += [(await api.submit([site.url("/delay/0.5")]))["id"] for _ in range(_CHUNKS_AT_ONCE)]
        for id_ in ids:
            _spoil(redis_server, id_, "")
        assert await _is_served(api, site)


async def test_many_damaged_tasks_do_not_keep_a_service_from_queueing_others(
    site: Site, redis_server: RedisServer
) -> None:
    async with RedisRegistry(redis_server.url) as registry:
        ids = [(await registry.submit([site.url("/ok")], Options())).id for _ in range(_TASKS_QUEUED_AT_ONCE + 1)]
    for id_ in ids:
        _spoil(redis_server, id_, ":chains")
    async with (
        replica(redis_server) as api,
        asyncio.timeout(60),
        working(redis_server.url, concurrency=_CHUNKS_AT_ONCE),
    ):
        assert await _is_served(api, site)
        for id_ in ids:
            assert (await api.get(f"/tasks/{id_}", wait=20))["status"] == "error"


@pytest.mark.parametrize(
    ("command", "detail"),
    [
        (("HSET", "chunks:0", "0.0", "x"), "chunk 0.0 cannot be unpacked"),
        (("DEL", "chunks:0"), "lines without a result that are missing: 1"),
        (("DEL", "chains"), "lines without a result that are missing: 1"),
    ],
)
async def test_a_task_with_lines_that_are_lost_ends(
    site: Site, redis_server: RedisServer, command: tuple[str, ...], detail: str
) -> None:
    async with replica(redis_server, settings=_QUICK) as api, asyncio.timeout(60):
        task = await api.submit([site.url("/ok")])
        name, part, *rest = command
        with redis_server.client() as client:
            client.execute_command(name, f"crawler:task:{task['id']}:{part}", *rest)
        if part == "chains":  # else its chunk would be probed first
            with redis_server.client() as client:
                client.delete(f"crawler:task:{task['id']}:chunks:0")
        async with working(redis_server.url, concurrency=_CHUNKS_AT_ONCE):
            ended = await api.get(f"/tasks/{task['id']}", wait=20)
            assert ended["status"] == "error"
            assert detail in ended["detail"]
            assert await _is_served(api, site)
