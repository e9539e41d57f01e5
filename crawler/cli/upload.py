"""Upload a URL list to a service: its format, and the bytes of a request's body."""

import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Final

import msgspec

from crawler.cli.url_files import Sources, format_of, is_file
from crawler.core.errors import InputError
from crawler.core.urls import Line

__all__ = ["ListUpload", "open_upload"]

_CHUNK_BYTES: Final = 64 * 1024
_GZIP_WINDOW_BITS: Final = 31  # zlib's way to ask for the gzip format


class ListUpload:
    """A URL list as the body of a request.

    Args:
        content_type: The media type of the chunks.
        chunks: Reads the list from its start.
        is_repeatable: Whether the list can be read more than once.

    Attributes:
        error: Why the list could not be read to its end.
    """

    def __init__(self, content_type: str, chunks: Callable[[], AsyncIterator[bytes]], *, is_repeatable: bool) -> None:
        self.content_type = content_type
        self.error: Exception | None = None
        self._chunks = chunks
        self._is_repeatable = is_repeatable
        self._has_begun = False

    @property
    def can_be_read(self) -> bool:
        """Whether the whole list can still be read."""
        return self._is_repeatable or not self._has_begun

    async def read(self) -> AsyncIterator[bytes]:
        """Compress the list with gzip. An error is kept, because aiohttp reports it as a lost connection."""
        self._has_begun = True
        compressor = zlib.compressobj(wbits=_GZIP_WINDOW_BITS)
        try:
            async for chunk in self._chunks():
                if compressed := compressor.compress(chunk):
                    yield compressed
        except Exception as error:
            self.error = error
            raise
        yield compressor.flush()


def open_upload(sources: Sources) -> ListUpload:
    """Make an upload of the URLs in arguments and files; nothing is read yet."""
    # Plain text cannot carry an empty URL, one with line feeds, or one like a comment; other formats can. Each of these
    # lines has a result.
    urls = [argument for argument in sources.arguments if not is_file(argument)]
    is_text = all(format_of(file, sources.choice) == "text" for file in sources.files)
    encode, content_type = _encode_json, "application/x-ndjson"
    if is_text and all(url == url.strip() != "" and url[0] != "#" and not {"\n", "\r"} & set(url) for url in urls):
        encode, content_type = _encode_text, "text/plain"
    is_repeatable = all(file != "-" and Path(file).is_file() for file in sources.files)
    return ListUpload(content_type, lambda: _read_chunks(sources.read(), encode), is_repeatable=is_repeatable)


async def _read_chunks(lines: AsyncGenerator[Line, None], encode: Callable[[Line], bytes]) -> AsyncIterator[bytes]:
    chunk = bytearray()
    async with aclosing(lines):
        async for line in lines:
            chunk += encode(line)
            chunk += b"\n"
            if len(chunk) > _CHUNK_BYTES:
                yield bytes(chunk)
                chunk.clear()
    yield bytes(chunk)


def _encode_text(line: Line) -> bytes:
    return line.encode() if isinstance(line, str) else line


def _encode_json(line: Line) -> bytes:
    try:
        return msgspec.json.encode(line if isinstance(line, str) else line.decode())
    except UnicodeDecodeError:
        raise InputError("is not UTF-8, and can be submitted in a list of plain text only", repr(line)) from None
