"""The interface of a prober, which turns targets into results, and the prober of one process."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from typing import Final, Protocol

from crawler.core.errors import ServiceStopping
from crawler.core.options import Options
from crawler.core.results import ProbeResult
from crawler.core.task_options import apply_stored_options
from crawler.core.urls import Target
from crawler.probing.head_support import HeadSupport
from crawler.probing.probe import Probe
from crawler.probing.probe_run import ProbeRun
from crawler.probing.robots.cache import RobotsCache
from crawler.probing.scheduling.scheduler import Load, Scheduler
from crawler.probing.scheduling.work_queue import RunItem, WorkQueue
from crawler.probing.settings import DEFAULT_SETTINGS, ProberSettings
from crawler.runtime.awake_clock import AwakeClock
from crawler.transport.base import Transport

__all__ = ["HttpProber", "Prober"]

_MAX_ROBOTS_CACHES: Final = 16


class Prober(Protocol):
    """Turns targets into results."""

    async def probe(self, target: Target, options: Options | None = None) -> ProbeResult:
        """Probe one target; it takes its turn among all others.

        Raises:
            ServiceStopping: The prober drains, and a request would be needed.
        """

    def probe_many(
        self, targets: Iterable[Target] | AsyncIterable[Target], options: Options | None = None
    ) -> AsyncGenerator[ProbeResult, None]:
        """Probe targets as they come, and give one result each, in the order in which they are found.

        The targets are read no further ahead than needed. What the iterable raises is raised here.

        Args:
            targets: What to probe.
            options: How to probe; the prober uses only those of `TASK_OPTIONS`. Default: the prober's own options.
        """

    def transport_for(self, options: Options) -> Transport:
        """Return the transport that sends the requests of probes with these options."""

    async def load(self) -> Load:
        """Return how busy the prober is."""

    @property
    def is_draining(self) -> bool:
        """Whether `drain` was called: `probe_many` may end before all targets have a result."""

    @property
    def fault(self) -> str | None:
        """What keeps work from being done now, in words that have no details; None if nothing does."""

    async def drain(self, seconds: float) -> None:
        """Start no more requests, and give those in flight `seconds` to finish.

        Each `probe_many` ends with the results found by then.
        """


class HttpProber:
    """The prober of one process. All callers share its slots.

    Args:
        options: How to probe, where a caller gives no options.
        transport_for: Returns the transport for probes with the given options.
        scheduler: Hands out the slots.
        settings: Waits and bounds.
        clock: Measures how long requests take; the transports' clock.
    """

    def __init__(
        self,
        options: Options,
        transport_for: Callable[[Options], Transport],
        scheduler: Scheduler,
        settings: ProberSettings = DEFAULT_SETTINGS,
        clock: AwakeClock | None = None,
    ) -> None:
        self.options = options
        self.transport_for = transport_for
        self._scheduler = scheduler
        self._settings = settings
        self._clock = clock or AwakeClock()
        self._head_support = HeadSupport()
        self._robots: OrderedDict[tuple[object, ...], RobotsCache] = OrderedDict()

    async def probe(self, target: Target, options: Options | None = None) -> ProbeResult:
        """Probe one target; it takes its turn among all others."""
        async for result in self.probe_many([target], options):
            return result
        raise ServiceStopping("the service is stopping and probes nothing more")

    async def probe_many(
        self, targets: Iterable[Target] | AsyncIterable[Target], options: Options | None = None
    ) -> AsyncGenerator[ProbeResult, None]:
        """Probe targets as they come."""
        options = self.options if options is None else apply_stored_options(self.options, options.validated())
        now, policy = asyncio.get_running_loop().time, self._settings.retry

        def submit(target: Target) -> None:
            probe = Probe.of(target, options, now, policy)
            if probe.is_finished:
                queue.finish(probe)
            else:
                queue.put(probe)

        async with self.open_queue(self.start_run(options).advance, options) as queue, queue.fed_with(targets, submit):
            async for probe in queue:
                yield probe.result

    def start_run(self, options: Options) -> ProbeRun:
        """Return the run that works on the probes of one caller."""
        return ProbeRun(
            options,
            self.transport_for(options),
            self._scheduler,
            self._head_support,
            self._robots_for(options),
            self._settings.retry,
            self.options.retry_budget,
            self._clock.now,
        )

    def open_queue(self, advance: RunItem[Probe], options: Options) -> WorkQueue[Probe]:
        """Return a queue for the probes of one caller; `advance` works on each while it holds a slot."""
        return WorkQueue(
            self._scheduler,
            advance,
            options.per_host,
            options.interval,
            max_deferral_seconds=self._settings.max_deferral_seconds,
        )

    async def load(self) -> Load:
        """Return how busy the prober is."""
        return self._scheduler.load()._replace(missed_seconds=self._clock.missed)

    @property
    def fault(self) -> str | None:
        """None: in this process nothing but the event loop can be stuck."""
        return None

    @property
    def is_draining(self) -> bool:
        """Whether no more requests start."""
        return self._scheduler.is_draining

    async def drain(self, seconds: float) -> None:
        """Start no more requests, and give those in flight `seconds` to finish."""
        await self._scheduler.drain(seconds)

    def _robots_for(self, options: Options) -> RobotsCache | None:
        """Return the robots.txt rules for these options; None if the options ignore robots.txt.

        Callers share rules only if a fetch has the same outcome for them: with the same agent, time and certificates.
        """
        if not options.robots:
            return None
        key = (
            options.user_agent, options.timeout, options.connect_timeout, options.insecure, options.ipv4, options.ipv6
        )  # fmt: skip
        if key not in self._robots:
            self._robots[key] = RobotsCache(options.user_agent)
            if len(self._robots) > _MAX_ROBOTS_CACHES:
                self._robots.popitem(last=False)
        self._robots.move_to_end(key)
        return self._robots[key]
