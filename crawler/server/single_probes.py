"""Probes of single URLs, which belong to no Task."""

from collections.abc import Callable
from typing import Final

from crawler.core.errors import ServiceStopping
from crawler.core.options import Options
from crawler.core.results import ProbeResult
from crawler.core.urls import Target
from crawler.probing.prober import Prober
from crawler.server.places import Places

__all__ = ["MAX_SINGLE_PROBES", "SingleProbes"]

MAX_SINGLE_PROBES: Final = 100
"""Single probes at once."""


class SingleProbes:
    """Probes URLs one by one, with the same prober as the Tasks.

    Args:
        is_stopping: Returns whether the service is stopping.
        max_in_flight: The most single probes at once.

    Attributes:
        places: The places of the single probes.
        prober: The prober; set while the application runs.
    """

    prober: Prober

    def __init__(self, *, is_stopping: Callable[[], bool], max_in_flight: int = MAX_SINGLE_PROBES) -> None:
        self.places = Places("probes of single URLs", max_in_flight)
        self._is_stopping = is_stopping

    async def probe(self, url: str, options: Options, owner: str | None) -> ProbeResult:
        """Probe one URL; it takes turns with those of the Tasks.

        Raises:
            Overloaded: Too many single URLs are being probed.
            QuotaExceeded: This owner probes its share of them.
            ServiceStopping: The service is stopping.
        """
        if self._is_stopping():
            raise ServiceStopping("the service is stopping")
        with self.places.place(owner):
            return await self.prober.probe(Target.of(0, url), options)
