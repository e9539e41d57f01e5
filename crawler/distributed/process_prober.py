"""A prober whose probes run in child processes.

Each host belongs to one child, so that its slots, addresses and connections are in one place. A probe that a redirect
leads to a host of another child moves there. If a child ends, its targets are probed again. `crash_policy` says when a
target is probed alone, and when it is given up.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from contextlib import suppress
from typing import Final

from crawler.core.errors import ChildError, ServiceStopping
from crawler.core.options import Options
from crawler.core.results import ProbeResult
from crawler.core.task_options import apply_stored_options
from crawler.core.urls import Target
from crawler.distributed.messages import ChildReport, ChildRequest, encode_frame, receive_frame
from crawler.distributed.process_pool import ProcessPool
from crawler.distributed.process_run import ProcessRun
from crawler.probing.prober import HttpProber
from crawler.probing.scheduling.scheduler import Load
from crawler.transport.base import Transport

__all__ = ["ProcessProber"]

_REPORT_SECONDS: Final = 1.0  # for the last reports of draining children
_LOAD_TIMEOUT_SECONDS: Final = 1.0


class ProcessProber:
    """Probes in the child processes of a pool.

    Args:
        local_prober: Sends, in this process, the requests that are no probes.
        pool: The children.
    """

    def __init__(self, local_prober: HttpProber, pool: ProcessPool) -> None:
        self.is_draining = False
        self._local_prober = local_prober
        self._pool = pool
        self._runs: set[ProcessRun] = set()

    async def probe(self, target: Target, options: Options | None = None) -> ProbeResult:
        """Probe one target; it takes its turn among all others."""
        async for result in self.probe_many([target], options):
            return result
        raise ServiceStopping("the service is stopping and probes nothing more")

    async def probe_many(
        self, targets: Iterable[Target] | AsyncIterable[Target], options: Options | None = None
    ) -> AsyncGenerator[ProbeResult, None]:
        """Probe targets as they come, reading no further ahead than needed to keep the children busy."""
        ours = self._local_prober.options
        options = ours if options is None else apply_stored_options(ours, options.validated())
        if self.is_draining:
            return
        async with ProcessRun(self._pool, options) as run, run.fed_with(targets, run.put):
            self._runs.add(run)
            try:
                async for result in run:
                    yield result
            finally:
                self._runs.discard(run)

    async def drain(self, seconds: float) -> None:
        """Start no more requests, and give those in flight `seconds` to finish."""
        self.is_draining = True
        runs = list(self._runs)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds + _REPORT_SECONDS):
                await asyncio.gather(
                    *(self._drain_child(index, seconds) for index in range(self._pool.size)),
                    *(run.drain() for run in runs),
                )
        for run in runs:
            run.cancel()

    @property
    def fault(self) -> str | None:
        """How many children do not answer; None if all do."""
        silent = self._pool.silent
        if not silent:
            return None
        return f"{silent} of {self._pool.size} child processes {'does' if silent == 1 else 'do'} not answer"

    def transport_for(self, options: Options) -> Transport:
        """Return the transport that sends the requests that are no probes."""
        return self._local_prober.transport_for(options)

    async def load(self) -> Load:
        """Return how busy the children are, all together."""
        loads = await asyncio.gather(*(self._child_load(index) for index in range(self._pool.size)))
        active, limit, waiting, slowed, *_ = (sum(numbers) for numbers in zip(*loads, strict=True))
        ours = await self._local_prober.load()
        return Load(int(active), int(limit), int(waiting), int(slowed), ours.missed_seconds, self._pool.replaced)

    async def _drain_child(self, index: int, seconds: float) -> None:
        """Drain a child. The message has its own connection, so that it does not wait behind others."""
        async with self._pool.connection(index) as (_, writer):
            writer.write(encode_frame(ChildRequest(drain=seconds)))

    async def _child_load(self, index: int) -> Load:
        """Return how busy a child is. A child that does not answer in time counts as idle: it has just ended."""
        try:
            async with asyncio.timeout(_LOAD_TIMEOUT_SECONDS), self._pool.connection(index) as (reader, writer):
                writer.write(encode_frame(ChildRequest(asks_load=True)))
                report = await receive_frame(reader, ChildReport)
        except (ChildError, ConnectionError, asyncio.IncompleteReadError, TimeoutError):
            return Load(0, 0, 0, 0)
        assert report.load is not None
        return report.load
