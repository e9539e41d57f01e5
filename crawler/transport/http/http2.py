"""HTTP/2 on a connection: one request and its response, with `h2`, which does no I/O of its own (RFC 9113).

HTTP/2 only confirms a bad answer over HTTP/1.1, so a connection carries one request and is closed.

Some frames cost the server little and the client much: CONTINUATION, SETTINGS, PING, empty DATA, interim responses. So
this module limits the bytes before the head, and the number of all frames that have no body data. h2 limits the size of
the header list and the number of CONTINUATION frames.

h2 gets one frame at a time, and never GOAWAY, because it stops reading there. But a server that shuts down sends GOAWAY
first, and then still answers the requests that it has accepted (RFC 9113, 6.8).
"""

import re
import zlib
from collections.abc import Iterator
from typing import Final

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, Event, InformationalResponseReceived, ResponseReceived, StreamEnded, StreamReset
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings
from hpack import Decoder, HeaderTuple

from crawler.core.results import Body
from crawler.core.urls import Url
from crawler.transport.http.response_body import decompress_body
from crawler.transport.http.response_head import (
    MAX_HEAD_BYTES,
    HeadError,
    Http1Required,
    Http2Refused,
    NotHTTP,
    ResponseHead,
    refuse_contradictions,
)
from crawler.transport.sockets.connection import Connection
from crawler.transport.timing import HopTimer

__all__ = ["Http2Exchange"]

_STREAM: Final = 1
_MAX_CONTROL_FRAMES: Final = 1_000
_MAX_BYTES_BEFORE_HEAD: Final = 2 * MAX_HEAD_BYTES
_MAX_INTERIM_RESPONSES: Final = 100
_MAX_FRAME_BYTES: Final = 16 * 1024  # the default of SETTINGS_MAX_FRAME_SIZE, which we do not raise
_FRAME_HEADER_BYTES: Final = 9
_DATA: Final = 0  # frame types
_PRIORITY: Final = 2
_SETTINGS_FRAME: Final = 4
_GOAWAY: Final = 7
_HEADER_TABLE_SIZE: Final = b"\0\1"  # a setting; they have two bytes of name and four of value
_SETTINGS: Final = {SettingCodes.ENABLE_PUSH: 0, SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEAD_BYTES}

_NAME = re.compile(rb":?[a-z0-9!#$%&'*+.^_`|~-]+")
_NOT_IN_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class _LengthlessDecoder(Decoder):
    """Hides Content-Length from h2, which checks it and may refuse the response; browsers ignore it.

    Attributes:
        fields: The fields of the last header, including Content-Length.
    """

    fields: list[tuple[bytes, bytes]]

    def decode(self, data: bytes, raw: bool = False) -> list[HeaderTuple]:
        """Decode a header for h2, which wants bytes."""
        decoded = list(super().decode(data, raw))
        self.fields = [(bytes(name), bytes(value)) for name, value in decoded]
        return [field for field in decoded if field[0] != b"content-length"]


