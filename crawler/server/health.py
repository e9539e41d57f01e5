"""Whether the service can do its work now: what `/readyz` tells load balancers."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Self

from crawler.core.errors import StoreDamaged, StoreError, StoreFull
from crawler.registry import Registry
from crawler.runtime.cancellation import cancel_and_wait

__all__ = ["HealthMonitor"]

log = logging.getLogger(__name__)

_MAX_LAG_SECONDS: Final = 2.0


class HealthMonitor:
    """Finds what is wrong with each part of the service, while its context lasts.

    Args:
        registry: Has to be writable.
        has_resolver: Tells whether a DNS server is configured.
        lag: Gives the worst recent delay of the event loop, in seconds.
        is_stopping: Tells whether the service is about to end.
        timeout_seconds: How long the registry may take.
        cache_seconds: For how long the state of the registry is reused: any client may ask, as often as it likes.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        has_resolver: Callable[[], bool],
        lag: Callable[[], float],
        is_stopping: Callable[[], bool],
        timeout_seconds: float = 2.0,
        cache_seconds: float = 1.0,
    ) -> None:
        self._registry = registry
        self._has_resolver = has_resolver
        self._lag = lag
        self._is_stopping = is_stopping
        self._timeout_seconds = timeout_seconds
        self._cache_seconds = cache_seconds
        self._write: asyncio.Future[str | None] | None = None
        self._check: asyncio.Future[str | None] | None = None
        self._checked_at = 0.0  # loop time
        self._was_writable = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await cancel_and_wait(*(future for future in (self._write, self._check) if future is not None))

    async def find_troubles(self) -> dict[str, str | None]:
        """What is wrong with each part, without details that a stranger should not see; None if nothing is."""
        now = asyncio.get_running_loop().time()
        if self._check is None or (self._check.done() and now - self._checked_at > self._cache_seconds):
            self._check = asyncio.ensure_future(self._check_store())
        return {
            "store": await asyncio.shield(self._check),
            "resolver": None if self._has_resolver() else "no DNS server is configured",
            "loop": None if self._lag() < _MAX_LAG_SECONDS else "is late",
            "service": "is about to end" if self._is_stopping() else None,
        }

    async def _check_store(self) -> str | None:
        if self._write is None or self._write.done():  # while one hangs, no second one begins
            self._write = asyncio.ensure_future(self._try_write())
        await asyncio.wait({self._write}, timeout=self._timeout_seconds)
        trouble = self._write.result() if self._write.done() else "does not answer"
        self._was_writable, self._checked_at = trouble is None, asyncio.get_running_loop().time()
        return trouble

    async def _try_write(self) -> str | None:
        try:
            await self._registry.check_writable()
        except StoreError as error:
            if self._was_writable:
                log.error("the store cannot be written to: %s", error)
            return _describe(error)
        return None


def _describe(error: StoreError) -> str:
    if isinstance(error, StoreFull):
        return "has no space left"
    return "is damaged" if isinstance(error, StoreDamaged) else "cannot be written to"
