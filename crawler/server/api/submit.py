"""New Tasks: of a batch in any format, or of what failed in an earlier one."""

import hashlib
from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec
from aiohttp import web

from crawler.core.errors import IdempotencyKeyTaken, InputError, read_validation_error
from crawler.core.options import task_options
from crawler.core.results import Outcome
from crawler.core.tasks import IdempotencyKey, ResultFilter, Task, Webhook
from crawler.formats.json_batch import BatchReader
from crawler.formats.url_lists import InputFormat, open_reader
from crawler.registry import Registry
from crawler.runtime.logs import add_log_fields
from crawler.server.api.params import choose, only_header, read_query, split_query
from crawler.server.api.schemas import Choices, Nothing, SubmitQuery, WebhookChoice
from crawler.server.api.task_view import location, summary_of
from crawler.server.background.webhooks import new_webhook
from crawler.server.http.request_body import chunks, lines, read_json
from crawler.server.http.responses import json_answer
from crawler.server.middleware.auth import owner_of, task_of
from crawler.server.task_manager import TASK_MANAGER, TaskManager

__all__ = ["recheck", "submit"]

_FORMATS: Final[dict[str, InputFormat]] = {
    "application/json": "json",
    "text/plain": "text",
    "application/x-ndjson": "ndjson",
    "text/csv": "csv",
}
_KEY: Final = "Idempotency-Key"
_LONGEST_KEY: Final = 255
_SMALL: Final = 1024 * 1024  # bytes of a body that is read whole
_FAILURES: Final[tuple[Outcome, ...]] = ("http_error", "failed", "blocked")  # an invalid line stays so


async def submit(request: web.Request) -> web.Response:
    """Take a batch in and start work on it."""
    state = request.app[TASK_MANAGER]
    upload = _Upload(request, state)
    key = _key(request)
    if key is None:
        return _created(request, await upload.into_task())
    coming = (owner_of(request), key)  # a key is known to who chose it, and to nobody else
    if coming in state.coming:
        raise web.HTTPConflict(text=f"{_KEY}: the request with this key is still under way")
    if (task := await state.registry.find_by_key(*coming)) is not None:
        return await _replay(request, task, upload)
    state.coming.add(coming)
    try:
        return _created(request, await upload.into_task(key))
    except IdempotencyKeyTaken:
        raise web.HTTPConflict(text=f"{_KEY}: another request with this key was faster") from None
    finally:
        state.coming.discard(coming)


async def recheck(request: web.Request) -> web.Response:
    """A new task of those lines of a task that failed."""
    read_query(request, Nothing)
    state, task = request.app[TASK_MANAGER], await task_of(request)
    given = await read_json(request, Choices, min(_SMALL, state.service.max_body))
    if task.status == "running":
        raise web.HTTPConflict(text=f"task {task.id} still runs")
    failed = sum(getattr(task.counts, outcome) for outcome in _FAILURES)
    if not failed:
        raise InputError(f"no line of task {task.id} failed")
    options = state.options.with_stored(task.options)  # what was chosen then, as far as it may be now
    options = choose(state.options, {}, task_options(options) | given.options)
    label, webhook = given.label or task.label, _webhook(given.webhook, state)
    owner = owner_of(request)
    with state.quotas.room(owner) as take:
        take(failed)
        lines = _failed(state.registry, task)
        task = await state.submit(lines, options, label=label, webhook=webhook, owner=owner)
    return _created(request, task)


class _Upload:
    """A batch on its way in. What its body says besides the URLs is known only when that has ended."""

    def __init__(self, request: web.Request, state: TaskManager) -> None:
        self._request = request
        self._state = state
        format_ = _format(request)
        self._query, self._choices = split_query(request, SubmitQuery)
        self._reader = open_reader(format_, self._query.column)
        self._options = choose(state.options, self._choices, {})  # what is wrong in the query is told at once
        url = self._query.webhook
        self._webhook = None if url is None else new_webhook(url, None, state.service, "webhook")
        self._digest = hashlib.blake2b(digest_size=32)
        for part in (request.headers.get("Content-Type", ""), request.query_string):
            self._digest.update(part.encode(errors="surrogateescape") + b"\n")

    async def into_task(self, key: str | None = None) -> Task:
        """Make it a Task, and start work on that."""

        def settle(task: Task) -> None:
            if isinstance(self._reader, BatchReader):
                self._settle(task, self._reader.other_members)
            if key is not None:
                task.idempotency = IdempotencyKey(key, self._digest.hexdigest())

        owner = owner_of(self._request)
        with self._state.quotas.room(owner) as take:
            found = lines(self._chunks(), self._reader, take)
            return await self._state.submit(
                found, self._options, finalize=settle, label=self._query.label, webhook=self._webhook, owner=owner
            )

    async def digest(self) -> str:
        """What it would be known by, had it been taken in."""
        async for _ in self._chunks():
            pass
        return self._digest.hexdigest()

    async def _chunks(self) -> AsyncIterator[bytes]:
        async for chunk in chunks(self._request, self._state.service.max_body):
            self._digest.update(chunk)
            yield chunk

    def _settle(self, task: Task, members: dict[str, Any]) -> None:
        """Set what the body chooses of a Task besides its lines; it overrules the query."""
        try:
            given = msgspec.convert(members, Choices)
        except msgspec.ValidationError as error:
            message, place = read_validation_error(error)
            raise InputError(message, place or "$") from None
        if given.options:
            task.options = choose(self._state.options, self._choices, given.options)
        task.label = given.label or task.label
        task.webhook = _webhook(given.webhook, self._state) or task.webhook


def _format(request: web.Request) -> InputFormat:
    format_ = _FORMATS.get(request.content_type)
    if format_ is None:
        raise web.HTTPUnsupportedMediaType(text=f"Content-Type: has to be one of {', '.join(_FORMATS)}")
    if (request.charset or "utf-8").lower() not in ("utf-8", "utf8", "us-ascii"):
        raise web.HTTPUnsupportedMediaType(text="Content-Type: only UTF-8 is read here")
    return format_


def _key(request: web.Request) -> str | None:
    key = only_header(request, _KEY)
    if key is not None and not (0 < len(key) <= _LONGEST_KEY and all("!" <= character <= "~" for character in key)):
        raise InputError(f"has to be 1 to {_LONGEST_KEY} visible ASCII characters", _KEY)
    return key


async def _replay(request: web.Request, task: Task, upload: _Upload) -> web.Response:
    """Answer a request that was answered before, or say that it is another one."""
    add_log_fields(task=task.id)
    if task.idempotency is None or await upload.digest() != task.idempotency.digest:
        raise web.HTTPConflict(text=f"{_KEY}: belongs to another request, which made task {task.id}")
    quotas = request.app[TASK_MANAGER].quotas.headers(task.owner)
    headers = {"Location": location(request, task), "Idempotency-Replayed": "true", **quotas}
    return json_answer(summary_of(request, task), headers=headers)


def _webhook(choice: WebhookChoice | None, state: TaskManager) -> Webhook | None:
    return None if choice is None else new_webhook(choice.url, choice.secret, state.service)


def _created(request: web.Request, task: Task) -> web.Response:
    headers = {"Location": location(request, task), **request.app[TASK_MANAGER].quotas.headers(task.owner)}
    return json_answer(summary_of(request, task), 201, headers)


async def _failed(registry: Registry, task: Task) -> AsyncIterator[str]:
    """The lines of a Task that may answer another time."""
    for outcome in _FAILURES:
        async for result in registry.results(task.id, ResultFilter(outcome=outcome)):
            yield result.url
