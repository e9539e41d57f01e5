"""Ending what runs beside one."""

import asyncio
from collections.abc import Iterable
from typing import Any, Final

__all__ = ["end"]

_AGAIN: Final = 0.05  # seconds


async def end(works: Iterable[asyncio.Future[Any]]) -> None:
    """Cancel futures, and return when they have ended, however they do.

    They are cancelled again until then: before Python 3.12 `asyncio.wait_for`, which redis-py sends its commands with,
    can lose a cancellation.
    """
    running = set(works)
    while running:
        for work in running:
            work.cancel()
        _, running = await asyncio.wait(running, timeout=_AGAIN)
