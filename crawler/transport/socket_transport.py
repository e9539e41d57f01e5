"""The transport that uses our own connections: resolve, connect, TLS, send, read the head.

A general HTTP client does more on its own: a second request after a reset, a handshake for every address, a status
400 of its own parser. This transport does not, so the result says what happened. Each phase has its own time and
its own timeout.
"""

import ssl
from functools import cached_property
from typing import Final, Literal

from crawler.core.option_syntax import parse_proxy
from crawler.core.options import Options
from crawler.core.results import Body, HopResult, ProbeError
from crawler.core.urls import Url
from crawler.runtime.awake_clock import AwakeClock
from crawler.transport.address_guard import AddressGuard
from crawler.transport.base import OnLate
from crawler.transport.dns.resolver import Resolver
from crawler.transport.error_mapping import HopError, explain, ssl_reason
from crawler.transport.http.exchange import HopRequest, is_body_received, read_body, read_head, unless_needless
from crawler.transport.http.response_head import HeadError, Http1Required, Http2Refused, ResponseHead
from crawler.transport.proxy import ProxyDialler
from crawler.transport.sockets.address_order import AddressOrder
from crawler.transport.sockets.connection import Connection
from crawler.transport.sockets.connection_pool import ConnectionPool
from crawler.transport.sockets.dialling import connect_to_any
from crawler.transport.sockets.poller_choice import open_poller
from crawler.transport.timing import HopTimer
from crawler.transport.tls.client import TlsClient
from crawler.transport.tls.handshake import Handshake
from crawler.transport.tls.issuers import MAX_ISSUER_BYTES
from crawler.transport.tls.openssl import HTTP2_OR_HTTP1

__all__ = ["SocketTransport"]

# What a pause of this process may have caused: no server is less patient than the first, and a shorter share than the
# second is no reason to ask again, because deadlines have stood still meanwhile.
_MIN_PAUSE_SECONDS: Final = 1.0
_MIN_PAUSE_SHARE: Final = 0.2
_REQUEST_TIMEOUT: Final = 408  # what a server sends that has waited for the request (RFC 9110, 15.5.9)
_CLOSED_BY_PEER: Final = (ConnectionError, EOFError, ssl.SSLEOFError, ssl.SSLZeroReturnError)


