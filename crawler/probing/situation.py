"""The conditions of the rules of a probe: pure functions of an answer and of what the probe has done so far."""

from typing import Final

import msgspec

from crawler.core.options import Options
from crawler.probing.answer import Answer
from crawler.probing.http_versions import is_doubtful_over_http1, may_offer_http2
from crawler.probing.probe_state import ProbeState
from crawler.probing.settings import RetryPolicy
from crawler.probing.statuses import TRANSIENT_STATUSES

__all__ = ["Situation"]

_FORBIDDEN: Final = 403


class Situation(msgspec.Struct, frozen=True, gc=False):
    """An answer, and the probe that got it.

    Attributes:
        answer: The answer.
        state: The state of the probe, with this answer in its hops.
        options: How to probe.
        policy: How often to wait.
        is_http2_declined: Whether the host has chosen HTTP/1.1 when HTTP/2 was offered.
    """

    answer: Answer
    state: ProbeState
    options: Options
    policy: RetryPolicy
    is_http2_declined: bool

    def is_anything(self) -> bool:
        """Always."""
        return True

    def is_accepted(self) -> bool:
        """Whether the options count the answer as good."""
        status = self.answer.hop.status
        return self.answer.error is None and status is not None and self.options.accepts(status)

    # Faults of this machine, and the time

    def is_local_fault(self) -> bool:
        """Whether this machine is to blame."""
        return self.answer.error is not None and self.answer.error.group == "LOCAL_ERROR"

    def may_wait_out(self) -> bool:
        """Whether this machine may recover."""
        return self.is_local_fault() and self.state.local_faults < self.policy.max_local_faults

    def is_out_of_time(self) -> bool:
        """Whether the timeout is spent."""
        return self.state.seconds >= self.options.timeout

    def says_less_than_known(self) -> bool:
        """Whether a retry had no answer because of this machine or the timeout. Then the answer before it counts."""
        is_ours = self.is_out_of_time() or self.is_local_fault()
        return is_ours and self.answer.hop.status is None and self.state.known_answer is not None

    # Hosts that get too many requests

    def has_to_slow_down(self) -> bool:
        """Whether the answer is about all requests to the host, and not about this one.

        A 503 without Retry-After, and a connection that fails while other requests are in flight, may be about either.
        The first one of a probe is taken to be about all requests.
        """
        answer, overload = self.answer, self.answer.overload
        if (
            not (overload.is_host_paused or overload.was_concurrent)
            or not answer.may_retry
            or self.options.retries == 0
        ):
            return False
        is_sure = answer.hop.status == 429 or answer.hop.retry_after is not None or overload.is_temporary
        return self.state.slow_downs < (self.policy.max_slow_downs if is_sure else 1)

    def is_crowded_out(self) -> bool:
        """Whether to retry alone at the host. After a HEAD that failed at once, GET is tried first."""
        if not self.answer.overload.may_be_reason or not self._is_retryable():
            return False
        is_timeout = self.answer.error is not None and self.answer.error.group == "TIMEOUT"
        return is_timeout or not self.may_be_due_to_head()

    # Other requests that may do better

    def may_be_due_to_head(self) -> bool:
        """Whether GET may have another answer."""
        return self.state.has_sent_head

    def may_be_due_to_http1(self) -> bool:
        """Whether the answer over HTTP/2 may be another one."""
        may_offer = may_offer_http2(self.state, self.options, is_declined=self.is_http2_declined)
        return may_offer and is_doubtful_over_http1(self.answer.hop)

    def is_no_better_over_http2(self) -> bool:
        """Whether HTTP/2 has not helped: it has no answer, or none better than another refusal."""
        before, hop = self.state.http1_answer, self.answer.hop
        if before is None or (self.state.has_sent_head and not self.is_out_of_time()):
            return False
        if before.hop.is_protocol_refused and not hop.is_protocol_refused:
            return False  # HTTP/1.1 is not to be had
        return hop.status is None or before.hop.status == _FORBIDDEN

    def deserves_retry(self) -> bool:
        """Whether the failure may pass. With less time than it took, a retry would only be cut short."""
        return self.options.timeout - self.state.seconds > self.answer.seconds and self._is_retryable()

    def _is_retryable(self) -> bool:
        answer = self.answer
        if not answer.may_retry or self.state.attempts > self.options.retries:
            return False
        return answer.error.transient if answer.error else answer.hop.status in TRANSIENT_STATUSES
