"""Operations that make new Tasks: of a submitted list, or of the failures of an earlier Task."""

import hashlib
from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec
from aiohttp import hdrs, web

from crawler.core.errors import IdempotencyKeyTaken, InputError, read_validation_error
from crawler.core.results import Outcome
from crawler.core.service_options import ServiceOptions
from crawler.core.task_options import apply_stored_options, task_options
from crawler.core.tasks import IdempotencyKey, ResultFilter, Task, Webhook
from crawler.formats.json_batch import BatchReader
from crawler.formats.url_lists import InputFormat, open_reader
from crawler.registry import Registry
from crawler.runtime.logs import add_log_fields
from crawler.server.api.params import choose_options, read_query, single_header, split_query
from crawler.server.api.schemas import Choices, Nothing, SubmitQuery, WebhookChoice
from crawler.server.api.task_view import summary_of, task_path
from crawler.server.app_keys import KEYS_IN_PROGRESS, OPTIONS, QUOTAS, REGISTRY, SERVICE_OPTIONS, TASK_MANAGER
from crawler.server.background.webhooks import new_webhook
from crawler.server.http.request_body import read_chunks, read_json, read_lines
from crawler.server.http.responses import json_response
from crawler.server.middleware.auth import owner_of, task_of

__all__ = ["recheck", "submit"]

_FORMATS: Final[dict[str, InputFormat]] = {
    "application/json": "json",
    "text/plain": "text",
    "application/x-ndjson": "ndjson",
    "text/csv": "csv",
}
_CURLS_TYPE: Final = "application/x-www-form-urlencoded"
_KEY_HEADER: Final = "Idempotency-Key"
_MAX_KEY_CHARACTERS: Final = 255
_MAX_RECHECK_BYTES: Final = 1024 * 1024
_FAILURES: Final[tuple[Outcome, ...]] = ("http_error", "failed", "blocked")  # an invalid line cannot become valid


async def submit(request: web.Request) -> web.Response:
    """Submit a list of URLs, in any format, as a new Task; the answer is its summary."""
    upload, key = _Upload(request), _idempotency_key(request)
    if key is None:
        return _created(request, await upload.store())
    owner_key, in_progress = (owner_of(request), key), request.app[KEYS_IN_PROGRESS]  # each owner has its own keys
    if owner_key in in_progress:
        raise web.HTTPConflict(text=f"{_KEY_HEADER}: the request with this key is still in progress")
    if (task := await request.app[REGISTRY].find_by_key(*owner_key)) is not None:
        return await _replay(request, task, upload)
    in_progress.add(owner_key)
    try:
        return _created(request, await upload.store(key))
    except IdempotencyKeyTaken:
        raise web.HTTPConflict(text=f"{_KEY_HEADER}: another request with this key came first") from None
    finally:
        in_progress.discard(owner_key)


async def recheck(request: web.Request) -> web.Response:
    """Submit the lines of a Task that are `http_error`, `failed` or `blocked` as a new Task."""
    read_query(request, Nothing)
    app, task, owner = request.app, await task_of(request), owner_of(request)
    choices = await read_json(request, Choices, min(_MAX_RECHECK_BYTES, app[SERVICE_OPTIONS].max_body))
    if task.status == "running":
        raise web.HTTPConflict(text=f"Task {task.id} still runs")
    failed = sum(getattr(task.counts, outcome) for outcome in _FAILURES)
    if not failed:
        raise InputError(f"no line of Task {task.id} failed")
    stored = await app[REGISTRY].options(task.id)
    earlier = task_options(apply_stored_options(app[OPTIONS], stored))
    options = choose_options(app[OPTIONS], {}, earlier | choices.options)
    label, webhook = choices.label or task.label, _webhook_of(choices.webhook, app[SERVICE_OPTIONS])
    with app[QUOTAS].reserve_task(owner) as count_lines:
        await count_lines(failed, 0)
        lines = _failed_lines(app[REGISTRY], task)
        task = await app[TASK_MANAGER].submit(lines, options, label=label, webhook=webhook, owner=owner)
    return _created(request, task)


