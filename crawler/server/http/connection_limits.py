"""Connections of clients: how many there may be, and how slow.

aiohttp waits for a request, and for its end, as long as a client likes. So each connection goes through a protocol that
hands everything on and looks how it goes: `Listener` makes these, watches them, and is told by a middleware when a
request is taken up. A client that does not get on is answered 408 and cut off; one that comes when there are too many
takes the place of the one that has kept us waiting for longest, or is told 503 if there is none such. A connection
counts from its beginning on, and so does its TLS handshake, which asyncio's servers would not show.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from http import HTTPStatus
from types import TracebackType
from typing import Final, Protocol, Self, cast

import msgspec
from aiohttp import hdrs, web

__all__ = ["ClientConnection", "ConnectionLimiter", "plain_problem"]

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_LOOKS: Final = 4  # at every connection within the shortest time that may have passed
_RATE: Final = 500  # bytes a second of a body, at least: what servers usually ask for
_GRACE: Final = 1.0  # seconds of such slowness, or of taking nothing in, until others come first
_STUCK: Final = 300.0  # seconds in which a client has to take some of an answer in
_LATER: Final = 5  # seconds until a client should try again that there was no room for


class ClientConnection(Protocol):
    """One of the connections."""

    def can_go(self, now: float) -> bool:
        """Whether others come first."""

    def since_when(self) -> float:
        """Since when it waits for its client, if it does."""

    @property
    def is_idle(self) -> bool:
        """Whether no request is due to be answered."""

    async def leave(self, patience: float) -> None:
        """End it, if it is idle; what is still to be sent is sent, for so many seconds."""

    def look(self, now: float) -> None:
        """Cut it off if its client does not get on."""

    def abort(self) -> None:
        """End it at once, and make room before it is gone."""


class ConnectionLimiter:
    """The connections of one service; they are watched while its context lasts.

    Args:
        patience: Seconds for a request's head, and in which some more of its body has to come.
        most: How many there may be.
    """

    def __init__(self, patience: float, most: int) -> None:
        self.patience = patience
        self.is_draining = False
        self._most = most
        self._left = asyncio.Event()
        self._open: dict[asyncio.BaseTransport, ClientConnection] = {}  # oldest first

    async def __aenter__(self) -> Self:
        self._watching = asyncio.ensure_future(self._watch())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watching.cancel()
        await asyncio.gather(self._watching, return_exceptions=True)

    def connection(self, inner: web.RequestHandler, handshake: asyncio.BaseTransport | None = None) -> asyncio.Protocol:
        """What hands a connection on to aiohttp's protocol, and is watched.

        Args:
            inner: That protocol.
            handshake: By what it was known until it had TLS.
        """
        return _Connection(self, inner, handshake)

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Tell a connection that it has a request, as long as it has."""
        connection = self._open.get(request.transport) if request.transport is not None else None
        if not isinstance(connection, _Connection):  # it has been cut off meanwhile
            return await handler(request)
        connection.begin(request)
        try:
            response = await handler(request)
            if self.is_draining and response.prepared:  # too late for `say_close`
                connection.inner.close()
            return response
        finally:
            connection.end()

    async def say_close(self, request: web.Request, response: web.StreamResponse) -> None:
        """Say of an answer that is the last one, as aiohttp's `on_response_prepare`."""
        if self.is_draining:
            response.force_close()
            response.headers[hdrs.CONNECTION] = "close"

    async def drain(self, seconds: float) -> None:
        """Have every connection end with the answer that is due on it, for so many seconds at most."""
        self.is_draining = True
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.gather(*(each.leave(seconds) for each in list(self._open.values()) if each.is_idle))
                while self._open:
                    self._left.clear()
                    await self._left.wait()

    def admit(
        self,
        transport: asyncio.BaseTransport,
        connection: ClientConnection,
        instead_of: asyncio.BaseTransport | None = None,
    ) -> bool:
        """Make room for one more connection, if there is any, or for what another one has become."""
        if instead_of is not None:
            self.forget(instead_of)
        if self.is_draining:
            return False
        if len(self._open) >= self._most:
            now = asyncio.get_running_loop().time()
            slow = (other for other in self._open.values() if other.can_go(now))
            if (slowest := min(slow, key=lambda other: other.since_when(), default=None)) is None:
                return False
            slowest.abort()
        self._open[transport] = connection
        return True

    def forget(self, transport: asyncio.BaseTransport) -> None:
        """Take note that a connection has ended."""
        self._open.pop(transport, None)
        self._left.set()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self.patience / _LOOKS)
            await asyncio.sleep(0)  # what came while this process was held up is read before anybody is called late
            now = asyncio.get_running_loop().time()
            for connection in list(self._open.values()):
                connection.look(now)


