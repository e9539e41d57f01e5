"""An HTTP/2 server over TLS that answers frame by frame, also against the rules: real sockets, real bytes.

    async with Http2Server(context) as server:
        await fetch(server.url("/ok"))

A path of `ROWS` names the answer. `python -m tests.support.http2_server ca.pem` serves all of them, writes the
authority to trust and prints the URLs, to ask a browser again.
"""

import asyncio
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, Self

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import RequestReceived
from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from crawler.runtime.cancellation import cancel_and_wait
from tests.support.certs import Authority
from tests.support.exchange import ServerConnection

NO_APPLICATION_PROTOCOL = b"\x15\x03\x03\x00\x02\x02\x78"
"""The alert with which servers refuse what a client offers by ALPN (RFC 7301, 3.2)."""

HANDSHAKE_ENDS = {
    "alert": NO_APPLICATION_PROTOCOL,
    "handshake failure": b"\x15\x03\x03\x00\x02\x02\x28",
    "internal error": b"\x15\x03\x03\x00\x02\x02\x50",
    "closed handshake": b"",
    "reset handshake": None,
}
"""What a server sends in place of the handshake to clients that do not offer HTTP/2; None for RST."""

REFUSED_STREAM, ENHANCE_YOUR_CALM, HTTP_1_1_REQUIRED, INTERNAL_ERROR = 7, 11, 13, 2

OK = "200"
PROTOCOL = "ERR_HTTP2_PROTOCOL_ERROR"
PING_FAILED = "ERR_HTTP2_PING_FAILED"
REFUSED = "ERR_HTTP2_SERVER_REFUSED_STREAM"
CLOSED = "ERR_CONNECTION_CLOSED"
LOCATIONS = "ERR_RESPONSE_HEADERS_MULTIPLE_LOCATION"
DISPOSITIONS = "ERR_RESPONSE_HEADERS_MULTIPLE_CONTENT_DISPOSITION"
EMPTY = "ERR_EMPTY_RESPONSE"

Headers = list[tuple[str, str]]


class Request(NamedTuple):
    """One request as received; `version` is 1 or 2."""

    version: int
    method: str
    path: str
    headers: Headers
    connection: int


class Peer:
    """A request over HTTP/2 that has come, and its connection. The crafted frames answer on stream 1."""

    def __init__(self, connection: ServerConnection, state: H2Connection, request: Request, stream: int) -> None:
        self.request = request
        self.stream = stream
        self._connection = connection
        self._state = state

    async def respond(
        self, status: int | str = 200, headers: Iterable[tuple[str, str]] = (), body: bytes = b""
    ) -> None:
        """Send a correct response."""
        fields = [(":status", str(status)), *headers]
        has_body = bool(body) and self.request.method != "HEAD"
        self._state.send_headers(self.stream, fields, end_stream=not has_body)
        if has_body:
            self._state.send_data(self.stream, body, end_stream=True)
        await self.send_raw(self._state.data_to_send())

    async def send(self, *frames: Frame) -> None:
        """Send frames as they are."""
        await self.send_raw(b"".join(frame.serialize() for frame in frames))

    async def send_raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        await self._connection.send(data)

    async def close(self) -> None:
        """End the server's direction."""
        await self._connection.half_close()


def head(fields: Headers, *flags: str) -> HeadersFrame:
    """Make the frame of a header."""
    return HeadersFrame(1, Encoder().encode(fields), flags=list(flags))


def goaway(last_stream: int, code: int = 0) -> GoAwayFrame:
    return GoAwayFrame(0, last_stream_id=last_stream, error_code=code)


Answer = Callable[[Peer], Awaitable[None]]
ANSWERS: dict[str, Answer] = {}
ROWS: dict[str, str] = {}
"""What Chromium makes of each answer: a status or a net error."""


