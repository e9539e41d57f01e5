"""Error responses: problem details of RFC 9457, as `application/problem+json`."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Any, Final, Self

import msgspec
from aiohttp import web
from msgspec import Meta

__all__ = ["PROBLEM_TYPE", "Problem", "problem_response"]

PROBLEM_TYPE: Final = "application/problem+json"


class Problem(msgspec.Struct):
    """What is wrong, in the form of RFC 9457."""

    type: str
    title: Annotated[str, Meta(description="The status in words.")]
    status: int
    detail: Annotated[str, Meta(description="What is wrong, and where.")]

    @classmethod
    def of(cls, status: int, detail: str, **members: Any) -> Self:
        """Return the problem of an HTTP status; `members` are those that a subclass adds."""
        return cls(type="about:blank", title=HTTPStatus(status).phrase, status=int(status), detail=detail, **members)

    def encode(self) -> bytes:
        """Return the body of the response."""
        return msgspec.json.encode(self) + b"\n"


def problem_response(problem: Problem, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return the response with a problem."""
    return web.Response(status=problem.status, body=problem.encode(), content_type=PROBLEM_TYPE, headers=headers)
