"""Limits of client connections: their number, and the time that a slow client gets.

aiohttp waits for a request, and for the end of its body, for as long as the client likes. So each connection goes
through a protocol that passes everything on to aiohttp's and measures its progress. The `ConnectionLimiter`
makes these protocols and checks them at intervals; its middleware tells them when a request begins and ends.

A client without progress is answered 408 and cut off. A client that connects when there are too many connections
replaces the one that has kept the service waiting longest; if none has, it is answered 503. A connection counts from
its first byte on, so its TLS handshake counts too, which asyncio's own servers would not show.
"""

import asyncio
from contextlib import suppress
from http import HTTPStatus
from typing import Final, Protocol, cast

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from crawler.runtime.cancellation import BackgroundJob
from crawler.server.http.problem import PROBLEM_TYPE, Problem

__all__ = ["ClientConnection", "ConnectionLimiter"]

_CHECKS_PER_TIMEOUT: Final = 4
_MIN_BODY_BYTES_PER_SECOND: Final = 500  # a usual limit of HTTP servers
_GRACE_SECONDS: Final = 1.0  # a new connection can replace one without progress for this time
_STALL_SECONDS: Final = 300.0  # a client that reads nothing of a response for this time is cut off
_RETRY_SECONDS: Final = 5  # Retry-After when there are too many connections


class ClientConnection(Protocol):
    """A connection of a client, from its handshake to its end."""

    def is_replaceable(self, now: float) -> bool:
        """Whether a new connection may replace this one; `now` is the loop's time."""

    def waits_since(self) -> float:
        """Return when the service began to wait for the client, in the loop's time."""

    @property
    def is_idle(self) -> bool:
        """Whether no response is due."""

    async def close(self, timeout_seconds: float) -> None:
        """End the idle connection; what is left to send is sent within the timeout."""

    def check(self, now: float) -> None:
        """Cut the connection off if its client makes no progress."""

    def abort(self) -> None:
        """End the connection at once, and free its place immediately."""


class ConnectionLimiter(BackgroundJob):
    """The client connections of one service. They are checked while its context lasts.

    Args:
        receive_seconds: Time for the head of a request, and for each next part of its body.
        max_connections: The most connections at once.

    Attributes:
        limit: The most connections at once.
        refused: How many were answered 503, or replaced by another one.
    """

    def __init__(self, receive_seconds: float, max_connections: int) -> None:
        self.receive_seconds = receive_seconds
        self.is_draining = False
        self.refused = 0
        self.limit = max_connections
        self._has_ended = asyncio.Event()
        self._connections: dict[asyncio.BaseTransport, ClientConnection] = {}  # oldest first

    @property
    def in_use(self) -> int:
        """How many connections there are."""
        return len(self._connections)

    def protocol(self, inner: web.RequestHandler, handshake: asyncio.BaseTransport | None = None) -> asyncio.Protocol:
        """Return the protocol of a new connection, which passes everything on to aiohttp's.

        Args:
            inner: aiohttp's protocol.
            handshake: The transport that the connection was admitted with, before it had TLS.
        """
        return _LimitedProtocol(self, inner, handshake)

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Notify a connection when its request begins and ends."""
        connection = self._connections.get(request.transport) if request.transport is not None else None
        if not isinstance(connection, _LimitedProtocol):  # it has been cut off meanwhile
            return await handler(request)
        connection.begin_request(request)
        try:
            response = await handler(request)
            if self.is_draining and response.prepared:  # too late for `announce_close`
                connection.inner.close()
            return response
        finally:
            connection.end_request()

    async def announce_close(self, request: web.Request, response: web.StreamResponse) -> None:
        """While draining, say in a response that it is the last one; for aiohttp's `on_response_prepare`."""
        if self.is_draining:
            response.force_close()
            response.headers[hdrs.CONNECTION] = "close"

    async def drain(self, seconds: float) -> None:
        """End each connection after the response that is due on it; return after `seconds` at the latest."""
        self.is_draining = True
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.gather(
                    *(each.close(seconds) for each in list(self._connections.values()) if each.is_idle)
                )
                while self._connections:
                    self._has_ended.clear()
                    await self._has_ended.wait()

    def admit(
        self,
        transport: asyncio.BaseTransport,
        connection: ClientConnection,
        replaces: asyncio.BaseTransport | None = None,
    ) -> bool:
        """Admit a connection if there is room, or if it can replace another one.

        Args:
            transport: Its transport.
            connection: The connection.
            replaces: The transport with which the same connection was admitted before its TLS handshake.
        """
        if replaces is not None:
            self.remove(replaces)
        if self.is_draining:
            return False
        if len(self._connections) >= self.limit:
            self.refused += 1
            now = asyncio.get_running_loop().time()
            replaceable = (other for other in self._connections.values() if other.is_replaceable(now))
            slowest = min(replaceable, key=lambda other: other.waits_since(), default=None)
            if slowest is None:
                return False
            slowest.abort()
        self._connections[transport] = connection
        return True

    def remove(self, transport: asyncio.BaseTransport) -> None:
        """Free the place of a connection that has ended."""
        self._connections.pop(transport, None)
        self._has_ended.set()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self.receive_seconds / _CHECKS_PER_TIMEOUT)
            await asyncio.sleep(0)  # after a delay of the process, read first what has arrived meanwhile
            now = asyncio.get_running_loop().time()
            for connection in list(self._connections.values()):
                connection.check(now)


