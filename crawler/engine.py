"""Who runs workers: here, the event loop of this process."""

import asyncio
from types import TracebackType
from typing import Final, Protocol, Self

from crawler.core.outlook import Outlook
from crawler.probing.prober import Prober
from crawler.registry import Registry
from crawler.worker import worker

__all__ = ["Engine", "LocalEngine"]

_RECORDING: Final = 3.0  # seconds for the store to take in what was found


class Engine(Protocol):
    """Has Tasks worked on."""

    def start(self, task_id: str) -> None:
        """Start work on a Task; returns at once."""

    def workers(self, task_id: str) -> list[asyncio.Future[None]]:
        """The workers of a Task in this process."""

    async def stop(self, task_id: str) -> None:
        """Stop the work on a Task; returns when nothing of it runs in this process."""

    async def drain(self, seconds: float) -> None:
        """Have no more probes begun in this process; those under way have so many seconds."""

    async def outlook(self) -> Outlook | None:
        """What waits for workers in other processes, and who they are; None if there are none, or nobody answers."""

    async def tend(self) -> None:
        """See that all work is done in the end, for as long as this is not cancelled."""


class LocalEngine:
    """Runs one worker per Task on this event loop. Fairness between Tasks is the prober's throttle's."""

    def __init__(self, registry: Registry, prober: Prober) -> None:
        self._registry = registry
        self._prober = prober
        self._workers: dict[str, list[asyncio.Future[None]]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop all work."""
        for task_id in list(self._workers):
            await self.stop(task_id)

    def start(self, task_id: str) -> None:
        """Start work on a Task; returns at once."""
        self._workers[task_id] = [asyncio.ensure_future(worker(task_id, self._registry, self._prober))]

    def workers(self, task_id: str) -> list[asyncio.Future[None]]:
        """The workers of a Task, also those that have ended; none for a Task that was never started here."""
        return self._workers.get(task_id, [])

    async def stop(self, task_id: str) -> None:
        """Stop the work on a Task, requests in flight included; returns when nothing of it runs."""
        workers = self._workers.get(task_id, [])
        for future in workers:
            future.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        self._workers.pop(task_id, None)

    async def drain(self, seconds: float) -> None:
        """Have no more probes begun; those under way have so many seconds, and what they find is recorded.

        The Tasks stay as far as they are. Of one that is started now, nothing is probed.
        """
        await self._prober.drain(seconds)
        if workers := [future for workers in self._workers.values() for future in workers]:
            await asyncio.wait(workers, timeout=_RECORDING)

    async def outlook(self) -> Outlook | None:
        """None: all is done here."""
        return None

    async def tend(self) -> None:
        """Do nothing: what is started here is not left lying while this process lives."""
