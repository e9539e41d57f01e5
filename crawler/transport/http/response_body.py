"""Read response bodies up to a limit: take them out of their framing, decompress them, find the title."""

import html
import re
import zlib
from collections.abc import Callable
from typing import Final

import brotli

from crawler.core.results import Body
from crawler.transport.http.response_head import ResponseHead
from crawler.transport.http.text_encoding import decode, sniff_codec

__all__ = ["ACCEPT_ENCODING", "BodyDeframer", "body_text", "decompress_body", "find_title"]

ACCEPT_ENCODING: Final = "gzip, deflate, br"  # what `decompress_body` can read

_MAX_CHUNK_LINE_BYTES: Final = 16 * 1024  # as in Chromium
_CHUNK_LINE = re.compile(rb"0*([0-9a-fA-F]{1,15}) *(?:;.*)?", re.DOTALL)
_MIN_FRAMING_BYTES: Final = 64 * 1024  # allowed for chunk sizes, even with a very low limit for the body
_MAX_CODINGS: Final = 5  # a hostile header could name fifty thousand
# Neither pattern looks beyond the next tag, so a page with a hundred thousand titles is searched in one pass.
_TITLE_START = re.compile(r"<title(?:\s[^<>]*)?>", re.IGNORECASE)
_TITLE_END = re.compile(r"</title", re.IGNORECASE)
_MAX_RAW_TITLE_CHARACTERS: Final = 4000  # before entities are resolved
_MAX_TITLE_CHARACTERS: Final = 300
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


class BodyDeframer:
    """Takes a body out of its framing while it arrives (RFC 9112, 6 and 7).

    Attributes:
        body: The body so far, at most `max_bytes`.
        is_done: Whether to stop reading: the body has ended, reached the limit, or is malformed.
        is_whole: Whether the body has ended, and all of it is in `body`.
    """

    def __init__(self, head: ResponseHead, max_bytes: int) -> None:
        self.body = bytearray()
        self.is_done = False
        self.is_whole = False
        self._max_bytes = max_bytes
        self._length = head.body_length("GET")
        self._is_chunked = head.is_chunked and self._length is None
        self._framed = bytearray()
        # Chunk sizes can be a thousand times as long as the body, so both together have a limit.
        self._remaining_bytes = 2 * max_bytes + _MIN_FRAMING_BYTES
        self._remaining_chunk_bytes = 0
        self._is_in_chunk = False
        self._append(b"")

    def feed(self, data: bytes) -> None:
        """Take bytes that were received."""
        if self._is_chunked:
            self._framed += data
            self._read_chunks()
            self._remaining_bytes -= len(data)
            self.is_done = self.is_done or self._remaining_bytes < 0
        else:
            self._append(data)

    def end(self) -> None:
        """Note the end of the stream. It ends a body that has neither a length nor chunks."""
        self.is_whole = self.is_whole or (self._length is None and not self._is_chunked and not self.is_done)
        self.is_done = True

    def _append(self, data: bytes | bytearray) -> None:
        self.body += data
        wanted = self._max_bytes if self._length is None or self._is_chunked else min(self._max_bytes, self._length)
        if len(self.body) >= wanted:
            del self.body[wanted:]
            self.is_done = True
            self.is_whole = wanted == self._length

    def _read_chunks(self) -> None:
        position = 0  # in `_framed`, which is cut only once, at the end: a chunk may be a single byte
        while not self.is_done:
            if self._remaining_chunk_bytes:
                part = self._framed[position : position + self._remaining_chunk_bytes]
                if not part:
                    break
                position += len(part)
                self._remaining_chunk_bytes -= len(part)
                self._append(part)
                continue
            line_end = self._framed.find(b"\n", position)
            if (len(self._framed) if line_end < 0 else line_end) - position > _MAX_CHUNK_LINE_BYTES:
                self.is_done = True
            if self.is_done or line_end < 0:
                break
            line = self._framed[position:line_end].removesuffix(b"\r")
            position = line_end + 1
            if self._is_in_chunk:  # only the end of a line may follow the data of a chunk
                self._is_in_chunk = False
                self.is_done = bool(line)
                continue
            size = _CHUNK_LINE.fullmatch(line)
            self._remaining_chunk_bytes = int(size[1], 16) if size else 0
            self._is_in_chunk = self._remaining_chunk_bytes > 0
            self.is_done = not self._is_in_chunk
            self.is_whole = self.is_done and size is not None
        del self._framed[:position]


def decompress_body(head: ResponseHead, data: bytes | bytearray, max_bytes: int, *, is_whole: bool) -> Body:
    """Decompress a body as far as possible, to at most `max_bytes`, and detect the encoding of its text."""
    codings = (head.get("content-encoding") or "").lower().replace(" ", "").split(",")
    for coding in reversed(codings[-_MAX_CODINGS:]):
        if (decompress := _DECOMPRESSORS.get(coding)) is not None:
            data, is_all = decompress(bytes(data), max_bytes)
            is_whole = is_whole and is_all
    # Browsers use the last Content-Type.
    content_type = next((value for name, value in reversed(head.fields) if name == "content-type"), "")
    return Body(bytes(data), sniff_codec(data, content_type), is_cut=not is_whole)


def body_text(body: Body) -> str:
    """Decode a body by its encoding."""
    return decode(body.data, body.codec)


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
    return " ".join(filter(None, title.split(" ")))[:_MAX_TITLE_CHARACTERS]


def _inflate(body: bytes, max_bytes: int) -> tuple[bytes, bool]:
    for window_bits in (47, -15):  # with a zlib or gzip header; then without one, as some servers send it
        decompressor = zlib.decompressobj(window_bits)
        try:
            return decompressor.decompress(body, max_bytes), decompressor.eof
        except zlib.error:
            continue
    return b"", not body


def _unbrotli(body: bytes, max_bytes: int) -> tuple[bytes, bool]:
    decompressor, output, is_all = brotli.Decompressor(), bytearray(), False
    try:
        output += decompressor.process(body, output_buffer_limit=max_bytes)
        while len(output) < max_bytes and not decompressor.can_accept_more_data() and not decompressor.is_finished():
            output += decompressor.process(b"", output_buffer_limit=max_bytes - len(output))
        is_all = decompressor.is_finished() and len(output) <= max_bytes
    except brotli.error:
        pass
    return bytes(output[:max_bytes]), is_all


# Each returns the decompressed bytes, and whether they are all.
_DECOMPRESSORS: Final[dict[str, Callable[[bytes, int], tuple[bytes, bool]]]] = {
    "gzip": _inflate,
    "x-gzip": _inflate,
    "deflate": _inflate,
    "br": _unbrotli,
}
