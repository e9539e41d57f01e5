"""Ending what runs beside one."""

import asyncio
from collections.abc import Iterable
from typing import Any, Final

__all__ = ["end"]

_AGAIN: Final = 0.05  # seconds


async def end(works: Iterable[asyncio.Future[Any]]) -> None:
    """Cancel futures, and return when they have ended, however they do; who is cancelled meanwhile waits for that too.

    They are cancelled again until then: before Python 3.12 `asyncio.wait_for`, which redis-py sends its commands with,
    can lose a cancellation.
    """
    running = set(works)
    cancelled: asyncio.CancelledError | None = None
    while running:
        for work in running:
            work.cancel()
        try:
            await asyncio.wait(running, timeout=_AGAIN)
        except asyncio.CancelledError as error:
            cancelled = error
        running = {work for work in running if not work.done()}
    if cancelled is not None:
        raise cancelled
