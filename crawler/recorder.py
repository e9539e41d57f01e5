"""What probes find, recorded."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from crawler.core.errors import StoreError
from crawler.core.models import ProbeResult
from crawler.registry import Registry
from crawler.runtime.cancellation import end

__all__ = ["Recorder", "insist"]

T = TypeVar("T")

log = logging.getLogger(__name__)

_BREATH: Final = 0.05  # seconds that results wait for others, to be recorded with them
_WAITING: Final = 5_000  # results that may wait for the store; then probing waits too
_PATIENCE: Final = 30.0  # seconds between two tries to record, at most


async def insist(call: Callable[..., Coroutine[Any, Any, T]], *arguments: Any) -> T:
    """Do what a store may be unable to do for a while: what is found is not thrown away because a disk is full."""
    patience = 1.0
    while True:
        try:
            return await call(*arguments)
        except StoreError as error:
            log.error("the store does not do its work, which is tried again: %s", error)
            await asyncio.sleep(patience)
            patience = min(2 * patience, _PATIENCE)


class Recorder:
    """Has a Task's results recorded as they come, those together that come within a breath: many cost as little as one.

    It works while somebody is in its context: one, or several side by side.

    Args:
        task_id: Whose results.
        registry: Where to.
    """

    def __init__(self, task_id: str, registry: Registry) -> None:
        self._task_id = task_id
        self._registry = registry
        self._users = 0
        self._news = asyncio.Event()
        self._hurry = asyncio.Event()
        self._step = asyncio.Event()

    async def __aenter__(self) -> Self:
        if not self._users:
            self._found: list[ProbeResult] = []
            self._added = self._recorded = 0
            self._recording = asyncio.ensure_future(self._record_all())
        self._users += 1
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """What was added is recorded, unless whoever leaves was cancelled."""
        try:
            if not isinstance(error, asyncio.CancelledError):
                await self.flush()
        finally:
            self._users -= 1
            if not self._users:
                recording = self._recording  # others may come from now on, for whom there is another one
                await end([recording])
                if not recording.cancelled():
                    recording.exception()  # whoever waited for it has heard of it

    async def add(self, result: ProbeResult) -> None:
        """Have a result recorded soon; while too many wait for the store, this does too.

        Raises:
            TaskNotFound: The Task is gone.
        """
        self._found.append(result)
        self._added += 1
        self._news.set()
        if len(self._found) >= _WAITING or self._recording.done():
            await self.flush()

    async def flush(self) -> None:
        """Wait until all that was added is recorded.

        Raises:
            TaskNotFound: The Task is gone.
        """
        wanted = self._added
        while self._recorded < wanted:
            if self._recording.done():
                self._recording.result()
            if self._found:
                self._hurry.set()
            await self._step.wait()

    async def _record_all(self) -> None:
        try:
            while True:
                await self._news.wait()
                with suppress(TimeoutError):
                    async with asyncio.timeout(_BREATH):
                        await self._hurry.wait()
                found, self._found = self._found, []
                self._news.clear()
                self._hurry.clear()
                await insist(self._registry.record, self._task_id, found)
                self._recorded += len(found)
                self._tell()
        finally:
            asyncio.get_running_loop().call_soon(self._tell)  # by then this is done

    def _tell(self) -> None:
        step, self._step = self._step, asyncio.Event()
        step.set()
