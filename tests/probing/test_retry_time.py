"""What a retry may do with the time that is left, and which answers deserve one.

The witness for time is any browser with patience: it shows the gateway's page, not a timeout. See also
matrix-org/matrix-viewer#228, where a proxy's own 504 comes after seconds.
"""

import asyncio

import msgspec
import pytest

from crawler import Options
from crawler.core.results import HopResult, ProbeError, Timings
from crawler.core.urls import Target
from crawler.probing.probe import Probe
from crawler.probing.probe_state import ProbeState
from tests.support.exchange import Exchange
from tests.support.probing import SHORT_BACKOFF, probe_one, status_of
from tests.support.site import Site

TIMED_OUT = ProbeError.of("http.timed_out", "no answer in time")


def a_probe(**options: object) -> Probe:
    return Probe.of(Target.of(0, "http://gateway.test/"), Options.of(options), lambda: 0.0)


def answer(status: int | None = None, error: ProbeError | None = None) -> HopResult:
    return HopResult(Timings(), status, error=error)


@pytest.mark.parametrize(("timeout", "seconds"), [(8.0, 3.0), (30.0, 10.0)])
def test_no_retry_starts_with_less_time_than_the_last_answer_took(timeout: float, seconds: float) -> None:
    probe = a_probe(timeout=timeout, retries=5)
    probe.take(answer(503), seconds)
    assert not probe.is_finished
    probe.take(answer(503), seconds)
    assert (status_of(probe.result), probe.result.attempts, probe.result.method) == (503, 1, "GET")


def test_a_retry_starts_if_there_is_time_for_it() -> None:
    probe = a_probe(timeout=8, retries=5)
    probe.take(answer(503), 2.0)
    probe.take(answer(503), 2.0)
    assert not probe.is_finished


def test_a_retry_that_runs_out_of_time_leaves_the_last_real_answer() -> None:
    probe = a_probe(timeout=8, retries=5, method="GET")
    probe.take(answer(502), 1.0)
    moved = msgspec.msgpack.decode(msgspec.msgpack.encode(probe.state), type=ProbeState)
    probe = Probe(moved, Options(timeout=8, retries=5, method="GET"), lambda: 0.0)
    probe.take(HopResult(Timings(), 302, headers=[("location", "/there")]), 1.0)
    probe.take(answer(error=TIMED_OUT), 6.0)
    result = probe.result
    assert (status_of(result), result.outcome, result.errors) == (502, "http_error", {"http": 502})
    assert (result.final_url, result.attempts, len(result.hops)) == ("http://gateway.test/", 2, 3)


def test_a_fault_of_this_machine_does_not_hide_the_last_real_answer() -> None:
    probe = a_probe(timeout=8, method="GET")
    probe.take(answer(502), 1.0)
    while not probe.is_finished:
        probe.take(answer(error=ProbeError.of("local.ports", "no port is free")), 0.0)
    assert status_of(probe.result) == 502


@pytest.mark.parametrize("error", ["tcp.refused", "tcp.reset", "tls.cert.date_invalid"])
def test_a_retry_that_finds_something_else_counts(error: str) -> None:
    probe = a_probe(timeout=8, method="GET", retries=1)
    probe.take(answer(502), 1.0)
    probe.take(answer(error=ProbeError.of(error, "it is so")), 1.0)
    assert status_of(probe.result) == error


async def test_a_slow_gateway_is_no_timeout(site: Site) -> None:
    async def gateway(x: Exchange) -> None:
        await asyncio.sleep(0.7)
        await x.reply(503)

    site.on("/gateway", gateway)
    result = await probe_one(site.url("/gateway"), timeout=2, settings=SHORT_BACKOFF)
    assert (status_of(result), result.attempts) == (503, 1)


@pytest.mark.parametrize(
    ("status", "attempts"),
    [(408, 2), (425, 2), (429, 2), (500, 2), (502, 2), (503, 2), (504, 2), (520, 2), (521, 2), (522, 2), (523, 2),
     (524, 2), (529, 2), (530, 2), (400, 1), (401, 1), (403, 1), (404, 1), (410, 1), (451, 1), (501, 1), (505, 1),
     (509, 1), (511, 1), (525, 1), (526, 1)],
)  # fmt: skip
def test_which_statuses_are_transient(status: int, attempts: int) -> None:
    """408, 429, 500, 502 to 504, 522 and 524 as curl --retry; 425: RFC 8470, 5.2; the others as CDNs describe them."""
    probe = a_probe(retries=1, method="GET")
    probe.take(answer(status), 0.1)
    assert probe.state.attempts == attempts
