"""Responses of the HTTP API: JSON in one piece, and streams of any length."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Final

import msgspec
from aiohttp import web

from crawler.core.errors import StoreError, TaskNotFound
from crawler.runtime.turns import Turns
from crawler.server.app_keys import SETTINGS

__all__ = ["batch_chunks", "json_response", "stream_response"]

log = logging.getLogger(__name__)

_CHUNK_BYTES: Final = 64 * 1024  # enough for one system call


def json_response(content: object, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return a response with JSON in one piece. Its line ends, for a prompt that comes after it in a terminal."""
    body = msgspec.json.encode(content) + b"\n"
    return web.Response(status=status, body=body, content_type="application/json", headers=headers)


async def stream_response(
    request: web.Request,
    chunks: AsyncGenerator[bytes, None],
    content_type: str = "application/json",
    headers: Mapping[str, str] | None = None,
) -> web.StreamResponse:
    """Send chunks as they are made, each at once: the whole is never in memory.

    The connection is cut if the client reads nothing for `ServerSettings.stall_seconds`, or if making a chunk fails:
    the client could take an error in the middle of a response for a part of it.
    """
    response = web.StreamResponse(headers={"Content-Type": content_type, **(headers or {})})
    stall_seconds = request.app[SETTINGS].stall_seconds
    try:
        await response.prepare(request)
        if request.method == "HEAD":  # aiohttp would send the body, and the client would read it as the next response
            return response
        async with aclosing(chunks):
            async for chunk in chunks:
                async with asyncio.timeout(stall_seconds):
                    await response.write(chunk)
        if content_type == "application/json":  # the line ends, as in `json_response`
            async with asyncio.timeout(stall_seconds):
                await response.write(b"\n")
        await response.write_eof()
    except (ConnectionError, TimeoutError):  # the client has disconnected, or reads nothing any more
        _abort(request)
    except (StoreError, TaskNotFound) as error:
        log.error("a response could not be sent to its end: %s", error)
        _abort(request)
    except Exception:
        log.exception("a response could not be sent to its end")
        _abort(request)
    return response


async def batch_chunks(parts: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Yield the same bytes in chunks that are worth a system call each. The work takes turns with all other."""
    chunk, turns = bytearray(), Turns()
    async for part in parts:
        if turns.is_over:
            await turns.next()
        chunk += part
        if len(chunk) > _CHUNK_BYTES:
            yield bytes(chunk)
            chunk.clear()
    yield bytes(chunk)


def _abort(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()