def row(chromium: str) -> Callable[[Answer], Answer]:
    """Add an answer to `ROWS`, by the name of its function."""

    def add(answer: Answer) -> Answer:
        name = answer.__name__.replace("_", "-")
        ANSWERS[name], ROWS[name] = answer, chromium
        return answer

    return add


@row(OK)
async def ok(peer: Peer) -> None:
    await peer.respond(200, [("content-type", "text/html"), ("alt-svc", 'h3=":443"')], b"<title>Two</title>")


@row("404")
async def missing(peer: Peer) -> None:
    await peer.respond(404)


@row(OK)
async def redirect(peer: Peer) -> None:
    await peer.respond(302, [("location", "/ok")])


@row(OK)
async def interim(peer: Peer) -> None:
    await peer.send(*[head([(":status", "103")], "END_HEADERS")] * 3)
    await peer.respond()


@row(OK)
async def split_head(peer: Peer) -> None:
    """The header comes in many frames."""
    block = Encoder().encode([(":status", "200"), *[(f"x-{number}", "a" * 50) for number in range(50)]])
    parts = [block[place : place + 100] for place in range(0, len(block), 100)]
    await peer.send(
        HeadersFrame(1, parts[0], flags=["END_STREAM"]),
        *[ContinuationFrame(1, part) for part in parts[1:-1]],
        ContinuationFrame(1, parts[-1], flags=["END_HEADERS"]),
    )


def with_wrong_length(length: str) -> tuple[HeadersFrame, DataFrame]:
    return head([(":status", "200"), ("content-length", length)], "END_HEADERS"), DataFrame(
        1, b"ok", flags=["END_STREAM"]
    )


@row(OK)
async def body_shorter_than_its_length(peer: Peer) -> None:
    """RFC 9113, 8.1.1 forbids it; servers do it: nghttp2/nghttp2#1408. Head and body come at once."""
    await peer.send(*with_wrong_length("99"))


@row(OK)
async def body_longer_than_its_length(peer: Peer) -> None:
    await peer.send(*with_wrong_length("1"))


@row(OK)
async def reset_after_the_head(peer: Peer) -> None:
    await peer.send(head([(":status", "200")], "END_HEADERS"), RstStreamFrame(1, error_code=INTERNAL_ERROR))


@row(OK)
async def goaway_then_answer(peer: Peer) -> None:
    """How a server that shuts down finishes a request (RFC 9113, 6.8)."""
    await peer.send(goaway(1))
    await peer.respond()


@row(OK)
async def goaway_first(peer: Peer) -> None:
    """The first connection is closed before it takes a request."""
    if peer.request.connection == 1:
        await peer.send(goaway(0))
    else:
        await peer.respond()


@row(OK)
async def refused_first(peer: Peer) -> None:
    """The first request is not processed (RFC 9113, 8.7)."""
    if peer.request.connection == peer.stream == 1:
        await peer.send(RstStreamFrame(peer.stream, error_code=REFUSED_STREAM))
    else:
        await peer.respond()


@row(REFUSED)
async def refused_always(peer: Peer) -> None:
    await peer.send(RstStreamFrame(peer.stream, error_code=REFUSED_STREAM))


@row(OK)
async def settings_out_of_range(peer: Peer) -> None:
    """Push, a window of 2 GiB, frames of 100 bytes (RFC 9113, 6.5.2)."""
    await peer.send(*[SettingsFrame(0, settings={name: value}) for name, value in {2: 1, 4: 1 << 31, 5: 100}.items()])
    await peer.respond()


@row(OK)
async def priority_of_itself(peer: Peer) -> None:
    await peer.send(PriorityFrame(1, depends_on=1))
    await peer.respond()


@row(PROTOCOL)
async def reset(peer: Peer) -> None:
    await peer.send(RstStreamFrame(1, error_code=INTERNAL_ERROR))


@row(PROTOCOL)
async def no_status(peer: Peer) -> None:
    await peer.send(head([("content-type", "text/html")], "END_HEADERS", "END_STREAM"))