class SocketTransport:
    """Makes connections as its options say, and keeps them for the next request to their origin.

    Call `close` when done.

    Args:
        options: Which certificates and address families are acceptable.
        resolver: Resolves names.
        guard: Refuses addresses.
        pool: Keeps idle connections. Transports with other options can share it.
        clock: The clock of all deadlines and timings.
        cdn_loop: The service that sends the requests, for `CDN-Loop` (RFC 8586); None if it is no service.
    """

    def __init__(
        self,
        options: Options,
        resolver: Resolver,
        guard: AddressGuard,
        pool: ConnectionPool,
        clock: AwakeClock,
        cdn_loop: str | None = None,
    ) -> None:
        self._options = options
        # In every request, also those for issuers and of webhooks: any of them can lead back to the service.
        self._loop_headers = [] if cdn_loop is None else [("CDN-Loop", cdn_loop)]
        self._tls = TlsClient(options, self._fetch_issuer)
        self._address_order = AddressOrder()
        self._options_key = (options.insecure, options.ipv4, options.ipv6)
        self._clock = clock
        self._poller = open_poller(clock.now)
        self._pool = pool
        self._resolver = resolver
        self._guard = guard
        self._proxy = None
        if options.proxy is not None:
            self._proxy = ProxyDialler(
                parse_proxy(options.proxy),
                options,
                resolver,
                guard,
                self._poller,
                self._address_order,
                self._fetch_issuer,
                clock.now,
            )

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
        http_version: Literal["1", "2"] = "1",
        on_late: OnLate | None = None,
    ) -> HopResult:
        """Send one request and read the response head; see `Transport.hop`."""
        timer, missed, began = HopTimer(self._clock.now), self._clock.missed, self._clock.now()
        deadline = began + timeout
        forwarding = self._forwarding_proxy(url)
        if forwarding is not None or self._loop_headers:
            headers = [*headers, *self._loop_headers, *(forwarding.headers if forwarding is not None else ())]
        request = HopRequest.of(
            method,
            url,
            headers,
            content,
            connect_timeout,
            answer_share,
            max_body_bytes,
            is_for_proxy=forwarding is not None,
            offers_http2=http_version == "2" and url.scheme == "https" and not content,
            on_late=on_late,
        )
        try:
            if request.offers_http2:
                head, body = await self._request_with_http2(request, timer, deadline)
            else:
                head, body = await self._request(request, timer, deadline, is_fresh)
            if forwarding is not None:
                forwarding.check_answer(head)
            if head.status == _REQUEST_TIMEOUT and (paused := self._pause_error(missed, began, timer)) is not None:
                raise HopError(paused)
        except Exception as error:
            if forwarding is not None and isinstance(error, HeadError):
                error = forwarding.protocol_error(error)
            # In TLS 1.3 a server can refuse the client after the handshake, in place of the response.
            refusal = error if isinstance(error, ssl.SSLError) and not isinstance(error, _CLOSED_BY_PEER) else None
            phase = "tls" if refusal is not None else timer.error_phase
            problem = explain(error, phase)
            if problem.group != "BLOCKED":
                problem = self._pause_error(missed, began, timer) or problem
            if problem.transient and problem.group != "LOCAL_ERROR" and timer.ip is not None:
                self._address_order.failed(timer.ip, url.port)  # another address of the host may do better
            return HopResult(
                timer.timings(),
                ip=timer.ip,
                tls=timer.tls,
                error=problem,
                is_protocol_refused=refusal is not None and ssl_reason(refusal) == "ALERT_NO_APPLICATION_PROTOCOL",
            )
        return HopResult(
            timer.timings(), head.status, timer.ip, head.fields, timer.tls, body=body, http_version=head.http_version
        )

    async def close(self) -> None:
        """Close the poller and all connections in the pool, also those of other transports. The resolver stays open."""
        self._pool.close()
        self._poller.close()

    async def _request(
        self, request: HopRequest, timer: HopTimer, deadline: float, is_fresh: bool
    ) -> tuple[ResponseHead, Body | None]:
        """Send the request on a kept connection, or else on a new one."""
        kept = self._pool.take((self._options_key, request.url.origin)) if request.is_repeatable else None
        if kept is not None and is_fresh:
            kept.close()  # so the host has no more connections than without the fresh one
            kept = None
        if kept is not None:
            try:
                return await self._exchange(kept, request, timer, deadline)
            except HeadError:
                pass  # perhaps the late body of a response to HEAD, which some servers send
            except _CLOSED_BY_PEER:
                # A server may close an idle connection just as we use it. Then the request has had no response.
                if timer.has_received:
                    raise
        return await self._request_anew(request, timer, deadline)

    async def _request_with_http2(
        self, request: HopRequest, timer: HopTimer, deadline: float
    ) -> tuple[ResponseHead, Body | None]:
        """Send the request on a new connection, and once more if the server has not processed it."""
        try:
            return await self._request_anew(request, timer, deadline)
        except Http1Required:
            request = request._replace(offers_http2=False)
        except Http2Refused:
            pass
        return await self._request_anew(request, timer, deadline)

    async def _request_anew(
        self, request: HopRequest, timer: HopTimer, deadline: float
    ) -> tuple[ResponseHead, Body | None]:
        """Send the request on a new connection; on another one if TLS is refused only now."""
        tls = self._tls_for(request)
        connection = await self._connect(request, timer, deadline)
        try:
            return await self._exchange(connection, request, timer, deadline)
        except (OSError, EOFError) as error:
            is_unanswered = request.is_repeatable and not timer.has_received
            if not (is_unanswered and tls.learn_from_failure(connection, request.url.origin, error)):
                raise tls.explain(error) from None
        connection = await self._connect(request, timer, deadline)
        try:
            return await self._exchange(connection, request, timer, deadline)
        except ssl.SSLError as error:
            raise tls.explain(error) from None

    async def _connect(self, request: HopRequest, timer: HopTimer, deadline: float) -> Connection:
        """Connect to an address of the URL's host, with TLS if its scheme is https."""
        url = request.url
        if self._proxy is not None:
            connection = await self._proxy.connect(url, timer, request.connect_timeout, deadline)
        else:
            connection = await self._connect_directly(request, timer, deadline)
        if url.scheme == "https":
            return await self._secure(connection, request, timer, deadline)
        return connection

    async def _connect_directly(self, request: HopRequest, timer: HopTimer, deadline: float) -> Connection:
        """Connect to an address of the URL's host."""
        url = request.url
        addresses = self._resolver.known_addresses(url.host, url.port)
        if addresses is None:
            timer.start("dns")
            addresses = await self._resolver.resolve(url.host, url.port, deadline)
        self._guard.check(addresses)
        connect_deadline = min(deadline, timer.start("connect") + request.connect_timeout)
        addresses = self._address_order.select(addresses, url.port)
        return await connect_to_any(addresses, url.port, self._poller, timer, connect_deadline, self._address_order)

    async def _secure(
        self, connection: Connection, request: HopRequest, timer: HopTimer, deadline: float
    ) -> Connection:
        """Do the TLS handshake, with more connections to the same address if that is necessary."""
        ip, port = connection.ip, request.url.port

        async def reopen() -> Connection:
            if self._proxy is not None:
                return await self._proxy.connect(request.url, timer, request.connect_timeout, deadline)
            assert ip is not None
            connect_deadline = min(deadline, timer.start("connect") + request.connect_timeout)
            return await Connection.open(ip, port, self._poller, connect_deadline)

        handshake = Handshake(request.url, reopen, lambda: self._connect_deadline(request, deadline), timer)
        return await self._tls_for(request).secure(connection, handshake)

    async def _fetch_issuer(self, url: Url, deadline: float) -> bytes | str:
        """Get the body of an http URL, for the certificate in it; or the location of a redirect.

        Raises:
            Exception: The address is blocked, or the exchange failed.
        """
        timeout = deadline - self._clock.now()
        headers = [("Connection", "close"), *self._loop_headers]
        forwarding = self._forwarding_proxy(url)
        if forwarding is not None:
            headers += forwarding.headers
        request = HopRequest.of(
            "GET", url, headers, b"", timeout, 1.0, MAX_ISSUER_BYTES, is_for_proxy=forwarding is not None
        )
        timer = HopTimer(self._clock.now)
        connection = await self._connect(request, timer, deadline)
        try:
            await connection.send(request.data, deadline)
            head, rest = await read_head(connection, timer, deadline)
            if head.status == 200:
                return (await read_body(connection, head, rest, MAX_ISSUER_BYTES, deadline)).data
            return (300 <= head.status < 400 and head.get("location")) or b""
        finally:
            connection.close()

    async def _exchange(
        self, connection: Connection, request: HopRequest, timer: HopTimer, deadline: float
    ) -> tuple[ResponseHead, Body | None]:
        """Send the request and read what is wanted of the response; then keep or close the connection."""
        late_after = None
        timer.ip, timer.tls = connection.ip, connection.tls
        body, is_reusable = None, False
        try:
            now = timer.start("send")
            if request.answer_share < 1:
                late_after = now + (deadline - now) * request.answer_share
            if connection.tls is not None and connection.tls.alpn == "h2":
                return await _exchange_over_http2(connection, request, timer, deadline, late_after)
            await connection.send(request.data, deadline)
            timer.start("wait")
            head, rest = await read_head(connection, timer, deadline, late_after, request.on_late)
            if connection.tls is not None:
                self._tls_for(request).keep_session(connection, request.url.origin)
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

    def _pause_error(self, missed: float, began: float, timer: HopTimer) -> ProbeError | None:
        """Return the error of a hop that failed if this process stood still meanwhile for long; else None.

        Args:
            missed: What the clock had missed at its begin.
            began: The time of its begin.
            timer: Its timer.
        """
        seconds = self._clock.missed_since(missed)
        if seconds < max(_MIN_PAUSE_SECONDS, _MIN_PAUSE_SHARE * (self._clock.now() - began)):
            return None
        peer = "" if timer.ip is None else f" to {timer.ip}"
        message = f"this process stood still for {seconds:.1f} s during the request{peer}"
        return ProbeError.of("local.paused", message, phase=timer.error_phase)

    def _forwarding_proxy(self, url: Url) -> ProxyDialler | None:
        """Return the proxy if it gets the requests for this URL itself."""
        return self._proxy if self._proxy is not None and self._proxy.forwards(url) else None

    @cached_property
    def _http2_tls(self) -> TlsClient:
        return TlsClient(self._options, self._fetch_issuer, HTTP2_OR_HTTP1)

    def _tls_for(self, request: HopRequest) -> TlsClient:
        return self._http2_tls if request.offers_http2 else self._tls

    def _connect_deadline(self, request: HopRequest, deadline: float) -> float:
        return min(deadline, self._clock.now() + request.connect_timeout)


async def _exchange_over_http2(
    connection: Connection, request: HopRequest, timer: HopTimer, deadline: float, late_after: float | None
) -> tuple[ResponseHead, Body | None]:
    from crawler.transport.http.http2 import Http2Exchange  # h2 takes 40 ms to import, and few probes need it

    exchange = Http2Exchange(connection, request.max_body_bytes)
    await exchange.send(request.method, request.url, request.headers, deadline)
    timer.start("wait")
    try:
        head = await exchange.read_head(timer, deadline if late_after is None else late_after)
    except TimeoutError:
        if late_after is None or request.on_late is None:
            raise
        needless = request.on_late()
        reading = exchange.read_head(timer, deadline)
        head = await (reading if needless is None else unless_needless(reading, needless))
    wants_body = request.max_body_bytes and 200 <= head.status < 300
    return head, await exchange.read_body(head, deadline) if wants_body else None
