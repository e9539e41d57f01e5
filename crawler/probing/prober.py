"""Targets in, results out: probes get their turns, and each turn asks."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Coroutine, Iterable
from typing import Any, Final, Protocol

from crawler.core.errors import ServiceStopping
from crawler.core.options import Options
from crawler.core.patterns import has_match
from crawler.core.results import HopResult, ProbeError, ProbeResult
from crawler.core.urls import Target, Url, resolve_redirect
from crawler.probing.head_support import HeadSupport
from crawler.probing.probe import LONGEST_WAIT, REDIRECTS, Probe
from crawler.probing.robots import PATH as ROBOTS_PATH
from crawler.probing.robots import SIZE as ROBOTS_SIZE
from crawler.probing.robots import RobotsCache
from crawler.probing.scheduler import Load, Scheduler
from crawler.probing.work_queue import WorkQueue
from crawler.runtime.iteration import iterate
from crawler.transport.base import Transport
from crawler.transport.response_body import ACCEPT_ENCODING

__all__ = ["HttpProber", "ProbeRun", "Prober"]

log = logging.getLogger(__name__)

_FREE_RETRIES: Final = 100  # before a batch's retry budget counts
_ROBOTS_WAIT: Final = 0.1  # seconds until it is looked again whether a robots.txt has come
_ROBOTS_REDIRECTS: Final = 5
_ROBOTS_PATIENCE: Final = 30.0  # seconds for a robots.txt: while it comes, no other Task asks its host either
_SHORTAGES: Final = frozenset({"local.descriptors", "local.ports", "local.memory"})  # fewer requests at once help
_ROBOTS_KEPT: Final = 16  # caches of rules, for so many ways to ask for them


class Prober(Protocol):
    """Turns targets into results."""

    async def probe(self, target: Target, options: Options | None = None) -> ProbeResult:
        """Probe one target.

        Raises:
            ServiceStopping: It would take a request that `drain` has not begin any more.
        """

    def probe_many(
        self, targets: Iterable[Target] | AsyncIterable[Target], options: Options | None = None
    ) -> AsyncGenerator[ProbeResult, None]:
        """Probe targets as they come; one result each, in the order in which they are found.

        Of `options`, what a Task may choose is used; without, it is as the prober's own say.
        """

    def transport_for(self, options: Options) -> Transport:
        """What makes the requests of who probes with such options."""

    async def load(self) -> Load:
        """How busy it is."""

    @property
    def is_draining(self) -> bool:
        """Whether `drain` was called, so that what is probed may end before all of it is done."""

    async def drain(self, seconds: float) -> None:
        """Begin no more requests, and let those under way come to their verdict for so many seconds at most.

        Each `probe_many` ends with what was found by then.
        """


class HttpProber:
    """The prober of one process, whose slots are shared by all who probe with it.

    Args:
        options: How to probe, where nothing else is chosen.
        transport_for: Gives what makes the requests of who probes with such options.
        throttle: The slots.
    """

    def __init__(self, options: Options, transport_for: Callable[[Options], Transport], throttle: Scheduler) -> None:
        self.options = options
        self.transport_for = transport_for
        self.throttle = throttle
        self.habits = HeadSupport()
        self._robots: OrderedDict[tuple[object, ...], RobotsCache] = OrderedDict()

    async def probe(self, target: Target, options: Options | None = None) -> ProbeResult:
        """Probe one target; it takes its turn among all others."""
        async for result in self.probe_many([target], options):
            return result
        raise ServiceStopping("the probe cannot be made any more")

    async def probe_many(
        self, targets: Iterable[Target] | AsyncIterable[Target], options: Options | None = None
    ) -> AsyncGenerator[ProbeResult, None]:
        """Probe targets as they come, reading no further ahead than needed to keep the slots busy."""
        options = self.options if options is None else self.options.with_stored(options.validated())
        async with WorkQueue(self.throttle, self.batch(options).turn, options.per_host, options.interval) as lane:
            feeder = asyncio.ensure_future(self._feed(lane, targets, options))
            try:
                async for probe in lane:
                    yield probe.result
                if not self.is_draining:  # else it may wait for room that nobody makes any more
                    await feeder  # raises what the caller's iterable raised
            finally:
                feeder.cancel()
                await asyncio.gather(feeder, return_exceptions=True)

    async def load(self) -> Load:
        """How busy it is."""
        return self.throttle.load()

    def batch(self, options: Options) -> "ProbeRun":
        """What works on the probes of one caller."""
        return ProbeRun(self, options)

    @property
    def is_draining(self) -> bool:
        """Whether no more requests begin."""
        return self.throttle.is_draining

    async def drain(self, seconds: float) -> None:
        """Begin no more requests; those under way have so many seconds."""
        await self.throttle.drain(seconds)

    def robots_for(self, options: Options) -> RobotsCache | None:
        """The rules known to those who ask for them in the same way; None if they are not asked for.

        Who has less time, or trusts more certificates, may find none where others do.
        """
        if not options.robots:
            return None
        way = (
            options.user_agent, options.timeout, options.connect_timeout, options.insecure, options.ipv4, options.ipv6
        )  # fmt: skip
        if way not in self._robots:
            self._robots[way] = RobotsCache(options.user_agent)
            if len(self._robots) > _ROBOTS_KEPT:
                self._robots.popitem(last=False)
        self._robots.move_to_end(way)
        return self._robots[way]

    async def _feed(
        self, lane: WorkQueue[Probe], targets: Iterable[Target] | AsyncIterable[Target], options: Options
    ) -> None:
        now = asyncio.get_running_loop().time
        try:
            async for target in iterate(targets):
                probe = Probe(target, options, now)
                if probe.done:
                    lane.finish(probe)
                else:
                    lane.put(probe)
                await lane.room()
        finally:
            lane.seal()


class ProbeRun:
    """What the probes of one caller have in common."""

    def __init__(self, prober: HttpProber, options: Options) -> None:
        self._prober = prober
        self._options = options
        self._transport = prober.transport_for(options)
        self._robots = prober.robots_for(options)
        self._now = asyncio.get_running_loop().time
        self._at_home = _headers(options, options.headers)
        self._abroad = _headers(options, {})
        self._body = options.max_read if options.wants_body else 0
        self._retries = float(_FREE_RETRIES)

    async def turn(self, probe: Probe) -> bool:
        """Work on a probe for as long as it stays with its host; true when it has its verdict."""
        host = probe.host
        try:
            while True:
                await self._ask(probe)
                elsewhere = probe.host != host
                if probe.done or elsewhere or probe.not_before > self._now() or self._is_held(host):
                    return probe.done
        except Exception as error:  # a fault of ours costs one record, never the worker
            log.exception("probing failed on our side")
            probe.fail(ProbeError.of("unknown", f"{type(error).__name__}: {error}"))
            return True

    def _is_held(self, host: str) -> bool:
        """Whether the next request to a host needs a turn of its own."""
        return self._options.interval > 0 or self._prober.throttle.is_held(host)

    async def _ask(self, probe: Probe) -> None:
        prober, host = self._prober, probe.host
        if self._robots is not None and not await self._is_welcome(probe, self._robots):
            return
        if probe.is_tentative and prober.habits.refuses_head(host):
            probe.method = "GET"
        last = probe.hops[-1] if probe.hops else None
        confirms = (
            last is not None
            and (last.method, last.url) == ("HEAD", probe.url.href)
            and (last.status is None or last.status >= 400)
        )
        method, started = probe.method, self._now()
        answer = await self._hop(method, probe.url, self._headers(probe), probe.patience, self._body)
        seconds = self._now() - started
        if answer.status in (429, 503):
            prober.throttle.refused(host, min(answer.retry_after or 0.0, LONGEST_WAIT))
        elif answer.error is None:
            prober.throttle.answered(host, seconds)
        elif answer.error.type in _SHORTAGES:
            prober.throttle.shrink()
        if answer.is_good and (confirms or method == "HEAD"):
            prober.habits.learn(host, method)
        matched = None
        if self._options.match is not None and answer.body is not None:
            matched = await has_match(self._options.match, answer.body)
        self._take(probe, answer, seconds, matched)

    def _hop(
        self, method: str, url: Url, headers: list[tuple[str, str]], patience: float, body: int
    ) -> Coroutine[Any, Any, HopResult]:
        return self._transport.hop(
            method, url, headers, patience, connect_timeout=self._options.connect_timeout, max_body_bytes=body
        )

    async def _is_welcome(self, probe: Probe, robots: RobotsCache) -> bool:
        """Whether robots.txt lets the probe ask now; if not, it has its verdict or comes back later."""
        url = probe.url
        if not robots.knows(url.origin):
            if not robots.begin(url.origin):  # another probe is asking: its answer is waited for without a slot
                probe.not_before = self._now() + _ROBOTS_WAIT
                return False
            answer, started = None, self._now()
            self._prober.throttle.hold(url.host, probe.patience)  # the others of this host wait without a slot
            try:
                answer = await self._fetch_robots(url, min(probe.patience / 2, _ROBOTS_PATIENCE))
            finally:
                robots.learn(url.origin, answer)
                self._prober.throttle.keep_apart(url.host, robots.delay(url.origin))
                self._prober.throttle.let_go(url.host)
            probe.spend(self._now() - started)
            if probe.patience <= 0:
                probe.fail(answer.error or ProbeError.of("http.timed_out", f"{ROBOTS_PATH} took all of the time"))
                return False
            if delay := max(robots.delay(url.origin), self._options.interval):
                probe.not_before = self._now() + min(delay, LONGEST_WAIT)
                return False
        if not robots.allows(url.origin, url.href):
            probe.fail(ProbeError.of("robots.disallowed", f"{ROBOTS_PATH} does not allow it"))
            return False
        return True

    async def _fetch_robots(self, url: Url, patience: float) -> HopResult:
        """Ask for an origin's robots.txt, through five redirects at most (RFC 9309, 2.3.1.2)."""
        where, until = resolve_redirect(url, ROBOTS_PATH), self._now() + patience
        for _ in range(1 + _ROBOTS_REDIRECTS):
            assert isinstance(where, Url)
            left = until - self._now()
            answer = await self._hop("GET", where, self._abroad, left, ROBOTS_SIZE)
            location = answer.header("location") if answer.status in REDIRECTS else None
            if location is None or isinstance(where := resolve_redirect(where, location), ProbeError):
                break
        return answer

    def _take(self, probe: Probe, answer: HopResult, seconds: float, matched: bool | None) -> None:
        """Let the probe decide, within what the batch may spend on retries."""
        attempts = probe.attempts
        probe.take(answer, seconds, may_retry=self._retries >= 1.0, matched=matched)
        if probe.attempts > attempts:
            self._retries -= 1.0
        elif probe.done:
            self._retries += self._prober.options.retry_budget

    def _headers(self, probe: Probe) -> list[tuple[str, str]]:
        headers = self._at_home if probe.at_home else self._abroad
        if probe.url.authorization:
            headers = [*headers, ("Authorization", probe.url.authorization)]
        if cookie := probe.cookie_for(probe.url):
            headers = [*headers, ("Cookie", cookie)]
        return headers


def _headers(options: Options, given: dict[str, str]) -> list[tuple[str, str]]:
    """Ours, overruled by the user's."""
    ours = {"User-Agent": options.user_agent, "Accept": "*/*"}
    if options.wants_body:
        ours["Accept-Encoding"] = ACCEPT_ENCODING
    names = {name.lower() for name in given}
    return [*((name, value) for name, value in ours.items() if name.lower() not in names), *given.items()]
