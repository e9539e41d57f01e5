"""The transport that uses aiohttp's client: for proxies, and for tests that compare it with our own transport."""

import asyncio
import ssl
from contextlib import suppress
from typing import Final

import aiohttp
from yarl import URL

from crawler.core.options import Options
from crawler.core.results import Body, HopResult, ProbeError
from crawler.core.urls import Url
from crawler.transport.address_guard import AddressGuard
from crawler.transport.aiohttp_connector import current_timer, open_connector
from crawler.transport.error_mapping import explain
from crawler.transport.resolver import Resolver
from crawler.transport.response_body import decompress_body
from crawler.transport.response_head import MAX_HEAD_BYTES, ResponseHead
from crawler.transport.timing import HopTimer

__all__ = ["AiohttpTransport"]

_MAX_FIELDS: Final = 10_000
_PROXY_AUTHENTICATION_REQUIRED: Final = 407
# Replies of a SOCKS5 proxy that are about the target (RFC 1928, 6); the others are about the proxy.
_SOCKS_REPLY_TYPES: Final = {
    1: "tcp.failed",
    3: "tcp.address_unreachable",
    4: "tcp.address_unreachable",
    5: "tcp.refused",
    6: "tcp.timed_out",
}


class AiohttpTransport:
    """Makes one connection for each hop, directly or through a proxy. Call `close` when done."""

    def __init__(self, options: Options, resolver: Resolver, guard: AddressGuard) -> None:
        self._http_proxy = options.proxy if (options.proxy or "").startswith("http://") else None
        self._session = aiohttp.ClientSession(
            connector=open_connector(options, resolver, guard),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            max_field_size=MAX_HEAD_BYTES,
            max_line_size=MAX_HEAD_BYTES,
            max_headers=_MAX_FIELDS,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            trace_configs=[_trace_end_of_sending()],
        )
        # aiohttp would repeat a request whose new connection is reset: two requests for one attempt.
        self._session._retry_connection = False

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
        """Send one request and read the response head; see `Transport.hop`.

        The share counts from the start here, and connections are never chosen.
        """
        timer = HopTimer()
        current_timer.set(timer)
        try:
            async with asyncio.timeout(timeout * answer_share) as limit:
                response = await self._session.request(
                    method,
                    URL(url.href, encoded=True),
                    headers=headers,
                    data=content or None,
                    allow_redirects=False,
                    proxy=self._http_proxy,
                    timeout=aiohttp.ClientTimeout(sock_connect=connect_timeout),
                )
            try:
                fields = [(_decode(name).lower(), _decode(value)) for name, value in response.raw_headers]
                head = ResponseHead.of(response.status, (1, 1), fields)
                wants_body = max_body_bytes and 200 <= head.status < 300
                body = await _read_body(response, head, max_body_bytes, limit.when()) if wants_body else None
            finally:
                response.close()
        except Exception as error:
            if (problem := _proxy_problem(error)) is not None:
                return HopResult(timer.timings(), error=problem)
            phase = "tls" if isinstance(error, (ssl.SSLError, aiohttp.ClientSSLError)) else timer.error_phase
            return HopResult(timer.timings(), ip=timer.ip, tls=timer.tls, error=explain(error, phase))
        if self._http_proxy is not None and head.status == _PROXY_AUTHENTICATION_REQUIRED:
            return HopResult(timer.timings(), error=_wrong_credentials())
        return HopResult(timer.timings(), head.status, timer.ip, head.fields, timer.tls, body=body)

    async def close(self) -> None:
        """Close the session. The resolver stays open."""
        await self._session.close()


def _proxy_problem(error: Exception) -> ProbeError | None:
    """Return an error that comes from the proxy, about itself or the target; None for every other exception."""
    kind = type(error)
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        return ProbeError.of("local.network", f"the proxy cannot be reached: {error.os_error}")
    if isinstance(error, aiohttp.ClientHttpProxyError) and error.status == _PROXY_AUTHENTICATION_REQUIRED:
        return _wrong_credentials()
    if kind.__module__.partition(".")[0] != "aiohttp_socks":  # by name: it need not be installed
        return None
    if kind.__name__ == "ProxyTimeoutError":
        return ProbeError.of("tcp.timed_out", "no connection through the proxy in time")
    return ProbeError.of(_SOCKS_REPLY_TYPES.get(getattr(error, "error_code", None) or 0, "local.network"), str(error))


def _wrong_credentials() -> ProbeError:
    return ProbeError.of("local.network", "the proxy requires a different user or password")


async def _read_body(
    response: aiohttp.ClientResponse, head: ResponseHead, max_bytes: int, deadline: float | None
) -> Body:
    """Read a body until its end, its limit, a failure or the deadline; return what has come by then."""
    body, is_whole = bytearray(), False
    with suppress(OSError, aiohttp.ClientError):
        async with asyncio.timeout_at(deadline):
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > max_bytes:
                    break
            is_whole = len(body) <= max_bytes
    return decompress_body(head, body[:max_bytes], max_bytes, is_whole=is_whole)


def _decode(raw: bytes) -> str:
    return raw.decode("latin-1")


def _trace_end_of_sending() -> aiohttp.TraceConfig:
    async def start_to_wait(*_: object) -> None:
        current_timer.get().start("wait")

    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(start_to_wait)
    return trace
