"""Counters of the requests that one application has answered."""

from collections import Counter, defaultdict
from typing import Final, NamedTuple

from crawler.runtime.counters import Histogram

__all__ = ["RequestCounters", "RequestKind"]

_BOUNDS_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class RequestKind(NamedTuple):
    """The labels of a request: the template of its route, and its method."""

    route: str
    method: str


class RequestCounters:
    """Requests by kind.

    Attributes:
        responses: Number of responses by kind and class of status, such as `2xx`.
        seconds: Seconds until the response began, by kind.
    """

    def __init__(self) -> None:
        self.responses: Counter[tuple[RequestKind, str]] = Counter()
        self.seconds: defaultdict[RequestKind, Histogram] = defaultdict(lambda: Histogram(_BOUNDS_SECONDS))

    def add(self, kind: RequestKind, status: int, seconds: float) -> None:
        """Count one request, whose response has begun."""
        self.responses[kind, f"{status // 100}xx"] += 1
        self.seconds[kind].add(seconds)
