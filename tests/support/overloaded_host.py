"""Servers that accept fewer requests than a client may send, and count them.

Each is one host on an address of its own. Within its limit it answers GET and HEAD with 200, and keeps connections.
"""

import asyncio
import itertools
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, Literal, Self

from tests.support.exchange import rst_on_close

__all__ = [
    "ConnectionLimit",
    "DownAtFirst",
    "OneAtATime",
    "OverloadedHost",
    "RateBucket",
    "RateLimit",
    "RefusesAll",
    "RequestLimit",
]

_OK: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
_BACKLOG: Final = 1024
_ADDRESSES: Final = (f"127.0.8.{number}" for number in itertools.cycle(range(1, 255)))

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class OverloadedHost(ABC):
    """An asynchronous context manager: the host is there inside it.

    Attributes:
        served: Requests answered with 200.
        refused: Requests or connections turned away.
        most_at_once: The most connections open at once that were not turned away.
        fewest_seconds: The least time in which the host can serve so many URLs; set by a subclass.
    """

    def __init__(self) -> None:
        self.served = self.refused = self.most_at_once = 0
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind((next(_ADDRESSES), 0))
        self._server: asyncio.Server | None = None

    def urls(self, count: int) -> list[str]:
        """Return so many URLs of this host."""
        ip, port = self.socket.getsockname()
        return [f"http://{ip}:{port}/{number}" for number in range(count)]

    @abstractmethod
    def fewest_seconds(self, count: int) -> float:
        """Return how long the host needs for so many requests if it always has as many as it bears."""

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        self.socket.close()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._connected, sock=self.socket, backlog=_BACKLOG)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await self._serve(reader, writer)
        writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(await self._answer())
            await writer.drain()

    async def _answer(self) -> bytes:
        self.served += 1
        return _OK


class ConnectionLimit(OverloadedHost):
    """Turns connections away while it has `limit` open ones.

    Args:
        limit: Connections at once.
        how: RST, end of the stream, or status 503, before or in place of an answer.
        seconds: How long each answer takes.

    Attributes:
        limit: Connections at once; may change.
    """

    def __init__(self, limit: int, how: Literal["reset", "close", "503"] = "reset", seconds: float = 0.05) -> None:
        super().__init__()
        self.limit = limit
        self._how = how
        self._seconds = seconds
        self._open = 0

    def fewest_seconds(self, count: int) -> float:
        """Return the time of all answers, `limit` at once."""
        return count * self._seconds / self.limit

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._open >= self.limit:
            self.refused += 1
            if self._how == "reset":
                rst_on_close(writer.get_extra_info("socket"))
            elif self._how == "503":
                await reader.readuntil(b"\r\n\r\n")
                writer.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        self._open += 1
        self.most_at_once = max(self.most_at_once, self._open)
        try:
            await super()._serve(reader, writer)
        finally:
            self._open -= 1

    async def _answer(self) -> bytes:
        await asyncio.sleep(self._seconds)
        return await super()._answer()


class RequestLimit(OverloadedHost):
    """Answers `status` to what exceeds `limit` requests at once, as nginx does (limit_conn), and keeps the connection.

    Args:
        limit: Requests at once.
        status: What the others get.
        seconds: How long each answer takes.
    """

    def __init__(self, limit: int, status: int, seconds: float = 0.05) -> None:
        super().__init__()
        self._limit = limit
        self._status = status
        self._seconds = seconds
        self._at_work = 0

    def fewest_seconds(self, count: int) -> float:
        """Return the time of all answers, `limit` at once."""
        return count * self._seconds / self._limit

    async def _answer(self) -> bytes:
        if self._at_work >= self._limit:
            self.refused += 1
            return f"HTTP/1.1 {self._status} Too Many\r\nContent-Length: 0\r\n\r\n".encode()
        self._at_work += 1
        await asyncio.sleep(self._seconds)
        self._at_work -= 1
        return await super()._answer()


