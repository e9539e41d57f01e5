"""Run a coroutine on the fastest event loop that is installed."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["run_on_event_loop"]

T = TypeVar("T")


def run_on_event_loop(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end: on uvloop, or on asyncio's own loop where uvloop is not installed."""
    try:
        import uvloop
    except ImportError:  # some platforms have no wheel
        return asyncio.run(coroutine)
    return uvloop.run(coroutine)
