"""Connections to targets through a proxy: HTTP, HTTP over TLS, or SOCKS5.

    http://   https://     CONNECT for https targets; requests for http targets go to the proxy itself
    socks5://              a connection to an address that is resolved here
    socks5h://             a connection to a name that the proxy resolves

The schemes mean the same as in curl. Environment variables such as HTTP_PROXY are not read.

The connection to the proxy, TLS with it, and its handshake are the phase `connect`, with one timeout for all. Their
failures have error types of their own (`proxy.*`), because they say nothing about the target.
"""

import ssl
from collections.abc import Callable
from functools import cached_property
from typing import Final

import msgspec
from aiodns.error import DNSError

from crawler.core.option_syntax import ProxyAddress
from crawler.core.options import Options
from crawler.core.results import ProbeError
from crawler.core.urls import Url
from crawler.transport.address_guard import AddressGuard
from crawler.transport.dns.resolver import Resolver, is_address
from crawler.transport.error_mapping import HopError, explain
from crawler.transport.http.response_head import HeadError, ResponseHead
from crawler.transport.proxy_handshakes import (
    authorization,
    connect_by_http,
    connect_by_socks,
    proxy_error,
    refusal_error,
)
from crawler.transport.sockets.address_order import AddressOrder
from crawler.transport.sockets.connection import Connection
from crawler.transport.sockets.dialling import connect_to_any
from crawler.transport.sockets.poller import Poller
from crawler.transport.timing import HopTimer
from crawler.transport.tls.client import TlsClient
from crawler.transport.tls.handshake import Handshake
from crawler.transport.tls.issuers import Fetch

__all__ = ["ProxyDialler"]

_PROXY_AUTHENTICATION_REQUIRED: Final = 407
# Errors that every other address of the target would have too.
_PROXY_SETUP_ERRORS: Final = frozenset({"proxy.auth_required", "proxy.protocol.error"})


