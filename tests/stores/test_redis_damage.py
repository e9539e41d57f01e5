"""Keys of a wrong type: Redis answers WRONGTYPE to each command for them. One of them concerns only what it holds.

Witness: the page "Redis data types" and the error text of the server, "Operation against a key holding the wrong kind
of value".
"""

import asyncio

import pytest

from crawler.core.errors import InputError, TaskNotFound
from crawler.core.options import Options
from crawler.stores.redis.keys import SHARED_TYPES, SharedName, shared_key
from crawler.stores.redis.registry import RedisRegistry
from tests.support.commands import end_of, started
from tests.support.redis_server import RedisServer
from tests.support.replica import replica

_URLS = ["http://a.test/"]


async def test_a_task_of_a_wrong_type_is_left_out_and_stops_neither_lists_nor_a_start(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with RedisRegistry(redis_server.url) as registry, asyncio.timeout(20):
        ids = [(await registry.submit(_URLS, Options())).id for _ in range(3)]
        with redis_server.client() as client:
            client.delete(f"crawler:task:{ids[1]}")
            client.rpush(f"crawler:task:{ids[1]}", "x")
        await registry.refresh()
        assert (await registry.fetch(ids[2])).total == 1
        async with RedisRegistry(redis_server.url) as started_later:
            assert list(started_later.tasks) == [ids[0], ids[2]]
            with pytest.raises(TaskNotFound):
                await started_later.fetch(ids[1])
    assert f"Task {ids[1]} cannot be read and is left out: WRONGTYPE" in caplog.text


@pytest.mark.parametrize("name", [name for name in SHARED_TYPES if name != "tasks"])
async def test_a_shared_key_of_a_wrong_type_is_named_and_stops_neither_lists_nor_a_start(
    redis_server: RedisServer, name: SharedName, caplog: pytest.LogCaptureFixture
) -> None:
    async with RedisRegistry(redis_server.url) as registry:
        task = await registry.submit(_URLS, Options())
    with redis_server.client() as client:
        client.delete(shared_key(name))
        client.rpush(shared_key(name), "x")
    async with replica(redis_server) as api, asyncio.timeout(20):
        assert [each["id"] for each in (await api.get("/tasks"))["tasks"]] == [task.id]
        async with api.client.get("/readyz") as response:
            assert (response.status, (await response.json())["checks"]["store"]) == (503, "is damaged")
        assert f"crawler:{name} is a list, not a {SHARED_TYPES[name]}" in caplog.text


async def test_a_service_whose_list_of_tasks_has_a_wrong_type_says_so_instead_of_waiting(
    redis_server: RedisServer,
) -> None:
    with redis_server.client() as client:
        client.set("crawler:tasks", "x")
    with pytest.raises(InputError, match="WRONGTYPE"):
        async with asyncio.timeout(10), RedisRegistry(redis_server.url):
            pass
    async with started("serve", "--port", "0", "--redis", redis_server.url) as process:
        ended = await end_of(process)
    assert (ended.code, ended.out) == (2, "")
    line = ended.err.splitlines()[-1]  # after those of the log
    assert "cannot be used" in line
    assert "WRONGTYPE" in line
