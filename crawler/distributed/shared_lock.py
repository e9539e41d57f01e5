"""A lock that many hold together, or one alone: a readers-writer lock that prefers the writer."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

__all__ = ["SharedLock"]


class SharedLock:
    """Shared by any number of coroutines, or held by one exclusively."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self._holders = 0
        self._exclusive_requests = 0

    @asynccontextmanager
    async def shared(self) -> AsyncIterator[None]:
        """Hold the lock together with others; waits while another coroutine holds, or wants, it exclusively."""
        while self._exclusive_requests:
            await self._changed.wait()
        self._holders += 1
        try:
            yield
        finally:
            self._holders -= 1
            self._notify()

    @asynccontextmanager
    async def exclusive(self) -> AsyncIterator[None]:
        """Hold the lock alone; waits until all others have released it."""
        self._exclusive_requests += 1
        try:
            while self._holders:
                await self._changed.wait()
            self._holders += 1
            try:
                yield
            finally:
                self._holders -= 1
        finally:
            self._exclusive_requests -= 1
            self._notify()

    def _notify(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
