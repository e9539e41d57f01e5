"""Read response bodies, as far as they are wanted: deframe and decompress, each up to a limit; find the title."""

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
_MIN_FRAMING_BYTES: Final = 64 * 1024  # of chunk sizes that even the smallest body may come with
_MAX_CODINGS: Final = 5  # a header has room for fifty thousand
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
        is_whole: Whether the end of the body has come, and all of it is in `body`.
    """

    def __init__(self, head: ResponseHead, max_bytes: int) -> None:
        self.body = bytearray()
        self.is_complete = False
        self.is_whole = False
        self._max_bytes = max_bytes
        self._length = head.body_length("GET")
        self._is_chunked = head.is_chunked and self._length is None
        self._framed = bytearray()
        # Framing can take a thousand times the size of the body, so both together have a limit.
        self._remaining_bytes = 2 * max_bytes + _MIN_FRAMING_BYTES
        self._remaining_chunk_bytes = 0
        self._is_in_chunk = False
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

    def end(self) -> None:
        """Note the end of the stream. It ends a body that has neither a length nor chunks."""
        self.is_whole = self.is_whole or (self._length is None and not self._is_chunked and not self.is_complete)
        self.is_complete = True

    def _append(self, data: bytes | bytearray) -> None:
        self.body += data
        wanted = self._max_bytes if self._length is None or self._is_chunked else min(self._max_bytes, self._length)
        if len(self.body) >= wanted:
            del self.body[wanted:]
            self.is_complete = True
            self.is_whole = wanted == self._length

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
            line_end = self._framed.find(b"\n", position)
            if (len(self._framed) if line_end < 0 else line_end) - position > _MAX_CHUNK_LINE_BYTES:
                self.is_complete = True
            if self.is_complete or line_end < 0:
                break
            line = self._framed[position:line_end].removesuffix(b"\r")
            position = line_end + 1
            if self._is_in_chunk:  # after its data comes the end of a line, and nothing else
                self._is_in_chunk = False
                self.is_complete = bool(line)
                continue
            size = _CHUNK_LINE.fullmatch(line)
            self._remaining_chunk_bytes = int(size[1], 16) if size else 0
            self._is_in_chunk = self._remaining_chunk_bytes > 0
            self.is_complete = not self._is_in_chunk
            self.is_whole = self.is_complete and size is not None
        del self._framed[:position]


def decompress_body(head: ResponseHead, data: bytes | bytearray, max_bytes: int, *, is_whole: bool) -> Body:
    """Decompress a body, as far as possible, to at most `max_bytes`, and find out how it is encoded."""
    codings = (head.get("content-encoding") or "").lower().replace(" ", "").split(",")
    for coding in reversed(codings[-_MAX_CODINGS:]):
        if (decompress := _DECOMPRESSORS.get(coding)) is not None:
            data, is_all = decompress(bytes(data), max_bytes)
            is_whole = is_whole and is_all
    content_type = next((value for name, value in reversed(head.fields) if name == "content-type"), "")  # as browsers
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
    for window_bits in (47, -15):  # a zlib or gzip wrapper, detected; then none, as some servers send it
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


# Each returns what it read, and whether that is all.
_DECOMPRESSORS: Final[dict[str, Callable[[bytes, int], tuple[bytes, bool]]]] = {
    "gzip": _inflate,
    "x-gzip": _inflate,
    "deflate": _inflate,
    "br": _unbrotli,
}
