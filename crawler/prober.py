"""One target, one ProbeResult: attempts, redirects, HEAD then GET, the verdict.

A probe is worked on in turns. A turn holds a slot of one host and never waits for anything but that host; what has to
wait, or leads to another host, ends the turn and goes back into its lane. `Probe` decides, without I/O; the prober
asks.
"""

import asyncio
import email.utils
import logging
import random
import time
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from typing import Final, Protocol

from crawler.models import (
    REPORTED_HEADERS,
    Answer,
    Hop,
    Outcome,
    ProbeError,
    ProbeResult,
    Timings,
    first_contract_errors,
)
from crawler.options import Options
from crawler.targets import Target, Url, each, join
from crawler.throttle import Lane, Throttle

__all__ = ["HttpProber", "Prober", "Transport"]

log = logging.getLogger(__name__)

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_TRANSIENT: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_LONGEST_WAIT: Final = 60.0  # seconds; a server may ask for a week (Retry-After)
_NEVER_ASKED: Final = frozenset({"dns", "connect", "tls"})  # phases that end before the method is sent


class Transport(Protocol):
    """Does one hop."""

    async def hop(self, method: str, url: Url, headers: list[tuple[str, str]], timeout: float) -> Answer:
        """Send one request and read the response head, within `timeout` seconds. Failures are in the Answer."""


class Prober(Protocol):
    """Turns targets into results."""

    async def probe(self, target: Target) -> ProbeResult:
        """Probe one target."""

    def probe_many(self, targets: Iterable[Target] | AsyncIterable[Target]) -> AsyncGenerator[ProbeResult, None]:
        """Probe targets as they come; one result each, in the order in which they are found."""


class HttpProber:
    """The prober of one process: a transport, and slots shared by all who probe with it."""

    def __init__(self, options: Options, transport: Transport, throttle: Throttle) -> None:
        self._options = options
        self._transport = transport
        self._throttle = throttle
        self._at_home = _headers(options, options.headers)
        self._abroad = _headers(options, {})

    async def probe(self, target: Target) -> ProbeResult:
        """Probe one target; it takes its turn among all others."""
        async for result in self.probe_many([target]):
            return result
        raise AssertionError("a lane ended without its only item")

    async def probe_many(self, targets: Iterable[Target] | AsyncIterable[Target]) -> AsyncGenerator[ProbeResult, None]:
        """Probe targets as they come, reading no further ahead than needed to keep the slots busy."""
        async with self._throttle.lane(self._turn) as lane:
            feeder = asyncio.ensure_future(self._feed(lane, targets))
            try:
                async for probe in lane:
                    yield probe.result
                await feeder  # raises what the caller's iterable raised
            finally:
                feeder.cancel()
                await asyncio.gather(feeder, return_exceptions=True)

    async def _feed(self, lane: "Lane[Probe]", targets: Iterable[Target] | AsyncIterable[Target]) -> None:
        try:
            async for target in each(targets):
                probe = Probe(target, self._options)
                if probe.done:
                    lane.finish(probe)
                else:
                    lane.put(probe)
                await lane.room()
        finally:
            lane.seal()

    async def _turn(self, probe: "Probe") -> bool:
        """Work on a probe for as long as it stays with its host; true when it has its verdict."""
        host = probe.host
        try:
            while not probe.done and probe.host == host and probe.not_before <= _now():
                await self._ask(probe)
        except Exception as error:  # a fault of ours costs one record, never the worker
            log.exception("probing failed on our side")
            probe.fail(ProbeError.of("unknown", f"{type(error).__name__}: {error}"))
        return probe.done

    async def _ask(self, probe: "Probe") -> None:
        headers = self._at_home if probe.at_home else self._abroad
        if probe.url.authorization:
            headers = [*headers, ("Authorization", probe.url.authorization)]
        started = _now()
        answer = await self._transport.hop(probe.method, probe.url, headers, probe.patience)
        probe.take(answer, _now() - started)


