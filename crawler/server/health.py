"""Whether the service can do its work now: what `/readyz` tells load balancers."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, Self

from crawler.core.errors import (
    QueueLost,
    QueueStalled,
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreReadOnly,
    StoreReplaced,
)
from crawler.registry import Registry
from crawler.runtime.cancellation import cancel_and_wait

__all__ = ["HealthMonitor"]

log = logging.getLogger(__name__)

_MAX_LAG_SECONDS: Final = 2.0

_FAULTS: Final = {
    StoreFull: "has no space left",
    StoreDamaged: "is damaged",
    StoreReadOnly: "is a replica, which accepts no writes",
    StoreReplaced: "was removed or replaced while in use",
    QueueLost: "has lost queued work, which is queued again",
    QueueStalled: "has queued work that no worker process takes",
}


class HealthMonitor:
    """Finds what is wrong with each part of the service, while its context lasts.

    Args:
        registry: The registry, which has to be writable.
        queues: Raises `StoreError` if the store does not pass work on.
        has_resolver: Returns whether a DNS server is configured.
        lag: Returns the worst recent delay of the event loop, in seconds.
        prober: Returns what keeps the prober from its work, None if nothing does.
        is_stopping: Returns whether the service is stopping.
        timeout_seconds: How long the registry may take.
        cache_seconds: How long the state of the registry is reused, because clients may ask often.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        queues: Callable[[], Awaitable[None]],
        has_resolver: Callable[[], bool],
        lag: Callable[[], float],
        prober: Callable[[], str | None],
        is_stopping: Callable[[], bool],
        timeout_seconds: float = 2.0,
        cache_seconds: float = 1.0,
    ) -> None:
        self._registry = registry
        self._queues = queues
        self._has_resolver = has_resolver
        self._lag = lag
        self._prober = prober
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

    async def find_faults(self) -> dict[str, str | None]:
        """Return what is wrong with each part, None if it works. It has no details: clients without a token see it."""
        now = asyncio.get_running_loop().time()
        if self._check is None or (self._check.done() and now - self._checked_at > self._cache_seconds):
            self._check = asyncio.ensure_future(self._check_store())
        return {
            "store": await asyncio.shield(self._check),
            "resolver": None if self._has_resolver() else "no DNS server is configured",
            "loop": None if self._lag() < _MAX_LAG_SECONDS else "is late",
            "prober": self._prober(),
            "service": "is stopping" if self._is_stopping() else None,
        }

    async def _check_store(self) -> str | None:
        if self._write is None or self._write.done():  # while one write hangs, no second one starts
            self._write = asyncio.ensure_future(self._try_write())
        await asyncio.wait({self._write}, timeout=self._timeout_seconds)
        fault = self._write.result() if self._write.done() else "does not answer"
        self._was_writable, self._checked_at = fault is None, asyncio.get_running_loop().time()
        return fault

    async def _try_write(self) -> str | None:
        try:
            await self._registry.check_writable()
            await self._queues()
        except StoreError as error:
            if self._was_writable:
                log.error("the store cannot do its work: %s", error)
            return _describe(error)
        return None


def _describe(error: StoreError) -> str:
    return next((words for kind, words in _FAULTS.items() if isinstance(error, kind)), "cannot be written to")
