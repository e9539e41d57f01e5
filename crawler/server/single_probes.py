"""Probes of single URLs, which belong to no Task."""

from collections.abc import Callable
from typing import Final

from crawler.core.errors import Overloaded, ServiceStopping
from crawler.core.options import Options
from crawler.core.results import ProbeResult
from crawler.core.urls import Target
from crawler.probing.prober import Prober

__all__ = ["SingleProbes"]

_MAX_IN_FLIGHT: Final = 100


class SingleProbes:
    """Probes URLs one by one, with the same prober as the Tasks.

    Args:
        is_stopping: Returns whether the service is stopping.
        max_in_flight: The most single probes at once.

    Attributes:
        prober: The prober; set while the application runs.
        in_flight: The number of single probes in flight.
    """

    prober: Prober

    def __init__(self, *, is_stopping: Callable[[], bool], max_in_flight: int = _MAX_IN_FLIGHT) -> None:
        self.in_flight = 0
        self._is_stopping = is_stopping
        self._max_in_flight = max_in_flight

    async def probe(self, url: str, options: Options) -> ProbeResult:
        """Probe one URL; it takes turns with those of the Tasks.

        Raises:
            Overloaded: Too many single URLs are being probed.
            ServiceStopping: The service is stopping.
        """
        if self._is_stopping():
            raise ServiceStopping("the service is stopping")
        if self.in_flight >= self._max_in_flight:
            raise Overloaded(f"{self._max_in_flight} single URLs are being probed; try again")
        self.in_flight += 1
        try:
            return await self.prober.probe(Target.of(0, url), options)
        finally:
            self.in_flight -= 1
