"""Answers one request that comes as ASGI messages with aiohttp's application.

The request goes to the application's own request factory and handler, with a writer that turns what aiohttp writes into
messages, and a body that is fed from them. The request is not written as HTTP and parsed again, as it would be with
aiohttp's protocol over a transport in memory: that is less work, and no header can be split in two.

As with aiohttp's server, a client that disconnects does not cancel its handler in the middle of a change: the next read
of the body or write of the response fails instead.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from aiohttp import StreamReader, hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import HttpVersion11, RawRequestMessage
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from crawler.runtime.cancellation import cancel_and_wait
from crawler.server.middleware.proxy_headers import ROOT_PATH

__all__ = ["AsgiExchange", "Message", "Receive", "Scope", "Send"]

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_READ_AHEAD_BYTES: Final = 64 * 1024  # read of a body before the handler reads it; at most twice as much
_SERVER_HEADERS: Final = frozenset({hdrs.CONNECTION, hdrs.DATE, hdrs.SERVER, hdrs.TRANSFER_ENCODING})  # of the server


class _Transport(asyncio.Transport):
    """The transport that aiohttp sees: the addresses, and the flow of the body."""

    def __init__(self, scope: Scope) -> None:
        super().__init__({"peername": _address(scope.get("client")), "sockname": _address(scope.get("server"))})
        self.may_read = asyncio.Event()
        self.may_read.set()
        self._is_closing = False

    def pause_reading(self) -> None:
        self.may_read.clear()

    def resume_reading(self) -> None:
        self.may_read.set()

    def is_closing(self) -> bool:
        return self._is_closing

    def abort(self) -> None:
        self._is_closing = True


class _Protocol(web.RequestHandler):
    """The part of aiohttp's protocol that a body uses."""

    def pause_reading(self) -> None:
        assert self.transport is not None
        self.transport.pause_reading()

    def resume_reading(self, resume_parser: bool = True) -> None:
        assert self.transport is not None
        self.transport.resume_reading()


class _Writer(AbstractStreamWriter):
    """Turns a response into ASGI messages, each sent at once. The server frames them."""

    def __init__(self, send: Send, transport: _Transport) -> None:
        self._send = send
        self._transport = transport

    async def write_headers(self, status_line: str, headers: "CIMultiDict[str]") -> None:
        pairs = [
            (name.lower().encode(), value.encode()) for name, value in headers.items() if name not in _SERVER_HEADERS
        ]
        await self._send_message(
            {"type": "http.response.start", "status": int(status_line.split()[1]), "headers": pairs}
        )

    async def write(self, chunk: bytes | bytearray | memoryview) -> None:
        await self._send_body(chunk, more=True)

    async def write_eof(self, chunk: bytes = b"") -> None:
        await self._send_body(chunk, more=False)

    async def drain(self) -> None:
        """Do nothing: nothing is buffered here."""

    def enable_chunking(self) -> None:
        """Do nothing: the server does that."""

    def enable_compression(self, encoding: str = "deflate", strategy: int | None = None) -> None:
        raise NotImplementedError("responses are not compressed")

    async def _send_body(self, chunk: bytes | bytearray | memoryview, *, more: bool) -> None:
        self.output_size += len(chunk)
        await self._send_message({"type": "http.response.body", "body": bytes(chunk), "more_body": more})

    async def _send_message(self, message: Message) -> None:
        if self._transport.is_closing():
            raise ConnectionResetError("the client has disconnected, or was cut off")
        try:
            await self._send(message)
        except OSError as error:  # some servers report a disconnected client this way
            raise ConnectionResetError(str(error)) from error


class AsgiExchange:
    """One request and its response."""

    def __init__(self, server: web.Server, scope: Scope, receive: Receive, send: Send) -> None:
        self._server = server
        self._scope = scope
        self._receive = receive
        self._transport = _Transport(scope)
        self._writer = _Writer(send, self._transport)
        loop = asyncio.get_running_loop()
        self._protocol = _Protocol(server, loop=loop)
        self._protocol.transport = self._transport
        self._body = StreamReader(self._protocol, _READ_AHEAD_BYTES, loop=loop)

    async def run(self) -> None:
        """Answer the request. A response that is cut off gets no end, so that the server cuts its client off."""
        receiving = asyncio.ensure_future(self._receive_body())
        try:
            request = self._request()
            try:
                response = await self._server.request_handler(request)
            except web.HTTPException as error:
                response = error
            await response.prepare(request)
            await response.write_eof()
        except ConnectionError:
            pass
        finally:
            await cancel_and_wait(receiving)

    async def _receive_body(self) -> None:
        """Feed the body as fast as the handler reads it, and note when the client disconnects."""
        try:
            while True:
                await self._transport.may_read.wait()
                message = await self._receive()
                if message["type"] != "http.request":
                    break
                self._body.feed_data(message.get("body", b""))
                if not message.get("more_body", False):
                    self._body.feed_eof()
        finally:
            self._transport.abort()
            if not self._body.is_eof():
                self._body.set_exception(web.RequestPayloadError("the client has disconnected"))

    def _request(self) -> web.BaseRequest:
        scope = self._scope
        # The server answers `Expect: 100-continue` itself.
        raw = tuple((name, value) for name, value in scope["headers"] if name.lower() != b"expect")
        headers = CIMultiDict((_decode(name), _decode(value)) for name, value in raw)
        url = _url(scope)
        message = RawRequestMessage(
            scope["method"],
            str(url),
            HttpVersion11,
            CIMultiDictProxy(headers),
            raw,
            should_close=False,
            compression=None,
            upgrade=False,
            chunked=False,
            url=url,
        )
        task = asyncio.current_task()
        assert task is not None
        request = self._server.request_factory(message, self._body, self._protocol, self._writer, task)
        if scope.get("scheme", "http") != "http":
            request = request.clone(scheme=scope["scheme"])
        if root := scope.get("root_path"):
            request[ROOT_PATH] = URL.build(path=root.rstrip("/")).raw_path
        return request


def _url(scope: Scope) -> URL:
    """Path and query below the mount. In newer versions of ASGI the path begins with that of the mount."""
    path, root = scope["path"], scope.get("root_path", "").rstrip("/")
    if root and (path == root or path.startswith(root + "/")):
        path = path[len(root) :]
    query = _decode(scope.get("query_string", b""))
    return URL.build(path=URL.build(path=path or "/").raw_path, query_string=query, encoded=True)


def _decode(value: bytes) -> str:
    """Decode as aiohttp does for a head."""
    return value.decode("utf-8", "surrogateescape")


def _address(value: Any) -> tuple[Any, ...] | None:
    return None if value is None else tuple(value)
