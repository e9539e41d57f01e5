"""What all handlers share: the Tasks, who works on them, and how they are begun and ended."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, Final

from aiohttp import web

from crawler.compose import open_engine, open_prober
from crawler.core.errors import ServiceStopping, StoreError, TransitionError
from crawler.core.options import Options
from crawler.core.results import ProbeResult
from crawler.core.service_options import ServiceOptions
from crawler.core.tasks import Task
from crawler.core.urls import Target
from crawler.probing.prober import Prober
from crawler.probing.scheduler import Load
from crawler.registry import Lines, Registry
from crawler.runtime.counters import ProbeCounters
from crawler.runtime.logs import add_log_fields
from crawler.runtime.loop_lag import LoopLag
from crawler.server.background.leader import Leader
from crawler.server.background.retention import Retention
from crawler.server.background.webhooks import Webhooks
from crawler.server.counting_prober import CountingProber
from crawler.server.health import HealthMonitor
from crawler.server.quotas import Quotas
from crawler.transport.resolver import has_dns_servers
from crawler.worker import Engine

__all__ = ["TASK_MANAGER", "TaskManager"]

_REMEMBERED: Final = 10_000  # Tasks of which it is known since when they are worked on


class TaskManager:
    """Lives as long as the application; `engine` stands while that runs.

    Attributes:
        coming: Whose batches are being taken in, and their idempotency keys.
        quotas: How much more may be taken in.
        asked: How many single URLs are being probed.
        tally: What was probed.
        lag: How late the event loop is.
        health: What stands in the way.
        is_stopping: Whether the service wants to end: nobody should wait for a Task any more, and nothing is begun.
    """

    engine: Engine
    _prober: Prober

    def __init__(self, options: Options, registry: Registry, service: ServiceOptions) -> None:
        self.options = options
        self.registry = registry
        self.service = service
        self.coming: set[tuple[str | None, str]] = set()
        self.quotas = Quotas(registry, service)
        self.asked = 0
        self.tally = ProbeCounters()
        self.lag = LoopLag()
        self.health = HealthMonitor(
            registry,
            has_resolver=partial(has_dns_servers, options),
            lag=lambda: self.lag.worst,
            is_stopping=lambda: self.is_stopping,
        )
        self.is_stopping = False
        self._stopped: asyncio.Future[None] | None = None
        self._begun: OrderedDict[str, tuple[float, int]] = OrderedDict()  # unix time, and lines done by then

    async def run(self, app: web.Application) -> AsyncIterator[None]:
        """The life of the application, as aiohttp's `cleanup_ctx` wants it: what was running goes on."""
        async with (
            self.registry,
            self.lag,
            self.health,
            open_prober(self.options) as prober,
            open_engine(self.registry, counted := CountingProber(prober, self.tally)) as self.engine,
            Leader(
                self.registry,
                self.engine,
                Webhooks(self.registry, prober.transport_for(self.options), self.options.user_agent, self.service),
                Retention(self.registry, self.service, self.delete),
            ),
        ):
            self._prober = counted
            for task in self.registry.tasks.values():
                if task.status == "running":
                    task.options = self.options.with_stored(task.options)
                    self._start(task)
            yield
            await self.stop()

    async def let_go(self, app: web.Application) -> None:
        """The application is to end, as aiohttp's `on_shutdown` says."""
        self.stop()

    def stop(self) -> asyncio.Future[None]:
        """Begin nothing more, and answer who waits for a Task; returns at once.

        Returns:
            What is done once the probes under way are, or have had their time, and are recorded.
        """
        if self._stopped is None:
            self.is_stopping = True
            self.registry.wake_waiters()
            self._stopped = asyncio.ensure_future(self.engine.drain(self.service.drain))
        return self._stopped

    async def submit(self, lines: Lines, options: Options | None = None, **fields: Any) -> Task:
        """Take a batch in and start work on it; `fields` are as in `Registry.submit`.

        Raises:
            ServiceStopping: The service is stopping. A batch begun before is still stored, for the next start.
        """
        self._check_begins()
        task = await self.registry.submit(lines, options or self.options, **fields)
        add_log_fields(task=task.id)
        self._start(task)
        return task

    async def cancel(self, task: Task) -> None:
        """Stop a Task's work for good; what is found stays. One that has ended stays as it is."""
        async with self._at_rest(task):
            if self.registry.task(task.id).status == "running":
                with suppress(TransitionError):  # somebody else may cancel it too
                    await self.registry.finish(task.id, "error", CANCELLED)

    async def delete(self, task: Task) -> None:
        """Stop a Task's work and forget it."""
        async with self._at_rest(task):
            await self.registry.delete(task.id)

    async def probe(self, url: str, options: Options) -> ProbeResult:
        """Probe one URL, which takes its turn among those of all Tasks.

        Raises:
            ServiceStopping: The service is stopping.
        """
        self._check_begins()
        self.asked += 1
        try:
            return await self._prober.probe(Target.of(0, url), options)
        finally:
            self.asked -= 1

    async def load(self) -> Load:
        """How busy the prober is."""
        return await self._prober.load()

    def rate(self, task: Task) -> float | None:
        """Lines a second since work on a Task began here; None if it did not, or just now."""
        if task.id not in self._begun:
            return None
        begun, done = self._begun[task.id]
        seconds = (task.finished or time.time()) - begun
        return (task.counts.done - done) / seconds if seconds > 0 else None

    @asynccontextmanager
    async def _at_rest(self, task: Task) -> AsyncIterator[None]:
        """While nothing works on a Task, to end it; work goes on if the store cannot keep that it has ended."""
        await self.engine.stop(task.id)
        try:
            yield
        except StoreError:
            if task.status == "running":
                self._start(task)
            raise

    def _check_begins(self) -> None:
        if self.is_stopping:
            raise ServiceStopping("the service is stopping")

    def _start(self, task: Task) -> None:
        self._begun[task.id] = (time.time(), task.counts.done)
        if len(self._begun) > _REMEMBERED:
            self._begun.popitem(last=False)
        self.engine.start(task.id)


TASK_MANAGER: Final = web.AppKey("TASK_MANAGER", TaskManager)
CANCELLED: Final = "cancelled"
