"""The records that describe the operations of the API; the OpenAPI document is made from them."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

from crawler.server.api.schemas import Nothing

__all__ = ["BODY_PROBLEMS", "DELETED", "JSON_TYPE", "QUOTA_HEADERS", "STORE_PROBLEMS", "Media", "Operation", "Reply"]

JSON_TYPE: Final = "application/json"


class Media(NamedTuple):
    """Content of one media type: an example, and its type, or None if no schema can describe it."""

    example: Any
    type: Any = str


class Reply(NamedTuple):
    """A response that is no error.

    Attributes:
        meaning: What it says.
        content: Its content by media type.
        headers: Names of the document's components.
        task_id_at: JSON pointer to the id of a Task in its body; empty if there is none.
    """

    meaning: str
    content: Mapping[str, Media] = {}
    headers: tuple[str, ...] = ()
    task_id_at: str = ""


class Operation(NamedTuple):
    """A method on a path: what it accepts, and what it replies.

    Attributes:
        id: Its name for programs.
        tag: The group that the document shows it in.
        replies: Responses by status. An error is one of them if its body has more members than other errors.
        problems: Statuses of errors, besides those of any request.
        query: A struct with the parameters of the query.
        takes_options: Whether the query may have options too.
        headers: Parameters in headers, by names of the document's components.
        body: The request's content by media type.
        needs_body: Whether the body is required.
        names: The values that `{name}` in the path can have.
    """

    id: str
    tag: str
    replies: Mapping[int, Reply]
    problems: frozenset[int] = frozenset()
    query: type[msgspec.Struct] = Nothing
    takes_options: bool = False
    headers: tuple[str, ...] = ()
    body: Mapping[str, Media] = {}
    needs_body: bool = False
    names: tuple[str, ...] = ()


# What several operations share.
STORE_PROBLEMS: Final = frozenset({507})
BODY_PROBLEMS: Final = frozenset({400, 408, 413, 415, 422}) | STORE_PROBLEMS
QUOTA_HEADERS: Final = ("RateLimit", "RateLimit-Policy")
DELETED: Final = Reply("The Task is deleted.")
