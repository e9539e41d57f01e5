"""A stream of results whose input arrives while the results are read."""

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Generic, Self, TypeVar

from crawler.runtime.cancellation import cancel_and_wait
from crawler.runtime.iteration import iterate
from crawler.runtime.turns import Turns

__all__ = ["FedStream"]

T = TypeVar("T")
S = TypeVar("S")


class FedStream(ABC, Generic[T]):
    """One coroutine feeds work in, another iterates over the results, which come as they are found.

    A subclass takes the work. It says when it has room for more and when no result can follow, and calls
    `_notify_feeder` or `_notify_reader` when that may have changed.
    """

    def __init__(self) -> None:
        self.is_sealed = False
        self._results: deque[T] = deque()
        self._reader_event = asyncio.Event()
        self._feeder_event = asyncio.Event()

    @property
    @abstractmethod
    def is_draining(self) -> bool:
        """Whether no more work begins."""

    @abstractmethod
    def _has_room(self) -> bool:
        """Whether the feeder should continue."""

    @abstractmethod
    def _is_over(self) -> bool:
        """Whether no more results come."""

    @asynccontextmanager
    async def fed_with(self, items: Iterable[S] | AsyncIterable[S], submit: Callable[[S], None]) -> AsyncIterator[None]:
        """Feed all items while the context lasts. At its end, raise what the iterable raised."""
        feeder = asyncio.ensure_future(self._feed(items, submit))
        try:
            yield
            if not self.is_draining:  # else the feeder may wait for room that never comes
                await feeder
        finally:
            await cancel_and_wait(feeder)

    async def _feed(self, items: Iterable[S] | AsyncIterable[S], submit: Callable[[S], None]) -> None:
        turns = Turns()
        try:
            async for item in iterate(items):
                submit(item)
                if not self._has_room():
                    await self.wait_for_room()
                if turns.is_over:  # an endless list of URLs that need no request always finds room
                    await turns.next()
        finally:
            self.seal()

    def seal(self) -> None:
        """Mark the input as complete."""
        self.is_sealed = True
        self._notify_reader()

    async def wait_for_room(self) -> None:
        """Wait until there is room for more work."""
        while not self._has_room():
            self._feeder_event.clear()
            await self._feeder_event.wait()

    def finish(self, result: T) -> None:
        """Add a result to the stream."""
        self._results.append(result)
        self._reader_event.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        while not self._results:
            if self._is_over():
                raise StopAsyncIteration
            self._reader_event.clear()
            await self._reader_event.wait()
        self._feeder_event.set()
        return self._results.popleft()

    def _notify_reader(self) -> None:
        self._reader_event.set()

    def _notify_feeder(self) -> None:
        self._feeder_event.set()
