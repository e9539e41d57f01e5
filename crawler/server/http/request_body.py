"""Bodies of requests, as they arrive: of any length, packed or not, cut off or bad."""

from collections.abc import AsyncIterator, Callable
from typing import Final, TypeVar

import msgspec
from aiohttp import web

from crawler.core.errors import InputError, read_validation_error
from crawler.core.urls import Line
from crawler.formats.gzip_reader import GzipReader
from crawler.formats.json_batch import JsonError
from crawler.formats.url_lists import UrlListReader

__all__ = ["HANDLER_ARGS", "chunks", "lines", "read_json"]

T = TypeVar("T")

# To aiohttp a gzip body that stops half way is a whole one that is shorter. So it is left packed, and unpacked here.
HANDLER_ARGS: Final = {"auto_decompress": False}


async def chunks(request: web.Request, max_body: int) -> AsyncIterator[bytes]:
    """The body, plain, in pieces of a megabyte at most.

    Mounted under an application of somebody else, it comes as aiohttp has unpacked it.

    Raises:
        web.HTTPBadRequest: It stops half way, or is not packed as it says.
        web.HTTPRequestEntityTooLarge: It has more than `max_body` bytes, packed or plain.
        web.HTTPUnsupportedMediaType: It is packed with something else than gzip.
    """
    if not request.body_exists:
        return
    # Not `request.read()`: its limit is that of the outermost application, where this one may be mounted.
    too_long = web.HTTPRequestEntityTooLarge(max_body, text=f"the body has more than {max_body} bytes")
    if (request.content_length or 0) > max_body:
        raise too_long
    gunzip = _gunzip(request)
    size = 0
    try:
        async for chunk in request.content.iter_any():
            for plain in gunzip.feed(chunk) if gunzip else (chunk,):
                size += len(plain)
                if size > max_body:
                    raise too_long
                yield plain
        if gunzip:
            gunzip.close()
    except (web.RequestPayloadError, InputError, ConnectionError) as error:  # the last if the client has left
        raise web.HTTPBadRequest(text=f"the body cannot be read: {error}") from None


async def lines(body: AsyncIterator[bytes], reader: UrlListReader, take: Callable[[int], None]) -> AsyncIterator[Line]:
    """What a reader finds in a body, as it arrives; `take` is told how many, and may raise.

    Raises:
        InputError: It is not of the reader's format, or has no line; the message names the place.
    """
    is_empty = True
    async for chunk in body:
        found = reader.feed(chunk)
        take(len(found))
        for line in found:
            is_empty = False
            yield line
    found = reader.close()
    take(len(found))
    for line in found:
        is_empty = False
        yield line
    if is_empty:
        raise InputError("there is no URL in it", "body")


async def read_json(request: web.Request, type_: type[T], max_body: int) -> T:
    """A small JSON body, whole and validated; none is as good as `{}`.

    Raises:
        InputError: It is JSON, but not of this type; the message names the place.
        JsonError: It is no JSON.
        web.HTTPException: As with `chunks`.
    """
    body = bytearray()
    async for chunk in chunks(request, max_body):
        body += chunk
    try:
        return msgspec.json.decode(body or b"{}", type=type_)
    except msgspec.ValidationError as error:
        raise InputError(*read_validation_error(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise JsonError(str(error)) from None
    except RecursionError:
        raise JsonError("nested too deeply") from None


def _gunzip(request: web.Request) -> GzipReader | None:
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding in ("", "identity") or request.content.total_compressed_bytes is not None:
        return None
    if encoding in ("gzip", "x-gzip"):
        return GzipReader()
    raise web.HTTPUnsupportedMediaType(
        headers={"Accept-Encoding": "gzip"}, text="Content-Encoding: only gzip is unpacked here"
    )
