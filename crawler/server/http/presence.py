"""Work that ends when its client leaves."""

from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from aiohttp import web

from crawler.runtime.cancellation import in_background
from crawler.runtime.waiting import wait_until_done

__all__ = ["CLIENT_LEFT", "while_connected"]

T = TypeVar("T")

CLIENT_LEFT: Final = 499
"""The status in the log of a request whose client has left, as in that of nginx. No client sees it."""

_POLL_SECONDS: Final = 0.5  # aiohttp tells a handler nothing, or cancels all handlers, also those that must not be


async def while_connected(request: web.Request, work: Coroutine[Any, Any, T]) -> T:
    """Return the outcome of work that nobody wants without its client; cancel it when that has disconnected.

    Raises:
        web.HTTPException: The client has disconnected.
    """
    async with in_background(work) as task:
        while not await wait_until_done(task, _POLL_SECONDS):
            if request.transport is None or request.transport.is_closing():
                raise _ClientLeft(text="the client has disconnected")
        return task.result()


class _ClientLeft(web.HTTPClientError):
    status_code = CLIENT_LEFT