class RateBucket(OverloadedHost):
    """Answers `status` to what comes too soon: the leaky bucket of nginx (limit_req with nodelay).

    Args:
        rate: Requests per second.
        burst: Requests that may come at once besides.
        status: What the others get; nginx sends 503 unless `limit_req_status` says otherwise.
    """

    def __init__(self, rate: float, burst: int, status: int) -> None:
        super().__init__()
        self._rate = rate
        self._burst = burst
        self._status = status
        self._excess, self._last = 0.0, 0.0

    def fewest_seconds(self, count: int) -> float:
        """Return the time for all requests after the first burst."""
        return max(0.0, (count - 1 - self._burst) / self._rate)

    async def _answer(self) -> bytes:
        now = time.monotonic()
        excess = max(0.0, self._excess - (now - self._last) * self._rate + 1) if self._last else 0.0
        if excess > self._burst:
            self.refused += 1
            return f"HTTP/1.1 {self._status} Too Many\r\nContent-Length: 0\r\n\r\n".encode()
        self._excess, self._last = excess, now
        return await super()._answer()


class RateLimit(OverloadedHost):
    """Answers 429 to what exceeds `count` requests in a window of `seconds`, which begins with its first request.

    Args:
        count: Requests.
        seconds: Length of a window.
        says_when: Whether 429 has Retry-After, in whole seconds.
    """

    def __init__(self, count: int, seconds: float, *, says_when: bool) -> None:
        super().__init__()
        self._count = count
        self._seconds = seconds
        self._says_when = says_when
        self._left = 0
        self._window_ends = 0.0

    def fewest_seconds(self, count: int) -> float:
        """Return the time of all windows but the last one."""
        return (count - 1) // self._count * self._seconds

    async def _answer(self) -> bytes:
        now = time.monotonic()
        if now >= self._window_ends:
            self._left, self._window_ends = self._count, now + self._seconds
        if self._left:
            self._left -= 1
            return await super()._answer()
        self.refused += 1
        when = f"Retry-After: {int(self._window_ends - now) + 1}\r\n" if self._says_when else ""
        return f"HTTP/1.1 429 Too Many Requests\r\n{when}Content-Length: 0\r\n\r\n".encode()


class DownAtFirst(OverloadedHost):
    """Refuses connections for the first `seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds
        self._start: asyncio.Task[None] | None = None

    def fewest_seconds(self, count: int) -> float:
        """Return the time for which it is down."""
        return self._seconds

    async def __aenter__(self) -> Self:
        self._start = asyncio.ensure_future(self._listen_later())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._start is not None
        self._start.cancel()
        await super().__aexit__()

    async def _listen_later(self) -> None:
        await asyncio.sleep(self._seconds)
        await self._listen()


class RefusesAll(OverloadedHost):
    """Refuses every connection."""

    def fewest_seconds(self, count: int) -> float:
        """Return 0: there is nothing to wait for."""
        return 0.0

    async def _listen(self) -> None:
        pass


class OneAtATime(OverloadedHost):
    """Serves one connection after another in one thread, as small servers do; the others wait in the backlog.

    It does not notice that a client has gone before it has read the request.

    Args:
        seconds: How long each answer takes.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._is_closed = False

    def fewest_seconds(self, count: int) -> float:
        """Return the time of all answers."""
        return count * self._seconds

    async def __aexit__(self, *_: object) -> None:
        self._is_closed = True
        self.socket.shutdown(socket.SHUT_RDWR)
        await asyncio.to_thread(self._thread.join)
        await super().__aexit__()

    async def _listen(self) -> None:
        self.socket.listen(_BACKLOG)
        self._thread.start()

    def _run(self) -> None:
        while not self._is_closed:
            with suppress(OSError):
                connection, _ = self.socket.accept()
                with connection:
                    if connection.recv(65536):
                        time.sleep(self._seconds)
                        connection.sendall(_OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
                        self.served += 1
