"""Tasks: all of them, one of them, and their end."""

import asyncio
import base64
import binascii
import heapq
from contextlib import suppress
from typing import Final

import msgspec
from aiohttp import web

from crawler.core.errors import InputError
from crawler.core.tasks import Task
from crawler.server.api.params import next_link, read_query
from crawler.server.api.schemas import Nothing, TaskPage, TaskQuery, TasksQuery
from crawler.server.api.task_view import summary_of
from crawler.server.http.responses import json_answer
from crawler.server.middleware.auth import task_of, tasks_of
from crawler.server.middleware.request_metrics import waiting
from crawler.server.task_manager import TASK_MANAGER, TaskManager

__all__ = ["cancel", "delete", "task", "tasks"]

Place = tuple[float, str]  # when a Task was created, and its id: where it stands among the others

_PLACE: Final[msgspec.json.Decoder[Place]] = msgspec.json.Decoder(Place)


async def tasks(request: web.Request) -> web.Response:
    """Summaries of tasks, newest first."""
    query = read_query(request, TasksQuery)
    before = None if query.cursor is None else _from_cursor(query.cursor)
    found = heapq.nlargest(
        query.limit + 1,
        (
            task
            for task in await tasks_of(request)
            if query.status in (None, task.status)
            and query.label in (None, task.label)
            and (before is None or _place(task) < before)
        ),
        key=_place,
    )
    page = found[: query.limit]
    cursor = _to_cursor(_place(page[-1])) if len(found) > len(page) else None
    content = TaskPage([summary_of(request, task) for task in page], cursor)
    return json_answer(content, headers=next_link(request, cursor))


async def task(request: web.Request) -> web.Response:
    """A task's summary."""
    wait, task = read_query(request, TaskQuery).wait, await task_of(request)
    if wait:
        with suppress(TimeoutError), waiting(request):
            async with asyncio.timeout(wait):
                await _end(request.app[TASK_MANAGER], task)
    return json_answer(summary_of(request, task))


async def cancel(request: web.Request) -> web.Response:
    """Stop a task; the results that it has stay."""
    read_query(request, Nothing)
    task = await task_of(request)
    await request.app[TASK_MANAGER].cancel(task)
    return json_answer(summary_of(request, task))


async def delete(request: web.Request) -> web.Response:
    """Stop a task and forget it."""
    read_query(request, Nothing)
    await request.app[TASK_MANAGER].delete(await task_of(request))
    return web.Response(status=204)


async def _end(state: TaskManager, task: Task) -> None:
    """Wait until a Task has ended, or the service wants to."""
    while task.status == "running" and not state.is_stopping:
        await state.registry.wait_for_change(task.id)


def _place(task: Task) -> Place:
    return task.created, task.id


def _to_cursor(place: Place) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode().rstrip("=")


def _from_cursor(cursor: str) -> Place:
    padded = cursor + "=" * (-len(cursor) % 4)
    try:
        return _PLACE.decode(base64.b64decode(padded, b"-_", validate=True))
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        raise InputError("is none of ours", "cursor") from None
