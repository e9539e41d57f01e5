"""Results, their errors and their JSON."""

import msgspec
import pytest

from crawler.core.error_types import ERROR_TYPES
from crawler.core.results import (
    Hop,
    HopResult,
    ProbeError,
    ProbeResult,
    Timings,
    first_contract_errors,
)
from tests.support.results import RESULT_KEYS


def a_result(seq: int = 0, url: str = "http://a/") -> ProbeResult:
    return ProbeResult(seq=seq, url=url, timestamp=1_790_000_000, outcome="ok", status=200)


# --- The first contract ---


@pytest.mark.parametrize(
    ("status", "error", "errors"),
    [
        (200, None, {}),
        (204, None, {}),
        (301, None, {}),
        (399, None, {}),
        (400, None, {"http": 400}),
        (404, None, {"http": 404}),
        (503, None, {"http": 503}),
        (999, None, {"http": 999}),
        (None, "tls.cert.date_invalid", {"http": "SSL_ERROR"}),
        (None, "dns.name_not_resolved", {"http": "DNS_ERROR"}),
        (302, "http.response.redirect_loop", {"http": "TOO_MANY_REDIRECTS"}),
        (404, "http.response.invalid", {"http": "HTTP_ERROR"}),
        (None, None, {}),
    ],
)
def test_the_first_contract_has_a_status_or_a_word(
    status: int | None, error: str | None, errors: dict[str, int | str]
) -> None:
    problem = ProbeError.of(error, "x") if error else None
    assert first_contract_errors(status, problem) == errors


@pytest.mark.parametrize("type_", ERROR_TYPES)
def test_every_error_is_a_word_of_the_first_contract(type_: str) -> None:
    assert first_contract_errors(None, ProbeError.of(type_, "x")) == {"http": ERROR_TYPES[type_].group}


# --- Errors in results ---


@pytest.mark.parametrize("type_", ERROR_TYPES)
def test_an_error_takes_phase_and_transience_from_the_table(type_: str) -> None:
    row = ERROR_TYPES[type_]
    error = ProbeError.of(type_, "as it was")
    assert (error.type, error.phase, error.message, error.transient, error.group) == (
        type_,
        row.phase,
        "as it was",
        row.transient,
        row.group,
    )


def test_an_error_may_happen_in_another_phase() -> None:
    assert ProbeError.of("tcp.reset", "x").phase == "http"
    assert ProbeError.of("tcp.reset", "x", phase="tls").phase == "tls"


def test_an_error_of_no_known_type_is_a_bug() -> None:
    with pytest.raises(KeyError):
        ProbeError.of("tcp.invented", "x")


# --- Results ---


def test_a_result_has_the_keys_of_the_contract_in_their_order() -> None:
    written = msgspec.json.decode(msgspec.json.encode(a_result()))
    assert list(written)[: len(RESULT_KEYS)] == RESULT_KEYS  # more may follow
    assert list(written["timings"]) == ["dns", "connect", "ssl", "send", "wait", "receive", "total"]


def test_a_result_survives_a_round_trip_through_json() -> None:
    result = msgspec.structs.replace(
        a_result(),
        error=ProbeError.of("tcp.reset", "reset"),
        errors={"http": "CONNECTION_ERROR"},
        hops=[Hop("http://a/", "HEAD", None, "127.0.0.1", Timings(dns=1.5, total=2.0), "tcp.reset")],
        headers={"server": "x"},
    )
    assert msgspec.json.decode(msgspec.json.encode(result), type=ProbeResult) == result


def test_results_share_no_containers() -> None:
    one, other = a_result(), a_result()
    one.errors["http"] = 404
    one.headers["server"] = "x"
    one.hops.append(Hop("http://a/", "GET", 200, None, Timings()))
    assert (other.errors, other.headers, other.hops) == ({}, {}, [])


def test_a_duplicate_line_gets_the_same_result_with_its_own_position_and_text() -> None:
    result = a_result()
    copy = result.copy_for_line(7, "HTTP://A/")
    assert (copy.seq, copy.url) == (7, "HTTP://A/")
    assert copy.copy_for_line(result.seq, result.url) == result
    assert (result.seq, result.url) == (0, "http://a/")


def test_a_hop_result_gives_the_first_of_equal_headers() -> None:
    hop = HopResult(Timings(), headers=[("a", "1"), ("b", "2"), ("a", "3")])
    assert (hop.header("a"), hop.header("b"), hop.header("c")) == ("1", "2", None)
