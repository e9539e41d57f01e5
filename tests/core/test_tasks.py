"""Tasks: their statuses and counts."""

import itertools
import time
from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawler.core.errors import TransitionError
from crawler.core.options import Options
from crawler.core.results import Outcome
from crawler.core.tasks import TRANSITIONS, Counts, Status, Task, decode_task
from tests.support.results import OUTCOMES

STATUSES: tuple[Status, ...] = get_args(Status)


def a_task(status: Status = "running", total: int = 0) -> Task:
    return Task(id="7", options=Options(), status=status, total=total)


# --- Stored Tasks ---


def stored(**options: object) -> bytes:
    return msgspec.json.encode({"id": "7", "options": {"timeout": 7.0, **options}, "total": 3, "status": "running"})


@pytest.mark.parametrize(
    "former", [{"transport": "aiohttp"}, {"transport": "socket", "proxy": "socks4://a:1"}, {"proxy": "http://a/path"}]
)
def test_a_stored_task_with_former_options_still_loads(former: dict[str, object]) -> None:
    task = decode_task(stored(**former))
    assert (task.id, task.total, task.options) == ("7", 3, Options(timeout=7.0))


def test_a_task_is_stored_and_loaded_as_it_is() -> None:
    task = a_task("ready", 3)
    assert decode_task(msgspec.json.encode(task)) == task


def test_a_stored_task_with_an_option_of_a_later_version_does_not_load() -> None:
    with pytest.raises(msgspec.ValidationError, match="unheard_of"):
        decode_task(stored(unheard_of=1))


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
        with pytest.raises(TransitionError, match=f"Task 7 cannot change from {before} to {after}"):
            task.change_status(after)
        assert (task.status, task.finished) == (before, None)


def test_the_table_has_a_row_for_every_status() -> None:
    assert TRANSITIONS.keys() == set(STATUSES) == {"running", "ready", "error"}


def test_a_task_is_ready_only_when_every_line_has_a_result() -> None:
    task = a_task(total=2)
    task.counts.add("ok")
    with pytest.raises(TransitionError, match="Task 7 has 1 results of 2"):
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
def test_counts_are_the_numbers_of_outcomes(outcomes: list[Outcome]) -> None:
    counts = Counts()
    for number, outcome in enumerate(outcomes):
        assert counts.done == number
        counts.add(outcome)
    assert counts.by_outcome() == [(outcome, outcomes.count(outcome)) for outcome in OUTCOMES]
    assert counts.done == len(outcomes)


def test_each_outcome_has_its_count() -> None:
    assert Counts.__struct_fields__ == OUTCOMES == ("ok", "http_error", "failed", "blocked", "invalid")
