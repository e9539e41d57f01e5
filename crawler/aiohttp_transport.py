"""One hop, by aiohttp's client: resolve, connect, TLS, send, read the response head.

aiohttp does these in one call and hides where it stands. The connector below makes the connection in steps (overriding
`_wrap_create_connection`, as proxy connectors do), so that every phase has its time and a timeout says
what it waited for.
"""

import asyncio
import socket
import ssl
import time
from contextvars import ContextVar
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler
from yarl import URL

from crawler.failures import explain
from crawler.models import Answer, Timings, TLSInfo
from crawler.options import Options
from crawler.resolver import Resolver
from crawler.targets import Url
from crawler.tls import client_context, describe

__all__ = ["AiohttpTransport"]

_HEAD_LIMIT: Final = 256 * 1024  # bytes of one header, as Chromium takes for all


class AiohttpTransport:
    """One connection per hop. `close` it in the end."""

    def __init__(self, options: Options, resolver: Resolver) -> None:
        self._session = aiohttp.ClientSession(
            connector=_Connector(options, resolver),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            max_field_size=_HEAD_LIMIT,
            max_line_size=_HEAD_LIMIT,
            max_headers=10_000,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
            timeout=aiohttp.ClientTimeout(),
            trace_configs=[_send_trace()],
        )
        # A reset on a fresh connection would be retried in silence: two requests for one attempt.
        self._session._retry_connection = False

    async def hop(self, method: str, url: Url, headers: list[tuple[str, str]], timeout: float) -> Answer:
        """Send one request and read the response head, within `timeout` seconds. Failures are in the Answer."""
        clock = _Clock()
        _clock.set(clock)
        try:
            async with (
                asyncio.timeout(timeout),
                self._session.request(
                    method, URL(url.href, encoded=True), headers=headers, allow_redirects=False
                ) as response,
            ):
                clock.stop()
                status, raw = response.status, response.raw_headers
                response.close()  # the head is all that was asked for
        except Exception as error:
            clock.stop()
            return Answer(clock.timings(), ip=clock.ip, tls=clock.tls, error=explain(error, clock.phase))
        found = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in raw]
        return Answer(clock.timings(), status=status, ip=clock.ip, headers=found, tls=clock.tls)

    async def close(self) -> None:
        """Close the session; the resolver is not ours."""
        await self._session.close()


class _Clock:
    """Which phase a hop is in, and when each began."""

    _PHASES: Final = {"dns": "dns", "connect": "connect", "ssl": "tls", "send": "http", "wait": "http"}

    def __init__(self) -> None:
        self.ip: str | None = None
        self.tls: TLSInfo | None = None
        self._marks = [("connect", time.perf_counter())]

    def start(self, timing: str) -> None:
        """Begin a phase, under HAR's name."""
        self._marks.append((timing, time.perf_counter()))

    def stop(self) -> None:
        self._marks.append(("", time.perf_counter()))

    @property
    def phase(self) -> str:
        """The phase that a failure belongs to, under the name of our error types."""
        return self._PHASES[next(name for name, _ in reversed(self._marks) if name)]

    def timings(self) -> Timings:
        timings = Timings(total=round((self._marks[-1][1] - self._marks[0][1]) * 1000, 3))
        for (name, began), (_, ended) in zip(self._marks, self._marks[1:], strict=False):
            setattr(timings, name, (getattr(timings, name) or 0.0) + round((ended - began) * 1000, 3))
        return timings


_clock: ContextVar[_Clock] = ContextVar("_clock")


class _Connector(aiohttp.TCPConnector):
    """Dials one address, chosen by us, in steps that are timed one by one."""

    def __init__(self, options: Options, resolver: Resolver) -> None:
        super().__init__(
            force_close=True,
            limit=0,
            resolver=_ChosenAddress(resolver),
            ssl=client_context(options),
            use_dns_cache=False,
        )
        self._connect_timeout = options.connect_timeout

    async def _wrap_create_connection(
        self, *args: Any, addr_infos: list[Any], ssl: ssl.SSLContext | None = None, **kwargs: Any
    ) -> tuple[asyncio.Transport, ResponseHandler]:
        clock = _clock.get()
        clock.start("connect")
        family, kind, protocol, _, address = addr_infos[0]
        clock.ip = address[0]
        dialled = socket.socket(family, kind, protocol)
        try:
            dialled.setblocking(False)
            async with asyncio.timeout(self._connect_timeout):
                await self._loop.sock_connect(dialled, address)
            clock.start("ssl" if ssl else "send")
            async with asyncio.timeout(self._connect_timeout):
                transport, handler = await self._loop.create_connection(
                    *args, sock=dialled, ssl=ssl, server_hostname=kwargs["server_hostname"]
                )
        except BaseException:
            dialled.close()
            raise
        if ssl:
            clock.tls = describe(transport.get_extra_info("ssl_object"))
            clock.start("send")
        return transport, handler


class _ChosenAddress(AbstractResolver):
    """Gives aiohttp one address: with several it would try each, and handshake with each."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        _clock.get().start("dns")
        address = (await self._resolver.resolve(host, port))[0]
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return [ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=0)]

    async def close(self) -> None:
        pass


def _send_trace() -> aiohttp.TraceConfig:
    async def sent(*_: object) -> None:
        _clock.get().start("wait")

    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(sent)
    return trace
