"""Response heads: read as a browser reads them.

A prober that is stricter than a browser calls living servers dead. So this accepts what Chromium accepts (bare LF,
folded lines, lines without a colon, names with a blank, `http/1.1`, no reason phrase, a few stray bytes in front) and
refuses what nobody can make sense of: another protocol, no status, NUL, lengths or locations that differ.
"""

import re
from typing import Final, Self

import msgspec

__all__ = ["LIMIT", "HeadError", "NotHTTP", "ResponseHead", "parse_head"]

LIMIT: Final = 256 * 1024  # bytes of head, as in Chromium

_START = re.compile(rb"[\s\S]{0,4}?(HTTP|(?:H(?:TT?)?)?\Z)", re.IGNORECASE)  # or what may become one
_END = re.compile(rb"\r?\n\r?\n")
_STATUS_LINE = re.compile(r"HTTP/(\d)\.(\d)[ \t]+(\d{3})(?!\d)", re.IGNORECASE)
_FOLD = re.compile(r"\r?\n[ \t]+")  # a line that goes on (RFC 9112, 5.2)
_FIELD = re.compile(r"\n([^:\n]*):([^\n]*)")  # other lines are none
_LENGTH = re.compile(r"[0-9]{1,18}")
_UNAMBIGUOUS: Final = ("content-length", "location")


class HeadError(Exception):
    """An HTTP response that cannot be understood."""


class NotHTTP(HeadError):
    """What came back is not HTTP/1."""


class ResponseHead(msgspec.Struct, gc=False):
    """A status line and the fields after it, names in lower case, in the order received; `first` has each name once."""

    status: int
    version: tuple[int, int]
    fields: list[tuple[str, str]]
    first: dict[str, str]

    @classmethod
    def of(cls, status: int, version: tuple[int, int], fields: list[tuple[str, str]]) -> Self:
        """A head of these fields."""
        return cls(status, version, fields, dict(reversed(fields)))

    def get(self, name: str) -> str | None:
        """The first value of a field, by its lower-case name."""
        return self.first.get(name)

    @property
    def is_interim(self) -> bool:
        """Whether the final response is still to come (RFC 9110, 15.2). 101 would end HTTP, so it is not interim."""
        return 100 <= self.status < 200 and self.status != 101

    @property
    def keeps_alive(self) -> bool:
        """Whether the server means to keep the connection (RFC 9112, 9.3)."""
        if self.status == 101 or ("content-length" in self.first and "transfer-encoding" in self.first):
            return False  # no HTTP any more; or two readers would see the next response begin in two places (6.3)
        connection = ""
        if "connection" in self.first:
            connection = ",".join(value.lower() for name, value in self.fields if name == "connection")
        return "close" not in connection and (self.version >= (1, 1) or "keep-alive" in connection)

    def body_length(self, method: str) -> int | None:
        """Bytes of body after the head (RFC 9112, 6.3); None if only reading it would tell."""
        if method == "HEAD" or self.status in (204, 304):
            return 0
        length = self.get("content-length")
        if length is None or self.get("transfer-encoding") is not None or not _LENGTH.fullmatch(length):
            return None
        return int(length)


def parse_head(data: bytes | bytearray, searched: int = 0) -> tuple[ResponseHead, int] | None:
    """Read a head from the start of what was received.

    Args:
        data: All bytes received for this response so far.
        searched: How many of them were there the last time this gave None.

    Returns:
        The head and how many bytes it takes, or None while its end is missing.

    Raises:
        NotHTTP: These bytes begin no HTTP/1 response.
        HeadError: It is HTTP/1, but cannot be understood.
    """
    start = _START.match(data)
    if start is None:
        raise NotHTTP("what came back is not HTTP/1")
    end = _END.search(data, max(start.end(), searched - 3))
    if end is None:
        if len(data) > LIMIT:
            raise HeadError(f"the head has more than {LIMIT} bytes")
        return None
    if end.end() > LIMIT:
        raise HeadError(f"the head has more than {LIMIT} bytes")
    return _parse(data[start.start(1) : end.start()].decode("latin-1")), end.end()


def _parse(text: str) -> ResponseHead:
    status = _STATUS_LINE.match(text)
    if status is None:
        raise HeadError("the status line has no status")
    if "\0" in text:
        raise HeadError("the head has a NUL")
    if "\n " in text or "\n\t" in text:
        text = _FOLD.sub(" ", text)
    fields = [(name.strip(" \t").lower(), value.strip(" \t\r")) for name, value in _FIELD.findall(text)]
    head = ResponseHead.of(int(status[3]), (int(status[1]), int(status[2])), fields)
    if len(head.first) < len(fields):
        _refuse_contradictions(head)
    return head


def _refuse_contradictions(head: ResponseHead) -> None:
    """Refuse what two readers would understand differently: unequal lengths, unequal redirects."""
    for name in _UNAMBIGUOUS:
        values = {value for key, value in head.fields if key == name}
        if len(values) > 1 and not (name == "content-length" and head.get("transfer-encoding")):
            raise HeadError(f"several {name} that differ")
