"""What travels between a prober that is spread over processes and its children.

A connection on a Unix socket carries one batch. Each frame on it is a length of four bytes and msgpack; what is sent
down is `Orders`, what comes back is `Report`.
"""

from asyncio import StreamReader
from collections.abc import Mapping
from typing import Final, TypeVar

import msgspec

from crawler.core.options import Options
from crawler.core.results import ProbeResult
from crawler.probing.scheduler import Load

__all__ = ["ChildReport", "ChildRequest", "encode_frame", "receive_frame"]

T = TypeVar("T")

_LENGTH: Final = 4


class ChildRequest(msgspec.Struct, omit_defaults=True):
    """What to probe.

    Attributes:
        options: How; in the first frame of a connection.
        lines: Position and text of targets that have not been asked yet.
        moved: Probes on their way, pickled, whom a redirect has led to a host of this child's.
        about: What lines of the log are about, in the first frame as well.
        is_last: Whether no more lines come; moved probes still may.
        asks_load: Whether nothing is to be probed, but to be told how busy the child is.
        drain: Alone on a connection: no more requests begin, for whomever; those under way have so many seconds.
    """

    options: Options | None = None
    lines: list[tuple[int, str]] = []
    moved: list[bytes] = []
    is_last: bool = False
    asks_load: bool = False
    about: Mapping[str, str] = {}
    drain: float | None = None


class ChildReport(msgspec.Struct, omit_defaults=True):
    """What has become of it.

    Attributes:
        begun: Positions of targets that are about to be asked.
        results: The verdicts.
        moved: Probes that go on at another host: position, host, and the probe, pickled.
        load: How busy the child is, if that was asked.
        is_last: Whether that was all, after a drain.
    """

    begun: list[int] = []
    results: list[ProbeResult] = []
    moved: list[tuple[int, str, bytes]] = []
    load: Load | None = None
    is_last: bool = False


def encode_frame(content: ChildRequest | ChildReport) -> bytes:
    """Content as it is sent."""
    body = msgspec.msgpack.encode(content)
    return len(body).to_bytes(_LENGTH, "big") + body


async def receive_frame(reader: StreamReader, kind: type[T]) -> T:
    """The next frame.

    Raises:
        asyncio.IncompleteReadError: The other side has ended.
    """
    length = int.from_bytes(await reader.readexactly(_LENGTH), "big")
    return msgspec.msgpack.decode(await reader.readexactly(length), type=kind)
