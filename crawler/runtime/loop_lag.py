"""Measure how late the event loop runs its callbacks: code that does not yield delays everything else on the loop."""

import asyncio
from collections import deque
from time import monotonic
from typing import Final

from crawler.runtime.cancellation import BackgroundJob
from crawler.runtime.counters import Histogram

__all__ = ["LoopLag"]

_MAX_SAMPLES: Final = 20  # samples that `worst` takes into account
_BOUNDS_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class LoopLag(BackgroundJob):
    """Measures the lag of the event loop at regular intervals while its context lasts.

    Args:
        every: Seconds between two samples.

    Attributes:
        seconds: All samples: seconds from the time a callback was due to the time it ran.
    """

    def __init__(self, every: float = 0.5) -> None:
        self._every = every
        self.seconds = Histogram(_BOUNDS_SECONDS)
        self._latest: deque[float] = deque([0.0], maxlen=_MAX_SAMPLES)

    @property
    def worst(self) -> float:
        """The greatest lag of the latest twenty samples, in seconds."""
        return max(self._latest)

    async def _run(self) -> None:
        while True:
            due = monotonic() + self._every  # not the loop's own time, which does not advance while a callback runs
            await asyncio.sleep(self._every)
            late = max(0.0, monotonic() - due)
            self.seconds.add(late)
            self._latest.append(late)
