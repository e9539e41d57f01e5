"""Middleware that logs requests: each has an id, which its response and its log lines name, and one line at its end.

A line has the route's template, never the path or the query, which may contain secrets.
"""

import asyncio
import logging
import re
import time
import uuid
from typing import Final

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from crawler.runtime.logs import log_fields
from crawler.runtime.tracing import request_span
from crawler.server.access import HEALTH_ROUTES
from crawler.server.http.routing import route_path

__all__ = ["REQUEST_ID", "add_request_id", "log_requests"]

log = logging.getLogger("crawler.access_log")

REQUEST_ID: Final = "X-Request-Id"

_ID: Final = web.RequestKey("id", str)
_VALID_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
_DEBUG_ROUTES: Final = HEALTH_ROUTES | {"/metrics"}  # monitoring requests these every few seconds


@web.middleware
async def log_requests(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give a request its id, and log it when its response has been sent."""
    began, route = time.perf_counter(), route_path(request)
    request[_ID] = _id_of(request)
    status: int | None = None
    method = request.method if request.method in hdrs.METH_ALL else "_OTHER"  # clients can invent any number of methods
    with log_fields(request=request[_ID]), request_span(method, route, request.headers) as answered:
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
            # aiohttp sends the response later, in the same task. The callback runs in a copy of the present context,
            # so its line has the fields that are known by now.
            task = asyncio.current_task()
            assert task is not None
            task.add_done_callback(lambda _: _log(request, route, status, began))


async def add_request_id(request: web.Request, response: web.StreamResponse) -> None:
    """Add the id to a response; for aiohttp's `on_response_prepare`."""
    response.headers[REQUEST_ID] = request.get(_ID) or _id_of(request)


def _log(request: web.Request, route: str, status: int | None, began: float) -> None:
    fields = {
        "method": request.method,
        "route": route or "-",
        "status": status,
        "ms": round((time.perf_counter() - began) * 1e3, 1),
        "bytes": request.writer.output_size,
    }
    level = logging.DEBUG if route in _DEBUG_ROUTES else logging.INFO
    log.log(level, "%(method)s %(route)s status=%(status)s ms=%(ms)s bytes=%(bytes)s", fields)


def _id_of(request: web.Request) -> str:
    """Return the id that a client or a proxy has given, or a new one if that is not safe in a log line."""
    given = ",".join(request.headers.getall(REQUEST_ID, []))
    return given if _VALID_ID.fullmatch(given) else uuid.uuid4().hex
