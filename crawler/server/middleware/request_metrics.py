"""Middleware that counts requests, and measures the time until their response begins."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Final

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from crawler.server.app_keys import REQUEST_COUNTERS
from crawler.server.http.routing import route_path
from crawler.server.request_counters import RequestCounters, RequestKind

__all__ = ["client_wait", "count_response", "measure_requests"]

_OTHER: Final = "other"  # an unknown path or method: clients can invent any number of them


class _Stopwatch:
    """When a request began, and for how many of its seconds the client asked to wait."""

    __slots__ = ("began", "counters", "kind", "waited")

    def __init__(self, counters: RequestCounters, kind: RequestKind) -> None:
        self.counters = counters
        self.kind = kind
        self.began = perf_counter()
        self.waited = 0.0


_STOPWATCH: Final = web.RequestKey("stopwatch", _Stopwatch)


@web.middleware
async def measure_requests(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Start the stopwatch of a request."""
    method = request.method if request.method in hdrs.METH_ALL else _OTHER
    request[_STOPWATCH] = _Stopwatch(request.app[REQUEST_COUNTERS], RequestKind(route_path(request) or _OTHER, method))
    return await handler(request)


async def count_response(request: web.Request, response: web.StreamResponse) -> None:
    """Count a request whose response begins; for aiohttp's `on_response_prepare`."""
    stopwatch = request.get(_STOPWATCH)
    if stopwatch is None:  # an application around this one made the response
        return
    seconds = perf_counter() - stopwatch.began - stopwatch.waited
    stopwatch.counters.add(stopwatch.kind, response.status, seconds)


@contextmanager
def client_wait(request: web.Request) -> Iterator[None]:
    """Leave the time of this context out of the measurement: the client asked to wait."""
    began = perf_counter()
    try:
        yield
    finally:
        request[_STOPWATCH].waited += perf_counter() - began
