"""Operations on Tasks: list, show, cancel, delete."""

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
from crawler.runtime.turns import Turns
from crawler.server.api.params import next_page_header, read_query
from crawler.server.api.schemas import Nothing, TaskPage, TaskQuery, TasksQuery
from crawler.server.api.task_view import summary_of
from crawler.server.app_keys import REGISTRY, TASK_MANAGER
from crawler.server.http.presence import while_connected
from crawler.server.http.responses import json_response
from crawler.server.middleware.auth import task_of, tasks_of
from crawler.server.middleware.request_metrics import client_wait

__all__ = ["cancel", "delete", "show_task", "show_tasks"]

Position = tuple[float, str]  # of a Task in the list: when it was created, and its id

_POSITION: Final[msgspec.json.Decoder[Position]] = msgspec.json.Decoder(Position)


async def show_tasks(request: web.Request) -> web.Response:
    """Summaries of Tasks, newest first."""
    query = read_query(request, TasksQuery)
    before = None if query.cursor is None else _read_cursor(query.cursor)
    turns, wanted = Turns(), []  # there may be tens of thousands
    for task in await tasks_of(request):
        if (
            query.status in (None, task.status)
            and query.label in (None, task.label)
            and (before is None or _position(task) < before)
        ):
            wanted.append(task)
        if turns.is_over:
            await turns.next()
    found = heapq.nlargest(query.limit + 1, wanted, key=_position)
    page = found[: query.limit]
    cursor = _write_cursor(_position(page[-1])) if len(found) > len(page) else None
    content = TaskPage([], cursor)
    for task in page:
        content.tasks.append(summary_of(request, task))
        if turns.is_over:
            await turns.next()
    return json_response(content, headers=next_page_header(request, cursor))


async def show_task(request: web.Request) -> web.Response:
    """A Task's summary."""
    wait, task = read_query(request, TaskQuery).wait, await task_of(request)
    if wait:
        with suppress(TimeoutError), client_wait(request):
            async with asyncio.timeout(wait):
                await while_connected(request, _wait_for_end(request, task))
    return json_response(summary_of(request, task))


async def cancel(request: web.Request) -> web.Response:
    """Stop a Task; its results stay."""
    read_query(request, Nothing)
    task = await task_of(request)
    await request.app[TASK_MANAGER].cancel(task)
    return json_response(summary_of(request, task))


async def delete(request: web.Request) -> web.Response:
    """Stop a Task and delete it."""
    read_query(request, Nothing)
    await request.app[TASK_MANAGER].delete(await task_of(request))
    return web.Response(status=204)


async def _wait_for_end(request: web.Request, task: Task) -> None:
    """Wait until the Task has ended, or the service is stopping."""
    manager, registry = request.app[TASK_MANAGER], request.app[REGISTRY]
    while task.status == "running" and not manager.is_stopping:
        await registry.wait_for_change(task.id)


def _position(task: Task) -> Position:
    return task.created, task.id


def _write_cursor(position: Position) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(position)).decode().rstrip("=")


def _read_cursor(cursor: str) -> Position:
    padded = cursor + "=" * (-len(cursor) % 4)
    try:
        return _POSITION.decode(base64.b64decode(padded, b"-_", validate=True))
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        raise InputError("was not issued by this service", "cursor") from None