class Probe:
    """What is known of one target so far, and what to do next. No I/O."""

    __slots__ = (
        "_options", "_redirects", "_result", "_spent", "_visited",
        "at_home", "attempts", "hops", "method", "not_before", "target", "url",
    )  # fmt: skip

    def __init__(self, target: Target, options: Options) -> None:
        self.target = target
        self.attempts = 0
        self.hops: list[Hop] = []
        self.not_before = 0.0
        self.at_home = True  # still with the origin that the user named
        self.method = _first_method(options)
        self._options = options
        self._spent = 0.0
        self._redirects = 0
        self._visited: set[str] = set()
        self._result: ProbeResult | None = None
        if isinstance(target.url, Url):
            self.attempts = 1
            self.url = target.url
        else:
            self.fail(target.url)

    @property
    def host(self) -> str:
        """Whose slot the next turn needs."""
        return self.url.host

    @property
    def done(self) -> bool:
        """Whether there is a verdict."""
        return self._result is not None

    @property
    def result(self) -> ProbeResult:
        """The verdict; `abandoned` if the probe was stopped before."""
        if self._result is None:
            self.fail(ProbeError.of("abandoned", "stopped before a verdict"))
        assert self._result is not None
        return self._result

    @property
    def patience(self) -> float:
        """Seconds for the next hop. A HEAD gets half of what is left, so that GET can still tell otherwise."""
        left = self._options.timeout - self._spent
        return left / 2 if self._is_tentative else left

    @property
    def _is_tentative(self) -> bool:
        return self._options.method == "auto" and self.method == "HEAD"

    def take(self, answer: Answer, seconds: float) -> None:
        """Decide what an answer, which took `seconds`, means: go on elsewhere, ask again, or a verdict."""
        self._spent += seconds
        problem = answer.error
        self.hops.append(
            Hop(self.url.href, self.method, answer.status, answer.ip, answer.timings, problem.type if problem else None)
        )
        location = answer.header("location") if answer.status in _REDIRECTS else None
        if problem is None and answer.status is not None and not 200 <= answer.status <= 999:
            problem = ProbeError.of("http.response.invalid", f"status {answer.status} is not a final one")
        elif problem is None and location:
            problem = self._follow(location)
            if problem is None:
                return
        if problem is None and answer.status is not None and answer.status < 400:
            self._finish(answer, None)
        elif self._is_tentative and (problem is None or problem.phase not in _NEVER_ASKED) and self._time_left:
            self.method = "GET"
            if answer.status in (429, 503):
                self.not_before = _now() + self._wait(answer)
        elif self._may_pass(answer, problem) and self.attempts <= self._options.retries and self._time_left:
            self.not_before = _now() + self._wait(answer)
            self.attempts += 1
            self.method = "GET" if self._options.method == "auto" else self.method
        else:
            self._finish(answer, problem)

    def fail(self, problem: ProbeError) -> None:
        """Give the verdict without an answer."""
        self._finish(Answer(Timings()), problem)

    def _follow(self, location: str) -> ProbeError | None:
        """Go where a redirect leads, or say why not."""
        url = join(self.url, location)
        if isinstance(url, ProbeError):
            return url
        self._visited.add(self.url.href)
        if url.href in self._visited:
            return ProbeError.of("http.response.redirect_loop", f"redirected back to {url.href}")
        if self._redirects >= self._options.max_redirects:
            return ProbeError.of("http.response.redirect_loop", f"more than {self._redirects} redirects")
        self._redirects += 1
        self.at_home = self.at_home and url.origin == self.url.origin
        self.url = url
        self.method = _first_method(self._options)
        return None

    @property
    def _time_left(self) -> bool:
        return self._spent < self._options.timeout

    def _may_pass(self, answer: Answer, problem: ProbeError | None) -> bool:
        return problem.transient if problem else answer.status in _TRANSIENT

    def _wait(self, answer: Answer) -> float:
        """Seconds until the next attempt: what the server asks for, else exponential with jitter."""
        asked = answer.header("retry-after")
        seconds = _retry_after(asked) if asked and answer.status in (429, 503) else None
        if seconds is None:
            seconds = 0.5 * 2.0 ** (self.attempts - 1) * random.uniform(0.5, 1.0)
        return min(seconds, _LONGEST_WAIT)

    def _finish(self, answer: Answer, problem: ProbeError | None) -> None:
        self._result = ProbeResult(
            seq=self.target.seq,
            url=self.target.text,
            timestamp=int(time.time()),
            outcome=_outcome(answer.status, problem),
            status=answer.status,
            method=self.hops[-1].method if self.hops else None,
            attempts=self.attempts,
            error=problem,
            errors=first_contract_errors(answer.status, problem),
            final_url=self.hops[-1].url if self.hops else None,
            hops=self.hops,
            timings=_sum([hop.timings for hop in self.hops]),
            ip=answer.ip,
            tls=answer.tls,
            headers={name: value for name, value in reversed(answer.headers) if name in REPORTED_HEADERS},
        )


def _now() -> float:
    return asyncio.get_running_loop().time()


def _first_method(options: Options) -> str:
    return "HEAD" if options.method == "auto" else options.method


def _headers(options: Options, given: dict[str, str]) -> list[tuple[str, str]]:
    """Ours, overruled by the user's."""
    ours = {"User-Agent": options.user_agent, "Accept": "*/*"}
    names = {name.lower() for name in given}
    return [*((name, value) for name, value in ours.items() if name.lower() not in names), *given.items()]


def _outcome(status: int | None, problem: ProbeError | None) -> Outcome:
    if problem is None:
        return "ok" if status is not None and status < 400 else "http_error"
    if problem.type == "address.blocked":
        return "blocked"
    return "invalid" if problem.phase == "url" and status is None else "failed"


def _retry_after(value: str) -> float | None:
    """Seconds that a Retry-After asks for, from either of its forms (RFC 9110, 10.2.3)."""
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def _sum(parts: list[Timings]) -> Timings:
    """Add up phases; one that no part had stays None."""
    if len(parts) == 1:
        return parts[0]
    total = Timings()
    for part in parts:
        for name in Timings.__struct_fields__:
            if (value := getattr(part, name)) is not None:
                setattr(total, name, round((getattr(total, name) or 0.0) + value, 3))
    return total
