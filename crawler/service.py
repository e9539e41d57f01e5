"""The service: composes an application of aiohttp, and serves it on uvloop.

`create_app()` composes an application that can be served, tested or mounted; `run_service()` serves one.
"""

import asyncio
import ipaddress
import sys
import warnings
from collections.abc import AsyncIterator, Callable
from functools import partial
from ssl import SSLContext
from typing import Final

from aiohttp import web

from crawler.compose import open_engine, open_prober, open_registry
from crawler.core.errors import InputError
from crawler.core.options import Options
from crawler.core.service_options import ServiceOptions
from crawler.probing.settings import SERVICE_SETTINGS
from crawler.registry import Registry
from crawler.runtime.counters import ProbeCounters
from crawler.runtime.event_loop import run_on_event_loop
from crawler.runtime.lifecycle import SystemdNotifier, stop_signals
from crawler.runtime.logs import LogSettings, configure_logging
from crawler.runtime.loop_lag import LoopLag
from crawler.runtime.resources import limit_clients, limit_long_lists, tune_garbage_collector
from crawler.server import api
from crawler.server.access import Authorizer
from crawler.server.api.openapi import DOCUMENT, OpenApiDocument
from crawler.server.app_keys import (
    AUTHORIZER,
    HEALTH,
    KEYS_IN_PROGRESS,
    METRICS,
    OPTIONS,
    QUOTAS,
    REGISTRY,
    REQUEST_COUNTERS,
    SERVICE_OPTIONS,
    SETTINGS,
    SINGLE_PROBES,
    TASK_MANAGER,
)
from crawler.server.background.leader import Leader
from crawler.server.background.retention import Retention
from crawler.server.background.webhooks import Webhooks
from crawler.server.counting_prober import CountingProber
from crawler.server.first_contract.handlers import FIRST_ROUTES
from crawler.server.first_contract.live_tasks import TASKS, LiveTasks
from crawler.server.first_contract.operations import FIRST_OPERATIONS
from crawler.server.health import HealthMonitor
from crawler.server.http.connection_limits import ConnectionLimiter
from crawler.server.http.request_body import HANDLER_ARGS
from crawler.server.http.site import ListeningSite
from crawler.server.metrics import Metrics
from crawler.server.middleware.access_log import add_request_id, log_requests
from crawler.server.middleware.auth import check_access
from crawler.server.middleware.cors import add_cors_headers, cors_middleware
from crawler.server.middleware.framing import check_framing
from crawler.server.middleware.problems import answer_problems
from crawler.server.middleware.proxy_headers import ProxyHeaders
from crawler.server.middleware.request_metrics import count_response, measure_requests
from crawler.server.middleware.trailing_slash import redirect_trailing_slash
from crawler.server.quotas import Quotas
from crawler.server.request_counters import RequestCounters
from crawler.server.settings import ServerSettings
from crawler.server.single_probes import SingleProbes
from crawler.server.task_manager import TaskManager
from crawler.stores.memory import MemoryRegistry
from crawler.transport.dns.resolver import has_dns_servers
from crawler.transport.tls.openssl import server_context

__all__ = ["TASKS", "create_app", "run_service"]

_OPERATIONS: Final = {**FIRST_OPERATIONS, **api.OPERATIONS}

# How long the loop's thread may keep the interpreter's lock. The store's thread needs it often, each time for an
# instant; Python's default of 5 ms would slow it down.
_SWITCH_INTERVAL_SECONDS: Final = 0.0005
_MIN_RESPONSE_SECONDS: Final = 5.0  # for responses in progress when the service stops
_ABORT_SECONDS: Final = 1.0  # for those that take longer: then aiohttp cancels their handlers


