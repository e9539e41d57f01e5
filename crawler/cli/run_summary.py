"""What a run of `probe` comes to, in one line."""

import time
from urllib.parse import urlsplit

from crawler.core.results import ProbeResult
from crawler.core.tasks import Counts

__all__ = ["RunSummary"]


class RunSummary:
    """Counts the results of a run.

    Attributes:
        counts: The lines by outcome.
    """

    def __init__(self) -> None:
        self.counts = Counts()
        self._started = time.monotonic()
        self._slowest: ProbeResult | None = None
        self._slowest_ms = 0.0

    def add(self, result: ProbeResult) -> None:
        """Count a result."""
        self.counts.add(result.outcome)
        if result.timings.total > self._slowest_ms:
            self._slowest, self._slowest_ms = result, result.timings.total

    @property
    def is_all_ok(self) -> bool:
        """Whether there is no other outcome than ok."""
        return self.counts.ok == self.counts.done

    def describe(self, total: int | None = None) -> str:
        """Return the number of results by outcome, the seconds, the rate and the slowest host.

        Args:
            total: The number of lines, if that is known and of interest.
        """
        done, seconds = self.counts.done, time.monotonic() - self._started
        text = f"{done}{'' if total is None else f' of {total}'} {'URL' if done == 1 else 'URLs'} in {seconds:.1f} s"
        if not done:
            return text
        parts = [f"{number} {outcome.replace('_', ' ')}" for outcome, number in self.counts.by_outcome() if number]
        text += f" ({done / max(seconds, 0.001):.0f}/s): {', '.join(parts)}"
        slowest = self._slowest
        if done > 1 and slowest is not None and slowest.hops:
            text += f"; slowest host: {_host(slowest.hops[-1].url)}, {slowest.timings.total / 1000:.2f} s"
        return text


def _host(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2]
