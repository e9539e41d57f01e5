"""One target on its way to a verdict: what is known, what it means, what to do next. No I/O.

Three ways lead on from an answer: at once with the same host (HEAD refused, so GET; a redirect), later (a retry), or
with another host (a redirect). Who works on a probe sees that in `host`, `not_before` and `last_look`.
"""

import random
import re
import time
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from crawler.core.options import Options
from crawler.core.results import (
    REPORTED_HEADERS,
    Hop,
    HopResult,
    Outcome,
    ProbeError,
    ProbeResult,
    Timings,
    first_contract_errors,
)
from crawler.core.urls import Target, Url, resolve_redirect
from crawler.transport.response_body import find_title

__all__ = ["LONGEST_WAIT", "REDIRECTS", "Probe"]

REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_TRANSIENT: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_COME_BACK: Final = frozenset({429, 503})  # may say when (RFC 9110, 10.2.3; RFC 6585, 4)
LONGEST_WAIT: Final = 60.0  # seconds; a server may ask for a week
_COOKIES: Final = 50
_COOKIE = re.compile(r"[\x20-\x7e]{1,4096}")  # others could not be sent back whole (RFC 6265, 4.1.1 and 6.1)
_NONE: Final[Mapping[tuple[str, str], str]] = {}  # most probes meet no cookie: one for all saves memory
_OWN_FAULTS: Final = 6  # times that a fault of this machine's is waited out, half a minute in all, before it is told
_NEVER_ASKED: Final = frozenset({"dns", "connect", "tls"})  # phases that end before the method is sent


