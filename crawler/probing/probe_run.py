"""Sends the requests of one caller's probes. Each probe decides what follows an answer."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final, Literal

from crawler.core.options import Options
from crawler.core.patterns import has_match
from crawler.core.results import HopResult, ProbeError
from crawler.core.urls import Url
from crawler.probing.answer import asks_to_slow_down, is_local_shortage, is_overload_sign
from crawler.probing.head_support import HeadSupport, head_evidence
from crawler.probing.http_versions import Http2Support, is_doubtful_over_http1
from crawler.probing.probe import Probe
from crawler.probing.request_headers import RequestHeaders
from crawler.probing.robots.cache import RobotsCache
from crawler.probing.robots.gate import RobotsGate
from crawler.probing.scheduling.host_slots import NO_OVERLOAD, Overload
from crawler.probing.scheduling.scheduler import Scheduler
from crawler.probing.second_request import SecondRequest
from crawler.probing.settings import RetryPolicy
from crawler.transport.base import Transport
from crawler.transport.http.response_body import body_text

__all__ = ["ProbeRun"]

log = logging.getLogger(__name__)

_EARLIER_SECONDS: Final = 0.05  # that a second request ends before the first, so that its failure is the result
_FREE_RETRIES: Final = 100  # of each run; only further retries use the retry budget


class ProbeRun:
    """Works on the probes of one caller, which share options, request headers and a retry budget.

    Args:
        options: How to probe.
        transport: Sends the requests.
        scheduler: Learns how hosts answer.
        head_support: Learns which hosts answer HEAD otherwise than GET.
        robots: The known robots.txt rules; None to ignore robots.txt.
        policy: How long probes wait before retries.
        retry_budget: Retries that each finished probe adds to the budget.
        now: The clock by which requests are measured.
    """

    def __init__(
        self,
        options: Options,
        transport: Transport,
        scheduler: Scheduler,
        head_support: HeadSupport,
        robots: RobotsCache | None,
        policy: RetryPolicy,
        retry_budget: float,
        now: Callable[[], float],
    ) -> None:
        self._options = options
        self._transport = transport
        self._scheduler = scheduler
        self._head_support = head_support
        self._gate = RobotsGate(robots, self._get, scheduler, options.interval, now) if robots is not None else None
        self._policy = policy
        self._http2_support = Http2Support()
        self._retry_budget = retry_budget
        self._retries_left = float(_FREE_RETRIES)
        self._now = now
        self._loop = asyncio.get_running_loop()
        self._max_body_bytes = options.max_read if options.wants_body else 0
        self._headers = RequestHeaders(options)
        self._second_requests: dict[Probe, SecondRequest] = {}

    async def advance(self, probe: Probe) -> bool:
        """Work on a probe for as long as it stays with its host; true when it is finished."""
        host = probe.host
        try:
            if probe.is_retry_open and not self._accepts_retry(probe, host):
                return True
            while True:
                if self._gate is None or await self._gate.lets_pass(probe):
                    await self._request(probe, probe.host)
                if probe.is_finished:
                    return True
                if probe not in self._second_requests and (probe.host != host or self._must_wait(probe, host)):
                    return False
        except Exception as error:  # a bug fails one probe, not the whole run
            log.exception("probing failed on our side")
            probe.fail(ProbeError.of("unknown", f"{type(error).__name__}: {error}"))
            return True
        finally:
            if probe in self._second_requests:
                await self._second_requests.pop(probe).cancel()

    async def _request(self, probe: Probe, host: str) -> None:
        """Send the probe's next request. Report the answer to the scheduler, to `HeadSupport` and to the probe."""
        if probe.is_tentative and self._head_support.refuses_head(host):
            probe.skip_head()
        was_final_look, slow_downs = probe.wants_host_alone, probe.state.slow_downs
        started = self._now()
        probe.is_http2_declined = self._http2_support.is_declined_by(host)
        sent = started
        if (second := self._second_requests.pop(probe, None)) is not None and second.is_next_of(probe.state):
            sent = second.started
            answer = await second.answer_for(probe.state)
        else:
            if second is not None:
                await second.cancel()
            answer = await self._send(probe, started)
        seconds = self._now() - sent
        has_offered_http2 = probe.state.http_version == "2"
        second = self._second_requests.get(probe)
        if second is not None and second.is_answered.done() and answer.error is not None:
            seconds, overload = second.started - started, NO_OVERLOAD  # its failure says nothing
        else:
            overload = self._inform_scheduler(probe, host, answer, seconds)
        if has_offered_http2:
            self._http2_support.learn(host, answer)
        if (evidence := head_evidence(probe.state, answer)) is not None:
            self._head_support.learn(host, evidence)
        matched = None
        if self._options.match is not None and answer.body is not None:
            matched = await has_match(self._options.match, body_text(answer.body))
            if answer.body.is_cut and not matched:
                matched = None  # the missing part may match
        probe.take(
            answer,
            seconds,
            may_retry=not self._scheduler.seems_dead(host),
            matched=matched,
            overload=overload,
        )
        if was_final_look and probe.state.slow_downs == slow_downs:
            self._scheduler.record_final_retry(host, is_good=answer.error is None and not asks_to_slow_down(answer))
        if probe.is_finished:
            self._retries_left += self._retry_budget

    def _send(self, probe: Probe, started: float) -> Coroutine[Any, Any, HopResult]:
        state, share = probe.state, probe.answer_share
        may_overlap = share < 1 and not self._options.interval
        return self._transport.hop(
            state.method,
            state.url,
            self._headers.of(state),
            probe.request_timeout,
            connect_timeout=self._options.connect_timeout,
            answer_share=share,
            is_fresh=probe.wants_fresh_connection,
            max_body_bytes=self._max_body_bytes,
            http_version=state.http_version,
            on_late=partial(self._begin_second, probe, started) if may_overlap else None,
        )

    def _begin_second(self, probe: Probe, started: float) -> "asyncio.Future[None] | None":
        """Send the request that follows if the one under way gets no answer; return when that one is needless.

        An overloaded host gets none: it has not come to the first one yet, and final retries have all of the time.
        """
        if self._scheduler.is_overloaded(probe.host):
            return None
        state = probe.state_without_answer()
        answer = self._transport.hop(
            state.method,
            state.url,
            self._headers.of(state),
            self._options.timeout - state.seconds - (self._now() - started) - _EARLIER_SECONDS,
            connect_timeout=self._options.connect_timeout,
            is_fresh=True,
            max_body_bytes=self._max_body_bytes,
            http_version=state.http_version,
        )
        second = SecondRequest(state, answer, self._now(), is_decisive=state.method != probe.state.method)
        self._second_requests[probe] = second
        return second.is_answered

    async def _get(self, url: Url, timeout: float, max_body_bytes: int) -> HopResult:
        started = self._now()

        def get(http_version: Literal["1", "2"]) -> Coroutine[Any, Any, HopResult]:
            return self._transport.hop(
                "GET",
                url,
                self._headers.for_other_origins,
                timeout - (self._now() - started),
                connect_timeout=self._options.connect_timeout,
                max_body_bytes=max_body_bytes,
                http_version=http_version,
            )

        answer = await get("2" if self._options.http == "2" else "1")
        if self._options.http == "auto" and url.scheme == "https" and is_doubtful_over_http1(answer):
            second = await get("2")
            return answer if second.status is None else second
        return answer

    def _inform_scheduler(self, probe: Probe, host: str, answer: HopResult, seconds: float) -> Overload:
        """Report an answer; return what it means by what is known of the host."""
        error = answer.error
        if asks_to_slow_down(answer):
            # Without retries no request waits for a pause of our own, so only the pause that the host asks for counts.
            retry_after = answer.retry_after if self._options.retries else answer.retry_after or 0.0
            return self._scheduler.record_refusal(host, answer.status, retry_after)
        if error is None:
            self._scheduler.record_answer(host, seconds, was_refused=probe.state.slow_downs > 0)
        elif is_local_shortage(error):
            self._scheduler.record_shortage()
        elif is_overload_sign(error):
            return self._scheduler.record_failure(host, error.type, seconds)
        return NO_OVERLOAD

    def _accepts_retry(self, probe: Probe, host: str) -> bool:
        """Decide on a retry when it is due. It is free at a host that answers requests; others use the budget."""
        if not self._scheduler.has_answered(host):
            if self._retries_left < 1.0:
                probe.refuse_retry()
                self._retries_left += self._retry_budget
                return False
            self._retries_left -= 1.0
        probe.accept_retry()
        return True

    def _must_wait(self, probe: Probe, host: str) -> bool:
        """Whether the next request needs a slot of its own: the probe waits, or the host does."""
        return probe.not_before > self._loop.time() or self._options.interval > 0 or self._scheduler.is_held(host)
