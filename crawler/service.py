"""The service: the first contract's four endpoints, on aiohttp and uvloop.

`create_app()` composes an application that can be served, tested or mounted; `run_service()` serves it.
"""

import asyncio
import ipaddress
import logging
import signal
import warnings
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Annotated, Any, Final

import msgspec
import uvloop
from aiohttp import web

from crawler.compose import open_prober
from crawler.engine import LocalEngine
from crawler.errors import TaskNotFound
from crawler.models import FirstRecord, ProbeResult, Task
from crawler.options import Options, ServiceOptions
from crawler.problems import answer_problems, read_json
from crawler.registry import MemoryRegistry, Registry

__all__ = ["TASKS", "create_app", "run_service"]

log = logging.getLogger(__name__)

Tasks = Mapping[str, Mapping[str, Any]]

TASKS: Final[web.AppKey[Tasks]] = web.AppKey("TASKS", Mapping)
_STATE: Final = web.AppKey["_State"]("STATE")

_SHUTDOWN: Final = 5.0  # seconds for answers under way when the service is stopped
_CHUNK: Final = 64 * 1024  # bytes of a streamed answer that are worth a system call


class Batch(msgspec.Struct):
    """The body of `POST /submit`."""

    urls: Annotated[list[str], msgspec.Meta(min_length=1)]


def create_app(
    options: Options | None = None, *, registry: Registry | None = None, service: ServiceOptions | None = None
) -> web.Application:
    """An application with everything in it, to be served, tested or mounted with `add_subapp`.

    Args:
        options: How Tasks are probed. A guard that is `auto` is `public` here.
        registry: Where Tasks live; in memory if not given.
        service: How requests are served; of these, host and port are for who serves.

    Returns:
        The application. `app[TASKS]`, and `app["TASKS"]` as ever, is a live read-only mapping of Tasks by id.
    """
    # A stranger may submit: unless told otherwise, what only this machine can reach is not probed for him.
    options = (options or Options()).checked().guarded("public")
    state = _State(options, registry or MemoryRegistry(), service or ServiceOptions())
    app = web.Application(middlewares=[answer_problems])
    app[_STATE] = state
    app[TASKS] = _LiveTasks(state)
    with warnings.catch_warnings():  # aiohttp wants typed keys; the first contract has this one
        warnings.simplefilter("ignore", web.NotAppKeyWarning)
        app["TASKS"] = app[TASKS]
    app.cleanup_ctx.append(state.run)
    app.add_routes(
        [
            web.post("/submit", submit),
            web.get("/tasks", tasks),
            web.get("/tasks/{task_id}", task_status),
            web.delete("/tasks/{task_id}", task_delete),
        ]
    )
    return app


def run_service(
    host: str = ServiceOptions().host,
    port: int = ServiceOptions().port,
    *,
    options: Options | None = None,
    service: ServiceOptions | None = None,
    announce: Callable[[str], None] = print,
) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        host: Address to listen on.
        port: Port to listen on; 0 picks a free one.
        options: How Tasks are probed.
        service: How requests are served; its host and port give way to those above.
        announce: Told, once it listens, where.

    Raises:
        OSError: The address cannot be listened on.
    """
    # On loopback, who submits is on this machine already.
    options = (options or Options()).guarded("any" if _is_loopback(host) else "public")
    uvloop.run(_serve(create_app(options, service=service), host, port, announce))


async def submit(request: web.Request) -> web.Response:
    """Take a batch in and start work on it."""
    state = request.app[_STATE]
    batch = await read_json(request, Batch, state.service.max_body)
    task = await state.registry.submit(batch.urls, state.options)
    state.engine.start(task.id)
    return _json({"task_id": task.id})


async def tasks(request: web.Request) -> web.StreamResponse:
    """All Tasks with their results."""
    state = request.app[_STATE]

    async def parts() -> AsyncIterator[bytes]:
        opening = b"{"
        for task in list(state.registry.tasks.values()):
            try:
                shown = state.shown(task)
            except TaskNotFound:  # deleted while the ones before it were sent
                continue
            yield opening + msgspec.json.encode(task.id) + b":"
            async for part in shown:
                yield part
            opening = b","
        yield b"{}" if opening == b"{" else b"}"

    return await _stream(request, parts())


async def task_status(request: web.Request) -> web.StreamResponse:
    """One Task with its results."""
    state = request.app[_STATE]
    return await _stream(request, state.shown(state.registry.task(request.match_info["task_id"])))


async def task_delete(request: web.Request) -> web.Response:
    """Stop a Task's work and forget it."""
    state = request.app[_STATE]
    task = state.registry.task(request.match_info["task_id"])
    await state.engine.stop(task.id)
    await state.registry.delete(task.id)
    return web.Response(status=204)


