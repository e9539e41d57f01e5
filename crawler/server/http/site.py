"""Where the service listens: aiohttp's protocol, over TLS if that is wanted, under the eyes of the listener."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final, cast

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong

from crawler.server.http.connection_limits import ConnectionLimiter, plain_problem
from crawler.server.http.request_body import HANDLER_ARGS

__all__ = ["ListeningSite"]

_UNSENT: Final = 128 * 1024  # bytes of an answer that the kernel takes ahead of a client: it would take megabytes


class _Requests(web.RequestHandler):
    """aiohttp's protocol, but for what is no HTTP: it would write that, with its secrets, into the log."""

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what cannot be understood, and end the connection."""
        if not isinstance(exc, HttpProcessingError):
            return super().handle_error(request, status, exc, message)
        if request.writer.output_size > 0:  # of an answer that has begun
            raise ConnectionError
        is_long = isinstance(exc, LineTooLong)
        found = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE if is_long else HTTPStatus.BAD_REQUEST
        detail = "a line of the head is too long" if is_long else "the request is not HTTP"
        response = web.Response(
            status=found, body=plain_problem(found, detail), content_type="application/problem+json"
        )
        response.force_close()
        return response


class ListeningSite(web.BaseSite):
    """Listens on an address, with a watch over the connections."""

    def __init__(
        self,
        runner: web.AppRunner,
        listener: ConnectionLimiter,
        where: tuple[str, int],
        *,
        keep_alive: float,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(runner, ssl_context=ssl_context)
        server, loop = runner.server, asyncio.get_running_loop()
        assert server is not None
        # aiohttp says that `access_log` is a logger; without one it writes no lines, with their queries.
        more: dict[str, Any] = {**HANDLER_ARGS, "access_log": None}
        self._requests: Callable[[], web.RequestHandler] = lambda: _Requests(
            server, loop=loop, keepalive_timeout=keep_alive, **more
        )
        self._listener = listener
        self._where = where

    @property
    def name(self) -> str:
        """Where it listens, as aiohttp wants to know."""
        host, port = self._where
        return f"{'http' if self._ssl_context is None else 'https'}://{host}:{port}"

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: The address cannot be listened on.
        """
        await super().start()
        loop = asyncio.get_running_loop()
        host, port = self._where
        self._server = await loop.create_server(self._protocol, host, port, backlog=self._backlog, reuse_address=True)
        for listening in self._server.sockets:  # those of its connections inherit it
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT)

    def _protocol(self) -> asyncio.Protocol:
        if self._ssl_context is None:
            return self._listener.connection(self._requests())
        return _Handshake(self._listener, self._requests, self._ssl_context)


class _Handshake(asyncio.Protocol):
    """A connection until it has TLS.

    asyncio would make the handshake before it shows a connection, so that any number of clients that do not get on with
    theirs could have all the descriptors.
    """

    is_idle = True

    def __init__(
        self, listener: ConnectionLimiter, make: Callable[[], web.RequestHandler], context: ssl.SSLContext
    ) -> None:
        self._listener = listener
        self._make = make
        self._context = context
        self._since = asyncio.get_running_loop().time()
        self._securing: asyncio.Future[Any] | None = None

    def can_go(self, now: float) -> bool:
        return True

    def since_when(self) -> float:
        return self._since

    async def leave(self, patience: float) -> None:
        self.abort()

    def look(self, now: float) -> None:
        pass  # asyncio looks after how long it takes

    def abort(self) -> None:
        self._listener.forget(self._transport)
        if self._securing is not None:
            self._securing.cancel()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._listener.admit(transport, self):
            try:
                self._secure(transport.get_extra_info("socket").dup())
            except OSError:  # there is no descriptor left
                self.abort()
        self._transport.abort()  # nothing is read of it yet: the connection goes on with the duplicate, if there is one

    def _secure(self, own: socket.socket) -> None:
        def made() -> asyncio.Protocol:
            return self._listener.connection(self._make(), self._transport)

        def end(done: asyncio.Future[Any]) -> None:
            if done.cancelled() or done.exception() is not None:  # what clients do here is no fault of ours
                own.close()
                self._listener.forget(self._transport)

        self._securing = asyncio.ensure_future(
            asyncio.get_running_loop().connect_accepted_socket(
                made, own, ssl=self._context, ssl_handshake_timeout=self._listener.patience
            )
        )
        self._securing.add_done_callback(end)
