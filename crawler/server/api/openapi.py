"""The API as an OpenAPI 3.1 document (https://spec.openapis.org/oas/v3.1.1)."""

import inspect
from collections.abc import Iterator, Mapping
from functools import cached_property
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web

from crawler.core.options import VERSION
from crawler.server.api.json_schema import Schemas
from crawler.server.api.operations import OPERATIONS, PROBLEM, Media, Operation, Problem, Reply
from crawler.server.http.responses import json_answer
from crawler.server.middleware.access_log import REQUEST_ID
from crawler.server.middleware.auth import ANCHOR, AUTHORIZER
from crawler.server.task_manager import TASK_MANAGER

__all__ = ["DOCUMENT", "Document", "openapi"]

Json = dict[str, Any]

_ANYWHERE: Final = frozenset({400, 401, 403, 421, 429, 500, 503})  # what any request may be answered with
_LATER: Final = frozenset({429, 503, 507})

# Of requests.
_PARAMETERS: Final[Mapping[str, Json]] = {
    "Idempotency-Key": {
        "description": "A name for this request: sent again, it is answered as before, and nothing is begun twice.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
        "example": "nightly-2026-11-22",
    },
    "Last-Event-ID": {
        "description": "Go on after this event. It overrules last_event_id.",
        "schema": {"type": "string", "pattern": "^[0-9]{1,19}$"},
        "example": "0",
    },
}
# Of answers.
_HEADERS: Final[Mapping[str, Json]] = {
    "Location": {"description": "Where the task is.", "schema": {"type": "string", "format": "uri-reference"}},
    "Link": {"description": "The page after this one, if there is one, as `next`.", "schema": {"type": "string"}},
    "Vary": {"description": "What else of the request chose the answer.", "schema": {"type": "string"}},
    "Idempotency-Replayed": {"description": "Always `true`.", "schema": {"type": "string"}},
    "Retry-After": {
        "description": "Seconds after which it may go better.",
        "schema": {"type": "integer", "minimum": 0},
    },
    "RateLimit-Policy": {"description": "Which quotas there are.", "schema": {"type": "string"}},
    "RateLimit": {"description": "What is left of them.", "schema": {"type": "string"}},
    "WWW-Authenticate": {"description": "Which token is needed.", "schema": {"type": "string"}},
    REQUEST_ID: {"description": "What the log calls this request.", "schema": {"type": "string"}},
    "Accept-Encoding": {"description": "How a body may be packed.", "schema": {"type": "string"}},
}
_HEADERS_OF: Final[Mapping[int, tuple[str, ...]]] = {
    401: ("WWW-Authenticate",),
    403: ("WWW-Authenticate",),
    415: ("Accept-Encoding",),
    429: ("Retry-After", "RateLimit", "RateLimit-Policy"),
    503: ("Retry-After",),
    507: ("Retry-After",),
}
_TASK_ID: Final = {
    "name": "task_id",
    "in": "path",
    "required": True,
    "description": "The id of a task.",
    "schema": {"type": "string", "format": "uuid"},
}
_TAGS: Final[Mapping[str, str]] = {
    "tasks": "Batches of URLs, from submit to deletion.",
    "results": "What probes found.",
    "service": "The service itself.",
    "first version": "The requests of the first version, which stay as they are.",
}
_ABOUT: Final = (
    "Probes URLs in batches: which answer, what they answer, how fast, and why the others fail. Errors are "
    f"`{PROBLEM}`. Bodies may be packed with gzip, if their Content-Encoding says so."
)


