"""The listening socket: aiohttp's protocol, with TLS if wanted, and with limits on connections."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final, cast

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong

from crawler.server.http.connection_limits import ConnectionLimiter
from crawler.server.http.problem import Problem, problem_response
from crawler.server.http.request_body import HANDLER_ARGS

__all__ = ["ListeningSite"]

_UNSENT_BYTES: Final = 128 * 1024  # the kernel buffers at most this of a response per client; its default is megabytes


class _RequestHandler(web.RequestHandler):
    """aiohttp's protocol, without its log of requests that are not HTTP: they may contain secrets."""

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer a request that cannot be parsed, and end the connection."""
        if not isinstance(exc, HttpProcessingError):
            return super().handle_error(request, status, exc, message)
        if request.writer.output_size > 0:  # a response has begun
            raise ConnectionError
        if isinstance(exc, LineTooLong):
            problem = Problem.of(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "a line of the head is too long")
        else:
            problem = Problem.of(HTTPStatus.BAD_REQUEST, "the request is not HTTP")
        response = problem_response(problem)
        response.force_close()
        return response


class ListeningSite(web.BaseSite):
    """Listens on an address, and hands connections to a limiter.

    Args:
        runner: Has the application.
        limiter: Limits the connections.
        address: Host and port.
        keep_alive: Seconds for which a connection without request is kept.
        ssl_context: The TLS context; None for plain HTTP.
    """

    def __init__(
        self,
        runner: web.AppRunner,
        limiter: ConnectionLimiter,
        address: tuple[str, int],
        *,
        keep_alive: float,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(runner, ssl_context=ssl_context)
        server, loop = runner.server, asyncio.get_running_loop()
        assert server is not None
        # The type of `access_log` is a logger, but None is allowed: then aiohttp does not log queries.
        arguments: dict[str, Any] = {**HANDLER_ARGS, "access_log": None}
        self._make_handler: Callable[[], web.RequestHandler] = lambda: _RequestHandler(
            server, loop=loop, keepalive_timeout=keep_alive, **arguments
        )
        self._limiter = limiter
        self._address = address

    @property
    def name(self) -> str:
        """The URL of the address, which aiohttp asks for."""
        host, port = self._address
        return f"{'http' if self._ssl_context is None else 'https'}://{host}:{port}"

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: The address cannot be listened on.
        """
        await super().start()
        loop = asyncio.get_running_loop()
        host, port = self._address
        self._server = await loop.create_server(self._protocol, host, port, backlog=self._backlog, reuse_address=True)
        for listening in self._server.sockets:  # the sockets of connections inherit the option
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)

    def _protocol(self) -> asyncio.Protocol:
        if self._ssl_context is None:
            return self._limiter.protocol(self._make_handler())
        return _HandshakeProtocol(self._limiter, self._make_handler, self._ssl_context)


class _HandshakeProtocol(asyncio.Protocol):
    """A connection until its TLS handshake is done.

    asyncio would show a connection only after the handshake. Then clients with unfinished handshakes could use up all
    descriptors without being counted.
    """

    is_idle = True

    def __init__(
        self, limiter: ConnectionLimiter, make_handler: Callable[[], web.RequestHandler], context: ssl.SSLContext
    ) -> None:
        self._limiter = limiter
        self._make_handler = make_handler
        self._context = context
        self._since = asyncio.get_running_loop().time()
        self._handshake: asyncio.Future[Any] | None = None

    def is_replaceable(self, now: float) -> bool:
        return True

    def waits_since(self) -> float:
        return self._since

    async def close(self, timeout_seconds: float) -> None:
        self.abort()

    def check(self, now: float) -> None:
        pass  # asyncio limits the time of the handshake

    def abort(self) -> None:
        self._limiter.remove(self._transport)
        if self._handshake is not None:
            self._handshake.cancel()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._limiter.admit(transport, self):
            try:
                self._start_handshake(transport.get_extra_info("socket").dup())
            except OSError:  # no descriptor is left
                self.abort()
        self._transport.abort()  # nothing has been read from it: if there is a duplicate, the connection goes on there

    def _start_handshake(self, duplicate: socket.socket) -> None:
        def make_protocol() -> asyncio.Protocol:
            return self._limiter.protocol(self._make_handler(), self._transport)

        def end(done: asyncio.Future[Any]) -> None:
            if done.cancelled() or done.exception() is not None:  # a failed handshake is the client's fault
                duplicate.close()
                self._limiter.remove(self._transport)

        self._handshake = asyncio.ensure_future(
            asyncio.get_running_loop().connect_accepted_socket(
                make_protocol, duplicate, ssl=self._context, ssl_handshake_timeout=self._limiter.receive_seconds
            )
        )
        self._handshake.add_done_callback(end)
