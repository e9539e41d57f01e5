"""The service: the first contract's four endpoints, on aiohttp and uvloop.

`create_app()` composes an application that can be served, tested or mounted; `run_service()` serves it.
"""

import asyncio
import ipaddress
import sys
import warnings
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from ssl import SSLContext
from typing import Final

import msgspec
from aiohttp import web

from crawler.compose import open_registry
from crawler.core.errors import InputError, TaskNotFound
from crawler.core.options import Options
from crawler.core.results import FirstContractResult, ProbeResult
from crawler.core.service_options import ServiceOptions
from crawler.core.tasks import Task
from crawler.formats.url_lists import open_reader
from crawler.registry import Registry
from crawler.runtime.event_loop import run_on_event_loop
from crawler.runtime.lifecycle import SystemdNotifier, stop_signals
from crawler.runtime.logs import LogSettings, configure_logging
from crawler.runtime.resources import limit_clients, tune_garbage_collector
from crawler.server import api
from crawler.server.api.openapi import DOCUMENT, Document
from crawler.server.http.connection_limits import ConnectionLimiter
from crawler.server.http.request_body import HANDLER_ARGS, chunks, lines
from crawler.server.http.responses import gathered, json_answer, stream
from crawler.server.http.site import ListeningSite
from crawler.server.live_tasks import LiveTasks
from crawler.server.metrics import METRICS, Metrics
from crawler.server.middleware.access_log import log_requests, tell_id
from crawler.server.middleware.auth import ANCHOR, AUTHORIZER, Authorizer, check_access, owner_of, task_of, tasks_of
from crawler.server.middleware.problems import answer_problems
from crawler.server.middleware.proxy_headers import ProxyHeaders
from crawler.server.middleware.request_metrics import RequestMetrics
from crawler.server.task_manager import TASK_MANAGER, TaskManager
from crawler.stores.memory import MemoryRegistry
from crawler.transport.tls import server_context

__all__ = ["TASKS", "create_app", "run_service"]

TASKS: Final = web.AppKey("TASKS", LiveTasks)

_SWITCH: Final = 0.0005  # seconds until the loop's thread lets that of the store in, which needs it for an instant
_ANSWERS: Final = 5.0  # seconds that answers under way have at least when the service is stopped
_CUT: Final = 1.0  # seconds for those that have had their time, to end as they are
_CLOSE: Final = 50_000  # records among which those of one URL stand


def create_app(
    options: Options | None = None,
    *,
    registry: Registry | None = None,
    service: ServiceOptions | None = None,
    only_local: bool = False,
) -> web.Application:
    """An application with everything in it, to be served, tested or mounted with `add_subapp`.

    Args:
        options: How Tasks are probed. A guard that is `auto` is `public` here.
        registry: Where Tasks live; in memory if not given.
        service: How requests are served, and by which tokens; of these, host and port are for who serves.
        only_local: Serve, unless there are tokens, only programs of this machine: no names of others in `Host`, no
            pages of others in its browsers. Not for an application that is mounted or behind a proxy.

    Returns:
        The application. `app[TASKS]`, also `app["TASKS"]`, is `LiveTasks`: a live, read-only mapping of Tasks by id.
    """
    # A stranger may submit: unless told otherwise, what only this machine can reach is not probed for him.
    options = (options or Options()).validated().with_guard("public")
    service = service or ServiceOptions()
    state = TaskManager(options, registry or MemoryRegistry(), service)
    traffic = RequestMetrics()
    middlewares = [
        log_requests,
        traffic.middleware,
        answer_problems,
        ProxyHeaders(service.forwarded_allow).middleware,
        check_access,
    ]
    app = web.Application(middlewares=middlewares, handler_args=HANDLER_ARGS)
    app[TASK_MANAGER] = state
    app[AUTHORIZER] = Authorizer(service, only_local=only_local)
    app[METRICS] = Metrics(state, traffic)
    app[DOCUMENT] = Document(app)
    app[TASKS] = LiveTasks(state.registry, lambda task_id: state.engine.workers(task_id))
    with warnings.catch_warnings():  # aiohttp wants typed keys; the first contract has this one
        warnings.simplefilter("ignore", web.NotAppKeyWarning)
        app["TASKS"] = app[TASKS]
    app.cleanup_ctx.append(state.run)
    app.on_shutdown.append(state.let_go)
    app.on_response_prepare.extend([tell_id, traffic.answered])
    app.add_routes(
        [
            web.post("/submit", submit, name=ANCHOR),
            web.get("/tasks", tasks),
            web.get("/tasks/{task_id}", task_status),
            web.delete("/tasks/{task_id}", task_delete),
            *api.ROUTES,
        ]
    )
    return app


