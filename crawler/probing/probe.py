"""Decides what follows each answer that the probe of one target gets. No I/O.

After an answer a probe is finished, or it sends another request:
- at once: to the target of a redirect, or with GET to the first URL, if a bad answer may be due to HEAD;
- when its host gets requests again: after 429;
- from `not_before` on: a retry, the last one deferred until other probes are done (`wants_deferral`), and alone at a
  host that may get too many requests (`wants_host_alone`).
"""

from collections.abc import Callable
from typing import Final

from crawler.core.options import Options
from crawler.core.results import Hop, HopResult, ProbeError, ProbeResult, Timings
from crawler.core.urls import Target, Url
from crawler.probing.answer import Answer, asks_to_slow_down, is_overload_sign, status_error
from crawler.probing.authentication import answer_challenge
from crawler.probing.head_support import HeadEvidence, compare_answers
from crawler.probing.http_versions import is_doubtful_over_http1, is_silent
from crawler.probing.probe_result import build_result
from crawler.probing.probe_state import KnownAnswer, ProbeState
from crawler.probing.redirects import first_method, follow_redirect, redirect_location
from crawler.probing.scheduling.host_slots import NO_TROUBLE, Trouble
from crawler.probing.settings import DEFAULT_SETTINGS, RetryPolicy
from crawler.probing.statuses import REDIRECT_STATUSES, TRANSIENT_STATUSES

__all__ = ["Probe"]

