"""The object graph, put together in one place, and `probe`, the shortest way through it."""

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from platformdirs import user_state_path

from crawler.crew import Crew
from crawler.guard import Guard
from crawler.limits import processes, within_descriptors
from crawler.models import ProbeResult
from crawler.options import Options
from crawler.pool import Pool
from crawler.prober import HttpProber, Prober, Transport
from crawler.registry import MemoryRegistry, Registry
from crawler.resolver import Resolver
from crawler.spread import SpreadProber
from crawler.throttle import Throttle
from crawler.transport import SocketTransport
from crawler.twins import Twins

__all__ = ["open_http_prober", "open_prober", "open_registry", "probe"]


@asynccontextmanager
async def open_prober(options: Options) -> AsyncIterator[Prober]:
    """A prober that works until the context is left.

    Raises:
        ChildError: It is to be spread over processes, and they do not start.
    """
    options = options.checked().guarded("any")
    async with open_http_prober(options) as here:
        if (size := processes(options.workers)) == 1:
            yield here
        else:
            async with Crew(options, size) as crew:
                yield SpreadProber(here, crew)


@asynccontextmanager
async def open_http_prober(options: Options) -> AsyncIterator[HttpProber]:
    """The prober of one process."""
    guard = Guard(options.guard, options.allow)
    options = msgspec.structs.replace(options, concurrency=within_descriptors(options.concurrency))
    throttle = Throttle(options.concurrency, options.per_host, options.interval)
    make = _transport(options)
    transports: dict[tuple[bool, ...], Transport] = {}
    async with AsyncExitStack() as stack:

        def transport_for(wanted: Options) -> Transport:
            """The one whose connections, TLS sessions and addresses were all made as these options want them."""
            insecure, ipv4, ipv6 = kind = wanted.insecure, wanted.ipv4, wanted.ipv6
            if kind not in transports:
                of_kind = msgspec.structs.replace(options, insecure=insecure, ipv4=ipv4, ipv6=ipv6)
                resolver = Resolver(of_kind)
                stack.push_async_callback(resolver.close)
                transports[kind] = make(of_kind, resolver, guard)
                stack.push_async_callback(transports[kind].close)
            return transports[kind]

        transport_for(options)  # at once, for it may find an option wrong
        yield HttpProber(options, transport_for, throttle)


def open_registry(where: str) -> Registry:
    """The registry that `--registry` names; it is opened by its context.

    Args:
        where: `memory`, `sqlite` or `sqlite:///PATH`.
    """
    if where == "memory":
        return MemoryRegistry()
    from crawler.stores.sqlite import SqliteRegistry

    path = where.removeprefix("sqlite").removeprefix(":///")
    return SqliteRegistry(Path(path) if path else user_state_path("crawler") / "tasks.db")


def _transport(options: Options) -> Callable[[Options, Resolver, Guard], Transport]:
    if options.transport == "socket" and options.proxy is None:
        return partial(SocketTransport, pool=Pool(options.concurrency))
    from crawler.aiohttp_transport import AiohttpTransport  # aiohttp's client takes a third of a second to import

    return AiohttpTransport


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
        with closing(Twins()) as twins:
            async with aclosing(prober.probe_many(twins.firsts(urls))) as results:
                async for result in results:
                    yield result
                    for twin in twins.of(result):
                        yield result.restamp(twin.seq, twin.text)
