"""The operation that follows a Task by server-sent events.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

import msgspec
from aiohttp import web

from crawler.core.errors import InputError, TaskNotFound
from crawler.core.tasks import Task
from crawler.registry import STREAM_BYTES
from crawler.server.api.params import read_query, single_header
from crawler.server.api.schemas import EventsQuery
from crawler.server.api.task_view import progress_of, summary_of
from crawler.server.app_keys import REGISTRY, SETTINGS, TASK_MANAGER
from crawler.server.http.responses import stream_response
from crawler.server.middleware.auth import task_of

__all__ = ["events"]

_LAST_EVENT_ID: Final = "Last-Event-ID"
_MAX_ID_DIGITS: Final = 19
_PAGE_RESULTS: Final = 200  # results sent at once
_HEADERS: Final = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # the latter is for nginx


async def events(request: web.Request) -> web.StreamResponse:
    """A Task's results and progress, as they happen."""
    query, task = read_query(request, EventsQuery), await task_of(request)
    position = _last_event_id(request, query)
    if position > task.counts.done:
        raise InputError("no event has this id", _LAST_EVENT_ID)
    chunks = _write_events(request, task, position, query.results)
    return await stream_response(request, chunks, "text/event-stream", _HEADERS)


def _last_event_id(request: web.Request, query: EventsQuery) -> int:
    """Return the last event that the client has seen. A browser adds the header to the same URL: it is newer."""
    header = single_header(request, _LAST_EVENT_ID)
    if header is None:
        return query.last_event_id
    if not (header.isascii() and header.isdigit() and len(header) <= _MAX_ID_DIGITS):
        raise InputError("was not issued by this service", _LAST_EVENT_ID)
    return int(header)


async def _write_events(
    request: web.Request, task: Task, position: int, wants_results: bool
) -> AsyncGenerator[bytes, None]:
    """Yield the events after a position, in chunks.

    Between reading the Task's state and waiting for its change, nothing else may run: so there is no `await` there.
    """
    manager, registry, settings = request.app[TASK_MANAGER], request.app[REGISTRY], request.app[SETTINGS]
    now = asyncio.get_running_loop().time
    sent_done, progress_at, heartbeat_at = -1, now(), now() + settings.heartbeat_seconds
    try:
        while not manager.is_stopping:
            if wants_results and position < task.counts.done:
                page = await registry.page(task.id, position, _PAGE_RESULTS, max_bytes=STREAM_BYTES)
                found = [_write_event("result", each, id_) for id_, each in enumerate(page.results, position + 1)]
                position, heartbeat_at = page.next, now() + settings.heartbeat_seconds
                chunk = [b"".join(found)]
                del page, found  # a slow client keeps its text waiting, and not the records
                yield chunk.pop()
            elif task.status != "running":
                yield _write_event("end", summary_of(request, task))
                return
            elif task.counts.done != sent_done and now() >= progress_at:
                sent_done, progress_at = task.counts.done, now() + settings.progress_seconds
                heartbeat_at = now() + settings.heartbeat_seconds
                yield _write_event("progress", progress_of(request, task))
            elif now() >= heartbeat_at:
                heartbeat_at = now() + settings.heartbeat_seconds
                yield b":\n\n"
            else:
                until = heartbeat_at if task.counts.done == sent_done else min(heartbeat_at, progress_at)
                try:
                    async with asyncio.timeout(until - now()):
                        await registry.wait_for_change(task.id)
                except TimeoutError:
                    pass
    except TaskNotFound:  # the Task was deleted: the stream ends without an event for the end
        return


def _write_event(name: str, data: object, id_: int | None = None) -> bytes:
    id_line = b"" if id_ is None else b"id: %d\n" % id_
    return b"event: %s\n%sdata: %s\n\n" % (name.encode(), id_line, msgspec.json.encode(data))
