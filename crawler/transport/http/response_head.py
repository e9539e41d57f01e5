"""Parse response heads as a browser does.

A prober that is stricter than a browser reports working servers as broken. So the parser accepts what Chromium accepts:
bare LF and CR, folded lines, lines without a colon, names with a blank, a few stray bytes in front, `http/1.1`,
`HTTP/2 200`, `ICY 200`, a status line without a status. It refuses what Chromium refuses: another protocol, NUL, and
several different values of Content-Length, Location or Content-Disposition.
"""

import re
from collections.abc import Iterator
from typing import Final, Self

import msgspec

from crawler.core.results import HttpVersion

__all__ = [
    "MAX_HEAD_BYTES",
    "HeadError",
    "Http1Required",
    "Http2Refused",
    "NotHTTP",
    "ResponseHead",
    "parse_cut_head",
    "parse_head",
    "refuse_contradictions",
]

MAX_HEAD_BYTES: Final = 256 * 1024  # as in Chromium

_START = re.compile(rb"[^\0]{0,4}?(HTTP|(?:H(?:TT?)?)?\Z)", re.IGNORECASE)  # or the start of it
_ICY = re.compile(rb"ICY", re.IGNORECASE)  # how SHOUTcast servers begin, instead of with HTTP/1.0
_END = re.compile(rb"\n\r?\n")  # a CR in front of it stays at the end of the last line, which is stripped
_CUT_STATUS_LINE = re.compile(rb"HTTP(?:[^ \r\n]* +[0-9]{3}|[^\r\n]*[\r\n])", re.IGNORECASE)  # a status or the line end
# These match a head in which each CR has become an LF.
_STATUS_LINE = re.compile(r"HTTP(?:/([0-9])[0-9]*\.([0-9]))?[^ \n]* *([0-9]{0,9})", re.IGNORECASE)
_FOLD = re.compile(r"(?<!\n)\n+[ \t]+")  # obs-fold (RFC 9112, 5.2)
_FIELD = re.compile(r"\n([^:\n]*):([^\n]*)")  # lines without a colon do not match
_ITEM = re.compile(r'(?:"(?:[^"\\]|\\.|\\\Z)*+(?:"|\Z)|[^,"])*+')  # of a list; a comma in quotes does not end it
_CONTENT_LENGTH = re.compile(r"[0-9]{1,18}")
_SINGLE_VALUED: Final = frozenset({"content-length", "content-disposition", "location"})
_MAX_SHOWN_BYTES: Final = 40  # of what is not HTTP
# The first bytes of binary protocols, which would be unreadable in a message.
_OTHER_PROTOCOLS: Final = (
    (re.compile(rb"[\x14-\x17]\x03[\x00-\x04]"), "TLS (is this the port of an https URL?)"),
    (re.compile(rb"\0[\s\S]{2}\x04[\0\x01]\0\0\0\0"), "HTTP/2"),
)


class HeadError(Exception):
    """The head of a response has no clear meaning, or the response breaks the rules of its HTTP version."""


class NotHTTP(HeadError):
    """The response is not HTTP, or not the HTTP version that was agreed on."""


class Http2Refused(Exception):
    """The server did not process a request over HTTP/2. It may process it on another connection (RFC 9113, 8.7)."""


class Http1Required(Http2Refused):
    """The server wants the request over HTTP/1.1."""


class ResponseHead(msgspec.Struct, gc=False):
    """A parsed status line and header.

    Attributes:
        status: The number in the status line, 200 if it has none; not always three digits.
        version: (1, 0), (1, 1) or (2, 0).
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
    def http_version(self) -> HttpVersion:
        """The version, as results name it."""
        return "2" if self.version >= (2, 0) else "1.1" if self.version == (1, 1) else "1.0"

    @property
    def is_interim(self) -> bool:
        """Whether another response follows (RFC 9110, 15.2), after 101 too: no request asks for another protocol."""
        return 100 <= self.status < 200

    @property
    def is_persistent(self) -> bool:
        """Whether the connection can take another request (RFC 9112, 9.3)."""
        has_length = "content-length" in self.first_values
        if "transfer-encoding" in self.first_values and (has_length or self.version < (1, 1)):
            return False  # it is not certain where the next response begins (6.1 and 6.3)
        connection = ""
        if "connection" in self.first_values:
            connection = ",".join(value.lower() for name, value in self.fields if name == "connection")
        return "close" not in connection and (self.version >= (1, 1) or "keep-alive" in connection)

    @property
    def is_chunked(self) -> bool:
        """Whether the body comes in chunks. Like Chromium: in HTTP/1.1 only, and at any place among the codings."""
        if "transfer-encoding" not in self.first_values or self.version < (1, 1):
            return False
        codings = ",".join(value for name, value in self.fields if name == "transfer-encoding")
        return any(coding.strip(" \t") == "chunked" for coding in codings.lower().split(","))

    def body_length(self, method: str) -> int | None:
        """Return the body's length in bytes (RFC 9112, 6.3); None if the head does not tell."""
        if method == "HEAD" or self.status in (204, 304):
            return 0
        length = self.get("content-length")
        return int(length) if length and _CONTENT_LENGTH.fullmatch(length) and not self.is_chunked else None


