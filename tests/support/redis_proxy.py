"""A proxy in front of a Redis that can cut connections, silence them, drop answers and hold them back."""

import asyncio
import socket
import ssl
import tempfile
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from crawler.runtime.cancellation import cancel_and_wait

_READ_BYTES = 2**16


class _Link:
    """A connection: the last bytes that its client has sent, and whether it swallows what it carries."""

    def __init__(self) -> None:
        self.sent = b""
        self.is_silent = False


class RedisProxy:
    """Relays bytes between its clients and a Redis on a Unix socket.

    Args:
        server: The URL of the Redis.
        url: Where the proxy listens.

    Attributes:
        url: As given.
        dropped: How many answers were dropped so far.
        is_holding: Set when an answer is held back.
    """

    def __init__(self, server: str, url: str) -> None:
        self.url = url
        self.dropped = 0
        self.is_holding = asyncio.Event()
        self._server = server.removeprefix("unix://")
        self._connections: set[asyncio.Task[None]] = set()
        self._is_released = asyncio.Event()
        self._held_command = b""
        self._dropped_command = b""
        self._drops_left = 0
        self._links: set[_Link] = set()

    def redirect(self, server: str) -> None:
        """Lead new connections to another Redis; the others stay where they are."""
        self._server = server.removeprefix("unix://")

    def silence(self, command: bytes = b"") -> int:
        """Swallow from now on what the present connections carry, without an end of any.

        Args:
            command: Only connections that have sent these bytes.

        Returns:
            The number of these connections.
        """
        chosen = [link for link in self._links if command in link.sent]
        for link in chosen:
            link.is_silent = True
        return len(chosen)

    async def cut(self) -> None:
        """End all connections."""
        await cancel_and_wait(*self._connections)

    def drop_answers(self, command: bytes, times: int = 1) -> None:
        """End the connection instead of relaying the answer, for the next commands that contain these bytes."""
        self._dropped_command, self._drops_left = command, times

    def hold_answer(self, command: bytes) -> None:
        """Hold back the answer to the next command that contains these bytes."""
        self._held_command = command
        self.is_holding.clear()
        self._is_released.clear()

    def release_answer(self) -> None:
        """Relay the answer that is held back."""
        self._is_released.set()

    async def serve(self, client_reader: StreamReader, client_writer: StreamWriter) -> None:
        """Relay one connection."""
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            with suppress(OSError, asyncio.CancelledError):
                redis_reader, redis_writer = await asyncio.open_unix_connection(self._server)
                try:
                    await self._relay(client_reader, client_writer, redis_reader, redis_writer)
                finally:
                    redis_writer.close()
        finally:
            client_writer.close()
            self._connections.discard(task)

    async def _relay(
        self,
        client_reader: StreamReader,
        client_writer: StreamWriter,
        redis_reader: StreamReader,
        redis_writer: StreamWriter,
    ) -> None:
        must_drop = must_hold = False
        link = _Link()
        self._links.add(link)

        async def relay_commands() -> None:
            nonlocal must_drop, must_hold
            while data := await client_reader.read(_READ_BYTES):
                if self._held_command and self._held_command in data:
                    self._held_command, must_hold = b"", True
                if self._drops_left and self._dropped_command in data:
                    self._drops_left, must_drop = self._drops_left - 1, True
                link.sent = (link.sent + data)[-_READ_BYTES:]
                if not link.is_silent:
                    redis_writer.write(data)
                    await redis_writer.drain()

        async def relay_answers() -> None:
            nonlocal must_hold
            while data := await redis_reader.read(_READ_BYTES):
                if must_drop:
                    self.dropped += 1
                    return
                if must_hold:
                    must_hold = False
                    self.is_holding.set()
                    await self._is_released.wait()
                if not link.is_silent:
                    client_writer.write(data)
                    await client_writer.drain()

        directions = [asyncio.ensure_future(relay_commands()), asyncio.ensure_future(relay_answers())]
        try:
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._links.discard(link)
            await cancel_and_wait(*directions)


@asynccontextmanager
async def proxy_to(
    server: str, tls: ssl.SSLContext | None = None, *, over_tcp: bool = False
) -> AsyncIterator[RedisProxy]:
    """Run a proxy in front of a Redis while the context lasts.

    Args:
        server: The URL of the Redis.
        tls: Listen on TCP with TLS.
        over_tcp: Listen on TCP without TLS. By default, the proxy listens on a Unix socket.
    """
    with tempfile.TemporaryDirectory(prefix="proxy-") as folder:
        path = f"{folder}/proxy.sock"
        listening = socket.create_server(("127.0.0.1", 0)) if tls or over_tcp else None
        port = listening.getsockname()[1] if listening else 0
        proxy = RedisProxy(
            server, f"{'rediss' if tls else 'redis'}://127.0.0.1:{port}" if listening else f"unix://{path}"
        )
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
