"""Histograms and counters in plain numbers: cheap to add to, and formatted only when metrics are read."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Final, get_args

from crawler.core.error_types import ERROR_TYPES
from crawler.core.errors import StoreError
from crawler.core.results import Outcome, ProbeResult

__all__ = ["PHASES", "CallCounters", "Histogram", "ProbeCounters"]

PHASES: Final = ("dns", "connect", "ssl", "wait")  # of a hop, under HAR's names; the others take almost no time

# A DNS answer or a connection can take a millisecond, a slow server half a minute.
_PHASE_BOUNDS_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_CALL_BOUNDS_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Histogram:
    """Counts values by size.

    Args:
        bounds: The upper bounds of the buckets, rising, in the unit of the values.

    Attributes:
        sum: The sum of all values.
    """

    __slots__ = ("_bounds", "_counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, int]]:
        """Return each bound, as Prometheus writes it, with the number of values up to it; the last has all."""
        found, total = [], 0
        for bound, count in zip([*map(str, self._bounds), "+Inf"], self._counts, strict=True):
            total += count
            found.append((bound, total))
        return found


class ProbeCounters:
    """Counts the results of probes.

    Attributes:
        outcomes: Number of results by outcome.
        errors: Number of failed results by error type.
        phases: Seconds that each phase of the hops took.
        engines: Number of results with a TLS connection, by the library that made the last one. rustls is asked first,
            so OpenSSL's are those of servers that rustls refused.
    """

    def __init__(self) -> None:
        self.outcomes: dict[str, int] = dict.fromkeys(get_args(Outcome), 0)
        self.errors = dict.fromkeys(ERROR_TYPES, 0)
        self.engines = dict.fromkeys(("rustls", "openssl"), 0)
        self.phases = {phase: Histogram(_PHASE_BOUNDS_SECONDS) for phase in PHASES}

    def add(self, result: ProbeResult) -> None:
        """Count a result."""
        self.outcomes[result.outcome] += 1
        if result.error is not None:
            self.errors[result.error.type] += 1
        if result.tls is not None and result.tls.engine is not None:
            self.engines[result.tls.engine] += 1
        phases = self.phases
        for hop in result.hops:
            timings = hop.timings
            if (dns := timings.dns) is not None:
                phases["dns"].add(dns / 1000)
            if (connect := timings.connect) is not None:
                phases["connect"].add(connect / 1000)
            if (ssl := timings.ssl) is not None:
                phases["ssl"].add(ssl / 1000)
            if (wait := timings.wait) is not None:
                phases["wait"].add(wait / 1000)


class CallCounters:
    """Counts the calls of a store.

    Attributes:
        seconds: Seconds that each call took, with the wait before it, by kind: `read` or `write`.
        failures: Number of failed calls, by kind.
        is_damaged: Whether a call found the stored data damaged.
    """

    def __init__(self) -> None:
        self.is_damaged = False
        self.seconds = {kind: Histogram(_CALL_BOUNDS_SECONDS) for kind in ("read", "write")}
        self.failures = dict.fromkeys(self.seconds, 0)

    @contextmanager
    def timed(self, kind: str) -> Iterator[None]:
        """Count the body of the context as a call."""
        began = perf_counter()
        try:
            yield
        except StoreError:
            self.failures[kind] += 1
            raise
        finally:
            self.seconds[kind].add(perf_counter() - began)