class _Connection(asyncio.Protocol):
    """Hands everything on to aiohttp's protocol, which is `inner`."""

    def __init__(
        self, listener: ConnectionLimiter, inner: web.RequestHandler, handshake: asyncio.BaseTransport | None
    ) -> None:
        self._listener = listener
        self.inner = inner
        self._handshake = handshake
        self._now = asyncio.get_running_loop().time
        self._request: web.Request | None = None
        self._received = 0  # bytes since then
        self._waits_for_head = True
        self._stuck: float | None = None  # since when the client takes nothing in
        self._since = self._now()  # when it began to wait for what it now waits for

    def can_go(self, now: float) -> bool:
        """Whether others come first: it has no request, or not all of its head, or does not get on with one."""
        if self._stuck is not None:
            return now - self._stuck > _GRACE
        if self._request is None:
            return True
        waited = now - self._since
        return waited > _GRACE and self._received < _RATE * waited and self._wants_body(self._request)

    def since_when(self) -> float:
        """Since when it waits for its client, if it does."""
        return self._stuck or self._since

    @property
    def is_idle(self) -> bool:
        """Whether no request is due to be answered."""
        return self._request is None and not (self._waits_for_head and self._received)

    async def leave(self, patience: float) -> None:
        """End a connection that is idle; what is still to be sent is sent."""
        self.inner.close()
        await self.inner.shutdown(patience)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._is_admitted = self._listener.admit(self._transport, self, self._handshake)
        if self._is_admitted:
            self.inner.connection_made(transport)
        elif self._listener.is_draining:  # its handshake took longer than the listening
            self._transport.close()
        else:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "there are too many connections; try again", _LATER)

    def data_received(self, data: bytes) -> None:
        if self._is_admitted:
            if self._request is None and not self._waits_for_head:
                self._waits_for_head, self._since = True, self._now()
            self._received += len(data)
            self.inner.data_received(data)

    def eof_received(self) -> None:
        if self._is_admitted:
            self.inner.eof_received()

    def connection_lost(self, error: Exception | None) -> None:
        self._listener.forget(self._transport)
        if self._is_admitted:
            self.inner.connection_lost(error)

    def pause_writing(self) -> None:
        self._stuck = self._now()
        if self._is_admitted:
            self.inner.pause_writing()

    def resume_writing(self) -> None:
        self._stuck = None
        if self._is_admitted:
            self.inner.resume_writing()

    def begin(self, request: web.Request) -> None:
        """Take note that a request's head has come."""
        self._request, self._received, self._since = request, 0, self._now()

    def end(self) -> None:
        """Take note that its answer is on its way. When the next request is due is what aiohttp looks after."""
        self._request, self._waits_for_head, self._since = None, False, self._now()

    def look(self, now: float) -> None:
        """Cut it off if its client does not get on."""
        patience = self._listener.patience
        if self._stuck is not None and now - self._stuck > _STUCK:
            self.abort()
        elif self._transport.is_closing():
            if now - self._since > max(patience, _STUCK):  # what is left to be sent, nobody takes in
                self.abort()
        elif self._request is None:
            if self._waits_for_head and now - self._since > patience:
                self._refuse(HTTPStatus.REQUEST_TIMEOUT, f"no whole request came within {patience:g} s")
        elif not self._wants_body(self._request):
            self._received, self._since = 0, now
        elif now - self._since > patience:
            if self._received < _RATE * patience:
                self._refuse(HTTPStatus.REQUEST_TIMEOUT, f"the body came with less than {_RATE} bytes a second")
            self._received, self._since = 0, now

    def _wants_body(self, request: web.Request) -> bool:
        """Whether it is for the client to send more of it; else it is we who work, or have enough for now."""
        return not request.content.is_eof() and self._transport.is_reading()

    def abort(self) -> None:
        """End it at once, and make room before it is gone."""
        self._listener.forget(self._transport)
        self._transport.abort()

    def _refuse(self, status: HTTPStatus, detail: str, later: int | None = None) -> None:
        """Answer without aiohttp, which may not know yet that there is a request."""
        body = plain_problem(status, detail)
        again = "" if later is None else f"Retry-After: {later}\r\n"
        self._transport.write(
            f"HTTP/1.1 {status} {status.phrase}\r\nContent-Type: application/problem+json\r\n{again}"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
            + body
        )
        self._transport.close()


def plain_problem(status: HTTPStatus, detail: str) -> bytes:
    """What `problems` answers with, for where there is no request yet."""
    return msgspec.json.encode({"type": "about:blank", "title": status.phrase, "status": status, "detail": detail})
