"""Small proxies on loopback: HTTP (absolute-form requests and CONNECT), SOCKS5, and some that misbehave.

    async with HttpProxy({"good.test": "127.0.0.1"}) as proxy:
        await probe_one("http://good.test/", proxy=proxy.url)
        assert proxy.requests == ["HEAD http://good.test/"]

A proxy knows the addresses of the names that it is given; no DNS server does. `tests/support/real_proxies.py` has
proxies that other people wrote.
"""

import asyncio
import base64
import re
import socket
import ssl
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any, Self, TypeAlias
from urllib.parse import urlsplit

from crawler.runtime.cancellation import cancel_and_wait

Reader: TypeAlias = asyncio.StreamReader
Writer: TypeAlias = asyncio.StreamWriter


class _Proxy:
    """A proxy on the running loop, for the length of an `async with`.

    Args:
        names: The addresses of names.
        tls: The context for TLS with clients; None for none.

    Attributes:
        requests: What clients asked for.
        connections: How many clients connected.
    """

    scheme = ""

    def __init__(self, names: Mapping[str, str] | None = None, *, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[str] = []
        self.connections = 0
        self.port = 0
        self._names = dict(names or {})
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return self.url_with("")

    def url_with(self, credentials: str) -> str:
        """The URL with `user:password@` in front of the host."""
        return f"{self.scheme}{'s' if self._tls else ''}://{credentials}127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        asyncio.get_running_loop().add_reader(self._listener, self._accept)
        return self

    async def __aexit__(self, *exception: object) -> None:
        asyncio.get_running_loop().remove_reader(self._listener)
        self._listener.close()
        await cancel_and_wait(*self._tasks)

    def _accept(self) -> None:
        sock, _ = self._listener.accept()
        self.connections += 1
        task = asyncio.get_running_loop().create_task(self._serve(sock))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, sock: socket.socket) -> None:
        loop, reader = asyncio.get_running_loop(), asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        try:
            transport, _ = await loop.connect_accepted_socket(lambda: protocol, sock, ssl=self._tls)
        except OSError:
            return  # the client does not like the certificate
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        try:
            await self._talk(reader, writer)
        except (OSError, EOFError):
            pass  # the client may vanish at any moment
        finally:
            await _close(writer)

    async def _talk(self, reader: Reader, writer: Writer) -> None:
        raise NotImplementedError

    async def _dial(self, host: str, port: int) -> tuple[Reader, Writer]:
        """Connect to a known name, or to an address."""
        return await asyncio.open_connection(self._names.get(host, host), port)


