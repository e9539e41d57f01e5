"""A prober that counts the results of another prober."""

from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from contextlib import aclosing

from crawler.core.options import Options
from crawler.core.results import ProbeResult
from crawler.core.urls import Target
from crawler.probing.prober import Prober
from crawler.probing.scheduling.scheduler import Load
from crawler.runtime.counters import ProbeCounters
from crawler.transport.base import Transport

__all__ = ["CountingProber"]


class CountingProber:
    """Passes everything on to another prober, and counts the results.

    Args:
        prober: The other prober.
        counters: Where each result is counted.
    """

    def __init__(self, prober: Prober, counters: ProbeCounters) -> None:
        self._prober = prober
        self._counters = counters

    async def probe(self, target: Target, options: Options | None = None) -> ProbeResult:
        """Probe one target."""
        result = await self._prober.probe(target, options)
        self._counters.add(result)
        return result

    async def probe_many(
        self, targets: Iterable[Target] | AsyncIterable[Target], options: Options | None = None
    ) -> AsyncGenerator[ProbeResult, None]:
        """Probe targets as they come."""
        async with aclosing(self._prober.probe_many(targets, options)) as results:
            async for result in results:
                self._counters.add(result)
                yield result

    def transport_for(self, options: Options) -> Transport:
        """Return the transport for probes with these options."""
        return self._prober.transport_for(options)

    @property
    def is_draining(self) -> bool:
        """Whether the prober starts no more requests."""
        return self._prober.is_draining

    @property
    def fault(self) -> str | None:
        """What keeps work from being done now."""
        return self._prober.fault

    async def drain(self, seconds: float) -> None:
        """Start no more requests, and give those in flight `seconds` to finish."""
        await self._prober.drain(seconds)

    async def load(self) -> Load:
        """Return how busy the prober is."""
        return await self._prober.load()
