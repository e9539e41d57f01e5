"""One hop, on our own connections: resolve, connect, TLS, send, read the head.

What a general client would do in between (a second request after a reset, a handshake for every address, a status 400
of its own parser) is not done: what is in the Answer is what happened. Each phase has its time and its own timeout.
"""

import asyncio
import errno
import ssl
from collections import OrderedDict
from contextlib import suppress
from typing import Final, NamedTuple

from crawler.core.options import Options
from crawler.core.results import HopResult
from crawler.core.urls import Url
from crawler.transport.address_guard import AddressGuard
from crawler.transport.connection import Connection
from crawler.transport.connection_pool import ConnectionPool
from crawler.transport.error_mapping import explain
from crawler.transport.poller import Poller
from crawler.transport.resolver import Resolver, in_turns
from crawler.transport.response_body import BodyDeframer, body_text
from crawler.transport.response_head import HeadError, ResponseHead, parse_head
from crawler.transport.timing import HopTimer
from crawler.transport.tls import TlsContexts, chain_problem, describe

__all__ = ["SocketTransport"]

_STAGGER: Final = 0.25  # seconds until the next address is tried as well (RFC 8305, 5)
_INTERIM: Final = 100  # interim responses to skip before the final one has to come
_SESSIONS: Final = 1_000  # TLS sessions to resume
_NEXT: Final = frozenset({errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH})  # then ask its next address
_REPEATABLE: Final = frozenset({"HEAD", "GET"})
_REST: Final = 64 * 1024  # bytes of body to read so that the connection can be kept
_GONE: Final = (ConnectionError, EOFError, ssl.SSLEOFError, ssl.SSLZeroReturnError)


class _HopRequest(NamedTuple):
    """One request: what to send, how long connecting may take, and how many bytes of body are wanted."""

    method: str
    url: Url
    request: bytes
    connect_timeout: float
    max_body_bytes: int


