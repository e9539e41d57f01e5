"""The queues of chunks in Redis."""

import asyncio

from crawler.distributed.chunk_queue import ChunkQueue
from crawler.stores.redis.registry import RedisRegistry
from tests.support.redis_server import RedisServer


async def test_it_closes_whenever_that_is_asked(redis_server: RedisServer) -> None:
    """Before Python 3.12, `asyncio.wait_for` swallows a cancellation as its call completes (python/cpython#86296)."""
    async with RedisRegistry(redis_server.url) as registry:
        for steps in range(40):
            async with asyncio.timeout(5):
                async with ChunkQueue(registry):
                    for _ in range(steps):
                        await asyncio.sleep(0)
