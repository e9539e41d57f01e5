"""Bodies, as far as they are asked for: unframed, unpacked, and never more than a cap of either."""

import codecs
import html
import re
import zlib
from collections.abc import Callable
from typing import Final

import brotli

from crawler.transport.response_head import ResponseHead

__all__ = ["ENCODINGS", "BodyDeframer", "body_text", "title_of"]

ENCODINGS: Final = "gzip, deflate, br"  # what `body_text` can unpack, for Accept-Encoding

_CHUNK_LINE: Final = 1024  # bytes; longer ones are no chunk sizes
_CHUNK_SIZE = re.compile(rb"\s*([0-9a-fA-F]{1,15})")
_FRAMING: Final = 64 * 1024  # bytes of chunk sizes that come with the smallest body
_CODINGS: Final = 5  # one over the other; a header has room for fifty thousand
_CHARSET = re.compile(r"charset=[\"']?([\w.:-]{1,40})", re.IGNORECASE)
# Codecs that Python has and the Web has not: they make lone surrogates, or take a time that grows with the square.
_NO_CHARSETS: Final = frozenset({"idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape", "utf-7"})
# Neither pattern may look ahead further than to the next tag: a page of a hundred thousand of these is one pass.
_TITLE_BEGINS = re.compile(r"<title(?:\s[^<>]*)?>", re.IGNORECASE)
_TITLE_ENDS = re.compile(r"</title", re.IGNORECASE)
_TITLE_RAW: Final = 4000  # characters, as sent
_TITLE_LENGTH: Final = 300
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


class BodyDeframer:
    """Takes a body out of its framing (RFC 9112, 6 and 7) while it comes in.

    Attributes:
        body: What has come, at most `cap` bytes.
        is_over: Whether nothing more has to be read.
    """

    def __init__(self, head: ResponseHead, cap: int) -> None:
        self.body = bytearray()
        self.is_over = False
        self._cap = cap
        self._length = head.body_length("GET")
        coding = head.get("transfer-encoding")
        self._chunked = coding is not None and coding.lower().endswith("chunked")
        self._raw = bytearray()
        self._may_come = 2 * cap + _FRAMING  # bytes, framing included, which can be a thousand times the body
        self._left = 0  # of the chunk under way
        self._take(b"")

    def feed(self, data: bytes) -> None:
        """Take what was received."""
        if self._chunked:
            self._raw += data
            self._take_chunks()
            self._may_come -= len(data)
            self.is_over = self.is_over or self._may_come < 0
        else:
            self._take(data)

    def _take(self, data: bytes | bytearray) -> None:
        self.body += data
        wanted = self._cap if self._length is None or self._chunked else min(self._cap, self._length)
        if len(self.body) >= wanted:
            del self.body[wanted:]
            self.is_over = True

    def _take_chunks(self) -> None:
        at = 0  # how far `_raw` is taken; cut off once in the end, for a chunk may be a byte
        while not self.is_over:
            if self._left:
                part = self._raw[at : at + self._left]
                if not part:
                    break
                at += len(part)
                self._left -= len(part)
                self._take(part)
                continue
            if self._raw.startswith(b"\r\n", at):  # behind the last chunk
                at += 2
            end = self._raw.find(b"\n", at)
            if end < 0:
                self.is_over = len(self._raw) - at > _CHUNK_LINE
                break
            size = _CHUNK_SIZE.match(self._raw, at, end)
            at = end + 1
            self._left = int(size[1], 16) if size else 0
            self.is_over = not self._left
        del self._raw[:at]


def body_text(head: ResponseHead, body: bytes | bytearray, cap: int) -> str:
    """A body as text: unpacked, as far as it can be, to at most `cap` bytes, and decoded by the charset it names.

    It can always be encoded again.
    """
    codings = (head.get("content-encoding") or "").lower().replace(" ", "").split(",")
    for coding in reversed(codings[-_CODINGS:]):
        if (unpack := _UNPACK.get(coding)) is not None:
            body = unpack(bytes(body), cap)
    named = _CHARSET.search(head.get("content-type") or "") or _CHARSET.search(body[:1024].decode("latin-1"))
    try:
        codec = codecs.lookup(named[1] if named else "utf-8")
        if codec.name not in _NO_CHARSETS:
            return body.decode(codec.name, "replace")
    except (LookupError, ValueError):  # a charset that nobody knows, or that is none for text
        pass
    return body.decode("utf-8", "replace")


def title_of(text: str) -> str | None:
    """The title of an HTML page, in one line without control characters."""
    begins = _TITLE_BEGINS.search(text)
    if begins is None:
        return None
    title = text[begins.end() : begins.end() + _TITLE_RAW]
    ends = _TITLE_ENDS.search(title)
    if ends is None:
        return None
    return " ".join(_CONTROLS.sub(" ", html.unescape(title[: ends.start()])).split())[:_TITLE_LENGTH]


def _inflate(body: bytes, cap: int) -> bytes:
    for window in (47, -15):  # zlib's or gzip's wrapping, whichever is there; else none, as some servers send it
        unpacker = zlib.decompressobj(window)
        try:
            return unpacker.decompress(body, cap)
        except zlib.error:
            continue
    return b""


def _unbrotli(body: bytes, cap: int) -> bytes:
    unpacker, unpacked = brotli.Decompressor(), bytearray()
    try:
        unpacked += unpacker.process(body, output_buffer_limit=cap)
        while len(unpacked) < cap and not unpacker.can_accept_more_data() and not unpacker.is_finished():
            unpacked += unpacker.process(b"", output_buffer_limit=cap - len(unpacked))
    except brotli.error:
        pass
    return bytes(unpacked[:cap])


_UNPACK: Final[dict[str, Callable[[bytes, int], bytes]]] = {
    "gzip": _inflate,
    "x-gzip": _inflate,
    "deflate": _inflate,
    "br": _unbrotli,
}
