"""What one process at a time does for all that share a registry: webhooks, retention, work that was left lying."""

import asyncio
import logging
from types import TracebackType
from typing import Final, Self

from crawler.core.errors import StoreError
from crawler.registry import Registry
from crawler.runtime.cancellation import end
from crawler.server.background.retention import Retention
from crawler.server.background.webhooks import Webhooks
from crawler.worker import Engine

__all__ = ["Leader"]

log = logging.getLogger(__name__)

_AGAIN: Final = 5.0  # seconds until it is tried again


class Leader:
    """Kept while its context lasts, whenever it is this process's turn.

    Args:
        registry: Where the Tasks are; it gives the turns.
        engine: Works on them.
        webhooks: Begins to deliver them.
        retention: Begins to delete old Tasks.
    """

    def __init__(self, registry: Registry, engine: Engine, webhooks: Webhooks, retention: Retention) -> None:
        self._registry = registry
        self._engine = engine
        self._webhooks = webhooks
        self._retention = retention

    async def __aenter__(self) -> Self:
        self._keeping = asyncio.ensure_future(self._keep())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await end([self._keeping])

    async def _keep(self) -> None:
        while True:
            try:
                async with self._registry.leadership() as lost, self._webhooks, self._retention:
                    tending = asyncio.ensure_future(self._tend())
                    try:
                        await lost.wait()
                    finally:
                        await end([tending])
            except StoreError as error:
                log.error("webhooks and old tasks have to wait: %s", error)
            except Exception:  # a fault of ours must not end it for good
                log.exception("webhooks and old tasks have to wait")
            await asyncio.sleep(_AGAIN)

    async def _tend(self) -> None:
        while True:
            try:
                return await self._engine.requeue_stalled()
            except Exception:
                log.exception("work that was left lying has to wait")
            await asyncio.sleep(_AGAIN)