class _LimitedProtocol(asyncio.Protocol):
    """Passes everything on to aiohttp's protocol, `inner`, and measures the client's progress."""

    def __init__(
        self, limiter: ConnectionLimiter, inner: web.RequestHandler, handshake: asyncio.BaseTransport | None
    ) -> None:
        self._limiter = limiter
        self.inner = inner
        self._handshake = handshake
        self._now = asyncio.get_running_loop().time
        self._request: web.Request | None = None
        self._waits_for_head = True
        self._since = self._now()  # when the wait for the head began, or the current interval of the body
        self._received_bytes = 0  # since then
        self._stalled_since: float | None = None  # since when the client reads nothing

    def is_replaceable(self, now: float) -> bool:
        """Whether it has no request, or only a part of its head, or a request without progress."""
        if self._stalled_since is not None:
            return now - self._stalled_since > _GRACE_SECONDS
        if self._request is None:
            return True
        waited = now - self._since
        is_slow = waited > _GRACE_SECONDS and self._received_bytes < _MIN_BODY_BYTES_PER_SECOND * waited
        return is_slow and self._waits_for_body(self._request)

    def waits_since(self) -> float:
        """Return when the service began to wait for the client, in the loop's time."""
        return self._stalled_since or self._since

    @property
    def is_idle(self) -> bool:
        """Whether no response is due."""
        return self._request is None and not (self._waits_for_head and self._received_bytes)

    async def close(self, timeout_seconds: float) -> None:
        """End the idle connection; what is left to send is sent within the timeout."""
        self.inner.close()
        await self.inner.shutdown(timeout_seconds)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._is_admitted = self._limiter.admit(self._transport, self, self._handshake)
        if self._is_admitted:
            self.inner.connection_made(transport)
        elif self._limiter.is_draining:  # the service stopped listening during the handshake
            self._transport.close()
        else:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections; try again", _RETRY_SECONDS)

    def data_received(self, data: bytes) -> None:
        if self._is_admitted:
            if self._request is None and not self._waits_for_head:
                self._waits_for_head, self._since = True, self._now()
            self._received_bytes += len(data)
            self.inner.data_received(data)

    def eof_received(self) -> None:
        if self._is_admitted:
            self.inner.eof_received()

    def connection_lost(self, error: Exception | None) -> None:
        self._limiter.remove(self._transport)
        if self._is_admitted:
            self.inner.connection_lost(error)

    def pause_writing(self) -> None:
        self._stalled_since = self._now()
        if self._is_admitted:
            self.inner.pause_writing()

    def resume_writing(self) -> None:
        self._stalled_since = None
        if self._is_admitted:
            self.inner.resume_writing()

    def begin_request(self, request: web.Request) -> None:
        """Note that the head of a request has arrived."""
        self._request, self._received_bytes, self._since = request, 0, self._now()

    def end_request(self) -> None:
        """Note that the response is on its way. aiohttp limits the time until the next request."""
        self._request, self._waits_for_head, self._since = None, False, self._now()

    def check(self, now: float) -> None:
        """Cut the connection off if its client makes no progress."""
        limit = self._limiter.receive_seconds
        if self._stalled_since is not None and now - self._stalled_since > _STALL_SECONDS:
            self.abort()
        elif self._transport.is_closing():
            if now - self._since > max(limit, _STALL_SECONDS):  # the client does not read what is left
                self.abort()
        elif self._request is None:
            if self._waits_for_head and now - self._since > limit:
                self._refuse(HTTPStatus.REQUEST_TIMEOUT, f"no complete request head arrived within {limit:g} s")
        elif not self._waits_for_body(self._request):
            self._received_bytes, self._since = 0, now
        elif now - self._since > limit:
            if self._received_bytes < _MIN_BODY_BYTES_PER_SECOND * limit:
                detail = f"the body arrived at less than {_MIN_BODY_BYTES_PER_SECOND} bytes per second"
                self._refuse(HTTPStatus.REQUEST_TIMEOUT, detail)
            self._received_bytes, self._since = 0, now

    def _waits_for_body(self, request: web.Request) -> bool:
        """Whether the client has to send more of the body; otherwise the service works, or has enough for now."""
        return not request.content.is_eof() and self._transport.is_reading()

    def abort(self) -> None:
        """End the connection at once, and free its place immediately."""
        self._limiter.remove(self._transport)
        self._transport.abort()

    def _refuse(self, status: HTTPStatus, detail: str, retry_seconds: int | None = None) -> None:
        """Answer without aiohttp, which may not know of a request yet."""
        body = Problem.of(status, detail).encode()
        retry_after = "" if retry_seconds is None else f"Retry-After: {retry_seconds}\r\n"
        self._transport.write(
            f"HTTP/1.1 {status} {status.phrase}\r\nContent-Type: {PROBLEM_TYPE}\r\n{retry_after}"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
            + body
        )
        self._transport.close()
