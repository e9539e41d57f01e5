"""The service as an ASGI application: for servers such as uvicorn, and to be mounted in FastAPI or Starlette."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from aiohttp import web

from crawler import service as aiohttp_service
from crawler.compose import open_registry
from crawler.core.environment import drop_service_links, options_from_environment
from crawler.core.errors import InputError
from crawler.core.options import Options
from crawler.core.service_options import ServiceOptions
from crawler.registry import Registry
from crawler.server.asgi_bridge import AsgiExchange, Receive, Scope, Send

__all__ = ["AsgiApplication", "app", "create_app", "from_environment"]

log = logging.getLogger(__name__)


class AsgiApplication:
    """An aiohttp application for an ASGI server.

    It starts and stops with the server's lifespan, or with that of the host application through `lifespan`. Without
    either it starts with its first request, and stops when the event loop ends.

    Args:
        make: Makes the aiohttp application at the start.
    """

    _server: asyncio.Future[web.Server]

    def __init__(self, make: Callable[[], web.Application]) -> None:
        self._make = make
        self._running: asyncio.Future[None] | None = None
        self._stop = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, by the ASGI specification."""
        if scope["type"] == "http":
            if self._stop.is_set():
                raise RuntimeError("the application has been stopped")
            await AsgiExchange((await self._start())[1], scope, receive, send).run()
        elif scope["type"] == "lifespan":
            await self._follow_lifespan(receive, send)
        else:
            raise ValueError(f"connections of type {scope['type']} are not supported")

    @asynccontextmanager
    async def lifespan(self, host: object = None) -> AsyncIterator[None]:
        """Start the application, and stop it at the end. Use it as the host application's lifespan, or enter it there.

        Args:
            host: The host application, which Starlette and FastAPI pass to a lifespan; not used.
        """
        running, _ = await self._start()
        try:
            yield
        finally:
            self._stop.set()
            await running

    async def _follow_lifespan(self, receive: Receive, send: Send) -> None:
        """Start and stop with the server."""
        await receive()
        async with AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(self.lifespan())
            except Exception as error:  # if it were raised, a server could read it as "no lifespan support"
                if not isinstance(error, InputError):
                    log.exception("the application cannot start")
                await send({"type": "lifespan.startup.failed", "message": f"crawler: {error}"})
                return
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def _start(self) -> tuple[asyncio.Future[None], web.Server]:
        """Start the application, once; concurrent callers share the start, and it survives their cancellation."""
        if self._running is None:
            self._server = asyncio.get_running_loop().create_future()
            self._running = asyncio.ensure_future(self._run())
        return self._running, await asyncio.shield(self._server)

    async def _run(self) -> None:
        """Start the application, and clean up when it is stopped, or when the event loop ends and cancels this task."""
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
    """Return an ASGI application of `crawler.create_app` with these arguments."""
    return AsgiApplication(aiohttp_service.create_app(options, registry=registry, service=service))


def from_environment(wait_seconds: float = 0.0) -> web.Application:
    """Return the application that the command would serve, with its options from the same `CRAWLER_*` variables.

    Args:
        wait_seconds: How long to wait for the registry while a process that is about to end still uses it.

    Raises:
        InputError: An option is wrong, or a file cannot be read.
    """
    drop_service_links()
    service, options = options_from_environment(ServiceOptions), options_from_environment(Options)
    registry = open_registry(service, wait_seconds)
    only_local = not service.allow_anonymous
    return aiohttp_service.create_app(options, registry=registry, service=service, only_local=only_local)


app: Final = AsgiApplication(from_environment)


async def _without_sendfile(request: web.Request, response: web.StreamResponse) -> None:
    """Send files through the writer; there is no socket for `sendfile`."""
    if isinstance(response, web.FileResponse):
        response.enable_compression(web.ContentCoding.identity)
