"""The records that travel between the parts, and the table of task states."""

import itertools
import time
from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawler.core.errors import ERROR_TYPES, TransitionError
from crawler.core.options import Options
from crawler.core.results import (
    FirstContractResult,
    Hop,
    HopResult,
    Outcome,
    ProbeError,
    ProbeResult,
    Timings,
    first_contract_errors,
)
from crawler.core.tasks import TRANSITIONS, Counts, Status, Task

STATUSES: tuple[Status, ...] = get_args(Status)
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


def a_task(status: Status = "running", total: int = 0) -> Task:
    return Task(id="7", options=Options(), status=status, total=total)


def a_result(seq: int = 0, url: str = "http://a/") -> ProbeResult:
    return ProbeResult(seq=seq, url=url, timestamp=1_790_000_000, outcome="ok", status=200)


# --- Task states ---

ALLOWED = {("running", "ready"), ("running", "error")}


@pytest.mark.parametrize(("before", "after"), list(itertools.product(STATUSES, STATUSES)))
def test_a_task_goes_from_running_to_its_end_and_stays_there(before: Status, after: Status) -> None:
    assert (after in TRANSITIONS[before]) == ((before, after) in ALLOWED)
    task = a_task(before)
    if (before, after) in ALLOWED:
        task.change_status(after)
        assert task.status == after
    else:
        with pytest.raises(TransitionError, match=f"task 7 cannot change from {before} to {after}"):
            task.change_status(after)
        assert (task.status, task.finished) == (before, None)


def test_the_table_has_a_row_for_every_status() -> None:
    assert TRANSITIONS.keys() == set(STATUSES) == {"running", "ready", "error"}


def test_a_task_is_ready_only_when_every_line_has_its_record() -> None:
    task = a_task(total=2)
    task.counts.add("ok")
    with pytest.raises(TransitionError, match="task 7 has 1 results of 2"):
        task.change_status("ready")
    assert task.finished is None
    task.counts.add("invalid")
    task.change_status("ready")
    assert task.status == "ready"


def test_a_task_may_fail_half_way_and_says_why() -> None:
    task = a_task(total=2)
    task.change_status("error", "the disk is full")
    assert (task.status, task.detail) == ("error", "the disk is full")


def test_a_task_knows_when_it_ended() -> None:
    task = a_task()
    task.change_status("ready")
    assert task.created <= (task.finished or 0) <= time.time()


def test_a_tasks_counts_are_its_own() -> None:
    one, other = a_task(), a_task()
    one.counts.add("ok")
    assert other.counts == Counts()


# --- Counts ---


@given(st.lists(st.sampled_from(OUTCOMES)))
def test_counts_equal_what_was_counted(outcomes: list[Outcome]) -> None:
    counts = Counts()
    for number, outcome in enumerate(outcomes):
        assert counts.done == number
        counts.add(outcome)
    assert counts.by_outcome() == [(outcome, outcomes.count(outcome)) for outcome in OUTCOMES]
    assert counts.done == len(outcomes)


def test_each_outcome_has_its_count() -> None:
    assert Counts.__struct_fields__ == OUTCOMES == ("ok", "http_error", "failed", "blocked", "invalid")


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


def test_the_first_contract_shows_time_and_errors() -> None:
    result = msgspec.structs.replace(a_result(), errors={"http": 404})
    assert msgspec.to_builtins(FirstContractResult.of(result)) == {"timestamp": 1_790_000_000, "errors": {"http": 404}}


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

RESULT_KEYS = [
    "seq", "url", "timestamp", "outcome", "status", "method", "attempts", "error", "errors", "final_url", "hops",
    "timings", "ip", "tls", "headers",
]  # fmt: skip


def test_a_result_has_the_keys_of_the_contract_in_their_order() -> None:
    written = msgspec.json.decode(msgspec.json.encode(a_result()))
    assert list(written)[: len(RESULT_KEYS)] == RESULT_KEYS  # more may follow
    assert list(written["timings"]) == ["dns", "connect", "ssl", "send", "wait", "receive", "total"]


def test_a_result_can_be_read_again() -> None:
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


def test_another_line_gets_the_same_finding_under_its_own_place_and_text() -> None:
    result = a_result()
    twin = result.copy_for_line(7, "HTTP://A/")
    assert (twin.seq, twin.url) == (7, "HTTP://A/")
    assert twin.copy_for_line(result.seq, result.url) == result
    assert (result.seq, result.url) == (0, "http://a/")


def test_an_answer_gives_the_first_of_equal_headers() -> None:
    answer = HopResult(Timings(), headers=[("a", "1"), ("b", "2"), ("a", "3")])
    assert (answer.header("a"), answer.header("b"), answer.header("c")) == ("1", "2", None)
