"""The jobs that one of the processes with the same registry does for all: webhooks, retention, requeueing."""

import asyncio
import logging
from typing import Final

from crawler.core.errors import StoreError
from crawler.registry import Registry
from crawler.runtime.cancellation import BackgroundJob, in_background
from crawler.server.background.retention import Retention
from crawler.server.background.webhooks import Webhooks
from crawler.server.settings import ServerSettings
from crawler.worker import Engine

__all__ = ["Leader"]

log = logging.getLogger(__name__)

_DEFAULT: Final = ServerSettings()


class Leader(BackgroundJob):
    """Runs the jobs of the leader while this process is the leader and the context lasts.

    Args:
        registry: Elects the leader.
        engine: Requeues stalled work.
        webhooks: Delivers webhooks while entered.
        retention: Deletes old Tasks while entered.
        retry_seconds: The pause before the next attempt to lead, and to requeue.
    """

    def __init__(
        self,
        registry: Registry,
        engine: Engine,
        webhooks: Webhooks,
        retention: Retention,
        *,
        retry_seconds: float = _DEFAULT.leader_retry_seconds,
    ) -> None:
        self._registry = registry
        self._engine = engine
        self._webhooks = webhooks
        self._retention = retention
        self._retry_seconds = retry_seconds

    async def _run(self) -> None:
        while True:
            try:
                async with (
                    self._registry.leadership() as lost,
                    self._webhooks,
                    self._retention,
                    in_background(self._requeue()),
                ):
                    await lost.wait()
            except StoreError as error:
                log.error("webhooks and retention pause, and are tried again: %s", error)
            except Exception:  # a fault of the service must not end the job for good
                log.exception("webhooks and retention pause, and are tried again")
            await asyncio.sleep(self._retry_seconds)

    async def _requeue(self) -> None:
        while True:
            try:
                return await self._engine.requeue_stalled()
            except Exception:
                log.exception("stalled work could not be requeued, which is tried again")
            await asyncio.sleep(self._retry_seconds)
