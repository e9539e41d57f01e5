"""A service with a Redis: one of several that share it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from crawler import ServiceOptions
from crawler.server.settings import ServerSettings
from crawler.stores.redis.registry import RedisRegistry
from crawler.stores.redis.settings import FleetSettings
from tests.support.api import Api, serving_api
from tests.support.redis_server import RedisServer


@asynccontextmanager
async def replica(
    server: RedisServer,
    service: ServiceOptions | None = None,
    *,
    settings: FleetSettings | None = None,
    server_settings: ServerSettings | None = None,
) -> AsyncIterator[Api]:
    """Serve the API on this Redis, in this process."""
    registry = RedisRegistry(server.url, settings)
    async with serving_api(registry, service or ServiceOptions(drain=0), settings=server_settings) as api:
        yield api
