"""One hop, by aiohttp's client: for proxies, and as the second opinion that our own transport is held against.

aiohttp resolves, connects and shakes hands in one call and hides where it stands. The connector below makes the
connection in steps (overriding `_wrap_create_connection`, as proxy connectors do), so that every phase has its time and
a timeout says what it waited for.
"""

import asyncio
import socket
import ssl
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler
from yarl import URL

from crawler.core.errors import OptionError
from crawler.core.options import Options
from crawler.core.results import HopResult, ProbeError
from crawler.core.urls import Url
from crawler.transport.address_guard import AddressGuard
from crawler.transport.error_mapping import HopFailed, explain
from crawler.transport.resolver import Resolver, in_turns
from crawler.transport.response_body import body_text
from crawler.transport.response_head import LIMIT, ResponseHead
from crawler.transport.timing import HopTimer
from crawler.transport.tls import client_context, describe

__all__ = ["AiohttpTransport"]

_FIELDS: Final = 10_000
_WANTS_A_PASSWORD: Final = 407
# Replies of a SOCKS5 proxy that tell of the target (RFC 1928, 6); the others tell of the proxy.
_SOCKS_REPLIES: Final = {
    1: "tcp.failed",
    3: "tcp.address_unreachable",
    4: "tcp.address_unreachable",
    5: "tcp.refused",
    6: "tcp.timed_out",
}

_clock: ContextVar[HopTimer] = ContextVar("_clock")  # of the hop that the current task makes


class AiohttpTransport:
    """One connection a hop, perhaps through a proxy. `close` it in the end."""

    def __init__(self, options: Options, resolver: Resolver, guard: AddressGuard) -> None:
        self._proxy = options.proxy if (options.proxy or "").startswith("http://") else None
        self._session = aiohttp.ClientSession(
            connector=_connector(options, resolver, guard),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            max_field_size=LIMIT,
            max_line_size=LIMIT,
            max_headers=_FIELDS,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            trace_configs=[_send_trace()],
        )
        # A reset on a fresh connection would be retried in silence: two requests for one attempt.
        self._session._retry_connection = False

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
        _clock.set(clock)
        try:
            async with asyncio.timeout(timeout) as limit:
                response = await self._session.request(
                    method,
                    URL(url.href, encoded=True),
                    headers=headers,
                    data=content or None,
                    allow_redirects=False,
                    proxy=self._proxy,
                    timeout=aiohttp.ClientTimeout(sock_connect=connect_timeout),
                )
            try:
                head = ResponseHead.of(
                    response.status, (1, 1), [(_text(n).lower(), _text(v)) for n, v in response.raw_headers]
                )
                wanted = max_body_bytes and 200 <= head.status < 300
                text = await _read(response, head, max_body_bytes, limit.when()) if wanted else None
            finally:
                response.close()
        except Exception as error:
            if (problem := _proxy_problem(error)) is not None:
                return HopResult(clock.timings(), error=problem)
            phase = "tls" if isinstance(error, (ssl.SSLError, aiohttp.ClientSSLError)) else clock.phase
            return HopResult(clock.timings(), ip=clock.ip, tls=clock.tls, error=explain(error, phase))
        if self._proxy is not None and head.status == _WANTS_A_PASSWORD:
            problem = ProbeError.of("local.network", "the proxy wants another user or password")
            return HopResult(clock.timings(), error=problem)
        return HopResult(clock.timings(), head.status, clock.ip, head.fields, clock.tls, body=text)

    async def close(self) -> None:
        """Close the session; the resolver is not ours."""
        await self._session.close()


