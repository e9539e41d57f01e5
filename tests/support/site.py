"""A web server that misbehaves on request: real sockets, real bytes, one path for each behaviour.

    async with Site() as site:
        await fetch(site.url("/redirect/3"))
        assert [request.path for request in site.requests] == [...]

It uses sockets because an HTTP library would refuse to send most of `behaviours.BEHAVIOURS`.
"""

import asyncio
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, Self
from urllib.parse import unquote

from crawler.runtime.cancellation import cancel_and_wait
from tests.support.behaviours import Handler, answer, redirect_path
from tests.support.exchange import Exchange, Request, ServerConnection, rst_on_close

OnAccept = Literal["serve", "reset", "close", "silent", "stall", "full"]
BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class Site:
    """A web server on the running loop, for the length of an `async with`.

    `on()` sets the answer of a path; all other paths are in `behaviours`. A behaviour that raises an exception of its
    own fails the block.

    Args:
        host: The address to listen on.
        port: 0 for any.
        tls: Makes it an https site.
        on_accept: What happens before a request is read. "serve" reads requests. "reset" and "close" end the
            connection with RST or FIN. "silent" keeps it open and sends nothing; "stall" does the same as an https
            site, so the ClientHello gets no answer. "full" completes no TCP handshake.

    Attributes:
        requests: All requests, in order.
        connections: How many connections were accepted.
        active: How many requests are being served.
        peak: The highest number of requests served at once.
        errors: What behaviours have raised.
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
        self._custom: dict[str, Handler | bytes] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._held: list[socket.socket] = []
        self._changed = asyncio.Event()

    # --- What a test uses ---

    @property
    def origin(self) -> str:
        return self.url("")

    def url(self, path: str = "/", *, host: str | None = None) -> str:
        """Return the URL of a path; `host` is another name or address of this machine."""
        name = host or {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"{self._scheme}://{f'[{name}]' if ':' in name else name}:{self.port}{path}"

    def redirect_to(self, url: str, status: int = 302) -> str:
        """Return a URL of this site that redirects to another URL."""
        return self.url(redirect_path(url, status))

    @property
    def open_connections(self) -> int:
        """Return how many connections are open."""
        return len(self._tasks)

    def peak_of(self, host: str) -> int:
        """Return the highest number of requests served at once for a Host header, given with or without the port."""
        return self._peak_of[self._name(host)]

    def count_by_path(self) -> Counter[str]:
        """Return how many requests there were for each path."""
        return Counter(request.path for request in self.requests)

    def on(self, path: str, answer: bytes | Handler) -> None:
        """Answer a path (without its query): by a coroutine, or by bytes and then the end of the connection."""
        self._custom[path] = answer

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition on connections or requests: `await site.until(lambda: site.active == 2)`."""
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    # --- Start and stop ---

    async def __aenter__(self) -> Self:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        full = self._on_accept == "full"
        listener = socket.create_server((self.host, self.port), family=family, backlog=0 if full else 1024)
        listener.setblocking(False)
        self.port = listener.getsockname()[1]
        self._held.append(listener)
        if full:
            # A backlog of 0 holds one connection, this one. Linux drops the SYN of every later one.
            self._held.append(socket.create_connection(listener.getsockname()[:2]))
        else:
            # A callback, because a cancelled `sock_accept()` can lose a connection that it has just accepted.
            asyncio.get_running_loop().add_reader(listener, self._accept, listener)
        return self

    async def __aexit__(self, *exception: object) -> None:
        asyncio.get_running_loop().remove_reader(self._held[0])
        await cancel_and_wait(*self._tasks)
        for sock in self._held:
            sock.close()
        if self.errors and exception[0] is None:
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
                # Not in a `finally` of the task: that does not run if the task is cancelled before it starts.
                task.add_done_callback(lambda _: sock.close())
                task.add_done_callback(lambda _: self._changed.set())
            case "reset":
                rst_on_close(sock)
                sock.close()
            case "close":
                # Not close(), which sends an RST if bytes of the client are unread.
                sock.shutdown(socket.SHUT_WR)
                self._held.append(sock)
            case _:
                self._held.append(sock)

    async def _serve(self, sock: socket.socket, number: int) -> None:
        try:
            connection = ServerConnection(sock, self._tls)
            await connection.handshake()
            async with asyncio.TaskGroup() as group:
                # Raises when the client leaves; then the group cancels what is done for it.
                group.create_task(connection.fill_reader())
                while await self._exchange(connection, number):
                    pass
                # Then the client closes: closing before it could turn our FIN into an RST.
                await connection.half_close()
        except* (OSError, EOFError, asyncio.LimitOverrunError):
            pass  # the client may vanish at any moment, and its bytes may be anything
        except* Exception as errors:
            self.errors.extend(errors.exceptions)

    # --- One exchange ---

    async def _exchange(self, connection: ServerConnection, number: int) -> bool:
        """Read and answer one request; return whether another may follow."""
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
            hit_number=self._hits[request.path],
            args=[unquote(segment) for segment in path.split("/")[1:]] or [""],
            keeps_open=request.version == "HTTP/1.1" and "close" not in request.header("Connection").lower(),
        )
        with self._counted(self._name(request.host)):
            match self._custom.get(path, answer):
                case bytes(raw):
                    exchange.keeps_open = False
                    await exchange.send(raw)
                case handler:
                    await handler(exchange)
        return exchange.keeps_open

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
    """Read a request, with a body only if it has a Content-Length; None if the bytes are not a request."""
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
