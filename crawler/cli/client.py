"""The service as its clients see it: Tasks over HTTP."""

import asyncio
import os
import uuid
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Final, NoReturn, Self, TypeVar

import aiohttp
import msgspec
from yarl import URL

from crawler.core.errors import InputError
from crawler.core.results import ProbeResult
from crawler.core.task_summary import Progress, Summary, is_task_id
from crawler.core.tasks import ResultFilter, Status
from crawler.formats.sse import EventReader
from crawler.formats.table import replace_unprintable

__all__ = ["ListUpload", "ServiceClient"]

T = TypeVar("T")

_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=60)  # events come every 15 s at least
_LATER: Final = frozenset({502, 503, 504})  # of a service that is starting, or of the proxy before it
_TAKEN: Final = frozenset({409})  # by our own request before, which still goes on where it was sent to
_SUBMITS: Final = 4
_RECONNECTS: Final = 20  # in a row; with these delays, a minute and a half
_DELAY: Final = 0.25  # seconds until the first one; it doubles
_LONGEST_DELAY: Final = 5.0
_GZIP: Final = 31  # as zlib spells it
_PAGE: Final = 1000  # Tasks
_LONGEST: Final = 16 * 2**20  # bytes of a record
_PROBLEM: Final = 64 * 1024  # bytes of an error that are read

_NOT_OURS: Final = "what answers there is not crawler, or of another version"


_EVENTS: Final[dict[str, type[ProbeResult | Progress]]] = {"result": ProbeResult, "progress": Progress, "end": Summary}


class ListUpload:
    """A batch on its way: what it is, and whether it can be read again.

    Args:
        content_type: Of the pieces.
        pieces: Reads the batch from its start.
        repeats: Whether it can be read more than once.
    """

    def __init__(self, content_type: str, pieces: Callable[[], AsyncIterator[bytes]], *, repeats: bool) -> None:
        self.content_type = content_type
        self.fault: Exception | None = None  # what kept it from being read to its end
        self._pieces = pieces
        self._repeats = repeats
        self._begun = False

    @property
    def can_be_read(self) -> bool:
        """Whether all of it is still there."""
        return self._repeats or not self._begun

    async def read(self) -> AsyncIterator[bytes]:
        """The batch, packed with gzip. What goes wrong is kept, for aiohttp tells of it as of a lost connection."""
        self._begun = True
        pack = zlib.compressobj(wbits=_GZIP)
        try:
            async for piece in self._pieces():
                if packed := pack.compress(piece):
                    yield packed
        except Exception as error:
            self.fault = error
            raise
        yield pack.flush()


class _Passing(InputError):
    """What may be over in a moment."""


class _Problem(msgspec.Struct):
    detail: str


class _TaskPage(msgspec.Struct):
    tasks: list[dict[str, Any]]
    next: str | None


