"""Decides what follows each answer that the probe of one target gets. No I/O.

After an answer a probe is finished, or it asks again:
- the same host at once: with GET after a refused HEAD, or where a redirect stays with its host;
- the same host from `not_before` on: a retry, the last one deferred until other probes are done (`wants_deferral`);
- another host: a redirect.
"""

import time
from collections.abc import Callable
from typing import Final

import msgspec

from crawler.core.options import Options
from crawler.core.results import Hop, HopResult, ProbeError, ProbeResult, Timings
from crawler.core.urls import Target, Url
from crawler.probing.probe_result import build_result
from crawler.probing.probe_state import NO_COOKIES, ProbeState
from crawler.probing.redirects import REDIRECT_STATUSES, first_method, follow_redirect, redirect_location
from crawler.probing.settings import DEFAULT_SETTINGS, RetryPolicy

__all__ = ["Probe", "asks_to_slow_down", "failed_result", "is_local_shortage", "result_without_request"]

_TRANSIENT_STATUSES: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_SLOW_DOWN_STATUSES: Final = frozenset({429, 503})  # may have Retry-After (RFC 9110, 10.2.3; RFC 6585, 4)
_PHASES_BEFORE_REQUEST: Final = frozenset({"dns", "connect", "tls"})  # they end before the method is sent
_SHORTAGES: Final = frozenset({"local.descriptors", "local.ports", "local.memory"})  # fewer requests at once help
_NO_URL: Final = Url("", "", "", 0, "")  # of a line that is no URL


class _Answer(msgspec.Struct, frozen=True, gc=False):
    """What the rules below look at: what the transport returned, and `error`, which also covers unusable statuses."""

    hop: HopResult
    error: ProbeError | None
    seconds: float
    may_retry: bool


