"""The object graph, put together in one place, and `probe`, the shortest way through it."""

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from platformdirs import user_state_path

from crawler.core.errors import InputError
from crawler.core.options import Options
from crawler.core.results import ProbeResult
from crawler.core.service_options import ServiceOptions
from crawler.distributed.process_pool import ProcessPool
from crawler.distributed.process_prober import ProcessProber
from crawler.probing.factory import open_http_prober
from crawler.probing.prober import Prober
from crawler.registry import Registry
from crawler.runtime.resources import process_count
from crawler.stores.dedupe import Deduplicator
from crawler.stores.memory import MemoryRegistry
from crawler.worker import Engine, LocalEngine

if TYPE_CHECKING:
    from crawler.stores.redis.registry import RedisRegistry

__all__ = ["open_engine", "open_prober", "open_redis", "open_registry", "probe"]


@asynccontextmanager
async def open_prober(options: Options) -> AsyncIterator[Prober]:
    """A prober that works until the context is left.

    Raises:
        ChildError: It is to be spread over processes, and they do not start.
    """
    options = options.validated().with_guard("any")
    async with open_http_prober(options) as here:
        if (size := process_count(options.processes)) == 1:
            yield here
        else:
            async with ProcessPool(options, size) as crew:
                yield ProcessProber(here, crew)


def open_engine(registry: Registry, prober: Prober) -> AbstractAsyncContextManager[Engine]:
    """What has Tasks worked on: this process, or if others have the registry too, whoever works for them all."""
    if not registry.is_shared:
        return LocalEngine(registry, prober)
    from crawler.distributed.fleet_engine import FleetEngine
    from crawler.stores.redis.registry import RedisRegistry

    assert isinstance(registry, RedisRegistry)
    return FleetEngine(registry, prober)


def open_registry(service: ServiceOptions, lock_timeout: float = 0.0) -> Registry:
    """The registry that `--registry` or `--redis` name; it is opened by its context.

    Args:
        service: Says which.
        lock_timeout: Seconds to wait for another process that uses the same file, and is about to end.

    Raises:
        InputError: The extra that it takes is not installed.
    """
    if service.redis is not None:
        return open_redis(service.redis)
    where = service.registry
    if where == "memory":
        return MemoryRegistry()
    from crawler.stores.sqlite.registry import SqliteRegistry

    path = where.removeprefix("sqlite").removeprefix(":///")
    return SqliteRegistry(Path(path) if path else user_state_path("crawler") / "tasks.db", lock_timeout=lock_timeout)


def open_redis(url: str) -> "RedisRegistry":
    """The registry in this Redis.

    Raises:
        InputError: The extra is not installed.
    """
    try:
        from crawler.stores.redis.registry import RedisRegistry
    except ModuleNotFoundError as error:
        raise InputError(f"needs urlprober[redis]: {error}", "--redis") from None
    return RedisRegistry(url)


async def probe(
    urls: Iterable[str | bytes] | AsyncIterable[str | bytes], **options: Any
) -> AsyncGenerator[ProbeResult, None]:
    """Probe URLs and give each line's result as soon as it is known.

    Equal URLs are probed once, and each line still has its result. Nothing that a target does raises.

    Args:
        urls: The lines, from any iterable; it is read no further ahead than needed. Bytes have to be UTF-8.
        **options: Fields of `crawler.Options`, such as `concurrency=1000` or `timeout=5` (seconds).

    Yields:
        `ProbeResult`s in the order in which they are found; `seq` is the position in the input, from 0.

    Raises:
        OptionError: An option is unknown or out of bounds.

    Example:
        >>> async for result in crawler.probe(["https://example.org"], timeout=5):
        ...     print(result.url, result.status or result.error.type)
    """
    async with open_prober(Options.of(options)) as prober:
        with closing(Deduplicator()) as deduplicator:
            async with aclosing(prober.probe_many(deduplicator.unique_targets(urls))) as results:
                async for result in results:
                    yield result
                    for line in deduplicator.take_duplicates(result):
                        yield result.copy_for_line(line.seq, line.text)
