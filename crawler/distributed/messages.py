"""The messages between a ProcessProber and its child processes.

A connection carries one run. Each frame has four bytes of length, then msgpack: `ChildRequest`s go to the child,
`ChildReport`s come back.
"""

from asyncio import StreamReader
from collections.abc import Mapping
from typing import Final, TypeVar

import msgspec

from crawler.core.options import Options
from crawler.core.results import ProbeResult
from crawler.probing.probe_state import ProbeState
from crawler.probing.scheduling.scheduler import Load

__all__ = ["ChildReport", "ChildRequest", "encode_frame", "receive_frame"]

T = TypeVar("T")

_LENGTH_BYTES: Final = 4


class ChildRequest(msgspec.Struct, omit_defaults=True):
    """Work for a child.

    Attributes:
        options: How to probe; in the first frame of a connection.
        lines: Position and text of targets that have not been probed yet.
        moved: Probes that a redirect has led to a host of this child.
        is_last: Whether no more lines follow; moved probes still may.
        asks_load: Report how busy the child is; a connection with this message has no others.
        log_fields: Fields of this run's log lines; in the first frame as well.
        drain: The only message of a connection: start no more requests of any run. Those in flight get this many
            seconds.
    """

    options: Options | None = None
    lines: list[tuple[int, str]] = []
    moved: list[ProbeState] = []
    is_last: bool = False
    asks_load: bool = False
    log_fields: Mapping[str, str] = {}
    drain: float | None = None


class ChildReport(msgspec.Struct, omit_defaults=True):
    """The report of a child.

    Attributes:
        begun: Positions of targets whose request is about to be sent.
        results: Results found.
        moved: Probes that continue at a host of another child.
        load: How busy the child is, if the request asked for it.
        is_last: Whether no more reports follow, after a drain.
    """

    begun: list[int] = []
    results: list[ProbeResult] = []
    moved: list[ProbeState] = []
    load: Load | None = None
    is_last: bool = False


def encode_frame(content: ChildRequest | ChildReport) -> bytes:
    """Return the frame of a message."""
    body = msgspec.msgpack.encode(content)
    return len(body).to_bytes(_LENGTH_BYTES, "big") + body


async def receive_frame(reader: StreamReader, kind: type[T]) -> T:
    """Return the next message.

    Raises:
        asyncio.IncompleteReadError: The other side has closed the connection.
    """
    length = int.from_bytes(await reader.readexactly(_LENGTH_BYTES), "big")
    return msgspec.msgpack.decode(await reader.readexactly(length), type=kind)
