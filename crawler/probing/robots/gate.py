"""Lets a probe pass once its origin's robots.txt allows it."""

from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

from crawler.core.results import HopResult, ProbeError
from crawler.core.urls import Url, resolve_redirect
from crawler.probing.probe import Probe
from crawler.probing.robots.cache import RobotsCache
from crawler.probing.scheduling.scheduler import Scheduler
from crawler.probing.statuses import REDIRECT_STATUSES

__all__ = ["RobotsGate"]

_PATH: Final = "/robots.txt"
_MAX_FILE_BYTES: Final = 500 * 1024  # that a client has to read (RFC 9309, 2.5)
_MAX_REDIRECTS: Final = 5  # RFC 9309, 2.3.1.2
_POLL_SECONDS: Final = 0.1  # until a probe checks again whether another probe has fetched the file
_MAX_FETCH_SECONDS: Final = 30.0  # meanwhile no other Task can request anything from the host


class _Get(Protocol):
    """Sends a GET request without credentials."""

    def __call__(self, url: Url, timeout: float, max_body_bytes: int) -> Coroutine[Any, Any, HopResult]: ...


class RobotsGate:
    """Checks probes against robots.txt, which the first probe of an origin fetches.

    Args:
        cache: The known rules.
        get: Fetches the file.
        scheduler: Holds the host's other items while the file is fetched, and keeps the crawl-delay of the file.
        interval: Seconds that the options want between requests to a host.
        now: The clock by which requests are measured.
    """

    def __init__(
        self, cache: RobotsCache, get: _Get, scheduler: Scheduler, interval: float, now: Callable[[], float]
    ) -> None:
        self._cache = cache
        self._get = get
        self._scheduler = scheduler
        self._interval = interval
        self._now = now

    async def lets_pass(self, probe: Probe) -> bool:
        """Whether the probe may send its request now; if not, it is finished, or waits without a slot."""
        url = probe.state.url
        if not self._cache.has_rules(url.origin):
            if not self._cache.begin_fetch(url.origin):
                probe.wait(_POLL_SECONDS)
                return False
            answer = await self._fetch_rules(probe, url)
            if probe.request_timeout <= 0:
                probe.fail(answer.error or ProbeError.of("http.timed_out", f"{_PATH} used up the timeout"))
                return False
            if delay := max(self._cache.delay(url.origin), self._interval):
                probe.wait(delay)
                return False
        if not await self._cache.allows(url.origin, url.path):
            probe.fail(ProbeError.of("robots.disallowed", f"{_PATH} does not allow this URL"))
            return False
        return True

    async def _fetch_rules(self, probe: Probe, url: Url) -> HopResult:
        """Fetch an origin's rules into the cache. The time counts towards the timeout of the probe."""
        answer, rules, started = None, None, self._now()
        self._scheduler.hold(url.host, probe.request_timeout)
        try:
            answer = await self._get_file(url, min(probe.request_timeout / 2, _MAX_FETCH_SECONDS))
            seconds = self._now() - started  # without the wait for a turn, which depends on others
            rules = await self._cache.read(answer)
        finally:
            self._cache.end_fetch(url.origin, answer, rules)
            self._scheduler.require_interval(url.host, self._cache.delay(url.origin))
            self._scheduler.resume(url.host)
        probe.spend(seconds)
        return answer

    async def _get_file(self, url: Url, timeout: float) -> HopResult:
        """Request robots.txt and follow redirects."""
        next_url, deadline = resolve_redirect(url, _PATH), self._now() + timeout
        for _ in range(1 + _MAX_REDIRECTS):
            assert isinstance(next_url, Url)
            answer = await self._get(next_url, deadline - self._now(), _MAX_FILE_BYTES)
            location = answer.header("location") if answer.status in REDIRECT_STATUSES else None
            if location is None or isinstance(next_url := resolve_redirect(next_url, location), ProbeError):
                break
        return answer