class SocketTransport:
    """Makes connections as its options want them, and keeps them for the next request to their origin.

    `close` it in the end.

    Args:
        options: Which certificates and address families will do.
        resolver: Knows the addresses.
        guard: Knows which of them may be dialled.
        pool: Where connections are kept; others may keep theirs there too.
    """

    def __init__(self, options: Options, resolver: Resolver, guard: AddressGuard, pool: ConnectionPool) -> None:
        self._contexts = TlsContexts(options)
        self._kind = (options.insecure, options.ipv4, options.ipv6)
        self._poller = Poller()
        self._sessions: OrderedDict[tuple[str, str, int], ssl.SSLSession] = OrderedDict()
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
        max_body_bytes: int = 0,
        content: bytes = b"",
    ) -> HopResult:
        """Send one request and read the response head; see `Transport.hop`."""
        clock = HopTimer()
        deadline = self._loop.time() + timeout
        ask = _HopRequest(method, url, _request(method, url, headers, content), connect_timeout, max_body_bytes)
        try:
            head, text = await self._exchange(ask, clock, deadline)
        except Exception as error:
            # TLS 1.3 lets a server refuse the client after the handshake, in place of the answer.
            phase = "tls" if isinstance(error, ssl.SSLError) else clock.phase
            return HopResult(clock.timings(), ip=clock.ip, tls=clock.tls, error=explain(error, phase))
        return HopResult(clock.timings(), head.status, clock.ip, head.fields, clock.tls, body=text)

    async def close(self) -> None:
        """Close all connections that are kept, also those of others; the resolver is not ours."""
        self._pool.close()
        self._poller.close()

    async def _exchange(self, ask: _HopRequest, clock: HopTimer, deadline: float) -> tuple[ResponseHead, str | None]:
        # What is not to be done twice gets a connection on which it cannot come to that (RFC 9110, 9.2.2).
        kept = self._pool.take((self._kind, ask.url.origin)) if ask.method in _REPEATABLE else None
        if kept is not None:
            try:
                return await self._converse(kept, ask, clock, deadline)
            except HeadError:
                pass  # some servers send a body after HEAD, and it may come late: then this was it
            except _GONE:
                # The server may close an idle connection just as we use it. Only then, a second one is tried.
                if clock.has_bytes:
                    raise
        connection = await self._dial(ask, clock, deadline)
        return await self._converse(connection, ask, clock, deadline)

    async def _dial(self, ask: _HopRequest, clock: HopTimer, deadline: float) -> Connection:
        """Connect to an address of the URL's host, and over TLS if its scheme says so."""
        url = ask.url
        addresses = self._resolver.known(url.host, url.port)
        if addresses is None:
            clock.start("dns")
            addresses = await self._resolver.resolve(url.host, url.port, deadline)
        self._guard.check(addresses)
        clock.start("connect")
        connection = await self._connect(in_turns(addresses), url.port, clock, self._soon(ask, deadline))
        if url.scheme == "https":
            clock.start("ssl")
            try:
                session = self._sessions.get(url.origin)
                secured = await connection.secure(self._contexts.strict, url.host, self._soon(ask, deadline), session)
                connection.tls = describe(secured)
            except ssl.SSLCertVerificationError as error:
                connection.close()
                await self._look_again(error, ask, clock, deadline)
                raise
            except BaseException:
                connection.close()
                raise
        return connection

    async def _connect(self, addresses: list[str], port: int, clock: HopTimer, deadline: float) -> Connection:
        """Connect to the first address that answers; the next one starts after a failure or a while (RFC 8305)."""
        clock.ip = addresses[0]
        if len(addresses) == 1:
            return await Connection.open(addresses[0], port, self._poller, deadline)
        failures: list[BaseException] = []
        running: set[asyncio.Task[Connection]] = set()
        try:
            dialled: dict[asyncio.Task[Connection], str] = {}
            given_up: set[bool] = set()  # families of which one address failed otherwise than by refusing
            for place, address in enumerate(addresses):
                if (":" in address) in given_up:
                    continue
                attempt = asyncio.ensure_future(Connection.open(address, port, self._poller, deadline))
                dialled[attempt] = address
                running.add(attempt)
                # Families race; an address more of one family is for when the others have failed.
                patience = _STAGGER if place == 0 and (":" in address) != (":" in addresses[1]) else None
                while running:
                    done, running = await asyncio.wait(running, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
                    connected = [attempt for attempt in done if attempt.exception() is None]
                    if connected:
                        running.update(connected[1:])
                        clock.ip = connected[0].result().ip
                        return connected[0].result()
                    for attempt in done:
                        failure = attempt.exception()
                        assert failure is not None
                        failures.append(failure)
                        if getattr(failure, "errno", None) not in _NEXT:
                            given_up.add(":" in dialled[attempt])
                    if patience is not None:
                        break
            raise failures[0]
        finally:
            for attempt in running:
                attempt.add_done_callback(_close_late)
                attempt.cancel()

    async def _look_again(
        self, error: ssl.SSLCertVerificationError, ask: _HopRequest, clock: HopTimer, deadline: float
    ) -> None:
        """Fetch a refused certificate for the report, and say more of why; the verdict stays."""
        assert clock.ip is not None
        try:
            connection = await Connection.open(clock.ip, ask.url.port, self._poller, self._soon(ask, deadline))
            try:
                secured = await connection.secure(self._contexts.blind, ask.url.host, self._soon(ask, deadline))
                clock.tls = describe(secured)
                error.verify_message = chain_problem(error, secured) or error.verify_message
            finally:
                connection.close()
        except OSError:
            pass  # then there is less to report

    async def _converse(
        self, connection: Connection, ask: _HopRequest, clock: HopTimer, deadline: float
    ) -> tuple[ResponseHead, str | None]:
        """Ask, and read what is wanted; then keep the connection or close it."""
        clock.ip, clock.tls = connection.ip, connection.tls
        text, reusable = None, False
        try:
            clock.start("send")
            await connection.send(ask.request, deadline)
            clock.start("wait")
            head, rest = await _read_head(connection, clock, deadline)
            if connection.tls is not None:
                self._keep_session(ask.url, connection)
            if ask.max_body_bytes and 200 <= head.status < 300:
                text = await _read_body(connection, head, rest, ask.max_body_bytes, deadline)
            else:
                length = head.body_length(ask.method)
                reusable = head.keeps_alive and _is_over(connection, length, len(rest))
        finally:
            if reusable:
                self._pool.put((self._kind, ask.url.origin), connection)
            else:
                connection.close()
        return head, text

    def _keep_session(self, url: Url, connection: Connection) -> None:
        """Keep what spares the next handshake with an origin most of its work (TLS 1.3: it comes with the answer)."""
        if (session := connection.session) is not None and session.has_ticket:
            self._sessions[url.origin] = session
            self._sessions.move_to_end(url.origin)
            if len(self._sessions) > _SESSIONS:
                self._sessions.popitem(last=False)

    def _soon(self, ask: _HopRequest, deadline: float) -> float:
        return min(deadline, self._loop.time() + ask.connect_timeout)


def _close_late(attempt: "asyncio.Task[Connection]") -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()


def _request(method: str, url: Url, headers: list[tuple[str, str]], content: bytes) -> bytes:
    lines = [f"{method} {url.path} HTTP/1.1\r\nHost: {url.authority}\r\n"]
    lines += [f"{name}: {value}\r\n" for name, value in headers]
    if content or method not in _REPEATABLE:
        lines.append(f"Content-Length: {len(content)}\r\n")
    return "".join([*lines, "\r\n"]).encode("latin-1") + content


async def _read_head(connection: Connection, clock: HopTimer, deadline: float) -> tuple[ResponseHead, bytes]:
    """The final head, and what came behind it."""
    data = bytearray()
    searched = interim = 0
    while True:
        while (parsed := parse_head(data, searched)) is None:
            searched = len(data)
            received = await connection.receive(deadline)
            if not received:
                raise EOFError
            if not clock.has_bytes:
                clock.start("receive")
            data += received
        head, size = parsed
        if not head.is_interim:
            return head, bytes(data[size:])
        interim += 1
        if interim > _INTERIM:
            raise HeadError(f"more than {_INTERIM} interim responses")
        del data[:size]
        searched = 0


async def _read_body(connection: Connection, head: ResponseHead, first: bytes, cap: int, deadline: float) -> str:
    """As much of a body as is wanted, and comes in time: the head is the answer, the body only its evidence."""
    unframer = BodyDeframer(head, cap)
    unframer.feed(first)
    with suppress(OSError):
        while not unframer.is_over and (data := await connection.receive(deadline)):
            unframer.feed(data)
    return body_text(head, unframer.body, cap)


def _is_over(connection: Connection, length: int | None, received: int) -> bool:
    """Whether all of a body is here, or is at once: nobody waits for it, and a long one is not read."""
    if length is None or length > _REST:
        return False
    try:
        while received < length and (more := connection.receive_now()):
            received += len(more)
    except OSError:
        return False
    return received == length
