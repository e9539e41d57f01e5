"""Requests as they are answered: how many, with what, how fast."""

from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Final, NamedTuple

from aiohttp import hdrs, web

from crawler.runtime.counters import Histogram
from crawler.server.middleware.auth import route_of

__all__ = ["RequestKind", "RequestMetrics", "waiting"]

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_BOUNDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)  # seconds

_OTHER: Final = "other"  # a path that is no route's or a method that HTTP has not: strangers can make up any number


class RequestKind(NamedTuple):
    """What requests are counted by: the template of the route's path, and the method."""

    route: str
    method: str


class _Watch:
    """When a request began, and for how many seconds it has waited because its client wants to."""

    __slots__ = ("began", "kind", "waited")

    def __init__(self, kind: RequestKind) -> None:
        self.kind = kind
        self.began = perf_counter()
        self.waited = 0.0


_WATCH: Final = web.RequestKey("watch", _Watch)


class RequestMetrics:
    """The requests of one application.

    Attributes:
        answers: How many were answered, by kind and class of status, such as `2xx`.
        seconds: How long the head of the answer took, by kind. A stream has only begun by then.
    """

    def __init__(self) -> None:
        self.answers: Counter[tuple[RequestKind, str]] = Counter()
        self.seconds: defaultdict[RequestKind, Histogram] = defaultdict(lambda: Histogram(_BOUNDS))

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Take note that a request has come."""
        method = request.method if request.method in hdrs.METH_ALL else _OTHER
        request[_WATCH] = _Watch(RequestKind(route_of(request) or _OTHER, method))
        return await handler(request)

    async def answered(self, request: web.Request, response: web.StreamResponse) -> None:
        """Count a request whose answer begins, as aiohttp's `on_response_prepare` says."""
        watch = request.get(_WATCH)
        if watch is None:  # an application around this one has answered
            return
        self.answers[watch.kind, f"{response.status // 100}xx"] += 1
        self.seconds[watch.kind].add(perf_counter() - watch.began - watch.waited)


@contextmanager
def waiting(request: web.Request) -> Iterator[None]:
    """What is done in the context is to wait for what the client wants to wait for: that is no slowness of ours."""
    began = perf_counter()
    try:
        yield
    finally:
        request[_WATCH].waited += perf_counter() - began
