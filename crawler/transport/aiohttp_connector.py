"""How aiohttp's client connects for us: guarded, to few addresses, and with a time for each phase.

aiohttp resolves, connects and does the TLS handshake in one call, and does not say which it is doing. This connector
does it in steps. It overrides `_wrap_create_connection`, as the connectors of proxy libraries do, so that each phase
has its time and a timeout has its phase.
"""

import asyncio
import socket
import ssl
from contextvars import ContextVar
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler

from crawler.core.errors import OptionError
from crawler.core.options import Options
from crawler.core.results import ProbeError
from crawler.transport.address_guard import AddressGuard
from crawler.transport.address_order import AddressOrder
from crawler.transport.error_mapping import HopError
from crawler.transport.resolver import Resolver
from crawler.transport.timing import HopTimer
from crawler.transport.tls import client_context
from crawler.transport.tls_report import describe_tls

__all__ = ["current_timer", "open_connector"]

current_timer: Final[ContextVar[HopTimer]] = ContextVar("current_timer")  # of the hop that runs in this asyncio task


def open_connector(options: Options, resolver: Resolver, guard: AddressGuard) -> aiohttp.TCPConnector:
    """Make the connector for the proxy that the options name, or for none.

    Raises:
        OptionError: The proxy speaks SOCKS, and the package for that is not installed.
    """
    if options.proxy is None or options.proxy.startswith("http://"):
        return _TimedConnector(options, resolver, guard)
    try:
        from aiohttp_socks import ProxyConnector
    except ImportError:
        raise OptionError("SOCKS needs urlprober[socks]", "proxy") from None
    proxy = options.proxy.replace("socks5h://", "socks5://", 1)  # `rdns` says what the h says
    connector: aiohttp.TCPConnector = ProxyConnector.from_url(
        proxy, rdns=True, ssl=client_context(options), force_close=True, limit=0
    )
    return connector


class _TimedConnector(aiohttp.TCPConnector):
    """Connects in steps and tells the hop's timer about each."""

    def __init__(self, options: Options, resolver: Resolver, guard: AddressGuard) -> None:
        super().__init__(
            force_close=True,
            limit=0,
            resolver=_GuardedResolver(resolver, guard, options.proxy),
            ssl=client_context(options),
            use_dns_cache=False,
        )
        self._guard = guard
        self._has_proxy = options.proxy is not None

    async def _wrap_create_connection(
        self,
        *args: Any,
        addr_infos: list[Any],
        timeout: aiohttp.ClientTimeout,
        ssl: ssl.SSLContext | None = None,
        **kwargs: Any,
    ) -> tuple[asyncio.Transport, ResponseHandler]:
        timer = current_timer.get()
        timer.start("connect")
        sock = None
        try:
            sock = await self._connect_to_any(addr_infos, timer, timeout.sock_connect)
            timer.start("ssl" if ssl else "send")
            async with asyncio.timeout(timeout.sock_connect):
                transport, handler = await self._loop.create_connection(
                    *args, sock=sock, ssl=ssl, server_hostname=kwargs["server_hostname"]
                )
        except BaseException as error:
            if sock is not None:
                sock.close()
            if self._has_proxy and isinstance(error, OSError):
                raise aiohttp.ClientProxyConnectionError(kwargs["req"].connection_key, error) from error
            raise
        if ssl:
            timer.tls = describe_tls(transport.get_extra_info("ssl_object"))
            timer.start("send")
        return transport, handler

    async def _start_tls_connection(self, *args: Any, **kwargs: Any) -> tuple[asyncio.BaseTransport, ResponseHandler]:
        """Do the TLS handshake with the target through the proxy's tunnel."""
        timer = current_timer.get()
        timer.start("ssl")
        async with asyncio.timeout(kwargs["timeout"].sock_connect):
            transport, handler = await super()._start_tls_connection(*args, **kwargs)
        timer.tls = describe_tls(transport.get_extra_info("ssl_object"))
        timer.start("send")
        return transport, handler

    async def _connect_to_any(
        self, addr_infos: list[Any], timer: HopTimer, timeout_seconds: float | None
    ) -> socket.socket:
        """Connect to the first address that accepts, one after the other."""
        for family, kind, protocol, _, address in addr_infos:
            if not self._has_proxy:
                timer.ip = address[0]
                self._guard.check([address[0]])  # an address in the URL itself did not pass the resolver
            sock = socket.socket(family, kind, protocol)
            try:
                sock.setblocking(False)
                async with asyncio.timeout(timeout_seconds):
                    await self._loop.sock_connect(sock, address)
            except BaseException as error:
                sock.close()
                if not isinstance(error, OSError) or address is addr_infos[-1][-1]:
                    raise
            else:
                return sock
        raise AssertionError("a host without addresses")


class _GuardedResolver(AbstractResolver):
    """Gives aiohttp only a few addresses, because it would try all that a host has."""

    def __init__(self, resolver: Resolver, guard: AddressGuard, proxy: str | None) -> None:
        self._resolver = resolver
        self._guard = guard
        self._proxy = proxy

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        current_timer.get().start("dns")
        try:
            addresses = await self._resolver.resolve(host, port)
        except Exception as error:
            if self._proxy is None:
                raise
            raise HopError(ProbeError.of("local.network", f"the proxy's name has no address: {error}")) from error
        self._guard.check(addresses)
        return [
            ResolveResult(hostname=host, host=address, port=port, family=_family_of(address), proto=0, flags=0)
            for address in AddressOrder().select(addresses, port)
        ]

    async def close(self) -> None:
        pass


def _family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET
