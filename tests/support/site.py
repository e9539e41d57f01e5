"""A web server that misbehaves on request: real sockets, real bytes, one path for each kind of trouble.

    async with Site() as site:
        await fetch(site.url("/redirect/3"))
        assert [request.path for request in site.requests] == [...]

It is written on sockets because an HTTP library would refuse to send most of `behaviours.BEHAVIOURS`.
"""

import asyncio
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Literal, Self
from urllib.parse import unquote

from tests.support.behaviours import Handler, answer, redirect_path
from tests.support.exchange import Connection, Exchange, Request, rst_on_close

OnAccept = Literal["serve", "reset", "close", "silent", "stall", "full"]
BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class Site:
    """Listens from `async with` on, serves on the running loop, stops with the block.

    `on_accept` says what happens before a request could be read: "reset" and "close" end the connection with
    RST or FIN, "silent" keeps it and says nothing, "stall" is the same for an https origin (the ClientHello
    gets no answer), "full" never completes a TCP handshake.

    A path's own answer is set by `on()`. A behaviour that fails by its own fault fails the block.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        on_accept: OnAccept = "serve",
    ) -> None:
        self.host, self.port = host, port
        self.requests: list[Request] = []
        self.connections = 0
        self.active = 0
        self.peak = 0
        self.errors: list[Exception] = []
        self._tls = tls
        self._on_accept = on_accept
        self._scheme = "https" if tls or on_accept == "stall" else "http"
        self._hits: Counter[str] = Counter()
        self._active_of: Counter[str] = Counter()
        self._peak_of: Counter[str] = Counter()
        self._own: dict[str, Handler | bytes] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._held: list[socket.socket] = []
        self._changed = asyncio.Event()

    # --- What a test asks ---

    @property
    def origin(self) -> str:
        return self.url("")

    def url(self, path: str = "/", *, host: str | None = None) -> str:
        """The URL of a path, under another name or address of this machine if given."""
        name = host or {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"{self._scheme}://{f'[{name}]' if ':' in name else name}:{self.port}{path}"

    def redirect_to(self, url: str, status: int = 302) -> str:
        """A URL of this site that redirects to any other."""
        return self.url(redirect_path(url, status))

    def peak_of(self, host: str) -> int:
        """The most requests served at once for a Host header, given with or without the port."""
        return self._peak_of[self._name(host)]

    def on(self, path: str, answer: bytes | Handler) -> None:
        """Answer this path (without query) by bytes, after which the connection ends, or by a coroutine."""
        self._own[path] = answer

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something about connections or requests: `await site.until(lambda: site.active == 2)`."""
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    # --- Life ---

    async def __aenter__(self) -> Self:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        full = self._on_accept == "full"
        listener = socket.create_server((self.host, self.port), family=family, backlog=0 if full else 1024)
        listener.setblocking(False)
        self.port = listener.getsockname()[1]
        self._held.append(listener)
        if full:
            # A backlog of 0 holds one connection: ours. Linux drops the SYN of every later one.
            self._held.append(socket.create_connection(listener.getsockname()[:2]))
        else:
            # By a callback, as a cancelled `sock_accept()` can lose the connection it has just accepted.
            asyncio.get_running_loop().add_reader(listener, self._accept, listener)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.get_running_loop().remove_reader(self._held[0])
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for sock in self._held:
            sock.close()
        if self.errors and error is None:
            raise self.errors[0]

    def _accept(self, listener: socket.socket) -> None:
        sock, _ = listener.accept()
        sock.setblocking(False)
        self.connections += 1
        self._changed.set()
        match self._on_accept:
            case "serve":
                task = asyncio.get_running_loop().create_task(self._serve(sock, self.connections))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                # Not by a `finally` in the task: that does not run if the task is cancelled before it starts.
                task.add_done_callback(lambda _: sock.close())
            case "reset":
                rst_on_close(sock)
                sock.close()
            case "close":
                # Not close(): with the client's first bytes unread that would send an RST.
                sock.shutdown(socket.SHUT_WR)
                self._held.append(sock)
            case _:
                self._held.append(sock)

    async def _serve(self, sock: socket.socket, number: int) -> None:
        try:
            connection = Connection(sock, self._tls)
            await connection.handshake()
            async with asyncio.TaskGroup() as group:
                # Raises when the client leaves, by which the group cancels whatever is done for it.
                group.create_task(connection.listen())
                while await self._exchange(connection, number):
                    pass
                # The last word is the client's: closing before it could turn our FIN into an RST.
                await connection.half_close()
        except* (OSError, EOFError, asyncio.LimitOverrunError):
            pass  # the client may vanish at any moment, and its bytes may be anything
        except* Exception as errors:
            self.errors.extend(errors.exceptions)

    # --- One exchange ---

    async def _exchange(self, connection: Connection, number: int) -> bool:
        """Read and answer one request; whether another may follow."""
        request = await _read(connection.reader, number)
        if request is None:
            await connection.send(BAD_REQUEST)
            return False
        self.requests.append(request)
        self._hits[request.path] += 1
        path = request.path.partition("?")[0]
        exchange = Exchange(
            request,
            connection,
            hit=self._hits[request.path],
            args=[unquote(segment) for segment in path.split("/")[1:]] or [""],
            keep=request.version == "HTTP/1.1" and "close" not in request.header("Connection").lower(),
        )
        with self._counted(self._name(request.host)):
            match self._own.get(path, answer):
                case bytes(raw):
                    exchange.keep = False
                    await exchange.send(raw)
                case handler:
                    await handler(exchange)
        return exchange.keep

    @contextmanager
    def _counted(self, name: str) -> Iterator[None]:
        self.active += 1
        self._active_of[name] += 1
        self.peak = max(self.peak, self.active)
        self._peak_of[name] = max(self._peak_of[name], self._active_of[name])
        self._changed.set()
        try:
            yield
        finally:
            self.active -= 1
            self._active_of[name] -= 1
            self._changed.set()

    def _name(self, host: str) -> str:
        return host.lower().removesuffix(f":{self.port}")


async def _read(reader: asyncio.StreamReader, connection: int) -> Request | None:
    """The next request, its body framed by Content-Length only; None if it is not one."""
    first = await reader.readexactly(1)
    if not first.isalpha():  # a ClientHello has no end of line to wait for
        return None
    line, *lines = (first + await reader.readuntil(b"\r\n\r\n"))[:-4].decode("latin-1").split("\r\n")
    try:
        method, path, version = line.split(" ")
        headers = [(name, value.strip()) for name, value in (line.split(":", 1) for line in lines)]
        request = Request(method, path, version, headers, b"", connection)
        size = int(request.header("Content-Length", "0"))
    except ValueError:
        return None
    return Request(method, path, version, headers, await reader.readexactly(size), connection)