class _State:
    """What the handlers share. The engine stands while the application runs."""

    engine: LocalEngine

    def __init__(self, options: Options, registry: Registry, service: ServiceOptions) -> None:
        self.options = options
        self.registry = registry
        self.service = service

    async def run(self, app: web.Application) -> AsyncIterator[None]:
        """The life of the application, as aiohttp's `cleanup_ctx` wants it."""
        async with open_prober(self.options) as prober:
            self.engine = LocalEngine(self.registry, prober)
            yield
            await self.engine.close()

    def shown(self, task: Task) -> AsyncIterator[bytes]:
        """A Task as the first contract shows it, in pieces of JSON; once begun, it goes on to its end."""
        return self._pieces(task.status, self.registry.results(task.id))

    async def _pieces(self, status: str, results: AsyncIterator[ProbeResult]) -> AsyncIterator[bytes]:
        yield b'{"status":' + msgspec.json.encode(status) + b',"result":{'
        shown: set[str] = set()  # a URL submitted twice is one key
        async for result in results:
            if result.url not in shown:
                comma = b"," if shown else b""
                shown.add(result.url)
                yield comma + msgspec.json.encode(result.url) + b":" + msgspec.json.encode(FirstRecord.of(result))
        yield b"}}"


class _LiveTasks(Mapping[str, Mapping[str, Any]]):
    """`app["TASKS"]`: each Task as it is at the moment of looking, with `status`, `workers` and `result`."""

    def __init__(self, state: _State) -> None:
        self._state = state

    def __getitem__(self, task_id: str) -> Mapping[str, Any]:
        state = self._state
        task = state.registry.tasks[task_id]
        found = {result.url: msgspec.to_builtins(FirstRecord.of(result)) for result in state.registry.found(task_id)}
        return {"status": task.status, "workers": state.engine.workers(task_id), "result": found}

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._state.registry.tasks))

    def __len__(self) -> int:
        return len(self._state.registry.tasks)


def _json(content: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(content), content_type="application/json")


async def _stream(request: web.Request, parts: AsyncIterator[bytes]) -> web.StreamResponse:
    """Answer with JSON as it is made: a Task of a million URLs is never in memory as one text."""
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    if request.method == "HEAD":  # aiohttp would send what is written, and the client take it for the next answer
        return response
    chunk = bytearray()
    try:
        async for part in parts:
            chunk += part
            if len(chunk) > _CHUNK:
                await response.write(bytes(chunk))
                chunk.clear()
        await response.write(bytes(chunk))
        await response.write_eof()
    except Exception:  # half an answer is sent: an error in JSON would stand in the middle of it, so it is cut off
        log.exception("an answer could not be sent to its end")
        if request.transport is not None:
            request.transport.abort()
    return response


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _serve(app: web.Application, host: str, port: int, announce: Callable[[str], None]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        announce(f"http://{f'[{host}]' if ':' in host else host}:{runner.addresses[0][1]}")
        await stop.wait()
        for number in (signal.SIGINT, signal.SIGTERM):  # a second one ends it at once
            asyncio.get_running_loop().remove_signal_handler(number)
    finally:
        await runner.cleanup()