def create_app(
    options: Options | None = None,
    *,
    registry: Registry | None = None,
    service: ServiceOptions | None = None,
    only_local: bool = False,
) -> web.Application:
    """Compose an application that can be served, tested, or mounted with `add_subapp`.

    Args:
        options: How Tasks are probed. A guard that is `auto` becomes `public`.
        registry: Keeps the Tasks; a `MemoryRegistry` by default.
        service: How requests are served. Host and port are ignored here.
        only_local: Whether, without tokens, only programs of this machine are served: with a `Host` that names this
            machine, and not from web pages of other origins. Not for an application that is mounted or behind a proxy.

    Returns:
        The application. `app[TASKS]`, also `app["TASKS"]`, is `LiveTasks`: a live, read-only mapping of Tasks by id.

    Raises:
        InputError: An option is wrong, or the file of tokens cannot be read.
    """
    # Clients may be untrusted. By default they cannot probe addresses that only this machine can reach.
    options = (options or Options()).validated().with_guard("public")
    service = service or ServiceOptions()
    registry = registry or MemoryRegistry()
    manager = TaskManager(registry, options, service.drain)
    single_probes = SingleProbes(is_stopping=lambda: manager.is_stopping)
    requests, probes, lag = RequestCounters(), ProbeCounters(), LoopLag()
    app = web.Application(
        middlewares=[
            log_requests,
            measure_requests,
            answer_problems,
            check_framing,
            ProxyHeaders(service.forwarded_allow).middleware,
            *([cors_middleware(service.cors_origins)] if service.cors_origins else []),
            redirect_trailing_slash,
            check_access,
        ],
        handler_args=HANDLER_ARGS,
    )
    app[OPTIONS] = options
    app[SERVICE_OPTIONS] = service
    app[SETTINGS] = ServerSettings()
    app[REGISTRY] = registry
    app[TASK_MANAGER] = manager
    app[SINGLE_PROBES] = single_probes
    app[AUTHORIZER] = Authorizer(service, only_local=only_local)
    app[QUOTAS] = Quotas(registry, service)
    app[KEYS_IN_PROGRESS] = set()
    app[REQUEST_COUNTERS] = requests
    app[HEALTH] = HealthMonitor(
        registry,
        queues=lambda: manager.engine.check(),
        has_resolver=partial(has_dns_servers, options),
        lag=lambda: lag.worst,
        prober=lambda: single_probes.prober.fault,
        is_stopping=lambda: manager.is_stopping,
    )
    app[METRICS] = Metrics(
        registry,
        requests,
        probes,
        lag,
        load=lambda: single_probes.prober.load(),
        fleet_status=lambda: manager.engine.fleet_status(),
    )
    app[METRICS].bounded |= {"long lists": app[QUOTAS].long_lists, "single probes": single_probes.places}
    app[DOCUMENT] = OpenApiDocument(app, _OPERATIONS)
    app[TASKS] = LiveTasks(registry, lambda task_id: manager.engine.workers(task_id))
    with warnings.catch_warnings():  # aiohttp wants typed keys, but the first contract has this one
        warnings.simplefilter("ignore", web.NotAppKeyWarning)
        app["TASKS"] = app[TASKS]
    app.cleanup_ctx.append(partial(_run, probes=probes, lag=lag))
    app.on_shutdown.append(_stop)
    app.on_response_prepare.extend([add_request_id, count_response])
    if service.cors_origins:
        app.on_response_prepare.append(partial(add_cors_headers, origins=service.cors_origins))
    app.add_routes([*FIRST_ROUTES, *api.ROUTES])
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
    """Serve until SIGINT or SIGTERM. Logs go to standard error, unless logging is configured already.

    Then requests in progress and probes in flight have `service.drain` seconds to finish. A second signal ends the
    process at once.

    Args:
        host: Address to listen on.
        port: Port to listen on; 0 picks a free one.
        options: How Tasks are probed.
        service: How requests are served. Its host and port are ignored.
        registry: Keeps the Tasks; by default the registry that `service` names.
        announce: Called with the URL, once the service listens.

    Raises:
        OSError: The address cannot be listened on.
        InputError: The registry, the tokens or the certificate cannot be read, or other machines could use the service
            without a token.
    """
    service = service or ServiceOptions()
    configure_logging(LogSettings.named(service.log_level, as_json=service.log_json))
    is_loopback = _is_loopback(host)
    options = choose_guard(options or Options(), service, host)
    only_local = not service.allow_anonymous
    app = create_app(options, registry=registry or open_registry(service), service=service, only_local=only_local)
    if only_local and not is_loopback and not app[AUTHORIZER].has_tokens:
        raise InputError("other machines can reach it, so it needs --token, --token-file or --allow-anonymous", host)
    sys.setswitchinterval(_SWITCH_INTERVAL_SECONDS)
    tune_garbage_collector()
    tls = server_context(service.tls_cert, service.tls_key)
    run_on_event_loop(_serve(app, host, port, tls, announce))