@row(PROTOCOL)
async def http1_bytes(peer: Peer) -> None:
    await peer.send_raw(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


FIELDS: Mapping[str, tuple[Headers, str]] = {
    "upper-case-name": ([("X-Upper", "1")], PROTOCOL),
    "blank-in-a-name": ([("a b", "1")], PROTOCOL),
    "blank-after-a-name": ([("a ", "1")], PROTOCOL),
    "colon-in-a-name": ([("a:b", "1")], PROTOCOL),
    "at-in-a-name": ([("a@b", "1")], PROTOCOL),
    "slash-in-a-name": ([("a/b", "1")], PROTOCOL),
    "byte-128-in-a-name": ([("a\x80", "1")], PROTOCOL),
    "control-in-a-name": ([("a\x01", "1")], PROTOCOL),
    "tilde-in-a-name": ([("a~!#$%&'*+-.^_`|1", "1")], OK),
    "no-name": ([("", "1")], PROTOCOL),
    "nul-in-a-value": ([("x", "a\0b")], PROTOCOL),
    "line-feed-in-a-value": ([("x", "a\nb")], PROTOCOL),
    "carriage-return-in-a-value": ([("x", "a\rb")], PROTOCOL),
    "control-in-a-value": ([("x", "a\x01b")], PROTOCOL),
    "delete-in-a-value": ([("x", "a\x7fb")], PROTOCOL),
    "tab-in-a-value": ([("x", "a\tb")], OK),
    "bytes-above-127-in-a-value": ([("x", "\xe9\x80\xff")], OK),
    "blanks-around-a-value": ([("x", " a\t")], OK),
    "transfer-encoding": ([("transfer-encoding", "chunked")], PROTOCOL),
    "transfer-encoding-identity": ([("transfer-encoding", "identity")], PROTOCOL),
    "connection": ([("connection", "keep-alive")], OK),
    "connection-close": ([("connection", "close")], OK),
    "keep-alive": ([("keep-alive", "timeout=5")], OK),
    "proxy-connection": ([("proxy-connection", "close")], OK),
    "upgrade": ([("upgrade", "h2c")], OK),
    "te": ([("te", "gzip")], OK),
    "host": ([("host", "a.test")], OK),
    "length-many": ([("content-length", "many")], OK),
    "length-negative": ([("content-length", "-1")], OK),
    "length-plus": ([("content-length", "+2")], OK),
    "length-empty": ([("content-length", "")], OK),
    "length-huge": ([("content-length", "99999999999999999999999999")], OK),
    "length-list": ([("content-length", "0, 0")], OK),
    "length-twice": ([("content-length", "0"), ("content-length", "0")], OK),
    "length-different": ([("content-length", "0"), ("content-length", "1")], OK),
    "length-fraction": ([("content-length", "0.5")], OK),
    "length-blank": ([("content-length", " 0")], OK),
    "status-twice": ([(":status", "200")], PROTOCOL),
    "unknown-pseudo": ([(":foo", "1")], OK),
    "path-pseudo": ([(":path", "/")], OK),
    "location-twice": ([("location", "/a"), ("location", "/b")], LOCATIONS),
    "disposition-twice": ([("content-disposition", "a"), ("content-disposition", "b")], DISPOSITIONS),
    "empty-value": ([("x", "")], OK),
}
"""Fields of a response with status 200 besides it, and what Chromium makes of it (RFC 9113, 8.2)."""

for name, (fields, chromium) in FIELDS.items():

    async def with_fields(peer: Peer, fields: Headers = fields) -> None:
        await peer.send(head([(":status", "200"), *fields], "END_HEADERS", "END_STREAM"))

    with_fields.__name__ = name
    row(chromium)(with_fields)


async def continuation_flood(peer: Peer) -> None:
    """A header without an end (CVE-2024-27316 and others)."""
    await peer.send(HeadersFrame(1, Encoder().encode([(":status", "200")])))
    while True:
        await peer.send(ContinuationFrame(1, Encoder().encode([("x", "a" * 1000)])))


@row(PROTOCOL)
async def hpack_bomb(peer: Peer) -> None:
    """A few bytes that stand for a header of a hundred megabytes."""
    encoder = Encoder()
    block = encoder.encode([(":status", "200"), ("x-bomb", "a" * 4000)])
    entry = encoder.encode([("x-bomb", "a" * 4000)])  # by now it is in the table: one byte
    assert len(entry) == 1
    block += entry * 12_000
    await peer.send(HeadersFrame(1, block, flags=["END_HEADERS", "END_STREAM"]))


async def settings_flood(peer: Peer) -> None:
    while True:
        await peer.send(*[SettingsFrame(0, settings={4: 65_535})] * 100)


async def ping_flood(peer: Peer) -> None:
    while True:
        await peer.send(*[PingFrame(0, b"12345678")] * 100)


async def window_flood(peer: Peer) -> None:
    while True:
        await peer.send(*[WindowUpdateFrame(0, window_increment=1)] * 100)


async def interim_flood(peer: Peer) -> None:
    while True:
        await peer.send(*[head([(":status", "103")], "END_HEADERS")] * 100)


async def endless_body(peer: Peer) -> None:
    await peer.send(head([(":status", "200"), ("content-type", "text/html")], "END_HEADERS"))
    while True:
        await peer.send(DataFrame(1, b"a" * 1000))


async def empty_body_flood(peer: Peer) -> None:
    await peer.send(head([(":status", "200"), ("content-type", "text/html")], "END_HEADERS"))
    while True:
        await peer.send(*[DataFrame(1, b"")] * 100)


async def silence(peer: Peer) -> None:
    await asyncio.Event().wait()


async def http1_required(peer: Peer) -> None:
    await peer.send(RstStreamFrame(1, error_code=HTTP_1_1_REQUIRED))


async def goaway_http1_required(peer: Peer) -> None:
    await peer.send(goaway(0, HTTP_1_1_REQUIRED))


async def goaway_error(peer: Peer) -> None:
    """The server gives up after it took the request, and closes."""
    await peer.send(goaway(1, ENHANCE_YOUR_CALM))
    await peer.close()


FURTHER: Mapping[str, Answer] = {
    answer.__name__.replace("_", "-"): answer
    for answer in (
        continuation_flood, settings_flood, ping_flood, window_flood, interim_flood, endless_body, empty_body_flood,
        silence, http1_required, goaway_http1_required, goaway_error,
    )
}  # fmt: skip
"""Answers without an end, which a browser awaits, or that need an answer over HTTP/1.1."""


class Http2Server:
    """Serves `ANSWERS` on the running loop, for the length of an `async with`.

    Args:
        tls: Has the certificate and what the server speaks (ALPN).
        http1: What a request over HTTP/1.1 gets: these bytes and the end of the stream; RST for `reset`; nothing for
            `silence`. Or how the handshake ends: `alert`, `handshake failure`, `internal error`, `closed handshake` or
            `reset handshake`.

    Attributes:
        requests: All requests, in order.
        connections: How many connections were accepted.
        received_bytes: How many bytes clients have sent over HTTP/2.
    """

    def __init__(self, tls: ssl.SSLContext, *, http1: bytes | str = "alert") -> None:
        self.requests: list[Request] = []
        self.connections = 0
        self.received_bytes = 0
        self._tls = tls
        self._http1 = http1
        self._tasks: set[asyncio.Task[None]] = set()

    def url(self, path: str) -> str:
        return f"https://127.0.0.1:{self._port}{path}"

    async def __aenter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self._listener.setblocking(False)
        self._port = self._listener.getsockname()[1]
        self._spawn(self._accept())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listener.close()
        for task in list(self._tasks):
            await cancel_and_wait(task)

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self) -> None:
        while True:
            sock, _ = await asyncio.get_running_loop().sock_accept(self._listener)
            self.connections += 1
            self._spawn(self._serve(sock, self.connections))

    async def _serve(self, sock: socket.socket, number: int) -> None:
        with sock:
            connection = _Connection(sock, self._tls, http1=self._http1)
            with suppress(OSError, EOFError):
                await connection.handshake()
                filling = asyncio.ensure_future(connection.fill_reader())
                try:
                    if connection.alpn == "h2":
                        await self._serve_http2(connection, number)
                    else:
                        await self._serve_http1(connection, number)
                finally:
                    filling.cancel()
                    await asyncio.wait([filling])
                    with suppress(OSError, EOFError, asyncio.CancelledError):
                        filling.result()

    async def _serve_http2(self, connection: "_Connection", number: int) -> None:
        state = H2Connection(H2Configuration(client_side=False, header_encoding="latin-1"))
        state.initiate_connection()
        await connection.send(state.data_to_send())
        answering: list[asyncio.Future[None]] = []
        try:
            while data := await connection.receive():
                self.received_bytes += len(data)
                for event in state.receive_data(data):
                    if isinstance(event, RequestReceived):
                        fields = [(str(name), str(value)) for name, value in event.headers or ()]
                        values = dict(fields)
                        request = Request(2, values[":method"], values[":path"], fields, number)
                        self.requests.append(request)
                        peer = Peer(connection, state, request, event.stream_id or 0)
                        answering.append(asyncio.ensure_future(_answer(peer)))
        finally:
            for each in answering:
                await cancel_and_wait(each)

    async def _serve_http1(self, connection: "_Connection", number: int) -> None:
        received = await connection.reader.readuntil(b"\r\n\r\n")
        method, path, _ = received.partition(b"\r\n")[0].decode("latin-1").split(" ")
        self.requests.append(Request(1, method, path, [], number))
        if self._http1 == "reset":
            connection.reset()
        if isinstance(self._http1, bytes):
            await connection.send(self._http1)
            await connection.half_close()
        await connection.reader.read(-1)


