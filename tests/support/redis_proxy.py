"""A way to a Redis on which connections break: all at once, or with an answer that is on its way."""

import asyncio
import socket
import ssl
import tempfile
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

_PART = 2**16


class RedisProxy:
    """Passes bytes on between a Redis on a Unix socket and who connects to `url`.

    Attributes:
        url: Where it listens.
        lost: How many answers were lost so far.
        holds: Set once an answer is held back.
    """

    def __init__(self, server: str, url: str) -> None:
        self.url = url
        self.lost = 0
        self._server = server.removeprefix("unix://")
        self._connections: set[asyncio.Task[None]] = set()
        self.holds = asyncio.Event()
        self._goes_on = asyncio.Event()
        self._held = b""
        self._words = b""
        self._losses = 0

    async def cut(self) -> None:
        """End all connections."""
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    def lose(self, words: bytes, times: int = 1) -> None:
        """Have connections end instead of bringing the answer to commands with these words in them."""
        self._words, self._losses = words, times

    def hold(self, words: bytes) -> None:
        """Hold the answer back to the next command with these words in it."""
        self._held = words
        self.holds.clear()
        self._goes_on.clear()

    def go_on(self) -> None:
        """Bring the answer that is held back."""
        self._goes_on.set()

    async def serve(self, near_reader: StreamReader, near: StreamWriter) -> None:
        """Pass on what one connection brings."""
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            with suppress(OSError, asyncio.CancelledError):
                far_reader, far = await asyncio.open_unix_connection(self._server)
                try:
                    await self._relay(near_reader, near, far_reader, far)
                finally:
                    far.close()
        finally:
            near.close()
            self._connections.discard(task)

    async def _relay(
        self, near_reader: StreamReader, near: StreamWriter, far_reader: StreamReader, far: StreamWriter
    ) -> None:
        loses = holds = False

        async def ask() -> None:
            nonlocal loses, holds
            while data := await near_reader.read(_PART):
                if self._held and self._held in data:
                    self._held, holds = b"", True
                if self._losses and self._words in data:
                    self._losses, loses = self._losses - 1, True
                far.write(data)
                await far.drain()

        async def answer() -> None:
            nonlocal holds
            while data := await far_reader.read(_PART):
                if loses:
                    self.lost += 1
                    return
                if holds:
                    holds = False
                    self.holds.set()
                    await self._goes_on.wait()
                near.write(data)
                await near.drain()

        ways = [asyncio.ensure_future(ask()), asyncio.ensure_future(answer())]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)


@asynccontextmanager
async def proxy_to(server: str, tls: ssl.SSLContext | None = None) -> AsyncIterator[RedisProxy]:
    """A proxy before the Redis of this URL, while the context lasts: on a Unix socket, or on TCP with TLS."""
    with tempfile.TemporaryDirectory(prefix="proxy-") as folder:
        path = f"{folder}/proxy.sock"
        listening = socket.create_server(("127.0.0.1", 0)) if tls else None
        port = listening.getsockname()[1] if listening else 0
        proxy = RedisProxy(server, f"rediss://127.0.0.1:{port}" if listening else f"unix://{path}")
        if listening:
            listener = await asyncio.start_server(proxy.serve, sock=listening, ssl=tls)
        else:
            listener = await asyncio.start_unix_server(proxy.serve, path)
        try:
            yield proxy
        finally:
            listener.close()
            await proxy.cut()
            await listener.wait_closed()
