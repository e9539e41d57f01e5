"""The operation that shows a Task's results: in pages, or all as one stream; as JSON, NDJSON or CSV."""

import io
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Final

import msgspec
from aiohttp import web

from crawler.core.error_types import ERROR_TYPES
from crawler.core.errors import InputError
from crawler.core.results import ProbeResult
from crawler.core.tasks import ResultFilter, Task
from crawler.core.urls import parse_host
from crawler.formats.result_writers import ResultFormat, open_writer
from crawler.runtime.iteration import iterate
from crawler.runtime.turns import Turns
from crawler.server.api.content_negotiation import choose_media_type
from crawler.server.api.params import next_page_header, read_query
from crawler.server.api.schemas import ApiFormat, ResultPage, ResultsQuery
from crawler.server.app_keys import REGISTRY
from crawler.server.http.responses import batch_chunks, json_response, stream_response
from crawler.server.middleware.auth import task_of

__all__ = ["results"]

# The first format is the default.
_FORMATS: Final[dict[str, ApiFormat]] = {
    "application/json": "json",
    "application/x-ndjson": "ndjson",
    "text/csv": "csv",
}
_MEDIA_TYPES: Final = {format_: type_ for type_, format_ in _FORMATS.items()} | {"csv": "text/csv; charset=utf-8"}
_VARY: Final = {"Vary": "Accept"}
_MAX_CURSOR_DIGITS: Final = 19


async def results(request: web.Request) -> web.StreamResponse:
    """A Task's results, in the order in which they were found."""
    query = read_query(request, ResultsQuery)
    task, format_, where = await task_of(request), _choose_format(request, query), _filter_of(query)
    registry = request.app[REGISTRY]
    if query.limit is None:
        if query.cursor is not None:
            raise InputError("needs a limit", "cursor")
        found = registry.pages(task.id, where)
        parts = _write_json(task, found) if format_ == "json" else _write_rows(format_, found)
        return await stream_response(request, batch_chunks(parts), _MEDIA_TYPES[format_], _VARY)
    page = await registry.page(task.id, _read_cursor(query.cursor, task), query.limit, where)
    cursor = _write_cursor(page.next, task)
    headers = {**_VARY, **next_page_header(request, cursor)}
    if format_ == "json":
        return json_response(ResultPage(list(page.results), cursor), headers=headers)
    body = b"".join([chunk async for chunk in batch_chunks(_write_rows(format_, [page.results]))])
    return web.Response(body=body, headers={"Content-Type": _MEDIA_TYPES[format_], **headers})


def _choose_format(request: web.Request, query: ResultsQuery) -> ApiFormat:
    if query.format is not None:
        return query.format
    accept = ",".join(request.headers.getall("Accept", []))
    if (format_ := choose_media_type(accept, _FORMATS)) is None:
        raise web.HTTPNotAcceptable(text=f"Accept: there is only {', '.join(_FORMATS)}")
    return format_


def _filter_of(query: ResultsQuery) -> ResultFilter:
    if query.error is not None and query.error not in ERROR_TYPES:
        raise InputError("unknown error type", "error")
    host = None if query.host is None else parse_host(query.host, "host")
    return ResultFilter(outcome=query.outcome, status=query.status, error=query.error, host=host)


def _read_cursor(cursor: str | None, task: Task) -> int:
    """Return the position of a cursor in the Task's results."""
    if cursor is None:
        return 0
    is_number = cursor.isascii() and cursor.isdigit() and len(cursor) <= _MAX_CURSOR_DIGITS
    if not is_number or int(cursor) > task.counts.done:
        raise InputError("was not issued by this service", "cursor")
    return int(cursor)


def _write_cursor(position: int, task: Task) -> str | None:
    """Return the cursor of a position; None if all results have been read, and no more can come."""
    return None if position >= task.counts.done and task.status != "running" else str(position)


async def _write_json(task: Task, found: AsyncIterator[Sequence[ProbeResult]]) -> AsyncIterator[bytes]:
    """Yield the JSON of a `ResultPage` with all results, in parts."""
    encode = msgspec.json.Encoder().encode
    yield b'{"results":['
    comma = b""
    async for results in found:
        if results:
            part = [comma + encode(results)[1:-1]]  # without its brackets
            comma = b","
            del results  # a slow client keeps its text waiting, and not the records
            yield part.pop()
    yield b'],"next":' + encode(_write_cursor(task.counts.done, task)) + b"}"


async def _write_rows(
    format_: ResultFormat, found: AsyncIterator[Sequence[ProbeResult]] | Iterable[Sequence[ProbeResult]]
) -> AsyncIterator[bytes]:
    text = io.StringIO(newline="")
    writer = open_writer(format_, text)  # may write a header
    turns = Turns()
    async for results in iterate(found):
        for result in results:
            writer.write(result)
            if turns.is_over:
                await turns.next()
        del results  # a slow client keeps its text waiting, and not the records
        yield _take_text(text)
    writer.close()
    yield _take_text(text)


def _take_text(text: io.StringIO) -> bytes:
    taken = text.getvalue().encode()
    text.seek(0)
    text.truncate()
    return taken