class Probe:
    """One target on its way to its result.

    Args:
        state: What has been done so far; from another process, if the probe has moved.
        options: How to probe.
        clock: The loop's time; `not_before` is in it.
        policy: How long to wait before retries.
    """

    __slots__ = ("_clock", "_matched", "_options", "_policy", "_result", "not_before", "state", "wants_deferral")

    def __init__(
        self,
        state: ProbeState,
        options: Options,
        clock: Callable[[], float],
        policy: RetryPolicy = DEFAULT_SETTINGS.retry,
    ) -> None:
        self.state = state
        self.not_before = 0.0
        self.wants_deferral = False
        self._options = options
        self._clock = clock
        self._policy = policy
        self._matched: bool | None = None
        self._result: ProbeResult | None = None

    @classmethod
    def of(
        cls,
        target: Target,
        options: Options,
        clock: Callable[[], float],
        policy: RetryPolicy = DEFAULT_SETTINGS.retry,
    ) -> "Probe":
        """Start the probe of a target. It is finished at once if the target has a known result, or no URL."""
        url = target.url
        state = ProbeState(
            target.seq,
            target.text,
            url if isinstance(url, Url) else _NO_URL,
            first_method(options),
            NO_COOKIES,
            attempts=1 if isinstance(url, Url) else 0,
            hops=[],
        )
        probe = cls(state, options, clock, policy)
        if target.known_result is not None:
            probe._result = target.known_result.copy_for_line(target.seq, target.text)
        elif not isinstance(url, Url):
            probe.fail(url)
        return probe

    @property
    def host(self) -> str:
        """The host of the next request."""
        return self.state.url.host

    @property
    def is_finished(self) -> bool:
        """Whether there is a result."""
        return self._result is not None

    @property
    def result(self) -> ProbeResult:
        """The result; `abandoned` if the probe was stopped before it had one."""
        if self._result is None:
            self.fail(ProbeError.of("abandoned", "stopped before it had a result"))
        assert self._result is not None
        return self._result

    # Before a request

    @property
    def request_timeout(self) -> float:
        """Seconds for the next request. A tentative HEAD gets half of the time left, so that GET can follow."""
        left = self._options.timeout - self.state.seconds
        return left / 2 if self.is_tentative else left

    @property
    def is_tentative(self) -> bool:
        """Whether the next request is a HEAD that GET follows if the answer is bad."""
        return self.state.method == "HEAD" and self._options.method == "auto"

    def skip_head(self) -> None:
        """Ask with GET at once: the host is known to refuse HEAD."""
        self.state.method = "GET"

    # Without an answer

    def wait(self, seconds: float) -> None:
        """Ask no earlier than in so many seconds, or `max_wait_seconds`."""
        self.not_before = self._clock() + min(seconds, self._policy.max_wait_seconds)

    def spend(self, seconds: float) -> None:
        """Count time towards the timeout that went into something other than a request of this probe."""
        self.state.seconds += seconds

    def fail(self, error: ProbeError) -> None:
        """Finish without an answer."""
        self._finish(_Answer(HopResult(Timings()), error, 0.0, may_retry=False))

    # After an answer

    def head_evidence(self, hop: HopResult) -> bool | None:
        """Tell, before `take`, what an answer shows: True if HEAD works, False if only GET does, None for nothing."""
        if not hop.is_good:
            return None
        state = self.state
        if state.method == "HEAD":
            return True
        last = state.hops[-1] if state.hops else None
        if last is None or (last.method, last.url) != ("HEAD", state.url.href):
            return None
        return False if last.status is None or last.status >= 400 else None

    def take(self, hop: HopResult, seconds: float, *, may_retry: bool = True, matched: bool | None = None) -> None:
        """Decide what follows an answer.

        Args:
            hop: What the transport returned.
            seconds: How long the request took.
            may_retry: Whether a failure that may pass gets a retry.
            matched: Whether the body has what the option `match` looks for.
        """
        state = self.state
        state.seconds += seconds
        self._matched = matched
        error = hop.error or _status_error(hop)
        state.hops.append(
            Hop(state.url.href, state.method, hop.status, hop.ip, hop.timings, error.type if error else None)
        )
        if error is None and hop.status in REDIRECT_STATUSES and (location := redirect_location(hop, self._options)):
            error = follow_redirect(state, hop, location, self._options)
            if error is None:
                return
        answer = _Answer(hop, error, seconds, may_retry)
        for applies, act in _RULES:
            if applies(self, answer):
                act(self, answer)
                return

    # The conditions of _RULES

    def _is_accepted(self, answer: _Answer) -> bool:
        status = answer.hop.status
        return answer.error is None and status is not None and self._options.accepts(status)

    def _may_wait_out(self, answer: _Answer) -> bool:
        return self._is_local_fault(answer) and self.state.local_faults < self._policy.max_local_faults

    def _is_local_fault(self, answer: _Answer) -> bool:
        return answer.error is not None and answer.error.group == "LOCAL_ERROR"

    def _is_out_of_time(self, _: _Answer) -> bool:
        return self.state.seconds >= self._options.timeout

    def _may_be_due_to_head(self, answer: _Answer) -> bool:
        return self.is_tentative and (answer.error is None or answer.error.phase not in _PHASES_BEFORE_REQUEST)

    def _deserves_retry(self, answer: _Answer) -> bool:
        if not answer.may_retry or self.state.attempts > self._options.retries:
            return False
        return answer.error.transient if answer.error else answer.hop.status in _TRANSIENT_STATUSES

    def _is_anything(self, _: _Answer) -> bool:
        return True

    # The steps of _RULES

    def _wait_out(self, answer: _Answer) -> None:
        """Wait for this machine to recover: that costs the target no attempt, and the probe none of its time."""
        self.state.seconds -= answer.seconds
        self.state.local_faults += 1
        self.wait(self._policy.backoff(self.state.local_faults))

    def _confirm_with_get(self, answer: _Answer) -> None:
        self.state.method = "GET"
        if asks_to_slow_down(answer.hop):
            self._wait_to_retry(answer)

    def _retry(self, answer: _Answer) -> None:
        self._wait_to_retry(answer)
        self.state.attempts += 1
        self.wants_deferral = self.state.attempts > self._options.retries
        if self._options.method == "auto":
            self.state.method = "GET"

    def _wait_to_retry(self, answer: _Answer) -> None:
        """Wait as long as the server asks for, else back off."""
        requested = answer.hop.retry_after if asks_to_slow_down(answer.hop) else None
        self.wait(self._policy.backoff(self.state.attempts) if requested is None else requested)

    def _finish(self, answer: _Answer) -> None:
        self._result = build_result(self.state, self._options, answer.hop, answer.error, self._matched)


# What follows an answer that is no redirect to follow: the first rule whose condition holds decides.
_RULES: Final = (
    (Probe._is_accepted, Probe._finish),
    (Probe._may_wait_out, Probe._wait_out),
    (Probe._is_local_fault, Probe._finish),
    (Probe._is_out_of_time, Probe._finish),
    (Probe._may_be_due_to_head, Probe._confirm_with_get),
    (Probe._deserves_retry, Probe._retry),
    (Probe._is_anything, Probe._finish),
)


def asks_to_slow_down(hop: HopResult) -> bool:
    """Whether a host answers that it gets too many requests."""
    return hop.status in _SLOW_DOWN_STATUSES


def is_local_shortage(error: ProbeError) -> bool:
    """Whether a request failed because this machine has too many under way."""
    return error.type in _SHORTAGES


def failed_result(target: Target, options: Options, error: ProbeError) -> ProbeResult:
    """Return the result of a target that is not probed, for the reason that `error` gives."""
    probe = Probe.of(target, options, time.monotonic)
    probe.fail(error)
    return probe.result


def result_without_request(target: Target, options: Options) -> ProbeResult | None:
    """Return the result of a target that needs no request: a duplicate of a known one, or a line that is no URL."""
    if target.known_result is None and isinstance(target.url, Url):
        return None
    return Probe.of(target, options, time.monotonic).result


def _status_error(hop: HopResult) -> ProbeError | None:
    """Return an error if the status is not a final HTTP status."""
    if hop.status is None or 200 <= hop.status <= 999:
        return None
    return ProbeError.of("http.response.invalid", f"status {hop.status} is not a final one")
