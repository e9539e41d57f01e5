"""How late the event loop is: what a program on it does without a pause, all others wait for."""

import asyncio
from collections import deque
from time import monotonic
from types import TracebackType
from typing import Final, Self

from crawler.runtime.counters import Histogram

__all__ = ["LoopLag"]

_KEPT: Final = 20  # samples that `worst` is of
_BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)  # seconds


class LoopLag:
    """Looks, while its context lasts, how much later than it wants it is woken up.

    Args:
        every: Seconds from one look to the next.

    Attributes:
        seconds: How late it was.
    """

    def __init__(self, every: float = 0.5) -> None:
        self._every = every
        self.seconds = Histogram(_BOUNDS)
        self._latest: deque[float] = deque([0.0], maxlen=_KEPT)

    async def __aenter__(self) -> Self:
        self._looking = asyncio.ensure_future(self._look())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._looking.cancel()
        await asyncio.gather(self._looking, return_exceptions=True)

    @property
    def worst(self) -> float:
        """How late it was at worst, in seconds, in the latest twenty looks."""
        return max(self._latest)

    async def _look(self) -> None:
        while True:
            due = monotonic() + self._every  # not the loop's own time, which stands still while a program runs
            await asyncio.sleep(self._every)
            late = max(0.0, monotonic() - due)
            self.seconds.add(late)
            self._latest.append(late)
