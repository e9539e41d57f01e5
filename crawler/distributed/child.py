"""A child process that probes: `crawler.distributed.child_process` starts it.

Its standard input is a socket. It reads its `ChildConfig` from there, writes a line to its standard output, and from
then on gets each connection as a descriptor. It ends when its input ends: so it never outlives the process that started
it, however that one ends.
"""

import asyncio
import os
import signal
import socket
from asyncio import StreamReader, StreamWriter
from contextlib import suppress
from typing import Final

import msgspec

from crawler.core.options import Options
from crawler.core.task_options import apply_stored_options
from crawler.core.urls import Target
from crawler.distributed.child_process import ChildConfig
from crawler.distributed.messages import ChildReport, ChildRequest, encode_frame, receive_frame
from crawler.distributed.process_pool import ISOLATED, child_of
from crawler.probing.factory import open_http_prober
from crawler.probing.probe import Probe
from crawler.probing.prober import HttpProber
from crawler.probing.scheduling.work_queue import WorkQueue
from crawler.runtime.cancellation import in_background
from crawler.runtime.event_loop import run_on_event_loop
from crawler.runtime.log_writer import flush_log
from crawler.runtime.logs import add_log_fields, configure_logging
from crawler.runtime.resources import tune_garbage_collector

__all__ = ["main"]

_MAX_CONNECTIONS_AT_ONCE: Final = 16
_REPORT_SECONDS: Final = 0.001  # until a report has been sent


def main() -> None:
    """Probe until the standard input ends."""
    for number in (signal.SIGINT, signal.SIGTERM):  # systemd signals all processes; the parent decides
        signal.signal(number, signal.SIG_IGN)
    tune_garbage_collector()
    with open(0, "rb", closefd=False) as parent:  # the parent sends nothing more until the line is written
        length = int.from_bytes(parent.read(4), "big")
        config = msgspec.msgpack.decode(parent.read(length), type=ChildConfig)
    configure_logging(config.logs)
    run_on_event_loop(_serve(config))


async def _serve(config: ChildConfig) -> None:
    async with open_http_prober(config.options, config.prober_settings) as prober:
        serving: set[asyncio.Task[None]] = set()

        async def serve(connection: socket.socket) -> None:
            reader, writer = await asyncio.open_unix_connection(sock=connection)
            try:
                with suppress(ConnectionError, asyncio.IncompleteReadError):  # the parent has closed it
                    await _ChildRun(config, prober, writer).serve(reader)
            finally:
                writer.close()

        def accept() -> None:
            for connection in _receive_connections(parent):
                task = asyncio.ensure_future(serve(connection))
                serving.add(task)
                task.add_done_callback(serving.discard)

        parent = socket.socket(fileno=0)
        parent.setblocking(False)
        asyncio.get_running_loop().add_reader(0, accept)
        print("listens", flush=True)
        await asyncio.Event().wait()


def _receive_connections(parent: socket.socket) -> list[socket.socket]:
    """Return the connections that the parent has opened; end this process if the parent has ended."""
    try:
        # Each comes with one byte. Without a free descriptor here there is only the byte, and the parent's end closes.
        data, descriptors, _, _ = socket.recv_fds(parent, _MAX_CONNECTIONS_AT_ONCE, _MAX_CONNECTIONS_AT_ONCE)
    except BlockingIOError:
        return []
    except OSError:
        data, descriptors = b"", []
    if not data:
        flush_log()
        os._exit(0)
    connections = [socket.socket(fileno=descriptor) for descriptor in descriptors]
    for connection in connections:
        connection.setblocking(False)
    return connections


class _ChildRun:
    """Serves one connection: receives targets, probes them, reports."""

    def __init__(self, config: ChildConfig, prober: HttpProber, writer: StreamWriter) -> None:
        self._config = config
        self._prober = prober
        self._writer = writer
        self._report = ChildReport()
        self._loop = asyncio.get_running_loop()

    async def serve(self, reader: StreamReader) -> None:
        """Work until the parent closes the connection."""
        request = await receive_frame(reader, ChildRequest)
        while request.asks_load:  # again and again: so the parent learns whether this process answers
            self._writer.write(encode_frame(ChildReport(load=await self._prober.load())))
            request = await receive_frame(reader, ChildRequest)
        if request.drain is not None:
            await self._prober.drain(request.drain)
        else:
            assert request.options is not None
            add_log_fields(**request.log_fields)
            await self._probe(reader, request, apply_stored_options(self._prober.options, request.options))

    async def _probe(self, reader: StreamReader, request: ChildRequest, options: Options) -> None:
        """Probe the targets of this request and of those that follow."""
        advance = self._prober.start_run(options).advance

        async def advance_here(probe: Probe) -> bool:
            """Report the target as begun, then work on it while its host belongs to this child."""
            self._next_report().begun.append(probe.state.seq)
            if self._config.index == ISOLATED:  # the target may end this process: the report must go out first
                await asyncio.sleep(_REPORT_SECONDS)
            return await advance(probe) or not self._owns(probe.host)

        async with self._prober.open_queue(advance_here, options) as queue, in_background(self._report_from(queue)):
            while True:
                for seq, text in request.lines:
                    queue.put(Probe.of(Target.of(seq, text), options, self._loop.time))
                for state in request.moved:
                    queue.put(Probe(state, options, self._loop.time))
                if request.is_last:
                    queue.expect_end()
                await queue.wait_for_room()
                request = await receive_frame(reader, ChildRequest)

    async def _report_from(self, queue: WorkQueue[Probe]) -> None:
        """Report results, and probes that move to another child."""
        async for probe in queue:
            if probe.is_finished:
                self._next_report().results.append(probe.result)
            else:
                self._next_report().moved.append(probe.state)
            await self._writer.drain()
        self._next_report().is_last = True

    def _owns(self, host: str) -> bool:
        return self._config.index in (ISOLATED, child_of(host, self._config.size))

    def _next_report(self) -> ChildReport:
        """Return the report that is sent at the loop's next turn."""
        if not (self._report.begun or self._report.results or self._report.moved):
            self._loop.call_soon(self._send)
        return self._report

    def _send(self) -> None:
        report, self._report = self._report, ChildReport()
        if not self._writer.is_closing():  # else the parent has closed the connection
            self._writer.write(encode_frame(report))


if __name__ == "__main__":
    main()
