"""Run a worker process: `python -m crawler worker`."""

from crawler.compose import open_prober
from crawler.core.options import Options
from crawler.core.service_options import ServiceOptions
from crawler.distributed.chunk_worker import ChunkWorker
from crawler.probing.settings import SERVICE_SETTINGS
from crawler.runtime.event_loop import run_on_event_loop
from crawler.runtime.lifecycle import SystemdNotifier, stop_signals
from crawler.runtime.logs import LogSettings, configure_logging
from crawler.runtime.resources import tune_garbage_collector
from crawler.stores.redis.registry import RedisRegistry

__all__ = ["run_worker"]


def run_worker(options: Options, service: ServiceOptions, registry: RedisRegistry) -> None:
    """Probe for the services on a Redis until SIGINT or SIGTERM.

    Then it finishes the probes in flight, for `service.drain` seconds at most.

    Args:
        options: How to probe. An `auto` guard is `public`, because clients of the services may be untrusted.
        service: The options that apply to a worker process.
        registry: The Redis; this opens and closes it.

    Raises:
        InputError: Redis cannot be used.
    """
    configure_logging(LogSettings.named(service.log_level, as_json=service.log_json))
    tune_garbage_collector()
    run_on_event_loop(_run(options.with_guard("public"), service, registry))


async def _run(options: Options, service: ServiceOptions, registry: RedisRegistry) -> None:
    with stop_signals() as stop:
        async with (
            SystemdNotifier() as notifier,
            registry,
            open_prober(options, SERVICE_SETTINGS) as prober,
            ChunkWorker(registry, prober, options).running() as worker,
        ):
            notifier.notify("READY=1")
            print(f"crawler probes for {registry.location} as {worker.name}. Ctrl-C stops it.", flush=True)
            await stop.wait()
            notifier.notify("STOPPING=1")
            await worker.drain(service.drain)
