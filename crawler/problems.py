"""Errors of the HTTP API as `application/problem+json` (RFC 9457), and the reading of bodies that may be bad."""

import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import TypeVar

import msgspec
from aiohttp import web

from crawler.errors import InputError, TaskNotFound

__all__ = ["answer_problems", "read_json"]

log = logging.getLogger(__name__)

T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def problem(status: int, detail: str, headers: dict[str, str] | None = None) -> web.Response:
    """An error for a person and a program: `title` is the status's phrase, `detail` what is wrong here."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return web.Response(
        status=status, body=msgspec.json.encode(body), content_type="application/problem+json", headers=headers
    )


@web.middleware
async def answer_problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn what handlers raise into problems. A fault of ours says nothing of itself to a stranger."""
    try:
        return await handler(request)
    except InputError as error:
        return problem(HTTPStatus.UNPROCESSABLE_ENTITY, str(error))
    except TaskNotFound as error:
        return problem(HTTPStatus.NOT_FOUND, str(error))
    except web.HTTPException as error:
        if error.status < 400:
            raise
        allow = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
        return problem(error.status, error.text or error.reason, allow)
    except Exception:
        log.exception("a request failed on our side")
        return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "a fault in this service; its log says more")


async def read_json(request: web.Request, type_: type[T], max_body: int) -> T:
    """Read and validate a JSON body of at most `max_body` bytes (also once decompressed).

    Raises:
        InputError: It is JSON, but not of this type; the message names the place.
        web.HTTPBadRequest: It is no JSON, or stops half way.
        web.HTTPRequestEntityTooLarge: It is too long.
    """
    body = await _read(request, max_body)
    try:
        return msgspec.json.decode(body, type=type_)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at ")
        raise InputError(message, place.strip("`")) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise web.HTTPBadRequest(text=f"the body is not JSON: {error}") from None
    except RecursionError:
        raise web.HTTPBadRequest(text="the body is nested too deeply") from None


async def _read(request: web.Request, max_body: int) -> bytearray:
    # Not `request.read()`: its limit is that of the outermost application, where this one may be mounted.
    body = bytearray()
    if (request.content_length or 0) > max_body:
        raise web.HTTPRequestEntityTooLarge(max_body, text=f"the body has more than {max_body} bytes")
    try:
        async for chunk in request.content.iter_any():
            body += chunk
            if len(body) > max_body:
                raise web.HTTPRequestEntityTooLarge(max_body, text=f"the body has more than {max_body} bytes")
    except web.RequestPayloadError as error:
        raise web.HTTPBadRequest(text=f"the body cannot be read: {error}") from None
    return body
