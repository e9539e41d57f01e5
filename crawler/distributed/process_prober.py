"""A prober whose probes run in other processes, spread by host.

Each host has one child that asks it, so that its slots, its addresses and its connections are known in one place. A
probe that a redirect leads to another child's host is handed over. What a child had when it ended is probed again; what
was under way in two that ended is probed apart from all else, for one of those targets may be what ends them.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Coroutine, Iterable
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self

from crawler.core.errors import ServiceStopping
from crawler.core.options import Options
from crawler.core.results import ProbeError, ProbeResult
from crawler.core.urls import Target, Url
from crawler.distributed.child_link import LOST, MAX_DEATHS, ChildLink, SentTarget, orders
from crawler.distributed.messages import ChildReport, ChildRequest, encode_frame, receive_frame
from crawler.distributed.process_load import load_of
from crawler.distributed.process_pool import ISOLATED, ProcessPool, child_of
from crawler.probing.probe import Probe
from crawler.probing.prober import HttpProber
from crawler.probing.scheduler import Load
from crawler.runtime.iteration import iterate
from crawler.transport.base import Transport

__all__ = ["ProcessProber"]

_WINDOW: Final = 20_000  # targets that wait for children which are busy, before the others have to wait too
_SOON: Final = 0.01  # seconds until a child that began nothing is asked again
_ON_ITS_WAY: Final = 1.0  # seconds for what children have found in the end


class ProcessProber:
    """The prober of one process and its children.

    Args:
        here: Makes the requests that are no probes, in this process.
        crew: The children.
    """

    def __init__(self, here: HttpProber, crew: ProcessPool) -> None:
        self.is_draining = False
        self._here = here
        self._crew = crew
        self._batches: set[_ProcessRun] = set()

    async def probe(self, target: Target, options: Options | None = None) -> ProbeResult:
        """Probe one target; it takes its turn among all others."""
        async for result in self.probe_many([target], options):
            return result
        raise ServiceStopping("the probe cannot be made any more")

    async def probe_many(
        self, targets: Iterable[Target] | AsyncIterable[Target], options: Options | None = None
    ) -> AsyncGenerator[ProbeResult, None]:
        """Probe targets as they come, reading no further ahead than needed to keep the children busy."""
        ours = self._here.options
        options = ours if options is None else ours.with_stored(options.validated())
        if self.is_draining:
            return
        async with _ProcessRun(self._crew, options) as batch:
            self._batches.add(batch)
            feeder = asyncio.ensure_future(_feed(batch, targets, options))
            try:
                async for result in batch:
                    yield result
                if not self.is_draining:  # else it waits for room that nobody makes any more
                    await feeder  # raises what the caller's iterable raised
            finally:
                self._batches.discard(batch)
                feeder.cancel()
                await asyncio.gather(feeder, return_exceptions=True)

    async def drain(self, seconds: float) -> None:
        """Begin no more requests; those under way have so many seconds."""
        self.is_draining = True
        batches = list(self._batches)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds + _ON_ITS_WAY):
                await asyncio.gather(
                    *(self._drain(index, seconds) for index in range(self._crew.size)),
                    *(batch.drain() for batch in batches),
                )
        for batch in batches:
            batch.cut()

    async def _drain(self, index: int, seconds: float) -> None:
        """Tell a child; not behind what it has still to take in."""
        _, writer = await self._crew.connect(index)
        writer.write(encode_frame(ChildRequest(drain=seconds)))
        writer.close()

    def transport_for(self, options: Options) -> Transport:
        """What makes the requests of who probes with such options."""
        return self._here.transport_for(options)

    async def load(self) -> Load:
        """How busy the children are."""
        return await load_of(self._crew)


async def _feed(batch: "_ProcessRun", targets: Iterable[Target] | AsyncIterable[Target], options: Options) -> None:
    now = asyncio.get_running_loop().time
    try:
        async for target in iterate(targets):
            if target.known_result is None and isinstance(target.url, Url):
                batch.put(target.host, SentTarget(target.seq, target.text))
                await batch.room()
            else:
                batch.finish(Probe(target, options, now).result)
    finally:
        batch.seal()


class _ProcessRun:
    """What one caller has the children do."""

    def __init__(self, crew: ProcessPool, options: Options) -> None:
        self.options = options
        self.crew = crew
        self.is_sealed = False
        self.is_draining = False
        self.waiting = 0  # for children that are busy
        self._links: dict[int, ChildLink] = {}
        self._unfinished = 0
        self._finished: deque[ProbeResult] = deque()
        self._changed = asyncio.Event()
        self._has_room = asyncio.Event()
        self._doubtful: asyncio.Queue[SentTarget] = asyncio.Queue()
        self._running: list[asyncio.Future[None]] = []

    async def __aenter__(self) -> Self:
        self._doubting = self._run(self._ask_doubtful())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for running in self._running:
            running.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def put(self, host: str, work: SentTarget) -> None:
        """Have a target probed."""
        self._unfinished += 1
        self.go_on(host, work)

    def go_on(self, host: str, work: SentTarget) -> None:
        """Have whose host it is work on it."""
        if self.is_draining:
            return
        index = child_of(host, self.crew.size)
        if index not in self._links:
            self._links[index] = ChildLink(self, index)
            self._run(self._links[index].run())
        self._links[index].put(work)

    def doubt(self, work: SentTarget) -> None:
        """Have it probed apart."""
        self._doubtful.put_nowait(work)

    def finish(self, result: ProbeResult) -> None:
        """Pass on what needed no child."""
        self._finished.append(result)
        self._changed.set()

    def take(self, results: list[ProbeResult]) -> None:
        """Pass on what children have found."""
        self._unfinished -= len(results)
        self._finished += results
        self._changed.set()

    def seal(self) -> None:
        """Say that no more targets come."""
        self.is_sealed = True
        self._changed.set()
        for link in self._links.values():
            link.news.set()

    async def drain(self) -> None:
        """Have nothing more begun, and wait for what the children have under way."""
        self.is_draining = True
        self._doubting.cancel()  # what is under way there has cost children, and may take its time
        for link in self._links.values():
            link.news.set()
        await asyncio.wait(self._running)

    def cut(self) -> None:
        """Wait no longer."""
        for running in self._running:
            running.cancel()

    async def room(self) -> None:
        """Wait until more targets are wanted."""
        while self.is_draining or self.waiting >= _WINDOW or len(self._finished) >= _WINDOW:
            self._has_room.clear()
            await self._has_room.wait()

    def has_room(self) -> None:
        """Some of what waited is on its way."""
        self._has_room.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ProbeResult:
        while not self._finished:
            ended = [running for running in self._running if running.done()]
            if not self.is_draining:
                for running in ended:
                    running.result()
            elif len(ended) == len(self._running):
                raise StopAsyncIteration
            if self.is_sealed and not self._unfinished:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        self._has_room.set()
        return self._finished.popleft()

    def _run(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Future[None]:
        running = asyncio.ensure_future(coroutine)
        running.add_done_callback(lambda _: self._changed.set())
        self._running.append(running)
        return running

    async def _ask_doubtful(self) -> None:
        """Probe what children may have ended of, each alone."""
        while True:
            work = await self._doubtful.get()
            async with self.crew.apart:
                result = await self._ask_alone(work)
            if result is None:
                self._take_death(work)
            else:
                self.take([result])

    async def _ask_alone(self, work: SentTarget) -> ProbeResult | None:
        """Probe it in the child that has nothing else to do; None if that began it, and ended."""
        while True:
            reader, writer = await self.crew.connect(ISOLATED)
            has_begun = False
            try:
                writer.write(encode_frame(orders([work], self.options, is_last=True)))
                while True:
                    report = await receive_frame(reader, ChildReport)
                    has_begun |= bool(report.begun)
                    if report.results:
                        return report.results[0]
            except LOST:
                if has_begun:
                    return None
            finally:
                writer.close()
            await asyncio.sleep(_SOON)  # the one before was about to end, and is no more

    def _take_death(self, work: SentTarget) -> None:
        work = work._replace(deaths=work.deaths + 1)
        if work.deaths < MAX_DEATHS:
            self.doubt(work)
            return
        problem = ProbeError.of("unknown", f"{MAX_DEATHS} processes that probed it have ended")
        probe = Probe(Target.of(work.seq, work.text), self.options, asyncio.get_running_loop().time)
        probe.fail(problem)
        self.take([probe.result])