class _Connector(aiohttp.TCPConnector):
    """Dials one address, chosen by us, in steps that are timed one by one."""

    def __init__(self, options: Options, resolver: Resolver, guard: AddressGuard) -> None:
        super().__init__(
            force_close=True,
            limit=0,
            resolver=_ChosenAddress(resolver, guard, options.proxy),
            ssl=client_context(options),
            use_dns_cache=False,
        )
        self._guard = guard
        self._is_proxied = options.proxy is not None

    async def _wrap_create_connection(
        self,
        *args: Any,
        addr_infos: list[Any],
        timeout: aiohttp.ClientTimeout,
        ssl: ssl.SSLContext | None = None,
        **kwargs: Any,
    ) -> tuple[asyncio.Transport, ResponseHandler]:
        clock = _clock.get()
        clock.start("connect")
        dialled = None
        try:
            dialled = await self._dial(addr_infos, clock, timeout.sock_connect)
            clock.start("ssl" if ssl else "send")
            async with asyncio.timeout(timeout.sock_connect):
                transport, handler = await self._loop.create_connection(
                    *args, sock=dialled, ssl=ssl, server_hostname=kwargs["server_hostname"]
                )
        except BaseException as error:
            if dialled is not None:
                dialled.close()
            if self._is_proxied and isinstance(error, OSError):
                raise aiohttp.ClientProxyConnectionError(kwargs["req"].connection_key, error) from error
            raise
        if ssl:
            clock.tls = describe(transport.get_extra_info("ssl_object"))
            clock.start("send")
        return transport, handler

    async def _start_tls_connection(self, *args: Any, **kwargs: Any) -> tuple[asyncio.BaseTransport, ResponseHandler]:
        """TLS through the proxy, to the target."""
        clock = _clock.get()
        clock.start("ssl")
        async with asyncio.timeout(kwargs["timeout"].sock_connect):
            transport, handler = await super()._start_tls_connection(*args, **kwargs)
        clock.tls = describe(transport.get_extra_info("ssl_object"))
        clock.start("send")
        return transport, handler

    async def _dial(self, addr_infos: list[Any], clock: HopTimer, patience: float | None) -> socket.socket:
        """The first address that takes a connection."""
        for family, kind, protocol, _, address in addr_infos:
            if not self._is_proxied:
                clock.ip = address[0]
                self._guard.check([address[0]])  # an address in the URL itself was not resolved
            dialled = socket.socket(family, kind, protocol)
            try:
                dialled.setblocking(False)
                async with asyncio.timeout(patience):
                    await self._loop.sock_connect(dialled, address)
            except BaseException as error:
                dialled.close()
                if not isinstance(error, OSError) or address is addr_infos[-1][-1]:
                    raise
            else:
                return dialled
        raise AssertionError("a host without addresses")


class _ChosenAddress(AbstractResolver):
    """Gives aiohttp a few addresses: it would try all that there are."""

    def __init__(self, resolver: Resolver, guard: AddressGuard, proxy: str | None) -> None:
        self._resolver = resolver
        self._guard = guard
        self._proxy = proxy

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        _clock.get().start("dns")
        try:
            addresses = await self._resolver.resolve(host, port)
        except Exception as error:
            if self._proxy is None:
                raise
            raise HopFailed(ProbeError.of("local.network", f"the proxy's name has no address: {error}")) from error
        self._guard.check(addresses)
        return [
            ResolveResult(hostname=host, host=address, port=port, family=_family(address), proto=0, flags=0)
            for address in in_turns(addresses)
        ]

    async def close(self) -> None:
        pass


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _connector(options: Options, resolver: Resolver, guard: AddressGuard) -> aiohttp.TCPConnector:
    if options.proxy is None or options.proxy.startswith("http://"):
        return _Connector(options, resolver, guard)
    try:
        from aiohttp_socks import ProxyConnector
    except ImportError:
        raise OptionError("SOCKS needs the extra crawler[socks]", "proxy") from None
    proxy = options.proxy.replace("socks5h://", "socks5://", 1)  # the h is for `rdns`
    connector: aiohttp.TCPConnector = ProxyConnector.from_url(
        proxy, rdns=True, ssl=client_context(options), force_close=True, limit=0
    )
    return connector


def _proxy_problem(error: Exception) -> ProbeError | None:
    """What went wrong with the proxy, or is known of the target only from it; None for all else."""
    kind = type(error)
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        return ProbeError.of("local.network", f"the proxy cannot be reached: {error.os_error}")
    if isinstance(error, aiohttp.ClientHttpProxyError) and error.status == _WANTS_A_PASSWORD:
        return ProbeError.of("local.network", "the proxy wants another user or password")
    if kind.__module__.partition(".")[0] != "aiohttp_socks":  # which need not be installed
        return None
    if kind.__name__ == "ProxyTimeoutError":
        return ProbeError.of("tcp.timed_out", "no connection through the proxy in time")
    return ProbeError.of(_SOCKS_REPLIES.get(getattr(error, "error_code", None) or 0, "local.network"), str(error))


async def _read(response: aiohttp.ClientResponse, head: ResponseHead, cap: int, deadline: float | None) -> str:
    """As much of a body as is wanted, and comes in time: the head is the answer, the body only its evidence."""
    body = bytearray()
    with suppress(OSError, aiohttp.ClientError):
        async with asyncio.timeout_at(deadline):
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) >= cap:
                    break
    return body_text(head, body[:cap], cap)


def _text(raw: bytes) -> str:
    return raw.decode("latin-1")


def _send_trace() -> aiohttp.TraceConfig:
    async def sent(*_: object) -> None:
        _clock.get().start("wait")

    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(sent)
    return trace
