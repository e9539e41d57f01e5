"""The same service as an ASGI application: for uvicorn and its like, and to be mounted in FastAPI or Starlette."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from aiohttp import web

from crawler import service as aiohttp_service
from crawler.compose import open_registry
from crawler.core.environment import options_from_environment
from crawler.core.errors import InputError
from crawler.core.options import Options
from crawler.core.service_options import ServiceOptions
from crawler.registry import Registry
from crawler.server.asgi_bridge import AsgiExchange, Receive, Scope, Send

__all__ = ["AsgiApplication", "app", "create_app", "from_environment"]

log = logging.getLogger(__name__)


class AsgiApplication:
    """An aiohttp application for an ASGI server.

    It starts with the server's lifespan, or with that of its host through `lifespan`, or else with its first request;
    then it stops when the event loop ends.

    Args:
        make: Makes the aiohttp application when it is to start; one that is made stands for itself.
    """

    _server: asyncio.Future[web.Server]

    def __init__(self, make: Callable[[], web.Application]) -> None:
        self._make = make
        self._life: asyncio.Future[None] | None = None
        self._stop = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's scope, as ASGI says."""
        if scope["type"] == "http":
            if self._stop.is_set():
                raise RuntimeError("the application has been stopped")
            await AsgiExchange((await self._started())[1], scope, receive, send).run()
        elif scope["type"] == "lifespan":
            await self._follow(receive, send)
        else:
            raise ValueError(f"there is nothing here for {scope['type']}")

    @asynccontextmanager
    async def lifespan(self, host: object = None) -> AsyncIterator[None]:
        """Started within, and stopped at the end: to be entered by the host's lifespan, or given to it as such.

        Args:
            host: The application that it is mounted in, which Starlette and FastAPI tell.
        """
        life, _ = await self._started()
        try:
            yield
        finally:
            self._stop.set()
            await life

    async def _follow(self, receive: Receive, send: Send) -> None:
        """Start and stop with the server."""
        await receive()
        async with AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(self.lifespan())
            except Exception as error:  # told, or a server may think that there is no lifespan here, and go on
                if not isinstance(error, InputError):
                    log.exception("the application cannot start")
                await send({"type": "lifespan.startup.failed", "message": f"crawler: {error}"})
                return
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def _started(self) -> tuple[asyncio.Future[None], web.Server]:
        """Start it, once, whoever comes first and whether or not he stays."""
        if self._life is None:
            self._server = asyncio.get_running_loop().create_future()
            self._life = asyncio.ensure_future(self._live())
        return self._life, await asyncio.shield(self._server)

    async def _live(self) -> None:
        """All of its life, in one task: that is cancelled, and so cleans up, where nothing else stops it."""
        try:
            app = self._make()
            app.on_response_prepare.append(_without_sendfile)
            runner = web.AppRunner(app)
            await runner.setup()
        except Exception as error:
            self._server.set_exception(error)
            return
        try:
            assert runner.server is not None
            self._server.set_result(runner.server)
            await self._stop.wait()
        finally:
            await runner.cleanup()


def create_app(
    options: Options | None = None, *, registry: Registry | None = None, service: ServiceOptions | None = None
) -> AsgiApplication:
    """What `crawler.create_app` makes of these; a guard that is `auto` is `public`."""
    return AsgiApplication(aiohttp_service.create_app(options, registry=registry, service=service))


def from_environment(wait_seconds: float = 0.0) -> web.Application:
    """The application that the command would serve, with its options from the same `CRAWLER_*` variables.

    Args:
        wait_seconds: How long to wait for the registry while a process that is about to end still uses it.

    Raises:
        InputError: An option is wrong, or a file cannot be read.
    """
    service, options = options_from_environment(ServiceOptions), options_from_environment(Options)
    registry = open_registry(service, wait_seconds)
    only_local = not service.allow_anonymous
    return aiohttp_service.create_app(options, registry=registry, service=service, only_local=only_local)


app: Final = AsgiApplication(from_environment)


async def _without_sendfile(request: web.Request, response: web.StreamResponse) -> None:
    """Have a file sent through the writer: there is no socket to copy it into."""
    if isinstance(response, web.FileResponse):
        response.enable_compression(web.ContentCoding.identity)
