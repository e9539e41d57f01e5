"""Whether the service can do its work now, for who decides where requests go."""

import asyncio
import logging
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from crawler.core.errors import StoreDamaged, StoreError, StoreFull
from crawler.registry import Registry

__all__ = ["HealthMonitor"]

log = logging.getLogger(__name__)

_LATE: Final = 2.0  # seconds that the event loop may be late


class HealthMonitor:
    """What stands in the way of the service, while its context lasts.

    Args:
        registry: Has to take something in.
        has_resolver: Whether there is somebody to ask for names.
        lag: How late the event loop was of late, in seconds.
        is_stopping: Whether the service is about to end.
        patience: Seconds in which the registry has to answer.
        kept: Seconds for which its answer is given again: strangers may ask as often as they like.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        has_resolver: Callable[[], bool],
        lag: Callable[[], float],
        is_stopping: Callable[[], bool],
        patience: float = 2.0,
        kept: float = 1.0,
    ) -> None:
        self._registry = registry
        self._has_resolver = has_resolver
        self._lag = lag
        self._is_stopping = is_stopping
        self._patience = patience
        self._kept = kept
        self._trying: asyncio.Future[str | None] | None = None
        self._looking: asyncio.Future[str | None] | None = None
        self._looked = 0.0  # loop time
        self._was_well = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        left = [future for future in (self._trying, self._looking) if future is not None]
        for future in left:
            future.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def troubles(self) -> dict[str, str | None]:
        """What is wrong with each part, in words that tell a stranger nothing; None if nothing is."""
        now = asyncio.get_running_loop().time()
        if self._looking is None or (self._looking.done() and now - self._looked > self._kept):
            self._looking = asyncio.ensure_future(self._look())
        return {
            "store": await asyncio.shield(self._looking),
            "resolver": None if self._has_resolver() else "no DNS server is configured",
            "loop": None if self._lag() < _LATE else "is late",
            "service": "is about to end" if self._is_stopping() else None,
        }

    async def _look(self) -> str | None:
        if self._trying is None or self._trying.done():  # a try that hangs is waited for, and not joined by others
            self._trying = asyncio.ensure_future(self._try())
        await asyncio.wait({self._trying}, timeout=self._patience)
        trouble = self._trying.result() if self._trying.done() else "does not answer"
        self._was_well, self._looked = trouble is None, asyncio.get_running_loop().time()
        return trouble

    async def _try(self) -> str | None:
        try:
            await self._registry.check_writable()
        except StoreError as error:
            if self._was_well:
                log.error("the store cannot be written to: %s", error)
            return _words(error)
        return None


def _words(error: StoreError) -> str:
    if isinstance(error, StoreFull):
        return "has no space left"
    return "is damaged" if isinstance(error, StoreDamaged) else "cannot be written to"
