"""Middleware for web pages of other origins: CORS, by the Fetch standard (https://fetch.spec.whatwg.org/#http-cors-protocol).

Only origins that an option names may read answers, and only with a token: a browser sends none by itself, so a page
has no rights but those of a token that its user has given it.
"""

from collections.abc import Collection
from http import HTTPStatus
from typing import Final

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

__all__ = ["add_cors_headers", "cors_middleware"]

_PREFLIGHT_SECONDS: Final = "7200"  # the most that Chromium keeps a preflight's answer for
_REQUEST_HEADERS: Final = "Authorization, Content-Type, Content-Encoding, Idempotency-Key, Last-Event-ID"
_RESPONSE_HEADERS: Final = "Link, Location, RateLimit, RateLimit-Policy, Retry-After, X-Request-Id"


def cors_middleware(origins: Collection[str]) -> Middleware:
    """Return the middleware that lets pages of these origins use the API."""

    @web.middleware
    async def answer_other_origins(request: web.Request, handler: Handler) -> web.StreamResponse:
        origin = request.headers.get(hdrs.ORIGIN)
        if origin in origins and _is_preflight(request):  # it has no token
            return web.Response(status=HTTPStatus.NO_CONTENT, headers=_preflight_headers(request))
        return await handler(request)

    return answer_other_origins


async def add_cors_headers(request: web.Request, response: web.StreamResponse, origins: Collection[str]) -> None:
    """Let a page of one of these origins read the response; for aiohttp's `on_response_prepare`."""
    response.headers.add(hdrs.VARY, hdrs.ORIGIN)
    origin = request.headers.get(hdrs.ORIGIN)
    if origin is not None and origin in origins:
        response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
        response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = _RESPONSE_HEADERS


def _is_preflight(request: web.Request) -> bool:
    return request.method == hdrs.METH_OPTIONS and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers


def _preflight_headers(request: web.Request) -> dict[str, str]:
    refusal = request.match_info.http_exception  # no route has the method OPTIONS
    allowed = refusal.allowed_methods if isinstance(refusal, web.HTTPMethodNotAllowed) else set()
    return {
        hdrs.ACCESS_CONTROL_ALLOW_METHODS: ", ".join(sorted(allowed)),
        hdrs.ACCESS_CONTROL_ALLOW_HEADERS: _REQUEST_HEADERS,
        hdrs.ACCESS_CONTROL_MAX_AGE: _PREFLIGHT_SECONDS,
    }
