"""Decides what follows each answer that the probe of one target gets. No I/O.

After an answer a probe is finished, or it sends another request:
- at once: to the target of a redirect, or with GET to the first URL, if a bad answer may be due to HEAD;
- when its host gets requests again: after 429;
- from `not_before` on: a retry, the last one deferred until other probes are done (`wants_deferral`), and alone at a
  host that may get too many requests (`wants_host_alone`).
"""

from collections.abc import Callable
from copy import copy
from typing import Final

from crawler.core.options import Options
from crawler.core.results import HopResult, ProbeError, ProbeResult, Timings
from crawler.core.urls import Target, Url
from crawler.probing.answer import Answer, asks_to_slow_down, is_overload_sign, status_error
from crawler.probing.authentication import answer_challenge
from crawler.probing.http_versions import is_silent, may_offer_http2
from crawler.probing.probe_result import build_result
from crawler.probing.probe_state import KnownAnswer, ProbeState
from crawler.probing.redirects import first_method, follow_redirect, redirect_location
from crawler.probing.scheduling.host_slots import NO_OVERLOAD, Overload
from crawler.probing.settings import DEFAULT_SETTINGS, RetryPolicy
from crawler.probing.situation import Situation
from crawler.probing.statuses import REDIRECT_STATUSES

__all__ = ["Probe"]

_PHASES_BEFORE_REQUEST: Final = frozenset({"dns", "connect", "tls"})  # they end before the method is sent
_SHARE_BEFORE_NEXT: Final = 0.5  # of the time left: then the next request begins beside this one
_NO_URL: Final = Url("", "", "", 0, "")  # for a line that is not a URL


