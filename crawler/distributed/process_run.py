"""Sends the targets of one caller to the child processes."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, Self

from crawler.core.options import Options
from crawler.core.results import ProbeResult
from crawler.core.urls import Target
from crawler.distributed.child_link import ChildLink, SentTarget, child_request
from crawler.distributed.child_process import CONNECTION_LOST
from crawler.distributed.crash_policy import TARGET_CRASH_POLICY, crash_error
from crawler.distributed.messages import ChildReport, encode_frame, receive_frame
from crawler.distributed.process_pool import ISOLATED, ProcessPool, child_of
from crawler.probing.scheduling.fed_stream import FedStream
from crawler.probing.unprobed import failed_result, result_without_request
from crawler.runtime.cancellation import cancel_and_wait

__all__ = ["ProcessRun"]

_MAX_WAITING_TARGETS: Final = 20_000  # for busy children, before the feeder has to wait
_MAX_UNREAD_RESULTS: Final = 20_000
_RETRY_SECONDS: Final = 0.01  # pause before a target is sent again to a child that had not begun it


class ProcessRun(FedStream[ProbeResult]):
    """Sends targets to the children of their hosts, and gives out results as they come.

    Args:
        pool: The children.
        options: How to probe.
    """

    def __init__(self, pool: ProcessPool, options: Options) -> None:
        super().__init__()
        self.options = options
        self.pool = pool
        self._is_draining = False
        self._waiting = 0  # for busy children
        self._unfinished = 0
        self._links: dict[int, ChildLink] = {}
        self._to_isolate: asyncio.Queue[SentTarget] = asyncio.Queue()
        self._running: list[asyncio.Future[None]] = []

    async def __aenter__(self) -> Self:
        self._isolating = self._start(self._probe_isolated())
        return self

    async def __aexit__(self, *_: object) -> None:
        await cancel_and_wait(*self._running)

    @property
    def is_draining(self) -> bool:
        """Whether no more work begins."""
        return self._is_draining

    def put(self, target: Target) -> None:
        """Probe a target, unless its result is known already."""
        if (result := result_without_request(target, self.options)) is not None:
            self.finish(result)
        else:
            self._unfinished += 1
            self.hand_over(target.host, SentTarget(target.seq, target.text))

    def seal(self) -> None:
        """Mark the input as complete."""
        super().seal()
        self._notify_links()

    async def drain(self) -> None:
        """Send no more targets, and wait for those that the children are probing."""
        self._is_draining = True
        self._isolating.cancel()  # an isolated target may take long, because it has ended children before
        self._notify_links()
        await asyncio.wait(self._running)

    def cancel(self) -> None:
        """Stop waiting for the children."""
        for task in self._running:
            task.cancel()

    def _has_room(self) -> bool:
        return (
            not self._is_draining and self._waiting < _MAX_WAITING_TARGETS and len(self._results) < _MAX_UNREAD_RESULTS
        )

    def _is_over(self) -> bool:
        ended = [task for task in self._running if task.done()]
        if self._is_draining:
            if len(ended) == len(self._running):
                return True
        else:
            for task in ended:
                task.result()  # raises what ended it
        return self.is_sealed and not self._unfinished

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Future[None]:
        task = asyncio.ensure_future(coroutine)
        task.add_done_callback(lambda _: self._notify_reader())
        self._running.append(task)
        return task

    def _notify_links(self) -> None:
        for link in self._links.values():
            link.notify()

    # What links call

    def hand_over(self, host: str, sent: SentTarget) -> None:
        """Hand the probe to the child process that owns its host."""
        if self._is_draining:
            return
        index = child_of(host, self.pool.size)
        if index not in self._links:
            self._links[index] = ChildLink(self, index)
            self._start(self._links[index].run())
        self._links[index].put(sent)

    def isolate(self, sent: SentTarget) -> None:
        """Probe a target alone in the isolated child."""
        self._to_isolate.put_nowait(sent)

    def take_results(self, results: list[ProbeResult]) -> None:
        """Add the results of a child to the stream."""
        self._unfinished -= len(results)
        self._results += results
        self._notify_reader()

    def count_waiting(self, change: int) -> None:
        """Count targets that wait for busy children, or that have been sent."""
        self._waiting += change
        if change < 0:
            self._notify_feeder()

    # Isolation

    async def _probe_isolated(self) -> None:
        """Probe each target that may have ended children, one at a time."""
        while True:
            sent = await self._to_isolate.get()
            async with self.pool.isolation:
                result = await self._probe_alone(sent)
            if result is None:
                self._count_crash(sent)
            else:
                self.take_results([result])

    async def _probe_alone(self, sent: SentTarget) -> ProbeResult | None:
        """Probe a target in the isolated child; None if the child began it and ended."""
        while True:
            has_begun = False
            async with self.pool.connection(ISOLATED) as (reader, writer):
                try:
                    writer.write(encode_frame(child_request([sent], self.options, is_last=True)))
                    while True:
                        report = await receive_frame(reader, ChildReport)
                        has_begun |= bool(report.begun)
                        if report.results:
                            return report.results[0]
                except CONNECTION_LOST:
                    if has_begun and not self.pool.was_stopped(ISOLATED):
                        return None
            await asyncio.sleep(_RETRY_SECONDS)  # the child ended before it got the target, or was stopped

    def _count_crash(self, sent: SentTarget) -> None:
        sent = sent._replace(crashes=sent.crashes + 1)
        if TARGET_CRASH_POLICY.must_give_up(sent.crashes):
            target = Target.of(sent.seq, sent.text)
            self.take_results([failed_result(target, self.options, crash_error(sent.crashes))])
        else:
            self.isolate(sent)
