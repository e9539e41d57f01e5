"""The API as an OpenAPI 3.1 document (https://spec.openapis.org/oas/v3.1.1)."""

import inspect
from collections.abc import Iterator, Mapping
from functools import cached_property
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web

from crawler.core.options import VERSION
from crawler.server.access import OPEN_ROUTES
from crawler.server.api.json_schema import Schemas
from crawler.server.api.operation import Media, Operation, Reply
from crawler.server.app_keys import AUTHORIZER, OPTIONS
from crawler.server.http.problem import PROBLEM_TYPE, Problem
from crawler.server.http.responses import json_response
from crawler.server.http.routing import mount_path
from crawler.server.middleware.access_log import REQUEST_ID

__all__ = ["DOCUMENT", "OpenApiDocument", "openapi"]

Json = dict[str, Any]

_COMMON_PROBLEMS: Final = frozenset({400, 401, 403, 421, 429, 500, 503, 508})  # statuses of errors of any request

# Headers of requests.
_PARAMETERS: Final[Mapping[str, Json]] = {
    "Idempotency-Key": {
        "description": "A name for this request: if it is repeated with the same name, no second Task is made.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
        "example": "nightly-2026-11-22",
    },
    "Last-Event-ID": {
        "description": "Continue after this event. Overrules last_event_id.",
        "schema": {"type": "string", "pattern": "^[0-9]{1,19}$"},
        "example": "0",
    },
}
# Headers of responses.
_HEADERS: Final[Mapping[str, Json]] = {
    "Location": {"description": "The path of the Task.", "schema": {"type": "string", "format": "uri-reference"}},
    "Link": {"description": "The next page, if there is one, as `next`.", "schema": {"type": "string"}},
    "Vary": {"description": "The headers of the request that the response depends on.", "schema": {"type": "string"}},
    "Idempotency-Replayed": {"description": "Always `true`.", "schema": {"type": "string"}},
    "Retry-After": {
        "description": "Seconds after which the request may succeed.",
        "schema": {"type": "integer", "minimum": 0},
    },
    "RateLimit-Policy": {"description": "The quotas.", "schema": {"type": "string"}},
    "RateLimit": {"description": "What is left of each quota.", "schema": {"type": "string"}},
    "WWW-Authenticate": {"description": "The kind of token that is needed.", "schema": {"type": "string"}},
    REQUEST_ID: {"description": "The id of this request in the log.", "schema": {"type": "string"}},
    "Accept-Encoding": {"description": "The supported encodings of a body.", "schema": {"type": "string"}},
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
    "description": "The id of a Task.",
    "schema": {"type": "string", "format": "uuid"},
}
_TAGS: Final[Mapping[str, str]] = {
    "tasks": "Lists of URLs, from submit to deletion.",
    "results": "Results of probes.",
    "service": "The service itself.",
    "first version": "The operations of the first version, which never change.",
}
_ABOUT: Final = (
    "Checks lists of URLs: whether each answers, with which status, how long each phase took, and why it failed. "
    f"Errors are `{PROBLEM_TYPE}`. Bodies may be compressed with gzip, if their Content-Encoding says so."
)


class OpenApiDocument:
    """The document of one application, made when it is first asked for: by then the application may be mounted.

    Args:
        app: Has the routes.
        operations: Describes the operations, by method and path.
    """

    def __init__(self, app: web.Application, operations: Mapping[tuple[str, str], Operation]) -> None:
        self._app = app
        self.operations = operations

    @cached_property
    def content(self) -> Json:
        """The document, as plain values."""
        schemas = Schemas(self.operations.values(), self._app[OPTIONS])
        paths: Json = {}
        for method, path, summary in self._routes():
            if operation := self.operations.get((method, path)):
                described = {"summary": summary, **self._describe(operation, path, schemas)}
                paths.setdefault(path, {})[method.lower()] = described
        statuses = _COMMON_PROBLEMS.union(*(operation.problems for operation in self.operations.values()))
        without_token: list[Json] = [] if self._app[AUTHORIZER].has_tokens else [{}]
        return {
            "openapi": "3.1.1",
            "info": {"title": "crawler", "version": VERSION, "description": _ABOUT, "license": {"name": "MIT"}},
            "servers": [{"url": "."}],  # relative to this document
            "security": [*without_token, {"token": []}],
            "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
            "paths": paths,
            "components": {
                "schemas": schemas.components,
                "headers": _HEADERS,
                "parameters": {name: {"name": name, "in": "header"} | each for name, each in _PARAMETERS.items()},
                "responses": {str(status): _describe_problem(status, schemas) for status in sorted(statuses)},
                "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            },
        }

    def _routes(self) -> Iterator[tuple[str, str, str]]:
        """Yield the method and path of each route, without the path of the mount, and its handler's docstring."""
        mount = mount_path(self._app)
        for route in self._app.router.routes():
            if route.resource is not None:
                summary = (inspect.getdoc(route.handler) or "").partition("\n")[0]
                yield route.method, route.resource.canonical.removeprefix(mount), summary

    def _describe(self, operation: Operation, path: str, schemas: Schemas) -> Json:
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
            content = _describe_content(operation.body, schemas)
            described["requestBody"] = {"required": operation.needs_body, "content": content}
        if path in OPEN_ROUTES:
            described["security"] = []
        statuses = sorted(operation.problems | _COMMON_PROBLEMS)
        problems = {str(status): _ref("responses", str(status)) for status in statuses}
        replies = {str(status): self._describe_reply(reply, schemas) for status, reply in operation.replies.items()}
        return {**described, "responses": {**problems, **replies}}

    def _describe_reply(self, reply: Reply, schemas: Schemas) -> Json:
        headers = {name: _ref("headers", name) for name in (*reply.headers, REQUEST_ID)}
        described: Json = {"description": reply.meaning, "headers": headers}
        if reply.content:
            described["content"] = _describe_content(reply.content, schemas)
        if reply.task_id_at:
            parameters = {"task_id": f"$response.body#{reply.task_id_at}"}
            described["links"] = {
                operation.id: {"operationId": operation.id, "parameters": parameters}
                for (_, path), operation in self.operations.items()
                if "{task_id}" in path
            }
        return described


DOCUMENT: Final = web.AppKey("DOCUMENT", OpenApiDocument)


async def openapi(request: web.Request) -> web.Response:
    """The OpenAPI document of the API."""
    return json_response(request.app[DOCUMENT].content)


def _describe_content(content: Mapping[str, Media], schemas: Schemas) -> Json:
    described: Json = {}
    for media_type, media in content.items():
        described[media_type] = {} if media.type is None else {"schema": schemas.of(media.type)}
        if media.example is not None:
            described[media_type]["example"] = media.example
    return described


def _describe_problem(status: int, schemas: Schemas) -> Json:
    title = HTTPStatus(status).phrase
    return {
        "description": f"{title}.",
        "headers": {name: _ref("headers", name) for name in (*_HEADERS_OF.get(status, ()), REQUEST_ID)},
        "content": {PROBLEM_TYPE: {"schema": schemas.of(Problem)}},
    }


def _ref(kind: str, name: str) -> Json:
    return {"$ref": f"#/components/{kind}/{name}"}
