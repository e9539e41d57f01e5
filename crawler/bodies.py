"""Bodies, as far as they are asked for: unframed, unpacked, and never more than a cap of either."""

import html
import re
import zlib
from collections.abc import Callable
from typing import Final

import brotli

from crawler.heads import Head

__all__ = ["ENCODINGS", "Unframer", "body_text", "title_of"]

ENCODINGS: Final = "gzip, deflate, br"  # what `body_text` can unpack, for Accept-Encoding

_CHUNK_LINE: Final = 1024  # bytes; longer ones are no chunk sizes
_TITLE = re.compile(r"<title(?:\s[^>]*)?>(.{0,4000}?)</title", re.IGNORECASE | re.DOTALL)
_CHARSET = re.compile(r"charset=[\"']?([\w.:-]{1,40})", re.IGNORECASE)
_TITLE_LENGTH: Final = 300


class Unframer:
    """Takes a body out of its framing (RFC 9112, 6 and 7) while it comes in.

    Attributes:
        body: What has come, at most `cap` bytes.
        is_over: Whether nothing more has to be read.
    """

    def __init__(self, head: Head, cap: int) -> None:
        self.body = bytearray()
        self.is_over = False
        self._cap = cap
        self._length = head.body_length("GET")
        coding = head.get("transfer-encoding")
        self._chunked = coding is not None and coding.lower().endswith("chunked")
        self._raw = bytearray()
        self._left = 0  # of the chunk under way
        self._take(b"")

    def feed(self, data: bytes) -> None:
        """Take what was received."""
        if self._chunked:
            self._raw += data
            self._take_chunks()
        else:
            self._take(data)

    def _take(self, data: bytes | bytearray) -> None:
        self.body += data
        wanted = self._cap if self._length is None or self._chunked else min(self._cap, self._length)
        if len(self.body) >= wanted:
            del self.body[wanted:]
            self.is_over = True

    def _take_chunks(self) -> None:
        while not self.is_over:
            if self._left:
                part = self._raw[: self._left]
                if not part:
                    return
                del self._raw[: len(part)]
                self._left -= len(part)
                self._take(part)
                continue
            if self._raw.startswith(b"\r\n"):  # behind the last chunk
                del self._raw[:2]
            line, end, _ = self._raw.partition(b"\n")
            if not end:
                self.is_over = len(line) > _CHUNK_LINE
                return
            size = re.match(rb"\s*([0-9a-fA-F]{1,15})", line)
            del self._raw[: len(line) + 1]
            self._left = int(size[1], 16) if size else 0
            self.is_over = not self._left


def body_text(head: Head, body: bytes | bytearray, cap: int) -> str:
    """A body as text: unpacked, as far as it can be, to at most `cap` bytes, and decoded by the charset it names."""
    for coding in reversed((head.get("content-encoding") or "").lower().replace(" ", "").split(",")):
        if (unpack := _UNPACK.get(coding)) is not None:
            body = unpack(bytes(body), cap)
    named = _CHARSET.search(head.get("content-type") or "") or _CHARSET.search(body[:1024].decode("latin-1"))
    try:
        return body.decode(named[1] if named else "utf-8", "replace")
    except (LookupError, ValueError):  # a charset that nobody knows, or that is none for text
        return body.decode("utf-8", "replace")


def title_of(text: str) -> str | None:
    """The title of an HTML page, in one line."""
    found = _TITLE.search(text)
    return " ".join(html.unescape(found[1]).split())[:_TITLE_LENGTH] if found else None


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
