"""One connection, one request on it, and the means to answer it well or badly."""

import asyncio
import itertools
import socket
import ssl
import struct
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import NoReturn
from urllib.parse import parse_qsl

LARGEST_HEAD = 1 << 20


def rst_on_close(sock: socket.socket) -> None:
    """Make the close of this socket an RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Connection:
    """An accepted socket, with or without TLS.

    TLS is done here because asyncio's servers drop a connection whose handshake fails without the alert that
    real servers send, and the alert is what tells a client the reason.
    """

    def __init__(self, sock: socket.socket, tls: ssl.SSLContext | None) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # a drip is one packet a byte
        self.socket = sock
        self.reader = asyncio.StreamReader(LARGEST_HEAD)
        self._loop = asyncio.get_running_loop()
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = tls.wrap_bio(self._in, self._out, server_side=True) if tls else None

    async def handshake(self) -> None:
        while self._tls:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                pass
            finally:
                await self._flush()
            self._in.write(await self._receive())

    @property
    def resumed(self) -> bool:
        """Whether the handshake went on from an earlier one."""
        return self._tls is not None and bool(self._tls.session_reused)

    async def listen(self) -> NoReturn:
        """Fill the reader; raise when the client leaves, be it by FIN: no client under test half-closes."""
        data = b""
        while True:
            if self._tls:
                self._in.write(data)
                data = b""
                with suppress(ssl.SSLWantReadError):
                    while more := self._tls.read(65536):
                        data += more
            self.reader.feed_data(data)
            data = await self._receive()

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        rest = memoryview(data)
        while self._tls and rest:
            rest = rest[self._tls.write(rest) :]
        await (self._flush() if self._tls else self._loop.sock_sendall(self.socket, data))
        await asyncio.sleep(0)  # an endless answer to a fast client never waits, and must not stop the loop

    async def half_close(self) -> None:
        """End this direction, with close_notify where there is TLS."""
        if self._tls:
            with suppress(ssl.SSLError):  # it goes on to wait for the client's
                self._tls.unwrap()
            await self._flush()
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> NoReturn:
        """Leave by the same way as when the client does, but with RST instead of FIN."""
        rst_on_close(self.socket)
        raise ConnectionAbortedError

    async def _receive(self) -> bytes:
        if data := await self._loop.sock_recv(self.socket, 65536):
            return data
        raise EOFError

    async def _flush(self) -> None:
        await self._loop.sock_sendall(self.socket, self._out.read())


@dataclass(frozen=True)
class Request:
    """One request as it came; `path` is the request target with its query, `host` the Host header or ""."""

    method: str
    path: str
    version: str
    headers: list[tuple[str, str]]
    body: bytes
    connection: int

    def header(self, name: str, default: str = "") -> str:
        """The first header of this name, in any case of letters."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), default)

    @property
    def host(self) -> str:
        return self.header("Host")

    @property
    def query(self) -> dict[str, str]:
        # latin-1 keeps each percent-encoded byte one character, so that a handler can send the very bytes.
        pairs = parse_qsl(self.path.partition("?")[2], keep_blank_values=True, encoding="latin-1")
        return dict(pairs)


@dataclass
class Exchange:
    """One request and the means to answer it, well or badly."""

    request: Request
    connection: Connection
    hit: int
    """1 for the first request with this exact path and query, 2 for the second, ..."""
    args: list[str]
    """The decoded segments of the path after the behaviour's name."""
    keep: bool
    """Whether the connection stays open after the answer."""

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        await self.connection.send(data)

    async def reply(
        self, status: int | str = 200, headers: Iterable[tuple[str, str]] = (), body: bytes = b"ok"
    ) -> None:
        """Send a correct answer; only the caller's status and headers may be odd."""
        code = int(status)
        phrase = HTTPStatus(code).phrase if code in set(HTTPStatus) else "Odd"
        lines = [f"HTTP/1.1 {status} {phrase}", *(f"{name}: {value}" for name, value in headers)]
        bodiless = 100 <= code < 200 or code in (204, 304)
        if not bodiless:
            lines.append(f"Content-Length: {len(body)}")
        if not self.keep:
            lines.append("Connection: close")
        head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
        await self.send(head if bodiless or self.request.method == "HEAD" else head + body)

    async def drip(self, seconds: float, count: int | None) -> None:
        """Send `count` bytes, or without end, one at a time."""
        for _ in itertools.count() if count is None else range(count):
            await self.send(b"a")
            await asyncio.sleep(seconds)

    def reset(self) -> NoReturn:
        """Cut the connection with RST; does not return."""
        self.connection.reset()

    async def hang(self) -> None:
        """Say nothing until the client goes away or the site stops."""
        await asyncio.Event().wait()