class Http2Exchange:
    """One request on a connection whose TLS handshake has agreed on `h2`.

    Args:
        connection: The connection; nothing else may use it.
        max_body_bytes: How much of the body of a 2xx response to read; 0 reads none of it.
    """

    def __init__(self, connection: Connection, max_body_bytes: int = 0) -> None:
        self._connection = connection
        self._max_body_bytes = max_body_bytes
        self._h2 = H2Connection(H2Configuration(header_encoding="latin-1", validate_inbound_headers=False))
        self._h2.local_settings = Settings(initial_values=_SETTINGS)
        self._h2.decoder = self._decoder = _LengthlessDecoder(max_header_list_size=MAX_HEAD_BYTES)
        self._unread = bytearray()  # the start of a frame
        self._head: ResponseHead | None = None
        self._body = bytearray()
        self._is_ended = self._is_whole = False
        self._control_frames = self._received_bytes = self._interim_responses = 0
        self._goaway_code = 0

    async def send(self, method: str, url: Url, headers: list[tuple[str, str]], deadline: float) -> None:
        """Send the request.

        Args:
            method: The request method.
            url: The URL.
            headers: Fields besides those that HTTP/2 does not have (RFC 9113, 8.2.2), such as Connection and Host.
            deadline: Time of the clock.

        Raises:
            OSError: The connection broke, or the deadline passed.
        """
        self._h2.initiate_connection()
        fields = [(":method", method), (":scheme", url.scheme), (":authority", url.authority), (":path", url.path)]
        fields += [(name.lower(), value) for name, value in headers]
        encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields]
        self._h2.send_headers(_STREAM, encoded, end_stream=True)
        await self._flush(deadline)

    async def read_head(self, timer: HopTimer, deadline: float) -> ResponseHead:
        """Read the head of the final response.

        Raises:
            EOFError: The connection ended before the head did.
            HeadError: The response has no clear meaning, or goes beyond a limit.
            Http2Refused: The server did not process the request.
            OSError: The connection broke, or the deadline passed.
        """
        while self._head is None:
            await self._receive(deadline)
        timer.start("receive")
        return self._head

    async def read_body(self, head: ResponseHead, deadline: float) -> Body:
        """Read the body until its end, its limit, a failure or the deadline; return the bytes received by then.

        A failure here is not an error of the hop, because the status is known.
        """
        try:
            while not self._is_ended and len(self._body) < self._max_body_bytes:
                await self._receive(deadline)
        except (OSError, EOFError, HeadError, Http2Refused):
            self._is_whole = False
        is_whole = self._is_whole and len(self._body) <= self._max_body_bytes
        return decompress_body(head, self._body[: self._max_body_bytes], self._max_body_bytes, is_whole=is_whole)

    async def _receive(self, deadline: float) -> None:
        data = await self._connection.receive(deadline)
        if not data:
            if self._goaway_code:
                raise HeadError(f"the server ended HTTP/2 with {_error_name(self._goaway_code)}")
            raise EOFError
        self._received_bytes += len(data)
        if self._head is None and self._received_bytes > _MAX_BYTES_BEFORE_HEAD:
            raise HeadError("too many bytes of HTTP/2 before the response")
        self._unread += data
        for frame in self._frames():
            try:
                self._read_frame(frame)
            except (HeadError, Http2Refused):
                if self._head is None:
                    raise
                self._is_ended, self._is_whole = True, False  # the head counts, even if bad frames follow
                return
        await self._flush(deadline)

    def _frames(self) -> Iterator[bytes]:
        """Remove complete frames from the received bytes and yield them."""
        while len(self._unread) >= _FRAME_HEADER_BYTES:
            length = int.from_bytes(self._unread[:3], "big")
            if length > _MAX_FRAME_BYTES:
                kind = NotHTTP if self._control_frames == 0 else HeadError
                raise kind("the response is not HTTP/2, which the server had agreed to")
            size = _FRAME_HEADER_BYTES + length
            if len(self._unread) < size:
                return
            frame = bytes(self._unread[:size])
            del self._unread[:size]
            yield frame

    def _read_frame(self, frame: bytes) -> None:
        kind = frame[3]
        if kind != _DATA or len(frame) == _FRAME_HEADER_BYTES:
            self._control_frames += 1
            if self._control_frames > _MAX_CONTROL_FRAMES:
                raise HeadError(f"more than {_MAX_CONTROL_FRAMES} HTTP/2 frames without content")
        if kind == _GOAWAY:
            self._read_goaway(frame[_FRAME_HEADER_BYTES:])
            return
        if kind == _PRIORITY:
            return  # it means nothing for a single request; h2 refuses a stream that depends on itself
        if kind == _SETTINGS_FRAME:
            frame = _keep_known_setting(frame)
        try:
            events = self._h2.receive_data(frame)
        except ProtocolError as error:
            raise HeadError(f"the response breaks the rules of HTTP/2: {str(error) or type(error).__name__}") from None
        except (UnicodeError, ValueError, zlib.error) as error:
            raise HeadError(f"the response breaks the rules of HTTP/2: {error}") from None
        for event in events:
            self._handle_event(event)

    def _read_goaway(self, payload: bytes) -> None:
        last_stream, code = int.from_bytes(payload[:4], "big") & 0x7FFFFFFF, int.from_bytes(payload[4:8], "big")
        if code == ErrorCodes.HTTP_1_1_REQUIRED:
            raise Http1Required("the server wants HTTP/1.1 for this request")
        if last_stream < _STREAM and self._head is None:
            raise Http2Refused("the server closed the HTTP/2 connection before it took the request (GOAWAY)")
        self._goaway_code = code

    def _handle_event(self, event: Event) -> None:
        match event:
            case InformationalResponseReceived():
                self._interim_responses += 1
                if self._interim_responses > _MAX_INTERIM_RESPONSES:
                    raise HeadError(f"more than {_MAX_INTERIM_RESPONSES} interim responses")
            case ResponseReceived():
                self._head = _parse_head(self._decoder.fields)
            case DataReceived():
                self._body += event.data
                self._h2.acknowledge_received_data(event.flow_controlled_length or 0, _STREAM)
            case StreamEnded():
                self._is_ended = self._is_whole = True
            case StreamReset() if event.stream_id == _STREAM:
                self._is_ended = True
                if self._head is None:
                    _raise_reset(event.error_code)

    async def _flush(self, deadline: float) -> None:
        if data := self._h2.data_to_send():
            await self._connection.send(data, deadline)


