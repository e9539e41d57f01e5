"""Handlers of the first contract, and their routes."""

from collections import OrderedDict
from collections.abc import AsyncIterator
from typing import Final

import msgspec
from aiohttp import web

from crawler.core.errors import TaskNotFound
from crawler.core.results import ProbeResult
from crawler.core.tasks import Task
from crawler.formats.url_lists import open_reader
from crawler.registry import Registry
from crawler.server.app_keys import QUOTAS, REGISTRY, SERVICE_OPTIONS, TASK_MANAGER
from crawler.server.first_contract.records import FirstContractResult
from crawler.server.http.request_body import read_chunks, read_lines
from crawler.server.http.responses import batch_chunks, json_response, stream_response
from crawler.server.http.routing import SUBMIT_PATH, SUBMIT_ROUTE
from crawler.server.middleware.auth import owner_of, task_of, tasks_of

__all__ = ["FIRST_ROUTES"]

_DUPLICATE_WINDOW: Final = 50_000  # results; those of one URL are at most this far apart


async def submit(request: web.Request) -> web.Response:
    """Submit a list of URLs, as JSON, as a new Task; the answer is its id."""
    app, owner = request.app, owner_of(request)
    with app[QUOTAS].reserve_task(owner) as count_lines:
        lines = read_lines(read_chunks(request, app[SERVICE_OPTIONS].max_body), open_reader("json"), count_lines)
        task = await app[TASK_MANAGER].submit(lines, owner=owner)
    return json_response({"task_id": task.id}, headers=app[QUOTAS].headers(owner))


async def show_tasks(request: web.Request) -> web.StreamResponse:
    """All Tasks with their results."""
    registry = request.app[REGISTRY]

    async def parts() -> AsyncIterator[bytes]:
        separator = b"{"
        for task in await tasks_of(request):
            try:
                written = _write_task(registry, task)
                first = await anext(written)
            except TaskNotFound:  # deleted while the Tasks before it were sent
                continue
            yield separator + msgspec.json.encode(task.id) + b":" + first
            async for part in written:
                yield part
            separator = b","
        yield b"{}" if separator == b"{" else b"}"

    return await stream_response(request, batch_chunks(parts()))


async def show_task(request: web.Request) -> web.StreamResponse:
    """One Task with its results."""
    written = _write_task(request.app[REGISTRY], await task_of(request))
    return await stream_response(request, batch_chunks(written))


async def delete_task(request: web.Request) -> web.Response:
    """Stop a Task and delete it."""
    await request.app[TASK_MANAGER].delete(await task_of(request))
    return web.Response(status=204)


FIRST_ROUTES: Final = [
    web.post(SUBMIT_PATH, submit, name=SUBMIT_ROUTE),
    web.get("/tasks", show_tasks),
    web.get("/tasks/{task_id}", show_task),
    web.delete("/tasks/{task_id}", delete_task),
]


def _write_task(registry: Registry, task: Task) -> AsyncIterator[bytes]:
    """Return the JSON of a Task, in parts. After the first part, a deletion of the Task waits for the last."""
    return _write_results(task.status, registry.results(task.id))


async def _write_results(status: str, results: AsyncIterator[ProbeResult]) -> AsyncIterator[bytes]:
    result = await anext(results, None)  # before the first part: it raises if the Task has been deleted
    yield b'{"status":' + msgspec.json.encode(status) + b',"result":{'
    recent: OrderedDict[str, None] = OrderedDict()  # URLs: one that was submitted twice has two results, but one key
    comma = b""
    while result is not None:
        if result.url not in recent:
            recent[result.url] = None
            if len(recent) > _DUPLICATE_WINDOW:
                recent.popitem(last=False)
            yield comma + msgspec.json.encode(result.url) + b":" + msgspec.json.encode(FirstContractResult.of(result))
            comma = b","
        result = await anext(results, None)
    yield b"}}"
