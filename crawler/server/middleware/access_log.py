"""The log of requests: each has an id, which its answer and its lines name, and a line when its answer is sent.

A line has the route's template, never the path or the query, which may hold secrets.
"""

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import hdrs, web

from crawler.runtime.logs import log_fields
from crawler.runtime.tracing import request_span
from crawler.server.middleware.auth import route_of

__all__ = ["REQUEST_ID", "log_requests", "tell_id"]

log = logging.getLogger("crawler.access_log")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

REQUEST_ID: Final = "X-Request-Id"

_ID: Final = web.RequestKey("id", str)
_SAFE: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
_QUIET: Final = frozenset({"/healthz", "/readyz", "/metrics"})  # asked for every few seconds by machines


@web.middleware
async def log_requests(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give a request its id, and log it once all is done."""
    begun = time.perf_counter()
    request[_ID] = _id_of(request)
    status: int | None = None
    method = request.method if request.method in hdrs.METH_ALL else "_OTHER"  # strangers can make up any number
    with log_fields(request=request[_ID]), request_span(method, route_of(request), request.headers) as answered:
        try:
            response = await handler(request)
            status = response.status
            return response
        except web.HTTPException as error:
            status = error.status
            raise
        finally:
            if status is not None:
                answered(status)
            # aiohttp sends what a handler returns later, in the same task; what is known by now, its context has.
            task = asyncio.current_task()
            assert task is not None
            task.add_done_callback(lambda _: _log(request, status, begun))


async def tell_id(request: web.Request, response: web.StreamResponse) -> None:
    """Put the id into an answer, as aiohttp's `on_response_prepare` wants it."""
    response.headers[REQUEST_ID] = request.get(_ID) or _id_of(request)


def _log(request: web.Request, status: int | None, begun: float) -> None:
    route = route_of(request)
    fields = {
        "method": request.method,
        "route": route or "-",
        "status": status,
        "ms": round((time.perf_counter() - begun) * 1e3, 1),
        "bytes": request.writer.output_size,
    }
    level = logging.DEBUG if route in _QUIET else logging.INFO
    log.log(level, "%(method)s %(route)s status=%(status)s ms=%(ms)s bytes=%(bytes)s", fields)


def _id_of(request: web.Request) -> str:
    """The id that a client or a proxy has chosen, or a new one if that is none that could stand in a line."""
    given = ",".join(request.headers.getall(REQUEST_ID, []))
    return given if _SAFE.fullmatch(given) else uuid.uuid4().hex
