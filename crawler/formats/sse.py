"""Read server-sent events as they arrive (https://html.spec.whatwg.org/multipage/server-sent-events.html).

The reader does no I/O: `feed` it bytes in pieces of any size, and it returns the same events.
"""

import re
from typing import Final, NamedTuple

from crawler.core.errors import InputError

__all__ = ["MAX_EVENT_BYTES", "EventReader", "ServerSentEvent"]

MAX_EVENT_BYTES: Final = 16 * 2**20  # an event has a result with many URLs, each of up to 64 KiB

_BOM: Final = b"\xef\xbb\xbf"
_END_OF_LINE: Final = re.compile(rb"\r\n|\n|\r(?!\Z)")  # a CR at the end of the input may be the first half of CRLF


class ServerSentEvent(NamedTuple):
    """One event. `id` is that of the last event that had one."""

    name: str
    data: bytes
    id: str


class EventReader:
    """Turns bytes into events. After an `InputError` it cannot be used any more."""

    def __init__(self) -> None:
        self._has_begun = False
        self._rest = bytearray()  # an incomplete line; grows in place
        self._name = b""
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._id = b""

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """Add more input and return the events that have become complete.

        Raises:
            InputError: An event is longer than `MAX_EVENT_BYTES`.
        """
        may_have_line = self._rest.endswith(b"\r") or any(end in data for end in b"\r\n")
        self._rest += data
        events = self._read() if may_have_line or not self._has_begun else []
        if self._data_bytes + len(self._rest) > MAX_EVENT_BYTES:
            raise InputError(f"an event is longer than {MAX_EVENT_BYTES} bytes")
        return events

    def _read(self) -> list[ServerSentEvent]:
        if not self._has_begun:
            if len(self._rest) < len(_BOM) and _BOM.startswith(self._rest):
                return []
            self._has_begun = True
            self._rest = self._rest.removeprefix(_BOM)
        *lines, self._rest = map(bytearray, _END_OF_LINE.split(self._rest))
        return [event for line in lines if (event := self._take(bytes(line))) is not None]

    def _take(self, line: bytes) -> ServerSentEvent | None:
        if not line:
            return self._dispatch()
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
            self._data_bytes += len(value)
        elif field == b"event":
            self._name = value
        elif field == b"id" and b"\0" not in value:
            self._id = value
        return None  # comments, `retry` and unknown fields are ignored

    def _dispatch(self) -> ServerSentEvent | None:
        data, name = self._data, self._name.decode(errors="replace") or "message"
        self._data, self._data_bytes, self._name = [], 0, b""
        return ServerSentEvent(name, b"\n".join(data), self._id.decode(errors="replace")) if data else None
