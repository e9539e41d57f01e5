"""The transport that uses our own connections: resolve, connect, TLS, send, read the head.

A general HTTP client does more on its own: a second request after a reset, a handshake for every address, a status
400 of its own parser. This transport does not, so the result says what happened. Each phase has its own time and
its own timeout.
"""

import asyncio
import ssl
from typing import Final

from crawler.core.options import Options
from crawler.core.results import Body, HopResult
from crawler.core.urls import Url
from crawler.transport.address_guard import AddressGuard
from crawler.transport.connection import Connection
from crawler.transport.connection_pool import ConnectionPool
from crawler.transport.dialling import connect_to_any
from crawler.transport.error_mapping import explain
from crawler.transport.http_exchange import HopRequest, is_body_received, read_body, read_head
from crawler.transport.poller_choice import open_poller
from crawler.transport.resolver import Resolver, select_addresses
from crawler.transport.response_head import HeadError, ResponseHead
from crawler.transport.timing import HopTimer
from crawler.transport.tls import SessionCache, TlsContexts, chain_problem, describe_tls

__all__ = ["SocketTransport"]

_CLOSED_BY_PEER: Final = (ConnectionError, EOFError, ssl.SSLEOFError, ssl.SSLZeroReturnError)


class SocketTransport:
    """Makes connections as its options say, and keeps them for the next request to their origin.

    Call `close` when done.

    Args:
        options: Which certificates and address families are acceptable.
        resolver: Resolves names.
        guard: Refuses addresses.
        pool: Keeps idle connections. Transports with other options can share it.
    """

    def __init__(self, options: Options, resolver: Resolver, guard: AddressGuard, pool: ConnectionPool) -> None:
        self._contexts = TlsContexts(options)
        self._sessions = SessionCache()
        self._options_key = (options.insecure, options.ipv4, options.ipv6)
        self._poller = open_poller()
        self._pool = pool
        self._resolver = resolver
        self._guard = guard
        self._loop = asyncio.get_running_loop()

    async def hop(
        self,
        method: str,
        url: Url,
        headers: list[tuple[str, str]],
        timeout: float,
        *,
        connect_timeout: float,
        answer_share: float = 1.0,
        is_fresh: bool = False,
        max_body_bytes: int = 0,
        content: bytes = b"",
    ) -> HopResult:
        """Send one request and read the response head; see `Transport.hop`."""
        timer = HopTimer()
        deadline = self._loop.time() + timeout
        request = HopRequest.of(method, url, headers, content, connect_timeout, answer_share, max_body_bytes)
        try:
            head, body = await self._request(request, timer, deadline, is_fresh)
        except Exception as error:
            # In TLS 1.3 a server can refuse the client after the handshake, in place of the response.
            phase = "tls" if isinstance(error, ssl.SSLError) else timer.error_phase
            return HopResult(timer.timings(), ip=timer.ip, tls=timer.tls, error=explain(error, phase))
        return HopResult(timer.timings(), head.status, timer.ip, head.fields, timer.tls, body=body)

    async def close(self) -> None:
        """Close the poller and all connections in the pool, also those of other transports. The resolver stays open."""
        self._pool.close()
        self._poller.close()

    async def _request(
        self, request: HopRequest, timer: HopTimer, deadline: float, is_fresh: bool
    ) -> tuple[ResponseHead, Body | None]:
        """Send the request on a kept connection, or else on a new one."""
        kept = (
            self._pool.take((self._options_key, request.url.origin)) if request.is_repeatable and not is_fresh else None
        )
        if kept is not None:
            try:
                return await self._exchange(kept, request, timer, deadline)
            except HeadError:
                pass  # perhaps the late body of a response to HEAD, which some servers send
            except _CLOSED_BY_PEER:
                # A server may close an idle connection just as we use it. Then the request has had no response.
                if timer.has_received:
                    raise
        connection = await self._connect(request, timer, deadline)
        return await self._exchange(connection, request, timer, deadline)

    async def _connect(self, request: HopRequest, timer: HopTimer, deadline: float) -> Connection:
        """Connect to an address of the URL's host, with TLS if its scheme is https."""
        url = request.url
        addresses = self._resolver.known_addresses(url.host, url.port)
        if addresses is None:
            timer.start("dns")
            addresses = await self._resolver.resolve(url.host, url.port, deadline)
        self._guard.check(addresses)
        timer.start("connect")
        connect_deadline = self._connect_deadline(request, deadline)
        connection = await connect_to_any(select_addresses(addresses), url.port, self._poller, timer, connect_deadline)
        if url.scheme == "https":
            timer.start("ssl")
            try:
                session = self._sessions.get(url.origin)
                tls_deadline = self._connect_deadline(request, deadline)
                tls_socket = await connection.start_tls(self._contexts.verifying, url.host, tls_deadline, session)
                connection.tls = describe_tls(tls_socket)
            except ssl.SSLCertVerificationError as error:
                connection.close()
                await self._inspect_refused_certificate(error, request, timer, deadline)
                raise
            except BaseException:
                connection.close()
                raise
        return connection

    async def _inspect_refused_certificate(
        self, error: ssl.SSLCertVerificationError, request: HopRequest, timer: HopTimer, deadline: float
    ) -> None:
        """Fetch the refused certificate on a second connection, to report it and to say more about the error."""
        assert timer.ip is not None
        port, host = request.url.port, request.url.host
        try:
            connection = await Connection.open(timer.ip, port, self._poller, self._connect_deadline(request, deadline))
            try:
                tls_deadline = self._connect_deadline(request, deadline)
                tls_socket = await connection.start_tls(self._contexts.unverified, host, tls_deadline)
                timer.tls = describe_tls(tls_socket)
                error.verify_message = chain_problem(error, tls_socket) or error.verify_message
            finally:
                connection.close()
        except OSError:
            pass  # the error stays as it is

    async def _exchange(
        self, connection: Connection, request: HopRequest, timer: HopTimer, deadline: float
    ) -> tuple[ResponseHead, Body | None]:
        """Send the request and read what is wanted of the response; then keep or close the connection."""
        if request.answer_share < 1:
            now = self._loop.time()
            deadline = now + (deadline - now) * request.answer_share
        timer.ip, timer.tls = connection.ip, connection.tls
        body, is_reusable = None, False
        try:
            timer.start("send")
            await connection.send(request.data, deadline)
            timer.start("wait")
            head, rest = await read_head(connection, timer, deadline)
            if connection.tls is not None:
                self._sessions.put(request.url.origin, connection.session)  # in TLS 1.3 it comes with the response
            if request.max_body_bytes and 200 <= head.status < 300:
                body = await read_body(connection, head, rest, request.max_body_bytes, deadline)
            else:
                length = head.body_length(request.method)
                is_reusable = head.is_persistent and is_body_received(connection, length, len(rest))
        finally:
            if is_reusable:
                self._pool.put((self._options_key, request.url.origin), connection)
            else:
                connection.close()
        return head, body

    def _connect_deadline(self, request: HopRequest, deadline: float) -> float:
        return min(deadline, self._loop.time() + request.connect_timeout)
