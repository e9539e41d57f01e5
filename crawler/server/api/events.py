"""A Task as it goes on: server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

import msgspec
from aiohttp import web

from crawler.core.errors import InputError, TaskNotFound
from crawler.core.tasks import Task
from crawler.server.api.params import only_header, read_query
from crawler.server.api.schemas import EventsQuery
from crawler.server.api.task_view import progress_of, summary_of
from crawler.server.http.responses import stream
from crawler.server.middleware.auth import task_of
from crawler.server.task_manager import TASK_MANAGER

__all__ = ["events"]

_HEADER: Final = "Last-Event-ID"
_PAGE: Final = 200  # results that are sent at once
_PROGRESS: Final = 1.0  # seconds from one progress to the next, at least
_HEARTBEAT: Final = 15.0  # seconds of silence, after which proxies may think that nobody is there
_HEADERS: Final = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # the latter is nginx's


async def events(request: web.Request) -> web.StreamResponse:
    """A task's results and progress, as they come."""
    query, task = read_query(request, EventsQuery), await task_of(request)
    place = _last(request, query)
    if place > task.counts.done:
        raise InputError("there was no such event", _HEADER)
    return await stream(request, _events(request, task, place, query.results), "text/event-stream", _HEADERS)


def _last(request: web.Request, query: EventsQuery) -> int:
    """The event that the client has seen last. Of the two, the header is later: a browser sends it to the same URL."""
    header = only_header(request, _HEADER)
    if header is None:
        return query.last_event_id
    if not (header.isascii() and header.isdigit() and len(header) < 20):
        raise InputError("is none of ours", _HEADER)
    return int(header)


async def _events(request: web.Request, task: Task, place: int, wants_results: bool) -> AsyncGenerator[bytes, None]:
    """What to send, in pieces. From looking at the Task to waiting for its change, nothing else may run."""
    state, now = request.app[TASK_MANAGER], asyncio.get_running_loop().time
    shown, due, beat = -1, now(), now() + _HEARTBEAT  # what progress said; when it, or a sign of life, is due
    try:
        while not state.is_stopping:
            if wants_results and place < task.counts.done:
                page = await state.registry.page(task.id, place, _PAGE)
                yield b"".join(_event("result", each, id_) for id_, each in enumerate(page.results, place + 1))
                place, beat = page.next, now() + _HEARTBEAT
            elif task.status != "running":
                yield _event("end", summary_of(request, task))
                return
            elif task.counts.done != shown and now() >= due:
                shown, due, beat = task.counts.done, now() + _PROGRESS, now() + _HEARTBEAT
                yield _event("progress", progress_of(state, task))
            elif now() >= beat:
                beat = now() + _HEARTBEAT
                yield b":\n\n"
            else:
                until = beat if task.counts.done == shown else min(beat, due)
                try:
                    async with asyncio.timeout(until - now()):
                        await state.registry.wait_for_change(task.id)
                except TimeoutError:
                    pass
    except TaskNotFound:  # it was deleted, and so ends without an end
        return


def _event(name: str, data: object, id_: int | None = None) -> bytes:
    number = b"" if id_ is None else b"id: %d\n" % id_
    return b"event: %s\n%sdata: %s\n\n" % (name.encode(), number, msgspec.json.encode(data))