def _keep_known_setting(frame: bytes) -> bytes:
    """Remove all settings but the one that a single short request needs. h2 refuses some that Chromium ignores."""
    payload = frame[_FRAME_HEADER_BYTES:]
    if len(payload) % 6:
        return frame  # h2 refuses it
    settings = [payload[start : start + 6] for start in range(0, len(payload), 6)]
    kept = b"".join(each for each in settings if each.startswith(_HEADER_TABLE_SIZE))
    return len(kept).to_bytes(3, "big") + frame[3:_FRAME_HEADER_BYTES] + kept


def _parse_head(raw_fields: list[tuple[bytes, bytes]]) -> ResponseHead:
    """Read a head, with the rules of RFC 9113, 8.2, that Chromium enforces."""
    status: bytes | None = None
    fields: list[tuple[str, str]] = []
    for name, value in raw_fields:
        is_pseudo = name.startswith(b":")
        is_misplaced = is_pseudo and (bool(fields) or (name == b":status" and status is not None))
        if not _NAME.fullmatch(name) or _NOT_IN_VALUE.search(value) or name == b"transfer-encoding" or is_misplaced:
            shown = repr(name)[2:-1]
            raise HeadError(f'the response has a header field that is not allowed in HTTP/2: "{shown}"')
        if name == b":status":
            status = value
        elif not is_pseudo:
            fields.append((name.decode("latin-1"), value.decode("latin-1").strip(" \t")))
    if status is None or not re.fullmatch(rb"[0-9]{3}", status):
        raise HeadError("the HTTP/2 response has no status")
    head = ResponseHead.of(int(status), (2, 0), fields)
    refuse_contradictions(head)
    return head


def _raise_reset(code: int | None) -> None:
    if code == ErrorCodes.HTTP_1_1_REQUIRED:
        raise Http1Required("the server wants HTTP/1.1 for this request")
    if code == ErrorCodes.REFUSED_STREAM:
        raise Http2Refused("the server refused the HTTP/2 request without processing it (REFUSED_STREAM)")
    raise HeadError(f"the server reset the HTTP/2 request with {_error_name(code or 0)}")


def _error_name(code: int) -> str:
    try:
        return ErrorCodes(code).name
    except ValueError:
        return f"error {code}"