class ServiceClient:
    """A service at a URL, while its context lasts. What it refuses and what fails on the way is an `InputError`."""

    def __init__(self, url: str, token: str | None = None) -> None:
        try:
            parsed = URL(url)
        except ValueError:
            parsed = URL()
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise InputError(f"{url!r} is not the URL of a service, as http://127.0.0.1:7777", "--url")
        self._where = str(parsed.with_user(None)).rstrip("/")  # who may come in is not for messages
        self._tasks = parsed / "api" / "v1" / "tasks"
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    async def __aenter__(self) -> Self:
        """Open it; nothing is sent yet."""
        asyncio.get_running_loop().set_exception_handler(_pass_over)
        self._session = aiohttp.ClientSession(timeout=_TIMEOUT, headers=self._headers)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close its connections."""
        await self._session.close()

    async def submit(self, upload: ListUpload, query: Mapping[str, str]) -> Summary:
        """Make a batch a Task, sent as it is read. However often that takes, it is one Task."""
        headers = {
            "Content-Type": upload.content_type,
            "Content-Encoding": "gzip",
            "Idempotency-Key": str(uuid.uuid4()),
        }
        for attempt in range(1, _SUBMITS + 1):
            try:
                async with self._answer(
                    "POST",
                    self._tasks,
                    later=_LATER | _TAKEN if attempt > 1 else _LATER,
                    params=query,
                    headers=headers,
                    data=upload.read(),
                ) as response:
                    return self._decoded(await response.read(), Summary)
            except _Passing:
                if upload.fault is not None:
                    raise upload.fault from None
                if attempt == _SUBMITS or not upload.can_be_read:
                    raise
            await _delay(attempt)
        raise AssertionError("the last attempt has returned or raised")

    async def tasks(self, status: Status | None, limit: int) -> AsyncGenerator[dict[str, Any], None]:
        """Tasks as the service shows them, newest first; a `Summary` can be made of each."""
        query: dict[str, str] = {} if status is None else {"status": status}
        while True:
            query["limit"] = str(min(limit, _PAGE))
            async with self._answer("GET", self._tasks, params=query) as response:
                page = self._decoded(await response.read(), _TaskPage)
            for task in page.tasks:
                yield task
            limit -= len(page.tasks)
            if limit <= 0 or page.next is None or not page.tasks:
                return
            query["cursor"] = page.next

    async def task(self, task_id: str) -> Summary:
        """A Task as it is now."""
        async with self._answer("GET", self._task(task_id)) as response:
            return self._decoded(await response.read(), Summary)

    async def cancel(self, task_id: str) -> Summary:
        """Stop a Task; its results stay."""
        async with self._answer("POST", self._task(task_id) / "cancel") as response:
            return self._decoded(await response.read(), Summary)

    async def delete(self, task_id: str) -> None:
        """Stop a Task and forget it."""
        async with self._answer("DELETE", self._task(task_id)):
            pass

    async def results(self, task_id: str, where: ResultFilter) -> AsyncGenerator[ProbeResult, None]:
        """The results that a Task has by now, in the order in which they were found."""
        query = {name: str(value) for name, value in msgspec.structs.asdict(where).items() if value is not None}
        headers = {"Accept": "application/x-ndjson"}
        rest = bytearray()
        async with self._answer("GET", self._task(task_id) / "results", params=query, headers=headers) as response:
            async for chunk in response.content.iter_any():
                first, *lines = chunk.split(b"\n")
                rest += first
                if len(rest) > _LONGEST:
                    raise InputError(f"a record is longer than {_LONGEST} bytes", self._where)
                if lines:
                    *lines, last = bytes(rest), *lines
                    rest = bytearray(last)
                for line in lines:
                    yield self._decoded(line, ProbeResult)
            if rest:
                yield self._decoded(rest, ProbeResult)

    async def events(self, task_id: str, *, results: bool) -> AsyncGenerator[ProbeResult | Progress, None]:
        """What happens to a Task; its end is a `Summary`, and comes last.

        A connection that is lost is made again, and then nothing is missing.

        Args:
            task_id: Which Task.
            results: Whether its results are wanted, from the first one; else it is progress alone.
        """
        headers, failures, begun = {"Accept": "text/event-stream"}, 0, False
        url, query = self._task(task_id) / "events", {"results": str(results).lower()}
        while True:
            try:
                async with self._answer("GET", url, params=query, headers=headers) as response:
                    begun, reader = True, EventReader()
                    async for chunk in response.content.iter_any():
                        for event in reader.feed(chunk):
                            failures = 0
                            if event.id:
                                headers["Last-Event-ID"] = event.id
                            if event.name in _EVENTS:
                                yield self._decoded(event.data, _EVENTS[event.name])
                            if event.name == "end":
                                return
                raise _Passing("the events stopped before the task did", self._where)
            except _Passing:
                failures += 1
                if not begun or failures > _RECONNECTS:
                    raise
            await _delay(failures)

    def _task(self, task_id: str) -> URL:
        if not is_task_id(task_id):  # in a path it could be something else
            raise InputError(f"no task {task_id!r}", self._where)
        return self._tasks / task_id

    @asynccontextmanager
    async def _answer(
        self, method: str, url: URL, *, later: frozenset[int] = _LATER, **more: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer below 300; any other is raised, and so is what goes wrong while it is read."""
        try:
            async with self._session.request(method, url, allow_redirects=False, **more) as response:
                if response.status >= 300:
                    await self._refuse(response, later)
                yield response
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, TimeoutError) as error:
            raise _Passing(_reason(error), self._where) from None
        except aiohttp.ClientError as error:
            raise InputError(replace_unprintable(f"{_NOT_OURS} ({error})"), self._where) from None

    async def _refuse(self, response: aiohttp.ClientResponse, later: frozenset[int]) -> NoReturn:
        try:
            body = await response.content.readexactly(_PROBLEM)
        except asyncio.IncompleteReadError as all_of_it:
            body = all_of_it.partial
        if response.content_type == "application/problem+json":
            detail = self._decoded(body, _Problem).detail
        else:
            detail = f"{_NOT_OURS} ({response.status} {response.reason}, {response.content_type})"
        error = _Passing if response.status in later else InputError
        raise error(replace_unprintable(detail), self._where)

    def _decoded(self, data: bytes | bytearray, type_: type[T]) -> T:
        try:
            return msgspec.json.decode(data, type=type_)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise InputError(replace_unprintable(f"{_NOT_OURS} ({error})"), self._where) from None


async def _delay(attempt: int) -> None:
    await asyncio.sleep(min(_DELAY * 2 ** (attempt - 1), _LONGEST_DELAY))


def _pass_over(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What aiohttp's task that writes a body had to say of a lost connection: the one that asked was told already."""
    if not isinstance(context.get("exception"), aiohttp.ClientConnectionError):
        loop.default_exception_handler(context)


def _reason(error: Exception) -> str:
    """What happened, in the system's words where it has some."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(cause, TimeoutError):
        return "no answer in time"
    if isinstance(cause, aiohttp.ClientPayloadError):
        return "the answer was cut off"
    if isinstance(cause, OSError) and cause.errno and cause.errno > 0:
        return os.strerror(cause.errno)
    if type(cause) is aiohttp.ClientOSError:
        return "the connection was lost"
    return replace_unprintable(getattr(cause, "strerror", None) or str(cause) or type(cause).__name__)