def choose_guard(options: Options, service: ServiceOptions, host: str) -> Options:
    """Return the options with the guard that an `auto` guard stands for.

    Clients of a loopback address run on this machine, and can reach what it reaches; unless a proxy is one of them.
    """
    is_private = _is_loopback(host) and not (service.allow_anonymous or service.forwarded_allow)
    return options.with_guard("any" if is_private else "public")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _run(app: web.Application, *, probes: ProbeCounters, lag: LoopLag) -> AsyncIterator[None]:
    """Run the application's parts, from its start to its end; for aiohttp's `cleanup_ctx`."""
    options, service, settings = app[OPTIONS], app[SERVICE_OPTIONS], app[SETTINGS]
    registry, manager = app[REGISTRY], app[TASK_MANAGER]
    async with (
        registry,
        lag,
        app[HEALTH],
        open_prober(options, SERVICE_SETTINGS) as prober,
        open_engine(registry, counting := CountingProber(prober, probes)) as engine,
    ):
        manager.engine, app[SINGLE_PROBES].prober = engine, counting
        transport = prober.transport_for(options)
        webhooks = Webhooks(registry, transport, options.user_agent, service, settings.webhooks)
        app[METRICS].bounded["webhooks"] = webhooks
        retention = Retention(registry, service, manager.delete, interval_seconds=settings.retention_seconds)
        async with Leader(registry, engine, webhooks, retention, retry_seconds=settings.leader_retry_seconds):
            manager.resume()
            yield
            await manager.stop()


async def _stop(app: web.Application) -> None:
    """Begin to stop; for aiohttp's `on_shutdown`. `_run` waits for the end."""
    app[TASK_MANAGER].stop()


async def _serve(
    app: web.Application, host: str, port: int, tls: SSLContext | None, announce: Callable[[str], None]
) -> None:
    service = app[SERVICE_OPTIONS]
    long_lists, concurrency = app[QUOTAS].long_lists, app[OPTIONS].concurrency
    long_lists.limit = limit_long_lists(long_lists.limit, concurrency)
    max_connections = limit_clients(service.max_connections, concurrency, long_lists.limit)
    limiter = ConnectionLimiter(service.receive_timeout, max_connections)
    app[METRICS].bounded["connections"] = limiter
    app.middlewares.insert(0, limiter.middleware)
    app.on_response_prepare.append(limiter.announce_close)
    runner = web.AppRunner(app, shutdown_timeout=_ABORT_SECONDS)
    with stop_signals() as stop:
        async with SystemdNotifier() as notifier:
            await runner.setup()
            try:
                async with limiter:
                    site = ListeningSite(runner, limiter, (host, port), keep_alive=service.keep_alive, ssl_context=tls)
                    await site.start()
                    scheme = "http" if tls is None else "https"
                    announce(f"{scheme}://{f'[{host}]' if ':' in host else host}:{runner.addresses[0][1]}")
                    notifier.notify("READY=1")
                    await stop.wait()
                    notifier.notify("STOPPING=1")
                    await site.stop()
                    drain_seconds = max(_MIN_RESPONSE_SECONDS, service.drain)
                    await asyncio.gather(app[TASK_MANAGER].stop(), limiter.drain(drain_seconds))
            finally:
                await runner.cleanup()
