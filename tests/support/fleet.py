"""Worker processes for services with a Redis: one on the event loop of the test, one in a process of its own."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from crawler.compose import open_prober
from crawler.core.options import Options
from crawler.distributed.chunk_worker import ChunkWorker
from crawler.stores.redis.registry import RedisRegistry
from crawler.stores.redis.settings import FleetSettings

HOSTS: Final = [f"127.0.0.{number}" for number in range(1, 21)]
"""Addresses on which the site of the tests answers."""


@asynccontextmanager
async def working(url: str, settings: FleetSettings | None = None, **options: Any) -> AsyncIterator[ChunkWorker]:
    """Run a `ChunkWorker` in this process; it may probe loopback, where the site of the tests is."""
    chosen = Options(guard="any", **options)
    async with (
        RedisRegistry(url, settings) as registry,
        open_prober(chosen) as prober,
        ChunkWorker(registry, prober, chosen).running() as worker,
    ):
        yield worker


@asynccontextmanager
async def worker_process(url: str, *flags: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run `crawler worker`; the context starts when it takes chunks, and kills the process at its end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "crawler", "worker", "--redis", url, "--guard", "any", *flags,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert (await process.stdout.readline()).startswith(b"crawler probes for ")
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
