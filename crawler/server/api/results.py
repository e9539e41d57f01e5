"""A Task's results: in pages, or all as one stream; as JSON, NDJSON or CSV."""

import io
from collections.abc import AsyncIterator, Iterable
from typing import Final, Literal

import msgspec
from aiohttp import web

from crawler.core.errors import ERROR_TYPES, InputError
from crawler.core.results import ProbeResult
from crawler.core.tasks import ResultFilter, Task
from crawler.core.urls import parse_host
from crawler.formats.result_writers import open_writer
from crawler.runtime.iteration import iterate
from crawler.server.api.content_negotiation import preferred
from crawler.server.api.params import next_link, read_query
from crawler.server.api.schemas import ResultPage, ResultsQuery
from crawler.server.http.responses import gathered, json_answer, stream
from crawler.server.middleware.auth import task_of
from crawler.server.task_manager import TASK_MANAGER

__all__ = ["results"]

Format = Literal["json", "ndjson", "csv"]

# What is offered; the first to who has no wish.
_OFFERS: Final[dict[str, Format]] = {"application/json": "json", "application/x-ndjson": "ndjson", "text/csv": "csv"}
_TYPES: Final = {format_: media_type for media_type, format_ in _OFFERS.items()} | {"csv": "text/csv; charset=utf-8"}
_VARY: Final = {"Vary": "Accept"}


async def results(request: web.Request) -> web.StreamResponse:
    """A task's results, in the order in which they were found."""
    query = read_query(request, ResultsQuery)
    task, format_, where = await task_of(request), _format(request, query), _where(query)
    registry = request.app[TASK_MANAGER].registry
    if query.limit is None:
        if query.cursor is not None:
            raise InputError("goes with a limit only", "cursor")
        found = registry.results(task.id, where)
        parts = _in_json(task, found) if format_ == "json" else _in_rows(format_, found)
        return await stream(request, gathered(parts), _TYPES[format_], _VARY)
    page = await registry.page(task.id, _place(query.cursor, task), query.limit, where)
    cursor = _cursor(page.next, task)
    headers = {**_VARY, **next_link(request, cursor)}
    if format_ == "json":
        return json_answer(ResultPage(list(page.results), cursor), headers=headers)
    rows = b"".join([row async for row in _in_rows(format_, page.results)])
    return web.Response(body=rows, headers={"Content-Type": _TYPES[format_], **headers})


def _format(request: web.Request, query: ResultsQuery) -> Format:
    if query.format is not None:
        return query.format
    accept = ",".join(request.headers.getall("Accept", []))
    if (format_ := preferred(accept, _OFFERS)) is None:
        raise web.HTTPNotAcceptable(text=f"Accept: there is only {', '.join(_OFFERS)}")
    return format_


def _where(query: ResultsQuery) -> ResultFilter:
    if query.error is not None and query.error not in ERROR_TYPES:
        raise InputError("there is no such error type", "error")
    host = None if query.host is None else parse_host(query.host, "host")
    return ResultFilter(outcome=query.outcome, status=query.status, error=query.error, host=host)


def _place(cursor: str | None, task: Task) -> int:
    if cursor is None:
        return 0
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 20 and int(cursor) <= task.counts.done):
        raise InputError("is none of ours", "cursor")
    return int(cursor)


def _cursor(place: int, task: Task) -> str | None:
    """Where to go on; nowhere once all is read and nothing can come any more."""
    return None if place >= task.counts.done and task.status != "running" else str(place)


async def _in_json(task: Task, results: AsyncIterator[ProbeResult]) -> AsyncIterator[bytes]:
    """What a `ResultPage` of all of them is as JSON."""
    encode = msgspec.json.Encoder().encode
    yield b'{"results":['
    comma = b""
    async for result in results:
        yield comma + encode(result)
        comma = b","
    yield b'],"next":' + encode(_cursor(task.counts.done, task)) + b"}"


async def _in_rows(
    format_: Literal["ndjson", "csv"], results: AsyncIterator[ProbeResult] | Iterable[ProbeResult]
) -> AsyncIterator[bytes]:
    text = io.StringIO(newline="")
    writer = open_writer(format_, text)  # may write a header
    async for result in iterate(results):
        writer.write(result)
        yield text.getvalue().encode()
        text.seek(0)
        text.truncate()
    yield text.getvalue().encode()
