"""A client of a running service: Tasks over HTTP."""

import asyncio
import errno
import os
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, NoReturn, Self, TypeVar

import aiohttp
import msgspec
from yarl import URL

from crawler.cli.upload import ListUpload
from crawler.core.errors import InputError
from crawler.core.results import ProbeResult
from crawler.core.task_summary import Progress, Summary, is_task_id
from crawler.core.tasks import ResultFilter, Status
from crawler.formats.sse import EventReader
from crawler.formats.table import replace_unprintable

__all__ = ["ServiceClient"]

T = TypeVar("T")

_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=60)  # events come every 15 s at least
_RETRY_STATUSES: Final = frozenset({502, 503, 504})  # of a service that is starting, or of the proxy in front of it
_IN_PROGRESS_STATUS: Final = 409  # of our own earlier request with the same idempotency key
_MAX_SUBMITS: Final = 4
_MAX_RECONNECTS: Final = 20  # in a row; with these delays, a minute and a half
_FIRST_DELAY_SECONDS: Final = 0.25  # doubled each time
_MAX_DELAY_SECONDS: Final = 5.0
_TASKS_PER_PAGE: Final = 1000
_MAX_RECORD_BYTES: Final = 16 * 2**20
_MAX_PROBLEM_BYTES: Final = 64 * 1024

_WRONG_SERVICE: Final = "the server there is not crawler, or has another version"
_EVENT_TYPES: Final[dict[str, type[ProbeResult | Progress]]] = {
    "result": ProbeResult,
    "progress": Progress,
    "end": Summary,
}


class _TransientError(InputError):
    """An error that a retry may avoid."""


class _Problem(msgspec.Struct):
    detail: str


class _TaskPage(msgspec.Struct):
    tasks: list[dict[str, Any]]
    next: str | None