def run_service(
    host: str = ServiceOptions().host,
    port: int = ServiceOptions().port,
    *,
    options: Options | None = None,
    service: ServiceOptions | None = None,
    registry: Registry | None = None,
    announce: Callable[[str], None] = print,
) -> None:
    """Serve until SIGINT or SIGTERM, and log to standard error, unless this program has logging set up already.

    Then what is under way is finished, for `service.drain` seconds at most. A second signal ends the process at once.

    Args:
        host: Address to listen on.
        port: Port to listen on; 0 picks a free one.
        options: How Tasks are probed.
        service: How requests are served; its host and port give way to those above.
        registry: Where Tasks live; the one that `service` names if not given.
        announce: Told, once it listens, where.

    Raises:
        OSError: The address cannot be listened on.
        InputError: The registry, tokens or certificate cannot be read, or strangers could reach it without a token.
    """
    service = service or ServiceOptions()
    configure_logging(LogSettings.named(service.log_level, as_json=service.log_json))
    is_loopback = _is_loopback(host)
    # On loopback, who submits is on this machine already; unless a proxy is, for others.
    is_own = is_loopback and not (service.allow_anonymous or service.forwarded_allow)
    options = (options or Options()).with_guard("any" if is_own else "public")
    only_local = not service.allow_anonymous
    app = create_app(options, registry=registry or open_registry(service), service=service, only_local=only_local)
    if only_local and not is_loopback and not app[AUTHORIZER].has_tokens:
        raise InputError("other machines can reach it, so it needs --token, --token-file or --allow-anonymous", host)
    sys.setswitchinterval(_SWITCH)
    tune_garbage_collector()
    tls = server_context(service.tls_cert, service.tls_key)
    run_on_event_loop(_serve(app, host, port, tls, announce))


async def submit(request: web.Request) -> web.Response:
    """Take a batch in and start work on it."""
    state = request.app[TASK_MANAGER]
    owner = owner_of(request)
    with state.quotas.room(owner) as take:
        found = lines(chunks(request, state.service.max_body), open_reader("json"), take)
        task = await state.submit(found, owner=owner)
    return json_answer({"task_id": task.id}, headers=state.quotas.headers(owner))


async def tasks(request: web.Request) -> web.StreamResponse:
    """All Tasks with their results."""
    state = request.app[TASK_MANAGER]

    async def parts() -> AsyncIterator[bytes]:
        opening = b"{"
        for task in await tasks_of(request):
            try:
                shown = _shown(state, task)
                begun = await anext(shown)
            except TaskNotFound:  # deleted while the ones before it were sent
                continue
            yield opening + msgspec.json.encode(task.id) + b":" + begun
            async for part in shown:
                yield part
            opening = b","
        yield b"{}" if opening == b"{" else b"}"

    return await stream(request, gathered(parts()))


async def task_status(request: web.Request) -> web.StreamResponse:
    """One Task with its results."""
    state = request.app[TASK_MANAGER]
    return await stream(request, gathered(_shown(state, await task_of(request))))


async def task_delete(request: web.Request) -> web.Response:
    """Stop a Task's work and forget it."""
    state = request.app[TASK_MANAGER]
    await state.delete(await task_of(request))
    return web.Response(status=204)


def _shown(state: TaskManager, task: Task) -> AsyncIterator[bytes]:
    """A Task as the first contract shows it, in pieces of JSON; once begun, it goes on to its end."""
    return _pieces(task.status, state.registry.results(task.id))


async def _pieces(status: str, results: AsyncIterator[ProbeResult]) -> AsyncIterator[bytes]:
    result = await anext(results, None)  # once one is read, a deletion waits until all are
    yield b'{"status":' + msgspec.json.encode(status) + b',"result":{'
    shown: OrderedDict[str, None] = OrderedDict()  # a URL submitted twice is one key; its records stand close together
    comma = b""
    while result is not None:
        if result.url not in shown:
            shown[result.url] = None
            if len(shown) > _CLOSE:
                shown.popitem(last=False)
            yield comma + msgspec.json.encode(result.url) + b":" + msgspec.json.encode(FirstContractResult.of(result))
            comma = b","
        result = await anext(results, None)
    yield b"}}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _serve(
    app: web.Application, host: str, port: int, tls: SSLContext | None, announce: Callable[[str], None]
) -> None:
    state = app[TASK_MANAGER]
    service = state.service
    most = limit_clients(service.max_connections, state.options.concurrency)
    listener = ConnectionLimiter(service.receive_timeout, most)
    app.middlewares.insert(0, listener.middleware)
    app.on_response_prepare.append(listener.say_close)
    runner = web.AppRunner(app, shutdown_timeout=_CUT)
    with stop_signals() as stop:
        async with SystemdNotifier() as notifier:
            await runner.setup()
            try:
                async with listener:
                    site = ListeningSite(runner, listener, (host, port), keep_alive=service.keep_alive, ssl_context=tls)
                    await site.start()
                    scheme = "http" if tls is None else "https"
                    announce(f"{scheme}://{f'[{host}]' if ':' in host else host}:{runner.addresses[0][1]}")
                    notifier.notify("READY=1")
                    await stop.wait()
                    notifier.notify("STOPPING=1")
                    await site.stop()
                    await asyncio.gather(state.stop(), listener.drain(max(_ANSWERS, service.drain)))
            finally:
                await runner.cleanup()
