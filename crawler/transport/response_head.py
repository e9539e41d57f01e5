"""Parse response heads as a browser does.

A prober that is stricter than a browser reports working servers as broken. So the parser accepts what Chromium
accepts: bare LF, folded lines, lines without a colon, names with a blank, `http/1.1`, no reason phrase, a few stray
bytes in front. It refuses what has no clear meaning: another protocol, no status, NUL, contradicting lengths or
locations.
"""

import re
from typing import Final, Self

import msgspec

__all__ = ["MAX_HEAD_BYTES", "HeadError", "NotHTTP", "ResponseHead", "parse_head"]

MAX_HEAD_BYTES: Final = 256 * 1024  # as in Chromium

_START = re.compile(rb"[\s\S]{0,4}?(HTTP|(?:H(?:TT?)?)?\Z)", re.IGNORECASE)  # or the start of it
_END = re.compile(rb"\r?\n\r?\n")
_STATUS_LINE = re.compile(r"HTTP/(\d)\.(\d)[ \t]+(\d{3})(?!\d)", re.IGNORECASE)
_FOLD = re.compile(r"\r?\n[ \t]+")  # obs-fold (RFC 9112, 5.2)
_FIELD = re.compile(r"\n([^:\n]*):([^\n]*)")  # lines without a colon do not match
_CONTENT_LENGTH = re.compile(r"[0-9]{1,18}")
_SINGLE_VALUED: Final = ("content-length", "location")


class HeadError(Exception):
    """An HTTP response that cannot be understood."""


class NotHTTP(HeadError):
    """The response is not HTTP/1."""


class ResponseHead(msgspec.Struct, gc=False):
    """A parsed status line and header.

    Attributes:
        status: Three digits, 000 to 999.
        version: Major and minor.
        fields: Names in lower case and values, in the order received.
        first_values: The first value of each name.
    """

    status: int
    version: tuple[int, int]
    fields: list[tuple[str, str]]
    first_values: dict[str, str]

    @classmethod
    def of(cls, status: int, version: tuple[int, int], fields: list[tuple[str, str]]) -> Self:
        """Make a head of these fields."""
        return cls(status, version, fields, dict(reversed(fields)))

    def get(self, name: str) -> str | None:
        """Return the first value of a field, by its lower-case name."""
        return self.first_values.get(name)

    @property
    def is_interim(self) -> bool:
        """Whether another response follows (RFC 9110, 15.2). None follows 101, which ends HTTP."""
        return 100 <= self.status < 200 and self.status != 101

    @property
    def is_persistent(self) -> bool:
        """Whether the connection can take another request (RFC 9112, 9.3)."""
        if self.status == 101 or ("content-length" in self.first_values and "transfer-encoding" in self.first_values):
            return False  # HTTP has ended; or recipients can disagree about where the next response begins (6.3)
        connection = ""
        if "connection" in self.first_values:
            connection = ",".join(value.lower() for name, value in self.fields if name == "connection")
        return "close" not in connection and (self.version >= (1, 1) or "keep-alive" in connection)

    def body_length(self, method: str) -> int | None:
        """Return the body's length in bytes (RFC 9112, 6.3); None if only reading it tells."""
        if method == "HEAD" or self.status in (204, 304):
            return 0
        length = self.get("content-length")
        if length is None or self.get("transfer-encoding") is not None or not _CONTENT_LENGTH.fullmatch(length):
            return None
        return int(length)


def parse_head(data: bytes | bytearray, searched_bytes: int = 0) -> tuple[ResponseHead, int] | None:
    """Parse the head at the start of a response.

    Args:
        data: All bytes received of this response so far.
        searched_bytes: How many of them the last call had, if it returned None.

    Returns:
        The head and its size in bytes; None while its end is missing.

    Raises:
        NotHTTP: The bytes do not begin an HTTP/1 response.
        HeadError: The head is HTTP/1, but has no clear meaning.
    """
    start = _START.match(data)
    if start is None:
        raise NotHTTP("the response is not HTTP/1")
    end = _END.search(data, max(start.end(), searched_bytes - 3))
    if end is None:
        if len(data) > MAX_HEAD_BYTES:
            raise HeadError(f"the head has more than {MAX_HEAD_BYTES} bytes")
        return None
    if end.end() > MAX_HEAD_BYTES:
        raise HeadError(f"the head has more than {MAX_HEAD_BYTES} bytes")
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
    if len(head.first_values) < len(fields):
        _refuse_contradictions(head)
    return head


def _refuse_contradictions(head: ResponseHead) -> None:
    """Refuse heads that recipients could understand differently: unequal lengths, unequal redirects."""
    for name in _SINGLE_VALUED:
        values = {value for key, value in head.fields if key == name}
        if len(values) > 1 and not (name == "content-length" and head.get("transfer-encoding")):
            raise HeadError(f"several different values of {name}")
