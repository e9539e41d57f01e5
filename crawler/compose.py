"""Build the objects that belong together from options: probers, registries, engines; and `probe`, the library."""

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from crawler.core.errors import InputError
from crawler.core.options import Options
from crawler.core.results import ProbeResult
from crawler.core.service_options import ServiceOptions
from crawler.distributed.process_pool import ProcessPool
from crawler.distributed.process_prober import ProcessProber
from crawler.probing.factory import open_http_prober
from crawler.probing.prober import Prober
from crawler.probing.settings import DEFAULT_SETTINGS, ProberSettings
from crawler.registry import Registry
from crawler.runtime.resources import process_count
from crawler.stores.dedupe import Deduplicator
from crawler.stores.memory import MemoryRegistry
from crawler.worker import Engine, LocalEngine

if TYPE_CHECKING:
    from crawler.stores.redis.registry import RedisRegistry

__all__ = ["open_engine", "open_prober", "open_redis", "open_registry", "probe", "sqlite_path"]


@asynccontextmanager
async def open_prober(options: Options, settings: ProberSettings = DEFAULT_SETTINGS) -> AsyncIterator[Prober]:
    """Open a prober: in this process, or with `options.processes` above 1 in that many child processes.

    Args:
        options: How to probe.
        settings: Constants of probing; `SERVICE_SETTINGS` if others choose what is probed.

    Raises:
        ChildError: The child processes do not start.
    """
    options = options.validated().with_guard("any")
    async with open_http_prober(options, settings) as local_prober:
        if (size := process_count(options.processes)) == 1:
            yield local_prober
        else:
            async with ProcessPool(options, size, prober_settings=settings) as pool:
                yield ProcessProber(local_prober, pool)


def open_engine(registry: Registry, prober: Prober) -> AbstractAsyncContextManager[Engine]:
    """Return the engine that works on the Tasks: on this event loop, or for a shared registry in worker processes."""
    if not registry.is_shared:
        return LocalEngine(registry, prober)
    from crawler.distributed.fleet_engine import FleetEngine
    from crawler.stores.redis.registry import RedisRegistry

    assert isinstance(registry, RedisRegistry)
    return FleetEngine(registry, prober)


def open_registry(service: ServiceOptions, lock_timeout: float = 0.0) -> Registry:
    """Return the registry that `--registry` or `--redis` names; entering its context opens it.

    Args:
        service: The options that name it.
        lock_timeout: Seconds to wait until another process, which is about to end, releases the same file.

    Raises:
        InputError: The extra for Redis is not installed.
    """
    if service.redis is not None:
        return open_redis(service.redis)
    path = sqlite_path(service)
    if path is None:
        return MemoryRegistry()
    from crawler.stores.sqlite.registry import SqliteRegistry

    return SqliteRegistry(path, lock_timeout=lock_timeout)


def sqlite_path(service: ServiceOptions) -> Path | None:
    """Return the SQLite file that `--registry` names; None for Tasks in memory."""
    if service.registry == "memory":
        return None
    from platformdirs import user_state_path

    path = service.registry.removeprefix("sqlite").removeprefix(":///")
    return Path(path) if path else user_state_path("crawler") / "tasks.db"


def open_redis(url: str) -> "RedisRegistry":
    """Return the registry on a Redis; entering its context connects it.

    Raises:
        InputError: The extra is not installed.
    """
    try:
        from crawler.stores.redis.registry import RedisRegistry
    except ModuleNotFoundError as error:
        raise InputError(f"needs urlprober[redis]: {error}", "--redis") from None
    return RedisRegistry(url)


async def probe(
    urls: Iterable[str | bytes] | AsyncIterable[str | bytes],
    *,
    scheme: Literal["https", "http"] | None = None,
    **options: Any,
) -> AsyncGenerator[ProbeResult, None]:
    """Probe URLs and yield the result of each line as soon as it is known.

    Equal URLs are probed once, and each of their lines gets its result. A target never raises: failures are data.

    Args:
        urls: The lines, from any iterable, which is read only as fast as needed. Bytes must be UTF-8.
        scheme: That of lines which have none, such as `example.org/path`; None if these are invalid.
        **options: Fields of `crawler.Options`, such as `concurrency=1000` or `timeout=5` (seconds).

    Yields:
        `ProbeResult`s in the order in which they are found; `seq` is the position of the line, from 0.

    Raises:
        OptionError: An option is unknown or out of bounds.

    Example:
        >>> async for result in crawler.probe(["https://example.org"], timeout=5):
        ...     print(result.url, result.status or result.error.type)
    """
    if isinstance(urls, str | bytes):
        raise TypeError("urls is one string; give a list of them")
    async with open_prober(Options.of(options)) as prober:
        with closing(Deduplicator(scheme=scheme)) as deduplicator:
            async with aclosing(prober.probe_many(deduplicator.unique_targets(urls))) as results:
                async for result in results:
                    yield result
                    for line in deduplicator.take_duplicates(result):
                        yield result.copy_for_line(line.seq, line.text)
