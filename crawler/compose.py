"""The object graph, put together in one place, and `probe`, the shortest way through it."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any, Final

import msgspec

from crawler.guard import Guard
from crawler.limits import within_descriptors
from crawler.models import ProbeResult
from crawler.options import Options
from crawler.prober import HttpProber, Prober, Transport
from crawler.resolver import Resolver
from crawler.targets import Target, each
from crawler.throttle import Throttle
from crawler.transport import SocketTransport

__all__ = ["open_prober", "probe"]

_HELD: Final = 50_000  # lines that wait for the result of an equal one
_SLICE: Final = 1_000


@asynccontextmanager
async def open_prober(options: Options) -> AsyncIterator[Prober]:
    """A prober that works until the context is left."""
    options = options.checked().guarded("any")
    guard = Guard(options.guard, options.allow)
    options = msgspec.structs.replace(options, concurrency=within_descriptors(options.concurrency))
    throttle = Throttle(options.concurrency, options.per_host, options.interval)
    async with AsyncExitStack() as stack:
        resolver = Resolver(options)
        stack.push_async_callback(resolver.close)
        transport = _transport(options)(options, resolver, guard)
        stack.push_async_callback(transport.close)
        yield HttpProber(options, transport, throttle)


def _transport(options: Options) -> Callable[[Options, Resolver, Guard], Transport]:
    if options.transport == "socket" and options.proxy is None:
        return SocketTransport
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
        twins = _Twins()
        async with aclosing(prober.probe_many(twins.firsts(urls))) as results:
            async for result in results:
                yield result
                for twin in twins.of(result):
                    yield result.restamp(twin.seq, twin.text)


class _Twins:
    """Lines that ask for the same: the first is probed, all get its result."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str | None], ProbeResult] = {}
        self._waiting: dict[tuple[str, str | None], list[Target]] = {}
        self._wanted: dict[int, tuple[str, str | None]] = {}
        self._held = 0
        self._freed = asyncio.Event()

    async def firsts(self, urls: Iterable[str | bytes] | AsyncIterable[str | bytes]) -> AsyncIterator[Target]:
        """The targets to probe, and those of which the result is known by now."""
        seq = 0
        async for line in each(urls):
            target = Target.of(seq, line)
            wanted = target.wanted
            seq += 1
            if (result := self._found.get(wanted)) is not None:
                target.found = result
            elif wanted in self._waiting:
                self._waiting[wanted].append(target)
                self._held += 1
                await self._room()
                continue
            else:
                self._waiting[wanted] = []
                self._wanted[target.seq] = wanted
            yield target

    def of(self, result: ProbeResult) -> list[Target]:
        """The lines that have waited for this result."""
        wanted = self._wanted.pop(result.seq, None)
        if wanted is None:
            return []
        self._found[wanted] = result
        waiting = self._waiting.pop(wanted)
        self._held -= len(waiting)
        self._freed.set()
        return waiting

    async def _room(self) -> None:
        """Hold no more lines than that, however many ask for the same; and let others work in between."""
        if self._held % _SLICE == 0:
            await asyncio.sleep(0)
        while self._held >= _HELD:
            self._freed.clear()
            await self._freed.wait()
