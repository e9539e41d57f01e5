"""Middleware that turns errors into problem responses: the one place that gives domain errors their HTTP status."""

import logging
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Final, TypeVar

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from crawler.core.errors import (
    AccessDenied,
    CrawlerError,
    InputError,
    LoopDetected,
    Overloaded,
    QuotaExceeded,
    ServiceStopping,
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreReadOnly,
    StoreReplaced,
    TaskNotFound,
    TaskTooLarge,
)
from crawler.formats.json_batch import JsonError
from crawler.server.http.presence import CLIENT_LEFT
from crawler.server.http.problem import Problem, problem_response

__all__ = ["answer_problems"]

log = logging.getLogger(__name__)

ErrorT = TypeVar("ErrorT", bound=CrawlerError)

_STORE_RETRY: Final[dict[str, str]] = {hdrs.RETRY_AFTER: "30"}
_SOON_RETRY: Final[dict[str, str]] = {hdrs.RETRY_AFTER: "5"}
_MAX_PATH_CHARACTERS: Final = 200
_BODY_HEADERS: Final = {hdrs.CONTENT_TYPE, hdrs.CONTENT_LENGTH}  # of aiohttp's error body, which is replaced here

# By RFC 6750, 3.1.
_ACCESS_STATUSES: Final = {
    "": HTTPStatus.UNAUTHORIZED,
    "invalid_request": HTTPStatus.BAD_REQUEST,
    "invalid_token": HTTPStatus.UNAUTHORIZED,
    "insufficient_scope": HTTPStatus.FORBIDDEN,
}


@web.middleware
async def answer_problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer an error of a handler with a problem. A fault of the service shows no details to the client."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400 or error.status == CLIENT_LEFT:
            raise
        headers = {name: value for name, value in error.headers.items() if name not in _BODY_HEADERS}
        return problem_response(Problem.of(error.status, _describe(request, error)), headers)
    except CrawlerError as error:
        answer = next((_ANSWERS[type_] for type_ in type(error).__mro__ if type_ in _ANSWERS), None)
        return _fault() if answer is None else answer(error)
    except Exception:
        return _fault()


def _describe(request: web.Request, error: web.HTTPException) -> str:
    """Return an error's own words, or better ones than aiohttp's for a path or method that has no handler."""
    if error is request.match_info.http_exception:
        if isinstance(error, web.HTTPMethodNotAllowed):
            return f"{error.method} is not possible here, only {', '.join(sorted(error.allowed_methods))}"
        return f"there is no {request.path[:_MAX_PATH_CHARACTERS]}; the API is described at /docs and in /openapi.json"
    return error.text or error.reason


def _fault() -> web.Response:
    log.exception("a request failed because of a fault in this service")
    return problem_response(Problem.of(HTTPStatus.INTERNAL_SERVER_ERROR, "a fault in this service; its log says more"))


def _access_denied(error: AccessDenied) -> web.Response:
    challenge = ['Bearer realm="crawler"']
    if error.reason:
        challenge.append(f'error="{error.reason}"')
    if error.reason == "insufficient_scope":
        challenge.append('scope="write"')
    headers: dict[str, str] = {hdrs.WWW_AUTHENTICATE: ", ".join(challenge)}
    return problem_response(Problem.of(_ACCESS_STATUSES[error.reason], str(error)), headers)


def _quota_exceeded(error: QuotaExceeded) -> web.Response:
    headers: dict[str, str] = {
        hdrs.RETRY_AFTER: str(error.retry_seconds),
        "RateLimit-Policy": f'"{error.policy}";q={error.limit}',
        "RateLimit": f'"{error.policy}";r=0;t={error.retry_seconds}',
    }
    return problem_response(Problem.of(HTTPStatus.TOO_MANY_REQUESTS, str(error)), headers)


def _stopping(_: ServiceStopping) -> web.Response:
    detail = "the service is stopping; try again later"
    return problem_response(Problem.of(HTTPStatus.SERVICE_UNAVAILABLE, detail), _SOON_RETRY)


def _store_full(error: StoreFull) -> web.Response:
    log.error("the store has no space left: %s", error)
    detail = "the store has no space left: until there is more, Tasks can only be read, cancelled and deleted"
    return problem_response(Problem.of(HTTPStatus.INSUFFICIENT_STORAGE, detail), _STORE_RETRY)


def _store_unsound(error: StoreDamaged | StoreReplaced) -> web.Response:
    log.error("the store cannot read or write: %s", error)
    what = "is damaged" if isinstance(error, StoreDamaged) else "was removed or replaced while in use"
    return problem_response(Problem.of(HTTPStatus.SERVICE_UNAVAILABLE, f"the store of Tasks {what}"), _STORE_RETRY)


def _store_read_only(error: StoreReadOnly) -> web.Response:
    log.error("the store cannot be written to: %s", error)
    detail = "the store of Tasks is a replica, which accepts no writes, until it is the master again"
    return problem_response(Problem.of(HTTPStatus.SERVICE_UNAVAILABLE, detail), _STORE_RETRY)


def _store_failed(error: StoreError) -> web.Response:
    log.error("the store cannot read or write", exc_info=error)
    detail = "the store of Tasks cannot read or write now"
    return problem_response(Problem.of(HTTPStatus.SERVICE_UNAVAILABLE, detail), _STORE_RETRY)


def _answer_with(status: HTTPStatus, headers: Mapping[str, str] | None = None) -> Callable[[ErrorT], web.Response]:
    """Return an answer whose detail is the error's own message."""
    return lambda error: problem_response(Problem.of(status, str(error)), headers)


# Answers by class of error; a subclass that is not here has that of its base.
_ANSWERS: Final[dict[type, Callable[..., web.Response]]] = {
    AccessDenied: _access_denied,
    InputError: _answer_with(HTTPStatus.UNPROCESSABLE_ENTITY),
    JsonError: lambda error: problem_response(Problem.of(HTTPStatus.BAD_REQUEST, f"the body is not JSON: {error}")),
    LoopDetected: _answer_with(HTTPStatus.LOOP_DETECTED),
    Overloaded: _answer_with(HTTPStatus.SERVICE_UNAVAILABLE, _SOON_RETRY),
    QuotaExceeded: _quota_exceeded,
    ServiceStopping: _stopping,
    StoreFull: _store_full,
    StoreDamaged: _store_unsound,
    StoreReadOnly: _store_read_only,
    StoreReplaced: _store_unsound,
    StoreError: _store_failed,
    TaskNotFound: _answer_with(HTTPStatus.NOT_FOUND),
    TaskTooLarge: _answer_with(HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
}