class ServiceClient:
    """A client of the service at a URL; open while its context lasts.

    Every method raises `InputError` if the service refuses the request or cannot be reached.

    Args:
        url: The URL of the service, with its root path if it has one.
        token: The secret of a bearer token.

    Raises:
        InputError: The URL is not an HTTP URL.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        try:
            parsed = URL(url)
        except ValueError:
            parsed = URL()
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise InputError(f"{url!r} is not the URL of a service, such as http://127.0.0.1:7777", "--url")
        self._place = str(parsed.with_user(None)).rstrip("/")  # without credentials, for messages
        self._tasks = parsed / "api" / "v1" / "tasks"
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    async def __aenter__(self) -> Self:
        asyncio.get_running_loop().set_exception_handler(_ignore_lost_connections)
        self._session = aiohttp.ClientSession(timeout=_TIMEOUT, headers=self._headers)
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._session.close()

    async def submit(self, upload: ListUpload, query: Mapping[str, str]) -> Summary:
        """Submit a URL list as a Task; the list is sent while it is read.

        Retries carry the same idempotency key, so they make one Task.

        Args:
            upload: The list.
            query: Options of the Task, as text.
        """
        headers = {
            "Content-Type": upload.content_type,
            "Content-Encoding": "gzip",
            "Idempotency-Key": str(uuid.uuid4()),
        }
        for attempt in range(1, _MAX_SUBMITS + 1):
            try:
                async with self._request(
                    "POST",
                    self._tasks,
                    retry_statuses=_RETRY_STATUSES | {_IN_PROGRESS_STATUS} if attempt > 1 else _RETRY_STATUSES,
                    params=query,
                    headers=headers,
                    data=upload.read(),
                ) as response:
                    return self._decode(await response.read(), Summary)
            except _TransientError:
                if upload.error is not None:
                    raise upload.error from None
                if attempt == _MAX_SUBMITS or not upload.can_be_read:
                    raise
            await _wait_before_retry(attempt)
        raise AssertionError("the last attempt has returned or raised")

    async def tasks(self, status: Status | None, limit: int) -> AsyncGenerator[dict[str, Any], None]:
        """Yield Tasks, newest first, as the JSON objects of the service; each converts to a `Summary`."""
        query: dict[str, str] = {} if status is None else {"status": status}
        while True:
            query["limit"] = str(min(limit, _TASKS_PER_PAGE))
            async with self._request("GET", self._tasks, params=query) as response:
                page = self._decode(await response.read(), _TaskPage)
            for task in page.tasks:
                yield task
            limit -= len(page.tasks)
            if limit <= 0 or page.next is None or not page.tasks:
                return
            query["cursor"] = page.next

    async def task(self, task_id: str) -> Summary:
        """Return the current state of a Task."""
        async with self._request("GET", self._task_url(task_id)) as response:
            return self._decode(await response.read(), Summary)

    async def cancel(self, task_id: str) -> Summary:
        """Stop a Task and keep its results."""
        async with self._request("POST", self._task_url(task_id) / "cancel") as response:
            return self._decode(await response.read(), Summary)

    async def delete(self, task_id: str) -> None:
        """Stop a Task and delete it with its results."""
        async with self._request("DELETE", self._task_url(task_id)):
            pass

    async def results(self, task_id: str, wanted: ResultFilter) -> AsyncGenerator[ProbeResult, None]:
        """Yield the results that a Task has by now, in the order in which they were found."""
        query = {name: str(value) for name, value in msgspec.structs.asdict(wanted).items() if value is not None}
        headers = {"Accept": "application/x-ndjson"}
        line_start = bytearray()
        async with self._request("GET", self._task_url(task_id) / "results", params=query, headers=headers) as response:
            async for chunk in response.content.iter_any():
                first, *lines = chunk.split(b"\n")
                line_start += first
                if len(line_start) > _MAX_RECORD_BYTES:
                    raise InputError(f"a record is longer than {_MAX_RECORD_BYTES} bytes", self._place)
                if lines:
                    *lines, last = bytes(line_start), *lines
                    line_start = bytearray(last)
                for line in lines:
                    yield self._decode(line, ProbeResult)
            if line_start:
                yield self._decode(line_start, ProbeResult)

    async def events(self, task_id: str, *, results: bool) -> AsyncGenerator[ProbeResult | Progress, None]:
        """Yield the events of a Task; the last one is a `Summary` of the Task at its end.

        After a lost connection it reconnects, and continues after the last event.

        Args:
            task_id: The id of the Task.
            results: Whether to yield its results too, from the first one, and not only its progress.
        """
        headers, failures, was_open = {"Accept": "text/event-stream"}, 0, False
        url, query = self._task_url(task_id) / "events", {"results": str(results).lower()}
        while True:
            try:
                async with self._request("GET", url, params=query, headers=headers) as response:
                    was_open, reader = True, EventReader()
                    async for chunk in response.content.iter_any():
                        for event in reader.feed(chunk):
                            failures = 0
                            if event.id:
                                headers["Last-Event-ID"] = event.id
                            if event.name in _EVENT_TYPES:
                                yield self._decode(event.data, _EVENT_TYPES[event.name])
                            if event.name == "end":
                                return
                raise _TransientError("the events ended before the Task", self._place)
            except _TransientError:
                failures += 1
                if not was_open or failures > _MAX_RECONNECTS:
                    raise
            await _wait_before_retry(failures)

    def _task_url(self, task_id: str) -> URL:
        if not is_task_id(task_id):  # it could change the path
            raise InputError(f"no Task {task_id!r}", self._place)
        return self._tasks / task_id

    @asynccontextmanager
    async def _request(
        self, method: str, url: URL, *, retry_statuses: frozenset[int] = _RETRY_STATUSES, **more: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request and yield its response; raise it if its status is 300 or more, and lost connections."""
        try:
            async with self._session.request(method, url, allow_redirects=False, **more) as response:
                if response.status >= 300:
                    await self._raise_refusal(response, retry_statuses)
                yield response
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, TimeoutError) as error:
            raise _TransientError(_describe(error), self._place) from None
        except aiohttp.ClientError as error:
            raise InputError(replace_unprintable(f"{_WRONG_SERVICE} ({error})"), self._place) from None

    async def _raise_refusal(self, response: aiohttp.ClientResponse, retry_statuses: frozenset[int]) -> NoReturn:
        try:
            body = await response.content.readexactly(_MAX_PROBLEM_BYTES)
        except asyncio.IncompleteReadError as incomplete:
            body = incomplete.partial
        if response.content_type == "application/problem+json":
            detail = self._decode(body, _Problem).detail
        else:
            detail = f"{_WRONG_SERVICE} ({response.status} {response.reason}, {response.content_type})"
        error = _TransientError if response.status in retry_statuses else InputError
        raise error(replace_unprintable(detail), self._place)

    def _decode(self, data: bytes | bytearray, type_: type[T]) -> T:
        try:
            return msgspec.json.decode(data, type=type_)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise InputError(replace_unprintable(f"{_WRONG_SERVICE} ({error})"), self._place) from None


async def _wait_before_retry(attempt: int) -> None:
    await asyncio.sleep(min(_FIRST_DELAY_SECONDS * 2 ** (attempt - 1), _MAX_DELAY_SECONDS))


def _ignore_lost_connections(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Drop errors of the aiohttp task that writes a body: the request has raised the same one."""
    if not isinstance(context.get("exception"), aiohttp.ClientConnectionError):
        loop.default_exception_handler(context)


def _describe(error: Exception) -> str:
    """Describe an error in the system's words where it has some."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(cause, TimeoutError):
        return "no answer in time"
    if isinstance(cause, aiohttp.ClientPayloadError):
        return "the answer was cut off"
    if isinstance(cause, OSError) and cause.errno and cause.errno > 0:
        reason = os.strerror(cause.errno)
        return f"{reason}; crawler serve starts a service" if cause.errno == errno.ECONNREFUSED else reason
    if type(cause) is aiohttp.ClientOSError:
        return "the connection was lost"
    return replace_unprintable(getattr(cause, "strerror", None) or str(cause) or type(cause).__name__)
