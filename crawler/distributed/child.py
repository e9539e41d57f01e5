"""A process that probes for another one: `crawler.distributed.process_pool` starts it.

It reads its `Charge` from its standard input, says on its output that it listens, and ends when that input does:
so it never outlives the process that started it, however that one ends.
"""

import asyncio
import os
import pickle
import signal
from asyncio import StreamReader, StreamWriter
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from crawler.core.urls import Target
from crawler.distributed.messages import ChildReport, ChildRequest, encode_frame, receive_frame
from crawler.distributed.process_pool import ISOLATED, ChildConfig, child_of
from crawler.probing.factory import open_http_prober
from crawler.probing.probe import Probe
from crawler.probing.prober import HttpProber
from crawler.probing.work_queue import WorkQueue
from crawler.runtime.event_loop import run_on_event_loop
from crawler.runtime.logs import note, write_logs
from crawler.runtime.rlimits import collect_rarely

__all__ = ["main"]

_TOLD: Final = 0.001  # seconds for a report to be on its way


def main() -> None:
    """Probe until the standard input ends."""
    for number in (signal.SIGINT, signal.SIGTERM):  # systemd sends them to all processes: the parent decides
        signal.signal(number, signal.SIG_IGN)
    collect_rarely()
    with open(0, "rb", closefd=False) as parent:
        length = int.from_bytes(parent.read(4), "big")
        charge = msgspec.msgpack.decode(parent.read(length), type=ChildConfig)
    write_logs(charge.logs)
    run_on_event_loop(_run(charge))


async def _run(charge: ChildConfig) -> None:
    # Readable at its end only: nothing more is written to it.
    asyncio.get_running_loop().add_reader(0, _leave, Path(charge.path))
    async with open_http_prober(charge.options) as prober:

        async def serve(reader: StreamReader, writer: StreamWriter) -> None:
            try:
                with suppress(ConnectionError, asyncio.IncompleteReadError):  # the batch has ended, or is given up
                    await _ChildRun(charge, prober, writer).serve(reader)
            finally:
                writer.close()

        async with await asyncio.start_unix_server(serve, charge.path):
            print("listens", flush=True)
            await asyncio.Event().wait()


def _leave(path: Path) -> None:
    """End, and leave no socket: who started this process may have been killed, and the last to go takes the folder."""
    with suppress(OSError):
        path.unlink()
    with suppress(OSError):
        path.parent.rmdir()
    os._exit(0)


class _ChildRun:
    """One connection: targets come, and what becomes of them is told."""

    def __init__(self, charge: ChildConfig, prober: HttpProber, writer: StreamWriter) -> None:
        self._charge = charge
        self._prober = prober
        self._writer = writer
        self._report = ChildReport()
        self._loop = asyncio.get_running_loop()

    async def serve(self, reader: StreamReader) -> None:
        """Work until the other side closes the connection."""
        orders = await receive_frame(reader, ChildRequest)
        if orders.asks_load:
            self._writer.write(encode_frame(ChildReport(load=await self._prober.load())))
            return
        if orders.drain is not None:
            await self._prober.drain(orders.drain)
            return
        assert orders.options is not None
        note(**orders.about)
        options = self._prober.options.with_stored(orders.options)
        turn_of = self._prober.batch(options).turn

        async def turn(probe: Probe) -> bool:
            self._due().begun.append(probe.target.seq)
            if self._charge.index == ISOLATED:  # of this one a target may be the end: that it begins is told before
                await asyncio.sleep(_TOLD)
            return await turn_of(probe) or not self._is_ours(probe.host)

        async with WorkQueue(self._prober.throttle, turn, options.per_host, options.interval) as lane:
            telling = asyncio.ensure_future(self._tell(lane))
            try:
                while True:
                    for seq, text in orders.lines:
                        lane.put(Probe(Target.of(seq, text), options, self._loop.time))
                    for state in orders.moved:
                        probe: Probe = pickle.loads(state)  # from a child of the same process
                        lane.put(probe.resumed(options, self._loop.time))
                    if orders.is_last:
                        lane.hurry()
                    await lane.room()
                    orders = await receive_frame(reader, ChildRequest)
            finally:
                telling.cancel()
                await asyncio.gather(telling, return_exceptions=True)

    async def _tell(self, lane: WorkQueue[Probe]) -> None:
        async for probe in lane:
            if probe.done:
                self._due().results.append(probe.result)
            else:
                self._due().moved.append((probe.target.seq, probe.host, pickle.dumps(probe)))
            await self._writer.drain()
        self._due().is_last = True

    def _is_ours(self, host: str) -> bool:
        return self._charge.index in (ISOLATED, child_of(host, self._charge.size))

    def _due(self) -> ChildReport:
        """The report that is sent once the loop has done what it is at."""
        if not (self._report.begun or self._report.results or self._report.moved):
            self._loop.call_soon(self._send)
        return self._report

    def _send(self) -> None:
        report, self._report = self._report, ChildReport()
        if not self._writer.is_closing():  # else the batch is given up, and nobody reads this
            self._writer.write(encode_frame(report))


if __name__ == "__main__":
    main()
