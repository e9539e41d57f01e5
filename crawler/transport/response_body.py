"""Read response bodies, as far as they are wanted: deframe, decompress and decode, each up to a limit."""

import codecs
import html
import re
import zlib
from collections.abc import Callable
from typing import Final

import brotli

from crawler.transport.response_head import ResponseHead

__all__ = ["ACCEPT_ENCODING", "BodyDeframer", "decode_body", "find_title"]

ACCEPT_ENCODING: Final = "gzip, deflate, br"  # what `decode_body` can decompress

_MAX_CHUNK_LINE_BYTES: Final = 1024
_CHUNK_SIZE = re.compile(rb"\s*([0-9a-fA-F]{1,15})")
_MIN_FRAMING_BYTES: Final = 64 * 1024  # of chunk sizes that even the smallest body may come with
_MAX_CODINGS: Final = 5  # a header has room for fifty thousand
_CHARSET = re.compile(r"charset=[\"']?([\w.:-]{1,40})", re.IGNORECASE)
# Codecs of Python's that the Web does not have: they produce lone surrogates, or take quadratic time.
_REFUSED_CODECS: Final = frozenset({"idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape", "utf-7"})
# Neither pattern looks further ahead than to the next tag, so a page of a hundred thousand of these takes one pass.
_TITLE_START = re.compile(r"<title(?:\s[^<>]*)?>", re.IGNORECASE)
_TITLE_END = re.compile(r"</title", re.IGNORECASE)
_MAX_RAW_TITLE_CHARACTERS: Final = 4000  # before entities are resolved
_MAX_TITLE_CHARACTERS: Final = 300
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


class BodyDeframer:
    """Takes a body out of its framing while it arrives (RFC 9112, 6 and 7).

    Attributes:
        body: The body so far, at most `max_bytes`.
        is_complete: Whether nothing more has to be read.
    """

    def __init__(self, head: ResponseHead, max_bytes: int) -> None:
        self.body = bytearray()
        self.is_complete = False
        self._max_bytes = max_bytes
        self._length = head.body_length("GET")
        coding = head.get("transfer-encoding")
        self._is_chunked = coding is not None and coding.lower().endswith("chunked")
        self._framed = bytearray()
        # Framing can take a thousand times the size of the body, so both together have a limit.
        self._remaining_bytes = 2 * max_bytes + _MIN_FRAMING_BYTES
        self._remaining_chunk_bytes = 0
        self._append(b"")

    def feed(self, data: bytes) -> None:
        """Take bytes that were received."""
        if self._is_chunked:
            self._framed += data
            self._take_chunks()
            self._remaining_bytes -= len(data)
            self.is_complete = self.is_complete or self._remaining_bytes < 0
        else:
            self._append(data)

    def _append(self, data: bytes | bytearray) -> None:
        self.body += data
        wanted = self._max_bytes if self._length is None or self._is_chunked else min(self._max_bytes, self._length)
        if len(self.body) >= wanted:
            del self.body[wanted:]
            self.is_complete = True

    def _take_chunks(self) -> None:
        position = 0  # in `_framed`, which is cut once in the end: a chunk may be a single byte
        while not self.is_complete:
            if self._remaining_chunk_bytes:
                part = self._framed[position : position + self._remaining_chunk_bytes]
                if not part:
                    break
                position += len(part)
                self._remaining_chunk_bytes -= len(part)
                self._append(part)
                continue
            if self._framed.startswith(b"\r\n", position):  # after the last chunk's data
                position += 2
            line_end = self._framed.find(b"\n", position)
            if line_end < 0:
                self.is_complete = len(self._framed) - position > _MAX_CHUNK_LINE_BYTES
                break
            size = _CHUNK_SIZE.match(self._framed, position, line_end)
            position = line_end + 1
            self._remaining_chunk_bytes = int(size[1], 16) if size else 0
            self.is_complete = not self._remaining_chunk_bytes
        del self._framed[:position]


def decode_body(head: ResponseHead, body: bytes | bytearray, max_bytes: int) -> str:
    """Decompress a body, as far as possible, to at most `max_bytes`, and decode it by the charset that it names.

    The text has no lone surrogates, so it can always be encoded again.
    """
    codings = (head.get("content-encoding") or "").lower().replace(" ", "").split(",")
    for coding in reversed(codings[-_MAX_CODINGS:]):
        if (decompress := _DECOMPRESSORS.get(coding)) is not None:
            body = decompress(bytes(body), max_bytes)
    charset = _CHARSET.search(head.get("content-type") or "") or _CHARSET.search(body[:1024].decode("latin-1"))
    try:
        codec = codecs.lookup(charset[1] if charset else "utf-8")
        if codec.name not in _REFUSED_CODECS:
            return body.decode(codec.name, "replace")
    except (LookupError, ValueError):  # an unknown charset, or a codec that does not decode to text
        pass
    return body.decode("utf-8", "replace")


def find_title(text: str) -> str | None:
    """Return the title of an HTML page, in one line without control characters; None without a title."""
    start = _TITLE_START.search(text)
    if start is None:
        return None
    title = text[start.end() : start.end() + _MAX_RAW_TITLE_CHARACTERS]
    end = _TITLE_END.search(title)
    if end is None:
        return None
    title = _CONTROL_CHARACTERS.sub(" ", html.unescape(title[: end.start()]))
    return " ".join(title.split())[:_MAX_TITLE_CHARACTERS]


def _inflate(body: bytes, max_bytes: int) -> bytes:
    for window_bits in (47, -15):  # a zlib or gzip wrapper, detected; then none, as some servers send it
        decompressor = zlib.decompressobj(window_bits)
        try:
            return decompressor.decompress(body, max_bytes)
        except zlib.error:
            continue
    return b""


def _unbrotli(body: bytes, max_bytes: int) -> bytes:
    decompressor, output = brotli.Decompressor(), bytearray()
    try:
        output += decompressor.process(body, output_buffer_limit=max_bytes)
        while len(output) < max_bytes and not decompressor.can_accept_more_data() and not decompressor.is_finished():
            output += decompressor.process(b"", output_buffer_limit=max_bytes - len(output))
    except brotli.error:
        pass
    return bytes(output[:max_bytes])


_DECOMPRESSORS: Final[dict[str, Callable[[bytes, int], bytes]]] = {
    "gzip": _inflate,
    "x-gzip": _inflate,
    "deflate": _inflate,
    "br": _unbrotli,
}