def parse_head(
    data: bytes | bytearray, searched_bytes: int = 0, *, is_encrypted: bool = False
) -> tuple[ResponseHead, int] | None:
    """Parse the head at the start of a response.

    Args:
        data: All bytes received of this response so far.
        searched_bytes: The number of bytes in the last call, if it returned None.
        is_encrypted: Whether the bytes came over TLS. Over plain HTTP, a response that begins with `ICY` has no head:
            all of it is body, as in Chromium.

    Returns:
        The head and its size in bytes; None while its end is missing.

    Raises:
        NotHTTP: The bytes do not begin an HTTP/1 response.
        HeadError: The head is HTTP/1, but has no clear meaning.
    """
    start = _START.match(data)
    if start is None:
        if not is_encrypted and _ICY.match(data):
            return ResponseHead.of(200, (1, 0), []), 0
        raise NotHTTP(f"the response is not HTTP: it {_describe_start(data)}")
    end = _END.search(data, max(start.end(), searched_bytes - 3))
    size = len(data) if end is None else end.end()
    if size > MAX_HEAD_BYTES:
        raise HeadError(f"the response's header has more than {MAX_HEAD_BYTES} bytes")
    return None if end is None else (_parse(data[start.start(1) : end.start()]), size)


def parse_cut_head(data: bytes | bytearray) -> ResponseHead | None:
    """Parse a head that the end of the stream has cut off; None if it has no status line.

    Browsers accept such a head over plain HTTP. Over TLS they refuse it, because an attacker may have cut it off.
    """
    start = _START.match(data)
    if start is None or not start[1]:
        return ResponseHead.of(200, (1, 0), []) if _ICY.match(data) else None
    head = data[start.start(1) :]
    return _parse(head) if _CUT_STATUS_LINE.match(head) else None


def _parse(data: bytes | bytearray) -> ResponseHead:
    text = data.decode("latin-1").replace("\r", "\n")
    if "\0" in text:
        raise HeadError("the response's header has a NUL byte")
    status_line = _STATUS_LINE.match(text)
    assert status_line is not None  # it matches every text that begins with HTTP
    if "\n " in text or "\n\t" in text:
        text = _FOLD.sub(" ", text)
    fields = [(name.strip(" \t").lower(), value.strip(" \t")) for name, value in _FIELD.findall(text)]
    major, minor, status = status_line.groups()
    version = (1, 1) if major and (int(major), int(minor)) >= (1, 1) else (1, 0)
    head = ResponseHead.of(int(status) if status else 200, version, fields)
    lists = head.first_values.get("content-length", "") + head.first_values.get("content-disposition", "")
    if len(head.first_values) < len(fields) or "," in lists:
        refuse_contradictions(head)
    return head


def refuse_contradictions(head: ResponseHead) -> None:
    """Refuse a head with several different lengths, locations or dispositions: clients could choose different ones.

    In HTTP/2 the body does not end by its length.

    Raises:
        HeadError: The head is refused.
    """
    values: dict[str, set[str]] = {}
    for name, value in head.fields:
        if name in _SINGLE_VALUED:
            values.setdefault(name, set()).update([value] if name == "location" else _split_list(value))
    for name, different in values.items():
        if len(different) > 1 and not (name == "content-length" and (head.is_chunked or head.version >= (2, 0))):
            raise HeadError(f"the response has several different values of {name.title()}")
    if len(length := values.get("content-length", set())) == 1:
        head.first_values["content-length"] = length.pop()  # "2" for "2, 2"


def _split_list(value: str) -> Iterator[str]:
    """Split at commas outside of quotes."""
    start = 0
    while start <= len(value):
        item = _ITEM.match(value, start)
        assert item is not None  # it matches the empty text
        yield item[0].strip(" \t")
        start = item.end() + 1


def _describe_start(data: bytes | bytearray) -> str:
    """Return which other protocol the bytes are, or how they begin, for a message."""
    for pattern, protocol in _OTHER_PROTOCOLS:
        if pattern.match(data):
            return f"is {protocol}"
    shown = repr(bytes(data[:_MAX_SHOWN_BYTES]).strip())[2:-1]
    return f'begins with "{shown}"'
