"""Small real proxies on loopback: HTTP (absolute-form requests and CONNECT) and SOCKS5.

    async with HttpProxy({"good.test": "127.0.0.1"}) as proxy:
        await probe_one("http://good.test/", proxy=proxy.url)
        assert proxy.requests == ["HEAD http://good.test/"]

A proxy knows the addresses of the names that it is given; no DNS server does.
"""

import asyncio
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Self, TypeAlias
from urllib.parse import urlsplit

from crawler.runtime.cancellation import cancel_and_wait

Reader: TypeAlias = asyncio.StreamReader
Writer: TypeAlias = asyncio.StreamWriter


class _Proxy:
    """A proxy on the running loop, for the length of an `async with`; `requests` has what clients asked for."""

    scheme = ""

    def __init__(self, names: Mapping[str, str] | None = None) -> None:
        self.requests: list[str] = []
        self.port = 0
        self._names = dict(names or {})
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

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
        task = asyncio.get_running_loop().create_task(self._serve(sock))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, sock: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=sock)
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
    """Forwards `GET http://...` and tunnels `CONNECT host:port`; `refuse` is a status for every request instead."""

    scheme = "http"

    def __init__(self, names: Mapping[str, str] | None = None, *, refuse: int | None = None) -> None:
        super().__init__(names)
        self._refuse = refuse

    async def _talk(self, reader: Reader, writer: Writer) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        line, _, fields = head.partition(b"\r\n")
        method, target, _ = line.decode("latin-1").split(" ")
        self.requests.append(f"{method} {target}")
        url = urlsplit(f"//{target}" if method == "CONNECT" else target)
        if self._refuse is not None:
            writer.write(b"HTTP/1.1 %d No\r\nContent-Length: 0\r\n\r\n" % self._refuse)
            return
        try:
            target_reader, target_writer = await self._dial(url.hostname or "", url.port or 80)
        except OSError:
            writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
            return
        try:
            if method == "CONNECT":
                writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
            else:
                path = url.path + (f"?{url.query}" if url.query else "")
                target_writer.write(f"{method} {path or '/'} HTTP/1.1\r\n".encode("latin-1") + fields)
            await _relay(reader, writer, target_reader, target_writer)
        finally:
            await _close(target_writer)


class SocksProxy(_Proxy):
    """SOCKS5 (RFC 1928) without authentication; `reply` is a code that refuses every request instead."""

    scheme = "socks5"

    def __init__(self, names: Mapping[str, str] | None = None, *, reply: int = 0) -> None:
        super().__init__(names)
        self._reply = reply

    async def _talk(self, reader: Reader, writer: Writer) -> None:
        _, count = await reader.readexactly(2)
        await reader.readexactly(count)
        writer.write(b"\x05\x00")
        _, _, _, kind = await reader.readexactly(4)
        if kind == 3:  # a name
            host = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
        else:
            family, size = (socket.AF_INET, 4) if kind == 1 else (socket.AF_INET6, 16)
            host = socket.inet_ntop(family, await reader.readexactly(size))
        port = int.from_bytes(await reader.readexactly(2))
        self.requests.append(f"{host}:{port}")
        if self._reply:
            _answer(writer, self._reply)
            return
        try:
            target_reader, target_writer = await self._dial(host, port)
        except OSError as error:
            _answer(writer, 5 if isinstance(error, ConnectionRefusedError) else 4)
            return
        try:
            _answer(writer, 0)
            await _relay(reader, writer, target_reader, target_writer)
        finally:
            await _close(target_writer)


def _answer(writer: Writer, reply: int) -> None:
    writer.write(bytes([5, reply, 0, 1, 0, 0, 0, 0, 0, 0]))


async def _relay(client_reader: Reader, client_writer: Writer, target_reader: Reader, target_writer: Writer) -> None:
    """Copy bytes in both directions until either side ends."""

    async def copy(reader: Reader, writer: Writer) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()

    directions = [
        asyncio.ensure_future(copy(*ends)) for ends in ((client_reader, target_writer), (target_reader, client_writer))
    ]
    try:
        await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await cancel_and_wait(*directions)


async def _close(writer: Writer) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