class Probe:
    """The state of one probe. Times are those of `clock`, the loop's."""

    __slots__ = (
        "_clock", "_cookies", "_matched", "_options", "_own_faults", "_redirects", "_result", "_spent", "_visited",
        "at_home", "attempts", "hops", "last_look", "method", "not_before", "target", "url",
    )  # fmt: skip

    def __init__(self, target: Target, options: Options, clock: Callable[[], float]) -> None:
        self.target = target
        self.attempts = 1
        self.hops: list[Hop] = []
        self.not_before = 0.0
        self.last_look = False  # the next attempt is the last, and better made after all others
        self.at_home = True  # still with the origin that the user named
        self.method = _first_method(options)
        self._options = options
        self._matched: bool | None = None
        self._clock = clock
        self._spent = 0.0
        self._redirects = 0
        self._own_faults = 0
        self._visited: frozenset[tuple[str, str | None]] = frozenset()  # URLs that redirected, with the cookies sent
        self._cookies: Mapping[tuple[str, str], str] = _NONE  # by host and name: some redirect until they come back
        self._result: ProbeResult | None = None
        if target.known_result is not None:
            self.attempts = target.known_result.attempts
            self._result = target.known_result.copy_for_line(target.seq, target.text)
        elif isinstance(target.url, Url):
            self.url = target.url
        else:
            self.attempts = 0
            self.fail(target.url)

    def __getstate__(self) -> tuple[None, dict[str, object]]:
        """What another process needs, to go on with it: all but what that has itself."""
        return None, {name: getattr(self, name) for name in self.__slots__ if name not in ("_clock", "_options")}

    def resumed(self, options: Options, clock: Callable[[], float]) -> "Probe":
        """The same probe, come from another process; the loops of one machine have one clock."""
        self._options, self._clock = options, clock
        return self

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
        return left / 2 if self.is_tentative else left

    @property
    def is_tentative(self) -> bool:
        """Whether a bad answer to the next request would be asked for again with GET."""
        return self.method == "HEAD" and self._options.method == "auto"

    def take(self, answer: HopResult, seconds: float, *, may_retry: bool = True, matched: bool | None = None) -> None:
        """Decide what an answer, which took `seconds`, means; without `may_retry` a failure is final.

        `matched` is what a search of its body for `match` has found.
        """
        self._spent += seconds
        self._matched = matched
        problem = answer.error or _unusable(answer)
        self.hops.append(
            Hop(self.url.href, self.method, answer.status, answer.ip, answer.timings, problem.type if problem else None)
        )
        if problem is None and answer.status in REDIRECTS and (location := self._leads_to(answer)):
            problem = self._follow(location, answer)
            if problem is None:
                return
        if problem is None and self._is_ok(answer.status):
            self._finish(answer, None)
        elif problem is not None and problem.group == "LOCAL_ERROR":
            # Not the target's failure: it costs the target no attempt, and the probe none of its time.
            self._spent -= seconds
            if self._own_faults < _OWN_FAULTS:
                self._own_faults += 1
                self.not_before = self._clock() + _backoff(self._own_faults)
            else:
                self._finish(answer, problem)
        elif self._spent >= self._options.timeout:
            self._finish(answer, problem)
        elif self.is_tentative and (problem is None or problem.phase not in _NEVER_ASKED):
            self.method = "GET"
            if answer.status in _COME_BACK:
                self.not_before = self._clock() + self._wait(answer)
        elif may_retry and _may_pass(answer, problem) and self.attempts <= self._options.retries:
            self.not_before = self._clock() + self._wait(answer)
            self.attempts += 1
            self.last_look = self.attempts > self._options.retries
            if self._options.method == "auto":
                self.method = "GET"
        else:
            self._finish(answer, problem)

    def spend(self, seconds: float) -> None:
        """Count time that went into the probe without an answer to it."""
        self._spent += seconds

    def fail(self, problem: ProbeError) -> None:
        """Give the verdict without an answer."""
        self._finish(HopResult(Timings()), problem)

    def cookie_for(self, url: Url) -> str | None:
        """The Cookie header for a request: what its host has set on the way here."""
        if not self._cookies:
            return None
        return "; ".join(f"{name}={value}" for (host, name), value in self._cookies.items() if host == url.host) or None

    def _is_ok(self, status: int | None) -> bool:
        return status is not None and self._options.accepts(status)

    def _leads_to(self, answer: HopResult) -> str | None:
        """Where a redirect leads. Who follows none may accept it for an answer."""
        options = self._options
        if options.accept and not options.max_redirects and self._is_ok(answer.status):
            return None
        return answer.header("location")

    def _follow(self, location: str, answer: HopResult) -> ProbeError | None:
        """Go where a redirect leads, or say why not."""
        url = resolve_redirect(self.url, location)
        if isinstance(url, ProbeError):
            return url
        if url.authorization is None and url.origin == self.url.origin:
            url = msgspec.structs.replace(url, authorization=self.url.authorization)
        self._visited |= {(self.url.href, self.cookie_for(self.url))}
        self._keep_cookies(answer)
        if (url.href, self.cookie_for(url)) in self._visited:
            return ProbeError.of("http.response.redirect_loop", f"redirected back to {url.href}")
        if self._redirects >= self._options.max_redirects:
            return ProbeError.of("http.response.redirect_loop", f"more than {self._redirects} redirects")
        self._redirects += 1
        self.at_home = self.at_home and url.origin == self.url.origin
        self.url = url
        self.method = _first_method(self._options)
        return None

    def _keep_cookies(self, answer: HopResult) -> None:
        """Take the cookies of a redirect, for its own host; what else RFC 6265 says of them is for longer journeys."""
        for name, value in answer.headers:
            if name == "set-cookie" and len(self._cookies) < _COOKIES and _COOKIE.fullmatch(value):
                key, _, rest = value.partition("=")
                self._cookies = {**self._cookies, (self.host, key.strip()): rest.partition(";")[0].strip()}

    def _wait(self, answer: HopResult) -> float:
        """Seconds until the next attempt: what the server asks for, else exponential with jitter."""
        asked = answer.retry_after if answer.status in _COME_BACK else None
        return min(_backoff(self.attempts) if asked is None else asked, LONGEST_WAIT)

    def _finish(self, answer: HopResult, problem: ProbeError | None) -> None:
        hops = self.hops
        outcome = self._outcome(answer.status, problem)
        errors = first_contract_errors(answer.status, problem)
        if self._options.accept and problem is None and answer.status is not None:
            errors = {} if outcome == "ok" else {"http": answer.status}
        self._result = ProbeResult(
            seq=self.target.seq,
            url=self.target.text,
            timestamp=int(time.time()),
            outcome=outcome,
            status=answer.status,
            method=hops[-1].method if hops else None,
            attempts=self.attempts,
            error=problem,
            errors=errors,
            final_url=hops[-1].url if hops else None,
            hops=hops,
            timings=hops[0].timings if len(hops) == 1 else _sum([hop.timings for hop in hops]),
            ip=answer.ip,
            tls=answer.tls,
            title=find_title(answer.body) if self._options.title and answer.body is not None else None,
            matched=self._matched,
            headers={name: value for name, value in reversed(answer.headers) if name in REPORTED_HEADERS},
        )

    def _outcome(self, status: int | None, problem: ProbeError | None) -> Outcome:
        if problem is None:
            return "ok" if self._is_ok(status) else "http_error"
        if problem.group == "BLOCKED":
            return "blocked"
        return "invalid" if problem.phase == "url" and status is None else "failed"


def _first_method(options: Options) -> str:
    if options.method != "auto":
        return options.method
    return "GET" if options.wants_body else "HEAD"


def _unusable(answer: HopResult) -> ProbeError | None:
    """Why a status is none that a verdict can stand on."""
    if answer.status is None or 200 <= answer.status <= 999:
        return None
    return ProbeError.of("http.response.invalid", f"status {answer.status} is not a final one")


def _may_pass(answer: HopResult, problem: ProbeError | None) -> bool:
    return problem.transient if problem else answer.status in _TRANSIENT


def _backoff(times: int) -> float:
    """Seconds to wait after so many failures, with jitter, so that those who failed together do not return together."""
    return min(0.5 * 2.0 ** (times - 1), LONGEST_WAIT) * random.uniform(0.5, 1.0)


def _sum(parts: list[Timings]) -> Timings:
    """Add up phases; one that no part had stays None."""
    total = Timings()
    for part in parts:
        for name in Timings.__struct_fields__:
            if (value := getattr(part, name)) is not None:
                setattr(total, name, round((getattr(total, name) or 0.0) + value, 3))
    return total
