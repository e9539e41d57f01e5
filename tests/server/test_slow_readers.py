"""A client that stops reading the results of a deleted Task holds them for a bounded time, in every store.

Witness: a chunked response without its last chunk is incomplete (RFC 9112, 8), so the client does not take a part for
the whole.
"""

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from crawler import MemoryRegistry, ProbeResult, Registry, create_app
from crawler.stores.redis.registry import RedisRegistry
from crawler.stores.redis.settings import FleetSettings
from crawler.stores.sqlite.registry import SqliteRegistry
from tests.support.process import request
from tests.support.redis_server import RedisServer
from tests.support.retention import submit_ended
from tests.support.served import AiohttpServer

READER_SECONDS = 0.3

HeldBytes = Callable[[], Awaitable[int]]
Store = tuple[Registry, HeldBytes]


@pytest.fixture(params=["memory", "sqlite", "redis"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """A registry, and what it holds: results in memory, bytes of the file, or keys of Redis."""
    if request.param == "memory":

        async def count_results() -> int:
            gc.collect()
            return sum(type(each).__name__ == "ProbeResult" for each in gc.get_objects()) + sum(
                len(each.results) for each in gc.get_objects() if type(each).__name__ == "_StoredTask"
            )

        yield MemoryRegistry(reader_seconds=READER_SECONDS), count_results
    elif request.param == "sqlite":
        sqlite = SqliteRegistry(tmp_path / "tasks.db", reader_seconds=READER_SECONDS)
        yield sqlite, sqlite.stored_bytes
    else:
        with RedisServer() as server:
            redis = RedisRegistry(server.url, FleetSettings(reader_seconds=READER_SECONDS))

            async def count_keys() -> int:
                keys = [key async for key in redis._connection.redis.scan_iter("crawler:task:*")]
                return len(keys)

            yield redis, count_keys


async def test_a_client_that_stops_reading_holds_a_deleted_task_for_a_bounded_time(store: Store) -> None:
    registry, held = store
    async with AiohttpServer(create_app(registry=registry)) as server:
        before = await held()
        task = await submit_ended(registry, [f"http://a/{number}/{'x' * 1000}" for number in range(8_000)])
        full = await held()
        reader, writer = await asyncio.open_connection(server.host, server.port, limit=2**12)
        try:
            writer.write(request("GET", f"/api/v1/tasks/{task.id}/results", Accept="application/x-ndjson"))
            assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(0.2)  # until no more fits into the buffers of the connection
            await registry.delete(task.id)
            async with asyncio.timeout(20):
                while (await held() - before) > (full - before) / 10:  # noqa: ASYNC110 - nothing tells when it is freed
                    await asyncio.sleep(0.05)
                rest = await reader.read()
            assert not rest.endswith(b"0\r\n\r\n"), "it looks like the end of the results"
            assert 0 < rest.count(b'"seq"') < 8_000
        finally:
            writer.close()


async def test_a_client_that_reads_gets_all_results_of_a_task_that_is_deleted_meanwhile(store: Store) -> None:
    registry, _ = store
    async with registry:
        task = await submit_ended(registry, [f"http://a/{number}" for number in range(2_000)])
        pages: list[ProbeResult] = []
        async for page in registry.pages(task.id):
            if not pages:
                await registry.delete(task.id)
            pages.extend(page)
        assert [result.seq for result in pages] == list(range(2_000))
