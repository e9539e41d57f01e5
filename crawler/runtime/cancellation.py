"""Cancel background work and wait for its end: the one way to do it in this package."""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final, Self, TypeVar

__all__ = ["BackgroundJob", "cancel_and_wait", "in_background"]

T = TypeVar("T")

log = logging.getLogger(__name__)

_RETRY_SECONDS: Final = 0.5


async def cancel_and_wait(*futures: asyncio.Future[Any], retry_seconds: float = _RETRY_SECONDS) -> None:
    """Cancel futures and wait until all have ended. Their results and errors are dropped.

    If the caller is cancelled meanwhile, it still waits for the futures, then raises the cancellation.

    Args:
        futures: The futures; some may have ended already.
        retry_seconds: A future that still runs after this time is cancelled again, and so on. One cancellation can get
            lost: before Python 3.12, `asyncio.wait_for` swallows one that comes as its call completes.
    """
    running = set(futures)
    cancelled: asyncio.CancelledError | None = None
    while running:
        for future in running:
            future.cancel()
        try:
            await asyncio.wait(running, timeout=retry_seconds)
        except asyncio.CancelledError as error:
            cancelled = error
        running = {future for future in running if not future.done()}
    for future in futures:
        if not future.cancelled():
            future.exception()  # marks it as retrieved: otherwise asyncio logs it
    if cancelled is not None:
        raise cancelled


@asynccontextmanager
async def in_background(coroutine: Coroutine[Any, Any, T]) -> AsyncIterator[asyncio.Task[T]]:
    """Run a coroutine beside the body of `async with`; leaving the body cancels it and waits for its end."""
    task = asyncio.ensure_future(coroutine)
    try:
        yield task
    finally:
        await cancel_and_wait(task)


class BackgroundJob(ABC):
    """Runs `_run` in the background while its context lasts; leaving the context cancels it and waits for its end.

    An error that ends `_run` is logged at once.
    """

    async def __aenter__(self) -> Self:
        self._job = asyncio.ensure_future(self._run())
        self._job.add_done_callback(self._log_error)
        return self

    async def __aexit__(self, *exception: object) -> None:
        await cancel_and_wait(self._job)

    @abstractmethod
    async def _run(self) -> None:
        """Do the work; usually without end."""

    def _log_error(self, job: asyncio.Future[None]) -> None:
        if not job.cancelled() and (error := job.exception()) is not None:
            log.error("background job %s failed", type(self).__name__, exc_info=error)