class _Connection(ServerConnection):
    """A server's connection that can refuse clients which do not offer HTTP/2."""

    def __init__(self, sock: socket.socket, tls: ssl.SSLContext, *, http1: bytes | str) -> None:
        sock.setblocking(False)
        super().__init__(sock, tls)
        self._http1 = http1
        self._is_decided = http1 not in HANDSHAKE_ENDS

    @property
    def alpn(self) -> str | None:
        assert self._tls is not None
        return self._tls.selected_alpn_protocol()

    async def receive(self) -> bytes:
        """Return received bytes; empty at the end."""
        return await self.reader.read(65536)

    async def fill_reader(self) -> Any:
        try:
            await super().fill_reader()
        except (OSError, EOFError):
            self.reader.feed_eof()

    async def _receive(self) -> bytes:
        data = await super()._receive()
        if not self._is_decided:
            self._is_decided = True
            if b"\x02h2" not in data:  # of the ClientHello
                end = HANDSHAKE_ENDS[str(self._http1)]
                if end is None:
                    self.reset()
                else:
                    await asyncio.get_running_loop().sock_sendall(self.socket, end)
                raise EOFError
        return data


async def _answer(peer: Peer) -> None:
    name = peer.request.path.strip("/").partition("?")[0]
    with suppress(OSError, EOFError):
        await (ANSWERS.get(name) or FURTHER[name])(peer)


async def _serve_all(cafile: str) -> None:
    with TemporaryDirectory() as directory:
        authority = Authority(Path(directory))
        await asyncio.to_thread(Path(cafile).write_bytes, authority.cafile.read_bytes())
        for name, expected in ROWS.items():
            server = await Http2Server(authority.http2()).__aenter__()
            print(server.url(f"/{name}"), expected, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve_all(sys.argv[1]))
