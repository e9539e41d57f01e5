"""Answers of the HTTP API: JSON in one piece, and streams of any length."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Final

import msgspec
from aiohttp import web

__all__ = ["gathered", "json_answer", "stream"]

log = logging.getLogger(__name__)

_CHUNK: Final = 64 * 1024  # bytes of a streamed answer that are worth a system call
_PATIENCE: Final = 300.0  # seconds in which a client has to take something in: meanwhile, deletions may wait


def json_answer(content: object, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Answer with JSON, whole."""
    return web.Response(
        status=status, body=msgspec.json.encode(content), content_type="application/json", headers=headers
    )


async def stream(
    request: web.Request,
    pieces: AsyncGenerator[bytes, None],
    content_type: str = "application/json",
    headers: Mapping[str, str] | None = None,
) -> web.StreamResponse:
    """Answer with pieces as they are made, each sent at once: nothing is ever in memory as one text.

    A client that takes nothing in for five minutes is cut off, and so is one whose answer fails half way: an error in
    its middle could be taken for a part of it.
    """
    response = web.StreamResponse(headers={"Content-Type": content_type, **(headers or {})})
    try:
        await response.prepare(request)
        if request.method == "HEAD":  # aiohttp would send what is written, and the client take it for the next answer
            return response
        async with aclosing(pieces):
            async for piece in pieces:
                async with asyncio.timeout(_PATIENCE):
                    await response.write(piece)
        await response.write_eof()
    except (ConnectionError, TimeoutError):  # the client has left, or takes nothing in any more
        _abort(request)
    except Exception:
        log.exception("an answer could not be sent to its end")
        _abort(request)
    return response


async def gathered(parts: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """The same bytes in pieces that are worth a system call."""
    chunk = bytearray()
    async for part in parts:
        chunk += part
        if len(chunk) > _CHUNK:
            yield bytes(chunk)
            chunk.clear()
    yield bytes(chunk)


def _abort(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()