_PHASES_BEFORE_REQUEST: Final = frozenset({"dns", "connect", "tls"})  # they end before the method is sent
_SHARE_BEFORE_HTTP2: Final = 0.75
_FORBIDDEN: Final = 403
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
        """Share of the time left that the answer may take.

        A tentative HEAD gets half, so that GET can follow, and other requests most of it, if HTTP/2 can follow.
        """
        if self.is_tentative:
            return 0.5
        return _SHARE_BEFORE_HTTP2 if self._may_offer_http2 else 1.0

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
        self._finish(Answer(HopResult(Timings()), error, 0.0, may_retry=False, trouble=NO_TROUBLE))

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

    def head_evidence(self, hop: HopResult) -> HeadEvidence | None:
        """Return what an answer shows about HEAD at its host, before `take`; None for nothing."""
        state, status = self.state, hop.status
        if state.method == "HEAD":
            return HeadEvidence.WORKS if hop.error is None and status is not None and 200 <= status < 300 else None
        for last in reversed(state.hops):
            if (last.method, last.url) == ("HEAD", state.url.href):
                return compare_answers(last, hop)
        return None

    def take(
        self,
        hop: HopResult,
        seconds: float,
        *,
        may_retry: bool = True,
        matched: bool | None = None,
        trouble: Trouble = NO_TROUBLE,
    ) -> None:
        """Decide what follows an answer.

        Args:
            hop: What the transport returned.
            seconds: How long the request took.
            may_retry: Whether a transient failure gets a retry.
            matched: Whether the body has what the option `match` looks for.
            trouble: What is known of its host's trouble.
        """
        state = self.state
        state.seconds += seconds
        self._matched = matched
        answered, state.challenge = state.challenge, None
        error = hop.error or status_error(hop)
        if self.is_tentative and (error is None or error.phase not in _PHASES_BEFORE_REQUEST):
            state.has_sent_head = True
        state.hops.append(
            Hop(
                state.url.href,
                state.method,
                hop.status,
                hop.ip,
                hop.timings,
                error.type if error else None,
                hop.http_version,
            )
        )
        if answer_challenge(state, hop, self._options, answered):
            return
        if error is None and hop.status in REDIRECT_STATUSES and (location := redirect_location(hop, self._options)):
            error = follow_redirect(state, hop, location, self._options)
            if error is None:
                return
        place = len(state.hops) - 1
        self._decide(Answer(hop, error, seconds, may_retry, trouble, place))

    def _decide(self, answer: Answer) -> None:
        for applies, act in _RULES:
            if applies(self, answer):
                act(self, answer)
                return

    # The conditions of _RULES

    def _is_accepted(self, answer: Answer) -> bool:
        status = answer.hop.status
        return answer.error is None and status is not None and self._options.accepts(status)

    def _may_wait_out(self, answer: Answer) -> bool:
        return self._is_local_fault(answer) and self.state.local_faults < self._policy.max_local_faults

    def _is_local_fault(self, answer: Answer) -> bool:
        return answer.error is not None and answer.error.group == "LOCAL_ERROR"

    def _has_to_slow_down(self, answer: Answer) -> bool:
        """Whether the answer is about all requests to the host, and not about this one.

        Where that is not sure, it holds once: for a 503 without Retry-After, and for a connection that fails while
        other requests are under way.
        """
        trouble = answer.trouble
        if not (trouble.is_host_paused or trouble.was_in_company) or not answer.may_retry or self._options.retries == 0:
            return False
        is_sure = answer.hop.status == 429 or answer.hop.retry_after is not None or trouble.passes
        return self.state.slow_downs < (self._policy.max_slow_downs if is_sure else 1)

    def _is_crowded_out(self, answer: Answer) -> bool:
        """Whether to look again alone; GET comes first after a HEAD that failed at once."""
        if not answer.trouble.may_be_crowded_out or not self._is_retryable(answer):
            return False
        is_timeout = answer.error is not None and answer.error.group == "TIMEOUT"
        return is_timeout or not self._may_be_due_to_head(answer)

    def _is_out_of_time(self, _: Answer) -> bool:
        return self.state.seconds >= self._options.timeout

    def _says_less_than_known(self, answer: Answer) -> bool:
        """Whether a retry had no answer because of this machine or the timeout. Then the answer before it counts."""
        is_ours = self._is_out_of_time(answer) or self._is_local_fault(answer)
        return is_ours and answer.hop.status is None and self.state.known_answer is not None

    @property
    def _may_offer_http2(self) -> bool:
        state = self.state
        is_open = not state.has_offered_http2 and not self.is_http2_declined
        return is_open and self._options.http == "auto" and state.url.scheme == "https"

    def _may_be_due_to_http1(self, answer: Answer) -> bool:
        return self._may_offer_http2 and is_doubtful_over_http1(answer.hop)

    def _is_no_better_over_http2(self, answer: Answer) -> bool:
        """Whether HTTP/2 has not helped: it has no answer, or none better than another refusal."""
        before = self.state.http1_answer
        if before is None or (self.state.has_sent_head and not self._is_out_of_time(answer)):
            return False
        if before.hop.is_protocol_refused and not answer.hop.is_protocol_refused:
            return False  # HTTP/1.1 is not to be had
        return answer.hop.status is None or before.hop.status == _FORBIDDEN

    def _may_be_due_to_head(self, _: Answer) -> bool:
        return self.state.has_sent_head

    def _deserves_retry(self, answer: Answer) -> bool:
        time_left = self._options.timeout - self.state.seconds
        return time_left > answer.seconds and self._is_retryable(answer)  # with less, it would only be cut short

    def _is_retryable(self, answer: Answer) -> bool:
        if not answer.may_retry or self.state.attempts > self._options.retries:
            return False
        return answer.error.transient if answer.error else answer.hop.status in TRANSIENT_STATUSES

    def _is_anything(self, _: Answer) -> bool:
        return True

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
        self._decide(Answer(hop, hop.error or status_error(hop), seconds, answer.may_retry, NO_TROUBLE, before.place))

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
    (Probe._is_accepted, Probe._finish),
    (Probe._may_wait_out, Probe._wait_out),
    (Probe._is_no_better_over_http2, Probe._return_to_http1),
    (Probe._says_less_than_known, Probe._finish_as_known),
    (Probe._is_local_fault, Probe._finish),
    (Probe._has_to_slow_down, Probe._slow_down),
    (Probe._is_crowded_out, Probe._retry_alone),
    (Probe._is_out_of_time, Probe._finish),
    (Probe._may_be_due_to_head, Probe._confirm_with_get),
    (Probe._may_be_due_to_http1, Probe._ask_over_http2),
    (Probe._deserves_retry, Probe._retry),
    (Probe._is_anything, Probe._finish),
)
