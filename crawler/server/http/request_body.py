"""Bodies of requests, as they arrive: of any length, plain or gzip, perhaps cut off or malformed."""

from collections.abc import AsyncIterator, Sequence
from typing import Final, TypeVar

import msgspec
from aiohttp import web

from crawler.core.errors import InputError, read_validation_error
from crawler.core.urls import Line
from crawler.formats.gzip_reader import GzipReader
from crawler.formats.json_batch import JsonError
from crawler.formats.url_lists import UrlListReader
from crawler.runtime.turns import Turns, cut
from crawler.server.quotas import CountLines

__all__ = ["HANDLER_ARGS", "read_chunks", "read_json", "read_lines"]

T = TypeVar("T")

# aiohttp would accept a truncated gzip body as complete. So `read_chunks` decompresses, and aiohttp does not.
HANDLER_ARGS: Final = {"auto_decompress": False}

_CHUNK_BYTES: Final = 64 * 1024
_PIECE_BYTES: Final = 4 * 1024  # the costliest lines, two bytes each, take a reader a microsecond a byte


async def read_chunks(request: web.Request, max_bytes: int) -> AsyncIterator[bytes]:
    """Yield the decompressed body, in chunks of 64 KiB at most. Long work takes turns with all other.

    If the application is mounted under another one, aiohttp may have decompressed it already.

    Raises:
        web.HTTPBadRequest: The body is cut off, or is not gzip although its header says so.
        web.HTTPRequestEntityTooLarge: It has more than `max_bytes`, compressed or decompressed.
        web.HTTPUnsupportedMediaType: It has another encoding than gzip.
    """
    if not request.body_exists:
        return
    # Not `request.read()`: its limit is that of the outermost application, under which this one may be mounted.
    too_large = web.HTTPRequestEntityTooLarge(max_bytes, text=f"the body has more than {max_bytes} bytes")
    if (request.content_length or 0) > max_bytes:
        raise too_large
    gunzip = _open_gunzip(request)
    packed_size = size = 0
    turns = Turns()
    try:
        async for chunk in request.content.iter_any():
            packed_size += len(chunk)
            for plain in gunzip.feed(chunk) if gunzip else cut(chunk, _CHUNK_BYTES):
                size += len(plain)
                if max(size, packed_size) > max_bytes:
                    raise too_large
                if turns.is_over:
                    await turns.next()
                if plain:
                    yield plain
        if gunzip:
            gunzip.close()
    except (web.RequestPayloadError, InputError, ConnectionError) as error:  # the last if the client has disconnected
        raise web.HTTPBadRequest(text=f"the body cannot be read: {error}") from None


async def read_lines(
    chunks: AsyncIterator[bytes], reader: UrlListReader, count_lines: CountLines
) -> AsyncIterator[Line]:
    """Yield the lines of a body as they arrive; `count_lines` is called for them before they are yielded.

    Raises:
        InputError: The body is not in the reader's format, or has no line; the message names the place.
    """
    is_empty = True
    turns = Turns()
    async for lines, size in _read_in_turns(chunks, reader, turns):
        is_empty = is_empty and not lines
        await count_lines(len(lines), size)
        for line in lines:  # the store takes turns while it reads them
            yield line
    if is_empty:
        raise InputError("contains no URL", "body")


async def _read_in_turns(
    chunks: AsyncIterator[bytes], reader: UrlListReader, turns: Turns
) -> AsyncIterator[tuple[Sequence[Line], int]]:
    """Yield the lines of each chunk, and its size."""
    async for chunk in chunks:
        lines: list[Line] = []
        for piece in cut(chunk, _PIECE_BYTES):
            lines += reader.feed(piece)
            if turns.is_over:
                await turns.next()
        yield lines, len(chunk)
    yield reader.close(), 0


async def read_json(request: web.Request, type_: type[T], max_bytes: int) -> T:
    """Return a small JSON body, whole and validated; an empty one counts as `{}`.

    Raises:
        InputError: It is JSON, but not of this type; the message names the place.
        JsonError: It is not JSON.
        web.HTTPException: Those of `read_chunks`.
    """
    body = bytearray()
    async for chunk in read_chunks(request, max_bytes):
        body += chunk
    try:
        return msgspec.json.decode(body or b"{}", type=type_)
    except msgspec.ValidationError as error:
        raise InputError(*read_validation_error(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise JsonError(str(error)) from None
    except RecursionError:
        raise JsonError("nested too deeply") from None


def _open_gunzip(request: web.Request) -> GzipReader | None:
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding in ("", "identity") or request.content.total_compressed_bytes is not None:
        return None
    if encoding in ("gzip", "x-gzip"):
        return GzipReader()
    raise web.HTTPUnsupportedMediaType(
        headers={"Accept-Encoding": "gzip"}, text="Content-Encoding: only gzip is supported"
    )
