"""Queries and headers of requests, validated into records."""

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from aiohttp import hdrs, web

from crawler.core.errors import InputError, read_validation_error
from crawler.core.options import Options
from crawler.core.task_options import apply_task_options
from crawler.server.middleware.proxy_headers import path_prefix

__all__ = ["choose_options", "next_page_header", "read_query", "single_header", "split_query"]

T = TypeVar("T", bound=msgspec.Struct)


def read_query(request: web.Request, type_: type[T]) -> T:
    """Return the query, validated.

    Raises:
        InputError: A parameter is unknown, wrong or given twice; `place` is its name.
    """
    query, others = split_query(request, type_)
    for name in others:
        raise InputError("unknown parameter", name)
    return query


def split_query(request: web.Request, type_: type[T]) -> tuple[T, dict[str, str]]:
    """Return the query, validated; and its other parameters, which are options, with a line for each value.

    Raises:
        InputError: A parameter of the query is wrong or given twice; `place` is its name.
    """
    own: dict[str, str] = {}
    others: dict[str, str] = {}
    for name in request.query:
        values = request.query.getall(name)
        if name not in type_.__struct_fields__:
            others[name] = "\n".join(values)
        elif len(values) > 1:
            raise InputError("given twice", name)
        else:
            own[name] = values[0]
    try:
        query = msgspec.convert(own, type_, strict=False)
    except msgspec.ValidationError as error:
        message, place = read_validation_error(error)
        raise InputError(message, place.removeprefix("$.") or "query") from None
    for name in own:
        if getattr(query, name) is None:  # msgspec takes the text "null" for null
            raise InputError("null is not a value", name)
    return query, others


def choose_options(options: Options, query: Mapping[str, str], body: Mapping[str, Any]) -> Options:
    """Return the options of a Task: those of the service, changed by the query and then by the body.

    Raises:
        OptionError: An option is unknown or wrong, or a Task may not set it; `place` is its name.
    """
    chosen = apply_task_options(options, query, strict=False)
    return apply_task_options(options, {name: getattr(chosen, name) for name in query} | dict(body)) if body else chosen


def single_header(request: web.Request, name: str) -> str | None:
    """Return a header that must not be repeated.

    Raises:
        InputError: The header is given twice.
    """
    values = request.headers.getall(name, [])
    if len(values) > 1:
        raise InputError("given twice", name)
    return values[0] if values else None


def next_page_header(request: web.Request, cursor: str | None) -> dict[str, str]:
    """Return the Link header to the page at a cursor; empty if there is none."""
    if cursor is None:
        return {}
    return {hdrs.LINK: f'<{path_prefix(request)}{request.rel_url.update_query(cursor=cursor)}>; rel="next"'}
