"""One connection of a test server, one request on it, and ways to answer it correctly or not."""

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

MAX_HEAD_BYTES = 1 << 20


def rst_on_close(sock: socket.socket) -> None:
    """Make the close of this socket an RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class ServerConnection:
    """An accepted socket, with or without TLS.

    It does TLS itself. asyncio's servers drop a connection whose handshake fails without sending an alert; real
    servers send one, and it tells the client the reason.
    """

    def __init__(self, sock: socket.socket, tls: ssl.SSLContext | None) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # a drip sends each byte in its own packet
        self.socket = sock
        self.reader = asyncio.StreamReader(MAX_HEAD_BYTES)
        self._loop = asyncio.get_running_loop()
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = tls.wrap_bio(self._in, self._out, server_side=True) if tls else None

    async def handshake(self) -> None:
        """Do the TLS handshake, if there is TLS."""
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
    def is_resumed(self) -> bool:
        """Whether the handshake resumed an earlier session."""
        return self._tls is not None and bool(self._tls.session_reused)

    async def fill_reader(self) -> NoReturn:
        """Feed received bytes to the reader. Raise when the client closes: no client under test half-closes."""
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
        await asyncio.sleep(0)  # an endless answer to a fast client never waits, so it would block the loop

    async def half_close(self) -> None:
        """End this direction, over TLS with a close_notify."""
        if self._tls:
            with suppress(ssl.SSLError):  # raised because it would wait for the client's close_notify
                self._tls.unwrap()
            await self._flush()
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> NoReturn:
        """End the connection as when the client has closed, but with RST instead of FIN."""
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
    """One request as received; `path` includes the query, `connection` counts the site's connections from 1."""

    method: str
    path: str
    version: str
    headers: list[tuple[str, str]]
    body: bytes
    connection: int

    def header(self, name: str, default: str = "") -> str:
        """Return the first header of this name, in any case."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), default)

    @property
    def host(self) -> str:
        """The Host header; empty without one."""
        return self.header("Host")

    @property
    def query(self) -> dict[str, str]:
        """The decoded parameters of the query."""
        # latin-1 turns each percent-encoded byte into one character, so a handler can send exactly these bytes.
        pairs = parse_qsl(self.path.partition("?")[2], keep_blank_values=True, encoding="latin-1")
        return dict(pairs)


@dataclass
class Exchange:
    """One request and ways to answer it, correctly or not."""

    request: Request
    connection: ServerConnection
    hit_number: int
    """1 for the first request with this exact path and query, 2 for the second, ..."""
    args: list[str]
    """The decoded segments of the path after the behaviour's name."""
    keeps_open: bool
    """Whether the connection stays open after the answer."""

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        await self.connection.send(data)

    async def reply(
        self, status: int | str = 200, headers: Iterable[tuple[str, str]] = (), body: bytes = b"ok"
    ) -> None:
        """Send a correct answer, except for what the caller's status and headers make of it."""
        code = int(status)
        phrase = HTTPStatus(code).phrase if code in set(HTTPStatus) else "Odd"
        lines = [f"HTTP/1.1 {status} {phrase}", *(f"{name}: {value}" for name, value in headers)]
        bodiless = 100 <= code < 200 or code in (204, 304)
        if not bodiless:
            lines.append(f"Content-Length: {len(body)}")
        if not self.keeps_open:
            lines.append("Connection: close")
        head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
        await self.send(head if bodiless or self.request.method == "HEAD" else head + body)

    async def drip(self, seconds: float, count: int | None) -> None:
        """Send `count` bytes, one at a time; None for no end."""
        for _ in itertools.count() if count is None else range(count):
            await self.send(b"a")
            await asyncio.sleep(seconds)

    def reset(self) -> NoReturn:
        """End the connection with RST."""
        self.connection.reset()

    async def hang(self) -> None:
        """Send nothing until the client leaves or the site stops."""
        await asyncio.Event().wait()
