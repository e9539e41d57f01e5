"""Ask DNS servers until the caller's deadline. c-ares stops after about half a second if the server is usually fast.

After three answers, c-ares waits for each further one at most five times their average latency, or 250 ms. It also
closes its socket, so it misses a late answer. But a server that has nine names in its cache may need seconds to resolve
the tenth. So this client keeps its sockets open and accepts late answers, as the C library does.
"""

import asyncio
import secrets
import socket
from collections.abc import Callable
from time import monotonic
from typing import Any, Final

from aiodns.error import ARES_ECONNREFUSED, ARES_ENODATA, ARES_ENOTFOUND, ARES_ETIMEOUT, DNSError

from crawler.runtime.cancellation import cancel_and_wait
from crawler.transport.dns.messages import Addresses, Question, format_query, is_truncated, parse_response

__all__ = ["FallbackClient", "Server"]

_FIRST_RESEND_SECONDS: Final = 2.0
_MAX_RESEND_SECONDS: Final = 5.0  # RFC 1123, 6.1.3.3: "no less than 5 seconds"
_DECISIVE_STATUSES: Final = frozenset({ARES_ENOTFOUND, ARES_ENODATA})  # after others, another server may have an answer

Server = tuple[str, int]


class FallbackClient:
    """Asks all servers at once, and again after 2, 4 and then every 5 seconds. Call `close` when done.

    Args:
        servers: Addresses and ports.
        buffer_bytes: The receive buffer of each socket: many datagrams may arrive while the loop is busy.
        now: The clock of the deadlines.
    """

    def __init__(self, servers: list[Server], buffer_bytes: int, now: Callable[[], float] = monotonic) -> None:
        self._servers = servers
        self._buffer_bytes = buffer_bytes
        self._now = now
        self._queries: dict[int, _Query] = {}
        self._endpoints: dict[Server, asyncio.Task[_Endpoint]] = {}

    async def ask(self, question: Question, deadline: Callable[[], float]) -> Addresses:
        """Return the addresses from the first server that has an answer.

        Args:
            question: What to ask.
            deadline: Returns until when to wait; it may move while this waits.

        Raises:
            DNSError: There is no address, all servers have failed, or none has answered at the deadline.
        """
        message_id = secrets.randbelow(2**16)
        while message_id in self._queries:
            message_id = secrets.randbelow(2**16)
        query = self._queries[message_id] = _Query(message_id, question, len(self._servers))
        wait = _FIRST_RESEND_SECONDS
        try:
            while (left := deadline() - self._now()) > 0:
                await self._send(format_query(message_id, question))
                await asyncio.wait({query.answer}, timeout=min(wait, left))
                if query.answer.done():
                    return query.answer.result()
                wait = min(2 * wait, _MAX_RESEND_SECONDS)
            raise query.failure or DNSError(ARES_ETIMEOUT)
        finally:
            del self._queries[message_id]
            query.answer.cancel()
            await cancel_and_wait(*query.tcp_tasks)

    async def close(self) -> None:
        """Close all sockets."""
        await cancel_and_wait(*self._endpoints.values())
        for opening in self._endpoints.values():
            if not opening.cancelled() and opening.exception() is None:
                opening.result().transport.abort()

    async def _send(self, message: bytes) -> None:
        for server in self._servers:
            try:
                opening = self._endpoints.get(server)
                if opening is None:
                    opening = self._endpoints[server] = asyncio.ensure_future(self._open(server))
                (await asyncio.shield(opening)).transport.sendto(message)
            except OSError:
                self._endpoints.pop(server, None)  # no route, for example: tried again with the next resend

    async def _open(self, server: Server) -> "_Endpoint":
        loop = asyncio.get_running_loop()
        _, endpoint = await loop.create_datagram_endpoint(lambda: _Endpoint(server, self._receive), remote_addr=server)
        endpoint.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._buffer_bytes)
        return endpoint

    def _receive(self, message: bytes, server: Server) -> None:
        query = self._queries.get(int.from_bytes(message[:2]))
        if query is not None and not query.answer.done():
            query.receive(message, server)


class _Query:
    """A query that waits for an answer."""

    def __init__(self, message_id: int, question: Question, server_count: int) -> None:
        self.answer: asyncio.Future[Addresses] = asyncio.get_running_loop().create_future()
        self.failure: DNSError | None = None
        self.tcp_tasks: set[asyncio.Task[None]] = set()
        self._message_id = message_id
        self._question = question
        self._server_count = server_count
        self._failed_servers: set[Server] = set()
        self._tcp_servers: set[Server] = set()  # asked over TCP

    def receive(self, message: bytes, server: Server) -> None:
        """Take a datagram from a server."""
        if is_truncated(message):
            if server not in self._tcp_servers:
                self._tcp_servers.add(server)
                self.tcp_tasks.add(asyncio.ensure_future(self._ask_over_tcp(server)))
        else:
            self._read_response(message, server)

    async def _ask_over_tcp(self, server: Server) -> None:
        """Get a response that is too long for a datagram (RFC 7766)."""
        writer = None
        try:
            reader, writer = await asyncio.open_connection(*server)
            message = format_query(self._message_id, self._question)
            writer.write(len(message).to_bytes(2) + message)
            self._read_response(await reader.readexactly(int.from_bytes(await reader.readexactly(2))), server)
        except (OSError, EOFError):
            self._fail(DNSError(ARES_ECONNREFUSED), server)
        finally:
            if writer is not None:
                writer.transport.abort()

    def _read_response(self, message: bytes, server: Server) -> None:
        if self.answer.done():
            return
        try:
            answer = parse_response(message, self._message_id, self._question)
        except DNSError as error:
            self._fail(error, server)
        else:
            if answer is not None:
                self.answer.set_result(answer)

    def _fail(self, error: DNSError, server: Server) -> None:
        if self.answer.done():
            return
        self.failure = error
        self._failed_servers.add(server)
        if error.args[0] in _DECISIVE_STATUSES or len(self._failed_servers) == self._server_count:
            self.answer.set_exception(error)


class _Endpoint(asyncio.DatagramProtocol):
    """A datagram socket that is connected to one server, so it receives datagrams of this server only."""

    transport: asyncio.DatagramTransport

    def __init__(self, server: Server, receive: Callable[[bytes, Server], None]) -> None:
        self._server = server
        self._receive = receive

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: object) -> None:
        self._receive(data, self._server)

    def error_received(self, exc: Exception) -> None:
        pass  # the server refuses now; a later query may reach it