class HttpProxy(_Proxy):
    """Forwards `GET http://...` and tunnels `CONNECT host:port`.

    Args:
        names: The addresses of names.
        refuse: A status for every request instead.
        fields: Header lines of that refusal.
        credentials: `user:password` that every request must have.
        early: Bytes that follow the head of the answer to CONNECT at once.
        tls: The context for TLS with clients; None for none.
    """

    scheme = "http"

    def __init__(
        self,
        names: Mapping[str, str] | None = None,
        *,
        refuse: int | None = None,
        fields: bytes = b"",
        credentials: str = "",
        early: bytes = b"",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(names, tls=tls)
        self._refuse = refuse
        self._fields = fields
        self._authorization = b"Basic " + base64.b64encode(credentials.encode()) if credentials else b""
        self._early = early

    async def _talk(self, reader: Reader, writer: Writer) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        line, _, fields = head.partition(b"\r\n")
        method, target, _ = line.decode("latin-1").split(" ")
        self.requests.append(f"{method} {target}")
        url = urlsplit(f"//{target}" if method == "CONNECT" else target)
        refuse = 407 if self._authorization not in fields else self._refuse
        if refuse is not None:
            writer.write(b"HTTP/1.1 %d No\r\n%bContent-Length: 0\r\n\r\n" % (refuse, self._fields))
            return
        try:
            target_reader, target_writer = await self._dial(url.hostname or "", url.port or 80)
        except OSError:
            writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
            return
        try:
            if method == "CONNECT":
                writer.write(b"HTTP/1.1 200 Connected\r\n\r\n" + self._early)
                sending = _copy(reader, target_writer)
            else:
                sending = self._forward(head, reader, target_writer)
            await _until_one_ends(sending, _copy(target_reader, writer))
        finally:
            await _close(target_writer)

    async def _forward(self, head: bytes, reader: Reader, target: Writer) -> None:
        """Send this and each further request of the client, in origin-form. All are for the same target."""
        while True:
            line, _, fields = head.partition(b"\r\n")
            method, url, version = line.split(b" ")
            _, _, path = url.partition(b"://")[2].partition(b"/")
            target.write(b"%b /%b %b\r\n%b" % (method, path, version, fields))
            length = re.search(rb"\r\ncontent-length: *([0-9]+)", head, re.IGNORECASE)
            target.write(await reader.readexactly(int(length[1]) if length else 0))
            head = await reader.readuntil(b"\r\n\r\n")
            self.requests.append(head.decode("latin-1").partition(" HTTP/")[0])


class SocksProxy(_Proxy):
    """SOCKS5 (RFC 1928), with authentication by user and password (RFC 1929) or without.

    Args:
        names: The addresses of names.
        reply: A code that refuses every request instead.
        credentials: `user:password` that every client must have.
        refused: Addresses that are refused by the code 3.
    """

    scheme = "socks5h"

    def __init__(
        self,
        names: Mapping[str, str] | None = None,
        *,
        reply: int = 0,
        credentials: str = "",
        refused: Sequence[str] = (),
    ) -> None:
        super().__init__(names)
        self._reply = reply
        self._credentials = credentials
        self._refused = refused

    async def _talk(self, reader: Reader, writer: Writer) -> None:
        _, count = await reader.readexactly(2)
        method = 2 if self._credentials else 0
        if method not in await reader.readexactly(count):
            writer.write(b"\x05\xff")
            return
        writer.write(bytes([5, method]))
        if method == 2:
            _, size = await reader.readexactly(2)
            user = await reader.readexactly(size)
            password = await reader.readexactly((await reader.readexactly(1))[0])
            is_right = f"{user.decode()}:{password.decode()}" == self._credentials
            writer.write(bytes([1, not is_right]))
            if not is_right:
                return
        _, _, _, kind = await reader.readexactly(4)
        if kind == 3:  # a name
            host = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
        else:
            family, size = (socket.AF_INET, 4) if kind == 1 else (socket.AF_INET6, 16)
            host = socket.inet_ntop(family, await reader.readexactly(size))
        port = int.from_bytes(await reader.readexactly(2))
        self.requests.append(f"{host}:{port}")
        if self._reply or host in self._refused:
            _answer(writer, self._reply or 3)
            return
        try:
            target_reader, target_writer = await self._dial(host, port)
        except OSError as error:
            _answer(writer, 5 if isinstance(error, ConnectionRefusedError) else 4)
            return
        try:
            _answer(writer, 0)
            await _until_one_ends(_copy(reader, target_writer), _copy(target_reader, writer))
        finally:
            await _close(target_writer)


class RawProxy(_Proxy):
    """Answers the first bytes of every client with the same bytes.

    Args:
        answer: The bytes; empty for a client that gets nothing.
        closes: Whether the connection is closed then; if not, it stays open in silence.
        scheme: Of its URL.
    """

    def __init__(self, answer: bytes = b"", *, closes: bool = True, scheme: str = "http") -> None:
        super().__init__()
        self.scheme = scheme
        self._answer = answer
        self._closes = closes

    async def _talk(self, reader: Reader, writer: Writer) -> None:
        self.requests.append((await reader.read(65536)).decode("latin-1"))
        writer.write(self._answer)
        await writer.drain()
        while not self._closes and await reader.read(65536):
            pass


def _answer(writer: Writer, reply: int) -> None:
    writer.write(bytes([5, reply, 0, 1, 0, 0, 0, 0, 0, 0]))


async def _copy(reader: Reader, writer: Writer) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


async def _until_one_ends(*directions: Coroutine[Any, Any, None]) -> None:
    tasks = [asyncio.ensure_future(direction) for direction in directions]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await cancel_and_wait(*tasks)


async def _close(writer: Writer) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
