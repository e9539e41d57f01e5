"""What a batch has with each child: targets are sent as it has room for them, and taken back if it ends."""

import asyncio
from asyncio import IncompleteReadError, StreamWriter
from collections import deque
from typing import Final, NamedTuple, Protocol

from crawler.core.options import Options
from crawler.core.results import ProbeResult
from crawler.distributed.messages import ChildReport, ChildRequest, encode_frame, receive_frame
from crawler.distributed.process_pool import ProcessPool
from crawler.runtime.logs import fields

__all__ = ["LOST", "MAX_DEATHS", "ChildLink", "LinkOwner", "SentTarget", "orders"]

MAX_DEATHS: Final = 3  # of children at whose end a target was under way; then it is not probed any more
_FRAME: Final = 200  # targets that are sent at once

LOST: Final = (OSError, IncompleteReadError)
"""What a child that ends looks like, or a connection to it that never was one."""

_SOON: Final = 0.01  # seconds until a child that takes nothing on is asked again; doubled each time
_LATER: Final = 1.0  # at most


class SentTarget(NamedTuple):
    """A target, or if `state` is there a probe on its way; and the children at whose end it was under way."""

    seq: int
    text: str
    state: bytes | None = None
    deaths: int = 0


class LinkOwner(Protocol):
    """The batch.

    Attributes:
        options: How it is probed.
        crew: The children.
        is_sealed: Whether no more targets come.
        is_draining: Whether nothing more is begun.
        waiting: Targets that wait for children that are busy.
    """

    options: Options
    crew: ProcessPool
    is_sealed: bool
    is_draining: bool
    waiting: int

    def has_room(self) -> None:
        """Some of what waited is on its way."""

    def go_on(self, host: str, work: SentTarget) -> None:
        """Have whose host it is work on it."""

    def take(self, results: list[ProbeResult]) -> None:
        """Pass on what children have found."""

    def doubt(self, work: SentTarget) -> None:
        """Have it probed apart."""


class ChildLink:
    """What one child has of a batch."""

    def __init__(self, batch: LinkOwner, index: int) -> None:
        self.news = asyncio.Event()
        self._batch = batch
        self._index = index
        self._backlog: deque[SentTarget] = deque()
        self._sent: dict[int, SentTarget] = {}
        self._begun: set[int] = set()

    def put(self, work: SentTarget) -> None:
        """Send this next."""
        self._backlog.append(work)
        self._batch.waiting += 1
        self.news.set()

    async def run(self) -> None:
        """Send and receive, with one child after the other if they end, until the batch drains."""
        patience = _SOON
        while not self._batch.is_draining:
            reader, writer = await self._batch.crew.connect(self._index)
            sending = asyncio.ensure_future(self._send(writer))
            try:
                is_last = False
                while not is_last:
                    report = await receive_frame(reader, ChildReport)
                    self._take(report)
                    is_last, patience = report.is_last, _SOON
            except LOST:
                await asyncio.sleep(patience)
                patience = min(2 * patience, _LATER)
            finally:
                writer.close()  # first: this may be cancelled while it waits
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
            if not self._batch.is_draining:
                self._begin_again()

    async def _send(self, writer: StreamWriter) -> None:
        batch, options, has_said_last = self._batch, self._batch.options, False
        first = True
        while not batch.is_draining:
            works = [self._backlog.popleft() for _ in range(min(len(self._backlog), _FRAME))]
            is_last = batch.is_sealed and not self._backlog and not has_said_last
            if works or is_last:
                batch.waiting -= len(works)
                batch.has_room()
                self._sent |= {work.seq: work for work in works}
                writer.write(encode_frame(orders(works, options if first else None, is_last=is_last)))
                first, has_said_last = False, has_said_last or is_last
                await writer.drain()
            else:
                self.news.clear()
                await self.news.wait()
        if first:  # else the child would wait for it
            writer.write(encode_frame(orders([], options, is_last=False)))

    def _take(self, report: ChildReport) -> None:
        self._begun.update(report.begun)
        for seq, host, state in report.moved:
            work = self._forget(seq)
            self._batch.go_on(host, work._replace(state=state))
        for result in report.results:
            self._forget(result.seq)
        if report.results:
            self._batch.take(report.results)

    def _forget(self, seq: int) -> SentTarget:
        self._begun.discard(seq)
        return self._sent.pop(seq)

    def _begin_again(self) -> None:
        """Take back what the child had: it has ended."""
        for seq, work in self._sent.items():
            deaths = work.deaths + (seq in self._begun)
            if deaths >= MAX_DEATHS - 1:
                self._batch.doubt(work._replace(deaths=deaths))
            else:
                self.put(work._replace(deaths=deaths))
        self._sent.clear()
        self._begun.clear()


def orders(works: list[SentTarget], options: Options | None, *, is_last: bool) -> ChildRequest:
    """What is sent to a child of these."""
    return ChildRequest(
        options,
        [(work.seq, work.text) for work in works if work.state is None],
        [work.state for work in works if work.state is not None],
        is_last,
        about={} if options is None else fields(),
    )