class Document:
    """The document of one application, made when it is first asked for."""

    def __init__(self, app: web.Application) -> None:
        self._app = app

    @cached_property
    def content(self) -> Json:
        """As JSON has it."""
        schemas = Schemas(self._app[TASK_MANAGER].options)
        paths: Json = {}
        for method, path, summary in self._routes():
            if operation := OPERATIONS.get((method, path)):
                described = {"summary": summary, **_operation(operation, path, schemas)}
                paths.setdefault(path, {})[method.lower()] = described
        anyone: list[Json] = [] if self._app[AUTHORIZER].has_tokens else [{}]
        return {
            "openapi": "3.1.1",
            "info": {"title": "crawler", "version": VERSION, "description": _ABOUT, "license": {"name": "MIT"}},
            "servers": [{"url": "."}],  # beside this document, wherever that is
            "security": [*anyone, {"token": []}],
            "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
            "paths": paths,
            "components": {
                "schemas": schemas.components,
                "headers": _HEADERS,
                "parameters": {name: {"name": name, "in": "header"} | each for name, each in _PARAMETERS.items()},
                "responses": {str(status): _problem(status, schemas) for status in _problems()},
                "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            },
        }

    def _routes(self) -> Iterator[tuple[str, str, str]]:
        """Methods, paths without that of a mount, and what handlers say of themselves."""
        mount = self._app.router[ANCHOR].canonical.removesuffix("/submit")
        for route in self._app.router.routes():
            if route.resource is not None:
                summary = (inspect.getdoc(route.handler) or "").partition("\n")[0]
                yield route.method, route.resource.canonical.removeprefix(mount), summary


DOCUMENT: Final = web.AppKey("DOCUMENT", Document)


async def openapi(request: web.Request) -> web.Response:
    """What requests there are, as an OpenAPI document."""
    return json_answer(request.app[DOCUMENT].content)


def _operation(operation: Operation, path: str, schemas: Schemas) -> Json:
    described: Json = {"operationId": operation.id, "tags": [operation.tag]}
    parameters: list[Json] = []
    if "{task_id}" in path:
        parameters.append(_TASK_ID)
    if operation.names:
        schema = {"enum": list(operation.names)}
        parameters.append({"name": "name", "in": "path", "required": True, "schema": schema})
    parameters += schemas.query(operation.query, with_options=operation.takes_options)
    parameters += [_ref("parameters", name) for name in operation.headers]
    if parameters:
        described["parameters"] = parameters
    if operation.body:
        described["requestBody"] = {"required": operation.needs_body, "content": _content(operation.body, schemas)}
    if operation.is_open:
        described["security"] = []
    replies = {str(status): _reply(reply, schemas) for status, reply in operation.replies.items()}
    problems = {str(status): _ref("responses", str(status)) for status in sorted(operation.problems | _ANYWHERE)}
    return {**described, "responses": {**problems, **replies}}


def _reply(reply: Reply, schemas: Schemas) -> Json:
    headers = {name: _ref("headers", name) for name in (*reply.headers, REQUEST_ID)}
    described: Json = {"description": reply.meaning, "headers": headers}
    if reply.content:
        described["content"] = _content(reply.content, schemas)
    if reply.of_task:
        place = f"$response.body#{reply.of_task}"
        described["links"] = {
            operation.id: {"operationId": operation.id, "parameters": {"task_id": place}}
            for (_, path), operation in OPERATIONS.items()
            if "{task_id}" in path
        }
    return described


def _content(content: Mapping[str, Media], schemas: Schemas) -> Json:
    described: Json = {}
    for media_type, media in content.items():
        described[media_type] = {} if media.type is None else {"schema": schemas.of(media.type)}
        if media.example is not None:
            described[media_type]["example"] = media.example
    return described


def _problems() -> list[int]:
    return sorted(_ANYWHERE.union(*(operation.problems for operation in OPERATIONS.values())))


def _problem(status: int, schemas: Schemas) -> Json:
    title = HTTPStatus(status).phrase
    return {
        "description": f"{title}.",
        "headers": {name: _ref("headers", name) for name in (*_HEADERS_OF.get(status, ()), REQUEST_ID)},
        "content": {PROBLEM: {"schema": schemas.of(Problem)}},
    }


def _ref(kind: str, name: str) -> Json:
    return {"$ref": f"#/components/{kind}/{name}"}
