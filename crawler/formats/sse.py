"""Server-sent events, as they arrive (https://html.spec.whatwg.org/multipage/server-sent-events.html).

A reader does no I/O: `feed` it bytes in any pieces, and it gives the same events.
"""

import re
from typing import Final, NamedTuple

from crawler.core.errors import InputError

__all__ = ["MAX_EVENT_BYTES", "EventReader", "ServerSentEvent"]

MAX_EVENT_BYTES: Final = 16 * 2**20  # bytes; a record has many URLs in it, each of up to 64 KiB

_BOM: Final = b"\xef\xbb\xbf"
_END: Final = re.compile(rb"\r\n|\n|\r(?!\Z)")  # a CR that comes last may be half of an end


class ServerSentEvent(NamedTuple):
    """One event; `id` is that of the last one that had any."""

    name: str
    data: bytes
    id: str


class EventReader:
    """Turns bytes into events."""

    def __init__(self) -> None:
        self._begun = False
        self._rest = bytearray()  # a line without its end; it grows in place
        self._name = b""
        self._data: list[bytes] = []
        self._size = 0  # bytes of these
        self._id = b""

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """The events that are complete by now and were not before.

        Raises:
            InputError: One is longer than `MAX_EVENT_BYTES`.
        """
        may_end = self._rest.endswith(b"\r") or any(end in data for end in b"\r\n")
        self._rest += data
        events = self._read() if may_end or not self._begun else []
        if self._size + len(self._rest) > MAX_EVENT_BYTES:
            raise InputError(f"an event is longer than {MAX_EVENT_BYTES} bytes")
        return events

    def _read(self) -> list[ServerSentEvent]:
        if not self._begun:
            if len(self._rest) < len(_BOM) and _BOM.startswith(self._rest):
                return []
            self._begun = True
            self._rest = self._rest.removeprefix(_BOM)
        *lines, self._rest = map(bytearray, _END.split(self._rest))
        return [event for line in lines if (event := self._take(bytes(line))) is not None]

    def _take(self, line: bytes) -> ServerSentEvent | None:
        if not line:
            return self._dispatch()
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
            self._size += len(value)
        elif field == b"event":
            self._name = value
        elif field == b"id" and b"\0" not in value:
            self._id = value
        return None  # of a comment, of `retry`, and of what is unknown, nothing comes

    def _dispatch(self) -> ServerSentEvent | None:
        data, name = self._data, self._name.decode(errors="replace") or "message"
        self._data, self._size, self._name = [], 0, b""
        return ServerSentEvent(name, b"\n".join(data), self._id.decode(errors="replace")) if data else None