class Probe:
    """The probe of one target: its state, and the decision after each answer.

    Args:
        state: What has been done so far; from another process, if the probe has moved.
        options: How to probe.
        clock: Returns the loop's time. `not_before` is a time of this clock.
        policy: How long to wait before retries.
    """

    __slots__ = (
        "_clock",
        "_matched",
        "_options",
        "_policy",
        "_result",
        "_retried_answer",
        "is_http2_declined",
        "not_before",
        "state",
        "wants_deferral",
        "wants_host_alone",
    )

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
        self.wants_host_alone = False
        self.is_http2_declined = False  # by the host of the next request, when it was offered
        self._retried_answer: Answer | None = None  # until the retry is accepted
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
        start = url if isinstance(url, Url) else _NO_URL
        attempts = 1 if isinstance(url, Url) else 0
        state = ProbeState(target.seq, target.text, start, start, first_method(options), attempts, hops=[])
        if options.http == "2":
            state.offer_http2()
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
        """Seconds for the next request."""
        return self._options.timeout - self.state.seconds

    @property
    def answer_share(self) -> float:
        """Share of the time left after which the request that can follow begins beside this one."""
        return _SHARE_BEFORE_NEXT if self.is_tentative or self._may_offer_http2 else 1.0

    def state_without_answer(self) -> ProbeState:
        """Return the state of this probe after its next request, if that gets no answer and another one can follow."""
        state = copy(self.state)
        if self.is_tentative:
            state.start_again("GET")
        if may_offer_http2(state, self._options, is_declined=self.is_http2_declined):
            state.offer_http2()
        return state

    @property
    def _may_offer_http2(self) -> bool:
        return may_offer_http2(self.state, self._options, is_declined=self.is_http2_declined)

    @property
    def is_tentative(self) -> bool:
        """Whether the next request is a HEAD that GET follows if the answer is bad."""
        return self.state.method == "HEAD" and self._options.method == "auto"

    @property
    def wants_fresh_connection(self) -> bool:
        """Whether the next request confirms a HEAD. Some servers answer nothing on a connection that had a HEAD.

        A host that may get too many connections gets no further one.
        """
        state = self.state
        is_confirmation = state.method == "GET" and bool(state.hops) and state.hops[0].method == "HEAD"
        return is_confirmation and not self.wants_host_alone

    def skip_head(self) -> None:
        """Begin with GET: the host is known to answer HEAD otherwise."""
        self.state.method = "GET"

    # Without an answer

    def wait(self, seconds: float) -> None:
        """Send no request for `seconds`, at most `max_wait_seconds`."""
        self.not_before = self._clock() + min(seconds, self._policy.max_wait_seconds)

    def spend(self, seconds: float) -> None:
        """Count time towards the timeout that was not spent on a request of this probe."""
        self.state.seconds += seconds

    def fail(self, error: ProbeError) -> None:
        """Finish without an answer."""
        self._finish(Answer(HopResult(Timings()), error, 0.0, may_retry=False, overload=NO_OVERLOAD))

    # A retry

    @property
    def is_retry_open(self) -> bool:
        """Whether the next request is a retry that `accept_retry` or `refuse_retry` has to decide on."""
        return self._retried_answer is not None

    def accept_retry(self) -> None:
        """Make the retry."""
        self._retried_answer = None

    def refuse_retry(self) -> None:
        """Finish with the answer that the retry was for."""
        assert self._retried_answer is not None
        self.state.attempts -= 1
        self._finish(self._retried_answer)

    # After an answer

    def take(
        self,
        hop: HopResult,
        seconds: float,
        *,
        may_retry: bool = True,
        matched: bool | None = None,
        overload: Overload = NO_OVERLOAD,
    ) -> None:
        """Decide what follows an answer.

        Args:
            hop: What the transport returned.
            seconds: How long the request took.
            may_retry: Whether a transient failure gets a retry.
            matched: Whether the body has what the option `match` looks for.
            overload: What is known of its host's overload.
        """
        state = self.state
        state.seconds += seconds
        self._matched = matched
        answered, state.challenge = state.challenge, None
        error = hop.error or status_error(hop)
        if self.is_tentative and (error is None or error.phase not in _PHASES_BEFORE_REQUEST):
            state.has_sent_head = True
        state.add_hop(hop, error)
        if answer_challenge(state, hop, self._options, answered):
            return
        if error is None and hop.status in REDIRECT_STATUSES and (location := redirect_location(hop, self._options)):
            error = follow_redirect(state, hop, location, self._options)
            if error is None:
                return
        place = len(state.hops) - 1
        self._decide(Answer(hop, error, seconds, may_retry, overload, place))

    def _decide(self, answer: Answer) -> None:
        situation = Situation(answer, self.state, self._options, self._policy, self.is_http2_declined)
        for applies, act in _RULES:
            if applies(situation):
                act(self, answer)
                return

    # The steps of _RULES

    def _wait_out(self, answer: Answer) -> None:
        """Wait for this machine to recover. The wait is no attempt and does not count towards the timeout."""
        self.state.seconds -= answer.seconds
        self.state.local_faults += 1
        self.wait(self._policy.backoff(self.state.local_faults))

    def _confirm_with_get(self, answer: Answer) -> None:
        """Begin again with GET at the first URL, because redirects may have been sent for HEAD only."""
        self.state.start_again("GET")
        if self._may_offer_http2 and is_silent(answer.hop):
            self.state.offer_http2()  # as browsers do; there is no time for one GET without it and one with it

    def _slow_down(self, answer: Answer) -> None:
        """Wait with all others for the host. The wait is no attempt and does not count towards the timeout."""
        self.state.seconds -= answer.seconds
        self.state.slow_downs += 1
        if self.state.has_sent_head:
            self.state.start_again("GET")

    def _retry_alone(self, answer: Answer) -> None:
        """Retry; for the final one there is all of the time, because the host may have spent it on other requests."""
        self._retry(answer)
        if self.wants_deferral:
            self.state.seconds = 0.0

    def _retry(self, answer: Answer) -> None:
        state = self.state
        # After 429 and 503 the scheduler waits for as long as the server asks for.
        requested = None if asks_to_slow_down(answer.hop) else answer.hop.retry_after
        self.wait(self._policy.backoff(state.attempts) if requested is None else requested)
        self._retried_answer = answer
        state.attempts += 1
        self.wants_deferral = state.attempts > self._options.retries
        is_sign = is_overload_sign(answer.error) if answer.error else asks_to_slow_down(answer.hop)
        self.wants_host_alone = self.wants_deferral and is_sign
        if answer.error is None:
            state.known_answer = KnownAnswer(answer.hop, answer.place)
        if self._options.method == "auto":
            state.method = "GET"

    def _ask_over_http2(self, answer: Answer) -> None:
        """Send the same request again, over HTTP/2 if the server chooses it."""
        self.state.http1_answer = KnownAnswer(answer.hop, answer.place)
        self.state.offer_http2()

    def _return_to_http1(self, answer: Answer) -> None:
        """Decide on the answer over HTTP/1.1 as if HTTP/2 had not been asked."""
        state, self._matched = self.state, None
        before, state.http1_answer = state.http1_answer, None
        assert before is not None
        state.http_version = "1"
        state.start_again(state.method)
        hop, seconds = before.hop, before.hop.timings.total / 1000
        self._decide(Answer(hop, hop.error or status_error(hop), seconds, answer.may_retry, NO_OVERLOAD, before.place))

    def _finish(self, answer: Answer) -> None:
        self._result = build_result(
            self.state, self._options, answer.hop, answer.error, self._matched, place=answer.place
        )

    def _finish_as_known(self, _: Answer) -> None:
        known = self.state.known_answer
        assert known is not None
        self._result = build_result(self.state, self._options, known.hop, None, None, place=known.place)


# What follows an answer, unless the probe follows it as a redirect. The first rule whose condition holds decides.
_RULES: Final = (
    (Situation.is_accepted, Probe._finish),
    (Situation.may_wait_out, Probe._wait_out),
    (Situation.is_no_better_over_http2, Probe._return_to_http1),
    (Situation.says_less_than_known, Probe._finish_as_known),
    (Situation.is_local_fault, Probe._finish),
    (Situation.has_to_slow_down, Probe._slow_down),
    (Situation.is_crowded_out, Probe._retry_alone),
    (Situation.is_out_of_time, Probe._finish),
    (Situation.may_be_due_to_head, Probe._confirm_with_get),
    (Situation.may_be_due_to_http1, Probe._ask_over_http2),
    (Situation.deserves_retry, Probe._retry),
    (Situation.is_anything, Probe._finish),
)
