"""Errors of the HTTP API as `application/problem+json` (RFC 9457)."""

import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final

import msgspec
from aiohttp import web

from crawler.core.errors import InputError, ServiceStopping, StoreError, StoreFull, TaskNotFound
from crawler.formats.json_batch import JsonError

__all__ = ["answer_problems"]

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_LATER: Final = {"Retry-After": "30"}  # seconds until a store may do again what it cannot do now
_NEXT_START: Final = {"Retry-After": "5"}
_OF_TEXT: Final = {"Content-Type", "Content-Length"}  # what an error's own body has, which is not sent


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
    except JsonError as error:
        return problem(HTTPStatus.BAD_REQUEST, f"the body is not JSON: {error}")
    except InputError as error:
        return problem(HTTPStatus.UNPROCESSABLE_ENTITY, str(error))
    except TaskNotFound as error:
        return problem(HTTPStatus.NOT_FOUND, str(error))
    except web.HTTPException as error:
        if error.status < 400:
            raise
        telling = {name: value for name, value in error.headers.items() if name not in _OF_TEXT}
        return problem(error.status, error.text or error.reason, telling)
    except ServiceStopping:
        return problem(HTTPStatus.SERVICE_UNAVAILABLE, "the service is stopping; try again later", _NEXT_START)
    except StoreFull:
        log.exception("there is no space left")
        return problem(HTTPStatus.INSUFFICIENT_STORAGE, "there is no space left to keep it", _LATER)
    except StoreError:
        log.exception("the store refused")
        return problem(HTTPStatus.SERVICE_UNAVAILABLE, "the store of tasks cannot do that now", _LATER)
    except Exception:
        log.exception("a request failed on our side")
        return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "a fault in this service; its log says more")