class _Upload:
    """A submitted list, whose body is still to come.

    Args:
        request: The request.

    Raises:
        InputError: The query is wrong.
        web.HTTPUnsupportedMediaType: The body has a format that is not supported.
    """

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self._options = request.app[OPTIONS]
        self._service = request.app[SERVICE_OPTIONS]
        format_ = _format_of(request)
        self._query, self._query_options = split_query(request, SubmitQuery)
        self._reader = open_reader(format_, self._query.column)
        self._task_options = choose_options(self._options, self._query_options, {})
        url = self._query.webhook
        self._webhook = None if url is None else new_webhook(url, None, self._service, "webhook")
        self._digest = hashlib.blake2b(digest_size=32)
        for part in (request.headers.get("Content-Type", ""), request.query_string):
            self._digest.update(part.encode(errors="surrogateescape") + b"\n")

    async def store(self, key: str | None = None) -> Task:
        """Read the body, store its lines as a Task, and start the Task."""

        def finalize(task: Task) -> None:
            if isinstance(self._reader, BatchReader):
                self._apply_members(task, self._reader.other_members)
            if key is not None:
                task.idempotency = IdempotencyKey(key, self._digest.hexdigest())

        app, owner = self._request.app, owner_of(self._request)
        with app[QUOTAS].reserve_task(owner) as count_lines:
            lines = read_lines(self._read_chunks(), self._reader, count_lines)
            return await app[TASK_MANAGER].submit(
                lines,
                self._task_options,
                finalize=finalize,
                label=self._query.label,
                webhook=self._webhook,
                owner=owner,
            )

    async def read_digest(self) -> str:
        """Read the body, and return the digest that identifies this request."""
        async for _ in self._read_chunks():
            pass
        return self._digest.hexdigest()

    async def _read_chunks(self) -> AsyncIterator[bytes]:
        async for chunk in read_chunks(self._request, self._service.max_body):
            self._digest.update(chunk)
            yield chunk

    def _apply_members(self, task: Task, members: dict[str, Any]) -> None:
        """Set the members of a JSON body besides its URLs. They replace those of the query."""
        try:
            choices = msgspec.convert(members, Choices)
        except msgspec.ValidationError as error:
            message, place = read_validation_error(error)
            raise InputError(message, place or "$") from None
        if choices.options:
            task.options = choose_options(self._options, self._query_options, choices.options)
        task.label = choices.label or task.label
        task.webhook = _webhook_of(choices.webhook, self._service) or task.webhook


def _format_of(request: web.Request) -> InputFormat:
    format_ = _FORMATS.get(request.content_type)
    if format_ is None:
        came = request.headers.get(hdrs.CONTENT_TYPE, "missing")
        hint = "; curl sends it unless told otherwise: -H 'Content-Type: text/plain'" if came == _CURLS_TYPE else ""
        raise web.HTTPUnsupportedMediaType(
            text=f"Content-Type: is {came[:100]}, must be one of {', '.join(_FORMATS)}{hint}"
        )
    if (request.charset or "utf-8").lower() not in ("utf-8", "utf8", "us-ascii"):
        raise web.HTTPUnsupportedMediaType(text="Content-Type: only UTF-8 is supported")
    return format_


def _idempotency_key(request: web.Request) -> str | None:
    key = single_header(request, _KEY_HEADER)
    if key is None:
        return None
    if not (0 < len(key) <= _MAX_KEY_CHARACTERS and all("!" <= character <= "~" for character in key)):
        raise InputError(f"must be 1 to {_MAX_KEY_CHARACTERS} visible ASCII characters", _KEY_HEADER)
    return key


async def _replay(request: web.Request, task: Task, upload: _Upload) -> web.Response:
    """Answer a repeated request with the Task that the first one made.

    Raises:
        web.HTTPConflict: It differs from the first one.
    """
    add_log_fields(task=task.id)
    if task.idempotency is None or await upload.read_digest() != task.idempotency.digest:
        raise web.HTTPConflict(text=f"{_KEY_HEADER}: belongs to another request, which made Task {task.id}")
    return json_response(
        summary_of(request, task), headers=_task_headers(request, task) | {"Idempotency-Replayed": "true"}
    )


def _created(request: web.Request, task: Task) -> web.Response:
    return json_response(summary_of(request, task), 201, _task_headers(request, task))


def _task_headers(request: web.Request, task: Task) -> dict[str, str]:
    return {"Location": task_path(request, task), **request.app[QUOTAS].headers(task.owner)}


def _webhook_of(choice: WebhookChoice | None, service: ServiceOptions) -> Webhook | None:
    return None if choice is None else new_webhook(choice.url, choice.secret, service)


async def _failed_lines(registry: Registry, task: Task) -> AsyncIterator[str]:
    """Yield the lines of a Task that may succeed another time."""
    for outcome in _FAILURES:
        async for result in registry.results(task.id, ResultFilter(outcome=outcome)):
            yield result.url
