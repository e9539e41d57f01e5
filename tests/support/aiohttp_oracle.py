"""Probes by aiohttp's client instead of our own transport: an independent opinion for differential tests.

The decisions between requests (HEAD, GET, redirects, retries) are the product's; what is sent and how responses are
read is aiohttp's.
"""

import asyncio
import ssl
from collections.abc import Iterator
from typing import Literal

import aiohttp
from yarl import URL

from crawler.core.error_types import ERROR_TYPES
from crawler.core.options import Options
from crawler.core.results import HopResult, ProbeError, ProbeResult, Timings
from crawler.core.urls import Target, Url
from crawler.probing.prober import HttpProber
from crawler.probing.scheduling.scheduler import Scheduler
from crawler.probing.settings import DEFAULT_SETTINGS
from crawler.transport.base import OnLate
from crawler.transport.error_mapping import explain

_MAX_HEAD_BYTES = 256 * 1024
_MAX_FIELDS = 10_000
_VERIFY_X509_STRICT = 0x20  # on by default since Python 3.13 only


async def probe_by_aiohttp(url: str, **options: object) -> ProbeResult:
    """Return the result of one URL."""
    chosen = Options.of(options)
    transport = _AiohttpTransport(chosen)
    try:
        scheduler = Scheduler(chosen.concurrency, chosen.per_host, chosen.interval)
        prober = HttpProber(chosen, lambda _: transport, scheduler, DEFAULT_SETTINGS)
        return await prober.probe(Target.of(0, url))
    finally:
        await transport.close()


class _AiohttpTransport:
    """One request on one new connection; without bodies."""

    def __init__(self, options: Options) -> None:
        context = ssl.create_default_context(cafile=options.cafile)
        context.verify_flags &= ~_VERIFY_X509_STRICT
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True, limit=0, ssl=context),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            max_field_size=_MAX_HEAD_BYTES,
            max_line_size=_MAX_HEAD_BYTES,
            max_headers=_MAX_FIELDS,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
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
        http_version: Literal["1", "2"] = "1",
        on_late: OnLate | None = None,
    ) -> HopResult:
        """Send one request and read the response head; see `Transport.hop`."""
        try:
            async with asyncio.timeout(timeout * answer_share):
                response = await self._session.request(
                    method,
                    URL(url.href, encoded=True),
                    headers=headers,
                    data=content or None,
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(sock_connect=connect_timeout),
                )
            response.close()
        except Exception as error:
            return HopResult(Timings(), error=_explain(error))
        fields = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in response.raw_headers]
        return HopResult(Timings(), response.status, headers=fields)

    async def close(self) -> None:
        """Close the session."""
        await self._session.close()


def _explain(error: BaseException) -> ProbeError:
    """Return the error type for an exception of aiohttp: that of what it wraps, if it wraps something."""
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return ProbeError.of("tcp.closed", ERROR_TYPES["tcp.closed"].meaning)
    for inner in _chain(error):
        if not isinstance(inner, aiohttp.ClientError):
            is_of_parser = isinstance(inner, aiohttp.http_exceptions.HttpProcessingError)
            return ProbeError.of("http.response.invalid", str(inner)) if is_of_parser else explain(inner, "http")
    return ProbeError.of("http.response.invalid", str(error))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = getattr(error, "certificate_error", None) or getattr(error, "os_error", None) or error.__cause__
