"""A worker for services with a Redis, on the test's own loop; and one in a process of its own."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from crawler.compose import open_prober
from crawler.core.options import Options
from crawler.distributed.chunk_worker import ChunkWorker
from crawler.stores.redis.registry import RedisRegistry


@asynccontextmanager
async def working(url: str, **options: Any) -> AsyncIterator[ChunkWorker]:
    """A worker that may probe the site of the tests, which is on loopback."""
    chosen = Options(guard="any", **options)
    async with (
        RedisRegistry(url) as registry,
        open_prober(chosen) as prober,
        ChunkWorker(registry, prober, chosen).running() as worker,
    ):
        yield worker


@asynccontextmanager
async def worker_process(url: str, *flags: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """The same as `crawler worker`, once it works; it is killed in the end if it still lives."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "crawler", "worker", "--redis", url, "--guard", "any", *flags,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert (await process.stdout.readline()).startswith(b"crawler works for ")
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
