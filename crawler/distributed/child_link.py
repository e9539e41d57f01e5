"""The connection of one run with one child: sends targets, reads reports, queues targets again if it ends."""

import asyncio
from asyncio import StreamWriter
from collections import deque
from typing import Final, NamedTuple, Protocol

from crawler.core.options import Options
from crawler.core.results import ProbeResult
from crawler.distributed.child_process import CONNECTION_LOST
from crawler.distributed.crash_policy import TARGET_CRASH_POLICY
from crawler.distributed.messages import ChildReport, ChildRequest, encode_frame, receive_frame
from crawler.distributed.process_pool import ProcessPool
from crawler.probing.probe_state import ProbeState
from crawler.runtime.cancellation import in_background
from crawler.runtime.logs import current_log_fields

__all__ = ["ChildLink", "LinkOwner", "SentTarget", "child_request"]

_MAX_FRAME_TARGETS: Final = 200
_FIRST_RETRY_SECONDS: Final = 0.01  # pause before the next connection to a child that ends at once; doubled each time
_MAX_RETRY_SECONDS: Final = 1.0


class SentTarget(NamedTuple):
    """A target for a child.

    Attributes:
        seq: Its position.
        text: The line as submitted.
        state: The state of its probe, if the probe has moved from another child.
        crashes: Children that ended after they had begun it.
    """

    seq: int
    text: str
    state: ProbeState | None = None
    crashes: int = 0


class LinkOwner(Protocol):
    """The run that a link works for.

    Attributes:
        options: How to probe.
        pool: The children.
        is_sealed: Whether no more targets come.
    """

    options: Options
    pool: ProcessPool
    is_sealed: bool

    @property
    def is_draining(self) -> bool:
        """Whether nothing more is sent."""

    def hand_over(self, host: str, sent: SentTarget) -> None:
        """Hand the probe to the child process that owns its host."""

    def isolate(self, sent: SentTarget) -> None:
        """Probe a target alone in the isolated child."""

    def take_results(self, results: list[ProbeResult]) -> None:
        """Add the results of a child to the stream."""

    def count_waiting(self, change: int) -> None:
        """Count targets that wait for a busy child, or that have been sent."""


class ChildLink:
    """Sends a run's targets to one child, and reads its reports."""

    def __init__(self, run: LinkOwner, index: int) -> None:
        self._run = run
        self._index = index
        self._changed = asyncio.Event()
        self._backlog: deque[SentTarget] = deque()
        self._sent: dict[int, SentTarget] = {}
        self._begun: set[int] = set()

    def put(self, target: SentTarget) -> None:
        """Send a target when the child has room."""
        self._backlog.append(target)
        self._run.count_waiting(1)
        self.notify()

    def notify(self) -> None:
        """Check again whether there is something to send."""
        self._changed.set()

    async def run(self) -> None:
        """Send and receive until the run drains; when the child ends, continue with its replacement."""
        retry_seconds = _FIRST_RETRY_SECONDS
        while not self._run.is_draining:
            reader, writer = await self._run.pool.connect(self._index)
            may_blame = True
            async with in_background(self._send(writer)):
                try:
                    is_last = False
                    while not is_last:
                        report = await receive_frame(reader, ChildReport)
                        self._take(report)
                        is_last, retry_seconds = report.is_last, _FIRST_RETRY_SECONDS
                except CONNECTION_LOST:
                    may_blame = not self._run.pool.was_stopped(self._index)
                    await asyncio.sleep(retry_seconds)
                    retry_seconds = min(2 * retry_seconds, _MAX_RETRY_SECONDS)
                finally:
                    writer.close()
            if not self._run.is_draining:
                self._take_back(may_blame=may_blame)

    async def _send(self, writer: StreamWriter) -> None:
        run, has_said_last, is_first = self._run, False, True
        while not run.is_draining:
            targets = [self._backlog.popleft() for _ in range(min(len(self._backlog), _MAX_FRAME_TARGETS))]
            is_last = run.is_sealed and not self._backlog and not has_said_last
            if targets or is_last:
                run.count_waiting(-len(targets))
                self._sent |= {target.seq: target for target in targets}
                writer.write(encode_frame(child_request(targets, run.options if is_first else None, is_last=is_last)))
                is_first, has_said_last = False, has_said_last or is_last
                await writer.drain()
            else:
                self._changed.clear()
                await self._changed.wait()
        if is_first:  # the child waits for a first frame
            writer.write(encode_frame(child_request([], run.options, is_last=False)))

    def _take(self, report: ChildReport) -> None:
        self._begun.update(report.begun)
        for state in report.moved:
            target = self._forget(state.seq)
            self._run.hand_over(state.url.host, target._replace(state=state))
        for result in report.results:
            self._forget(result.seq)
        if report.results:
            self._run.take_results(report.results)

    def _forget(self, seq: int) -> SentTarget:
        self._begun.discard(seq)
        return self._sent.pop(seq)

    def _take_back(self, *, may_blame: bool) -> None:
        """Queue again the targets that the child had when it ended, because of one of them or not."""
        for seq, target in self._sent.items():
            crashes = target.crashes + (may_blame and seq in self._begun)
            target = target._replace(crashes=crashes)
            if TARGET_CRASH_POLICY.must_isolate(crashes):
                self._run.isolate(target)
            else:
                self.put(target)
        self._sent.clear()
        self._begun.clear()


def child_request(targets: list[SentTarget], options: Options | None, *, is_last: bool) -> ChildRequest:
    """Return the frame that sends targets to a child; `options` in the first one."""
    return ChildRequest(
        options,
        [(target.seq, target.text) for target in targets if target.state is None],
        [target.state for target in targets if target.state is not None],
        is_last,
        log_fields={} if options is None else current_log_fields(),
    )
