"""HTTP/1.1 on a connection: format a request, read its response."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Final, NamedTuple, TypeVar

from crawler.core.results import Body
from crawler.core.urls import Url
from crawler.runtime.cancellation import in_background
from crawler.transport.base import OnLate
from crawler.transport.http.response_body import BodyDeframer, decompress_body
from crawler.transport.http.response_head import HeadError, ResponseHead, parse_cut_head, parse_head
from crawler.transport.sockets.connection import Connection
from crawler.transport.timing import HopTimer

__all__ = ["HopRequest", "is_body_received", "read_body", "read_head", "unless_needless"]

T = TypeVar("T")

_MAX_INTERIM_RESPONSES: Final = 100
_MAX_DISCARDED_BYTES: Final = 64 * 1024  # of an unwanted body; a connection with more to read is closed

_REPEATABLE_METHODS: Final = frozenset({"HEAD", "GET"})


class HopRequest(NamedTuple):
    """One request and its limits.

    Attributes:
        method: The request method.
        url: The URL.
        headers: The header fields, for HTTP/2.
        data: The head and the body, for HTTP/1.1.
        connect_timeout: Seconds for connecting, and again for the TLS handshake.
        answer_share: Share, above 0 and at most 1, of the time left after connecting in which the head comes.
        max_body_bytes: How much of the body of a 2xx response to read; 0 reads none of it.
        offers_http2: Whether the server may choose HTTP/2.
        on_late: What to call if the head of the response is not there by then; see `Transport.hop`.
    """

    method: str
    url: Url
    headers: list[tuple[str, str]]
    data: bytes
    connect_timeout: float
    answer_share: float
    max_body_bytes: int
    offers_http2: bool
    on_late: OnLate | None

    @classmethod
    def of(
        cls,
        method: str,
        url: Url,
        headers: list[tuple[str, str]],
        content: bytes,
        connect_timeout: float,
        answer_share: float,
        max_body_bytes: int,
        *,
        is_for_proxy: bool = False,
        offers_http2: bool = False,
        on_late: OnLate | None = None,
    ) -> "HopRequest":
        """Make a request. With `is_for_proxy` its request line has the whole URL (RFC 9112, 3.2.2)."""
        lines = [f"{method} {url.href if is_for_proxy else url.path} HTTP/1.1\r\nHost: {url.authority}\r\n"]
        lines += [f"{name}: {value}\r\n" for name, value in headers]
        if content or method not in _REPEATABLE_METHODS:
            lines.append(f"Content-Length: {len(content)}\r\n")
        data = "".join([*lines, "\r\n"]).encode("latin-1") + content
        return cls(method, url, headers, data, connect_timeout, answer_share, max_body_bytes, offers_http2, on_late)

    @property
    def is_repeatable(self) -> bool:
        """Whether it may be sent again when a kept connection turns out to be closed (RFC 9110, 9.2.2)."""
        return self.method in _REPEATABLE_METHODS


async def read_head(
    connection: Connection,
    timer: HopTimer,
    deadline: float,
    late_after: float | None = None,
    on_late: OnLate | None = None,
) -> tuple[ResponseHead, bytes]:
    """Read the head of the final response; return it and the bytes that came after it.

    Args:
        connection: The connection.
        timer: Gets the time of the first bytes.
        deadline: When the head has to be there.
        late_after: A time before; without `on_late` it is the deadline.
        on_late: Called then; see `Transport.hop`.

    Raises:
        EOFError: The connection ended before the head did. Over plain HTTP, a head may lack its end.
        HeadError: The bytes are not a head.
        OSError: The connection broke, or the deadline passed.
    """
    data = bytearray()
    searched_bytes = interim_responses = 0
    is_encrypted = connection.tls is not None
    needless: asyncio.Future[None] | None = None
    while True:
        while not data or (parsed := parse_head(data, searched_bytes, is_encrypted=is_encrypted)) is None:
            searched_bytes = len(data)
            try:
                if needless is None:
                    received = await connection.receive(deadline if late_after is None else late_after)
                else:
                    received = await unless_needless(connection.receive(deadline), needless)
            except TimeoutError:
                if late_after is None or on_late is None:
                    raise
                late_after, needless = None, on_late()
                continue
            if not received:
                cut_head = None if is_encrypted else parse_cut_head(data)
                if cut_head is None or cut_head.is_interim:
                    raise EOFError
                return cut_head, b""
            if not timer.has_received:
                timer.start("receive")
            data += received
        head, size = parsed
        if not head.is_interim:
            return head, bytes(data[size:])
        interim_responses += 1
        if interim_responses > _MAX_INTERIM_RESPONSES:
            raise HeadError(f"more than {_MAX_INTERIM_RESPONSES} interim responses")
        del data[:size]
        searched_bytes = 0


async def unless_needless(reading: Coroutine[Any, Any, T], needless: "asyncio.Future[None]") -> T:
    """Read what is late, but stop when it is needless.

    Raises:
        TimeoutError: It is needless, or the deadline of the reading passed.
    """
    async with in_background(reading) as task:
        await asyncio.wait((task, needless), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise TimeoutError
        return await task


async def read_body(
    connection: Connection, head: ResponseHead, received: bytes, max_bytes: int, deadline: float
) -> Body:
    """Read a body until its end, its limit, a failure or the deadline; return the bytes received by then.

    A failure here is not an error of the hop, because the status is known.
    """
    deframer = BodyDeframer(head, max_bytes)
    deframer.feed(received)
    with suppress(OSError):
        while not deframer.is_done:
            if data := await connection.receive(deadline):
                deframer.feed(data)
            else:
                deframer.end()
    return decompress_body(head, deframer.body, max_bytes, is_whole=deframer.is_whole)


def is_body_received(connection: Connection, length: int | None, received_bytes: int) -> bool:
    """Return whether all of an unwanted body is received; if so, the connection can be used again.

    Reads up to 64 KiB that are available now. This does not wait.
    """
    if length is None or length > _MAX_DISCARDED_BYTES:
        return False
    try:
        while received_bytes < length and (data := connection.receive_available()):
            received_bytes += len(data)
    except OSError:
        return False
    return received_bytes == length