class ProxyDialler:
    """Connects to targets through one proxy.

    Args:
        proxy: The address and the credentials of the proxy.
        options: Which authorities to trust. The certificate of the proxy is verified even if those of targets are not.
        resolver: Resolves the name of the proxy; with socks5:// also the names of targets.
        guard: Checks every address that is resolved here, and targets that are addresses.
        poller: Watches the sockets.
        order: The order of addresses, of the proxy and of targets that are resolved here.
        fetch: Fetches certificates, as for `TlsClient`.
        now: The clock of the deadlines.
    """

    def __init__(
        self,
        proxy: ProxyAddress,
        options: Options,
        resolver: Resolver,
        guard: AddressGuard,
        poller: Poller,
        order: AddressOrder,
        fetch: Fetch,
        now: Callable[[], float],
    ) -> None:
        self._proxy = proxy
        self._options = options
        self._resolver = resolver
        self._guard = guard
        self._poller = poller
        self._order = order
        self._fetch = fetch
        self._now = now

    # Requests that are sent to the proxy instead of the target

    def forwards(self, url: Url) -> bool:
        """Return whether the request is sent to the proxy itself, in absolute-form (RFC 9112, 3.2.2)."""
        return url.scheme == "http" and self._proxy.scheme in ("http", "https")

    @property
    def headers(self) -> list[tuple[str, str]]:
        """The extra header fields of a request to the proxy itself."""
        value = authorization(self._proxy)
        return [("Proxy-Authorization", value)] if value else []

    def check_answer(self, head: ResponseHead) -> None:
        """Check that the response to a request to the proxy itself can be the target's.

        Raises:
            HopError: The proxy requires other credentials. Every other status may be the target's.
        """
        if head.status == _PROXY_AUTHENTICATION_REQUIRED:
            raise refusal_error(head, self._proxy, "the request")

    def protocol_error(self, error: HeadError) -> HopError:
        """Make the error for a response to a request to the proxy itself that is not HTTP."""
        return proxy_error("proxy.protocol.error", self._proxy, f"does not speak HTTP: {error}")

    # Connections

    async def connect(self, url: Url, timer: HopTimer, connect_timeout: float, deadline: float) -> Connection:
        """Connect to the URL's host and port through the proxy, or only to the proxy if the request is sent to it.

        Args:
            url: The URL of the target.
            timer: Gets the phases, and the address of the target if it is known.
            connect_timeout: Seconds for everything but DNS.
            deadline: Time of the clock.

        Raises:
            HopError: The proxy failed or refused, or an address is not allowed.
            Exception: The lookup of the target failed (socks5://).
        """
        hosts = await self._hosts_to_request(url, timer, deadline)
        addresses = await self._addresses_of_proxy(timer, deadline)
        timer.start("connect")
        deadline = min(deadline, self._now() + connect_timeout)
        failure: HopError | None = None
        for host in hosts:
            timer.ip = host if is_address(host) else None
            try:
                return await self._connect_to(host, url, addresses, deadline)
            except HopError as error:
                if error.problem.type in _PROXY_SETUP_ERRORS:
                    raise
                failure = failure or error
                self._order.failed(host, url.port)
        assert failure is not None
        raise failure

    async def _hosts_to_request(self, url: Url, timer: HopTimer, deadline: float) -> list[str]:
        """Return the hosts to request from the proxy: the name, or the allowed addresses, tried one after the other."""
        if is_address(url.host):
            hosts = [url.host]
        elif self._proxy.resolves_names:
            return [url.host]
        else:
            timer.start("dns")
            hosts = await self._resolver.resolve(url.host, url.port, deadline)
        self._guard.check(hosts)
        return self._order.select(hosts, url.port)

    async def _addresses_of_proxy(self, timer: HopTimer, deadline: float) -> list[str]:
        proxy = self._proxy
        addresses = self._resolver.known_addresses(proxy.host, proxy.port)
        if addresses is None:
            timer.start("dns")
            try:
                addresses = await self._resolver.resolve(proxy.host, proxy.port, deadline)
            except (OSError, DNSError) as error:
                raise self._unreachable(explain(error, "dns"), "has no address") from error
        if reason := self._guard.why_host_refused(addresses):
            raise HopError(ProbeError.of("address.blocked", f"the proxy {proxy}: {reason}"))
        return self._order.select(addresses, proxy.port)

    async def _connect_to(self, host: str, url: Url, addresses: list[str], deadline: float) -> Connection:
        """Connect to the proxy, and request a connection to the host from it."""
        proxy = self._proxy
        try:
            connection = await connect_to_any(addresses, proxy.port, self._poller, HopTimer(), deadline, self._order)
        except OSError as error:
            raise self._unreachable(explain(error, "connect"), "cannot be connected to") from error
        try:
            if proxy.scheme == "https":
                connection = await self._secure(connection, addresses, deadline)
            if proxy.scheme.startswith("socks"):
                await connect_by_socks(connection, proxy, host, url.port, deadline)
            elif not self.forwards(url):
                await connect_by_http(connection, proxy, url, deadline)
        except TimeoutError as error:
            connection.close()
            raise proxy_error("proxy.timed_out", proxy, "did not answer in time") from error
        except (OSError, EOFError) as error:
            connection.close()
            raise proxy_error("proxy.failed", proxy, "closed the connection without an answer") from error
        except BaseException:
            connection.close()
            raise
        connection.ip = host if is_address(host) else None
        return connection

    def _unreachable(self, problem: ProbeError, what: str) -> HopError:
        """Make the error for a proxy that cannot be reached; a fault of this machine stays one."""
        if problem.group == "LOCAL_ERROR":
            return HopError(problem)
        return proxy_error("proxy.unreachable", self._proxy, f"{what}: {problem.message}")

    async def _secure(self, connection: Connection, addresses: list[str], deadline: float) -> Connection:
        """Do TLS with the proxy.

        Raises:
            HopError: The proxy or its certificate was refused.
            OSError: The connection broke, or the deadline passed.
        """
        proxy = self._proxy
        host = f"[{proxy.host}]" if ":" in proxy.host else proxy.host
        url = Url(f"https://{host}:{proxy.port}/", "https", proxy.host, proxy.port, "/")

        async def reopen() -> Connection:
            return await connect_to_any(addresses, proxy.port, self._poller, HopTimer(), deadline, self._order)

        try:
            secured = await self._tls.secure(connection, Handshake(url, reopen, lambda: deadline, HopTimer()))
        except (HopError, ssl.SSLError) as error:
            problem = f"failed in the TLS handshake: {explain(error, 'tls').message}"
            raise proxy_error("proxy.tls.failed", proxy, problem) from error
        secured.tls = None  # results report the TLS of the target
        return secured

    @cached_property
    def _tls(self) -> TlsClient:
        """The TLS client for the proxy. As in curl, `insecure`, `cert` and `key` concern targets only."""
        options = msgspec.structs.replace(self._options, insecure=False, cert=None, key=None)
        return TlsClient(options, self._fetch)
