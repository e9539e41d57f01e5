"""Serves an application to tests: by aiohttp's server, or by uvicorn as an ASGI application.

Fixtures use both. A test that uses one of them tests our own socket (timeouts, connection limits, a stop with requests
under way), mounts in aiohttp's applications, or big Tasks, which take long and are the same with both.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import uvicorn
from aiohttp.test_utils import TestServer
from aiohttp.typedefs import StrOrURL
from aiohttp.web import BaseRunner
from yarl import URL

from crawler.asgi import AsgiApplication

__all__ = ["SERVERS", "AiohttpServer", "served"]


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[int]:
    """Run uvicorn on the test's own loop; gives its port."""
    config = uvicorn.Config(app, port=0, lifespan="on", log_config=None, http="h11")
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:  # what uvicorn does to stop, without its polling
        for each in server.servers:
            each.close()
        for connection in list(server.server_state.connections):
            connection.shutdown()
        tasks = list(server.server_state.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.lifespan.shutdown()


class AiohttpServer(TestServer):
    """aiohttp's server as `crawler serve` runs it: a client that leaves cancels no handler.

    aiohttp's own `TestServer` cancels it, which hides whether we notice that a client has left.
    """

    __test__ = False

    async def _make_runner(self, **kwargs: Any) -> BaseRunner:
        return await super()._make_runner(**{**kwargs, "handler_cancellation": False})


class UvicornServer(TestServer):
    """uvicorn, for aiohttp's test client."""

    __test__ = False

    async def start_server(self, loop: asyncio.AbstractEventLoop | None = None, **kwargs: Any) -> None:
        self._running = AsyncExitStack()
        self.port = await self._running.enter_async_context(served(AsgiApplication(self.app)))

    def make_url(self, path: StrOrURL) -> URL:
        return URL.build(scheme="http", host=self.host, port=self.port).join(URL(path))

    async def close(self) -> None:
        await self._running.aclose()


SERVERS: Final[dict[str, type[TestServer]]] = {"aiohttp": AiohttpServer, "asgi": UvicornServer}
