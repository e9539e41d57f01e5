"""Queries and headers of requests, read into what handlers want of them."""

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from crawler.core.errors import InputError, read_validation_error
from crawler.core.options import Options
from crawler.server.middleware.proxy_headers import prefix
from crawler.server.task_manager import TASK_MANAGER

__all__ = ["choose", "next_link", "only_header", "read_query", "split_query"]

T = TypeVar("T", bound=msgspec.Struct)


def read_query(request: web.Request, type_: type[T]) -> T:
    """The query, validated.

    Raises:
        InputError: A parameter is unknown, wrong or given twice; `place` is its name.
    """
    query, others = split_query(request, type_)
    for name in others:
        raise InputError("there is no such parameter", name)
    return query


def split_query(request: web.Request, type_: type[T]) -> tuple[T, dict[str, str]]:
    """The query, validated, and what else is in it: options, of which each value has a line."""
    own: dict[str, str] = {}
    others: dict[str, str] = {}
    for name in request.query:
        values = request.query.getall(name)
        if name not in type_.__struct_fields__:
            others[name] = "\n".join(values)
        elif len(values) > 1:
            raise InputError("is given twice", name)
        else:
            own[name] = values[0]
    try:
        query = msgspec.convert(own, type_, strict=False)
    except msgspec.ValidationError as error:
        message, place = read_validation_error(error)
        raise InputError(message, place.removeprefix("$.") or "query") from None
    for name in own:
        if getattr(query, name) is None:  # msgspec takes the word null for null
            raise InputError("null is no value", name)
    return query, others


def choose(options: Options, query: Mapping[str, str], given: Mapping[str, Any]) -> Options:
    """The options of a batch: what a body gives overrules the query, name by name.

    Raises:
        OptionError: One is unknown, wrong or not to be chosen; `place` is its name.
    """
    chosen = options.with_task_options(query, strict=False)
    return options.with_task_options({name: getattr(chosen, name) for name in query} | dict(given)) if given else chosen


def only_header(request: web.Request, name: str) -> str | None:
    """A header that makes no sense twice.

    Raises:
        InputError: It is there twice.
    """
    values = request.headers.getall(name, [])
    if len(values) > 1:
        raise InputError("is given twice", name)
    return values[0] if values else None


def next_link(request: web.Request, cursor: str | None) -> dict[str, str]:
    """The header that leads to the page at this cursor."""
    if cursor is None:
        return {}
    before = prefix(request, request.app[TASK_MANAGER].service)
    return {"Link": f'<{before}{request.rel_url.update_query(cursor=cursor)}>; rel="next"'}
