"""The checks of the contenders' records."""

from collections import Counter
from collections.abc import Iterable

import pytest

from bench.check import Record, check_records, check_requests
from bench.kinds import Kind
from bench.workloads import WORKLOADS

EXPECTED: dict[str, Kind] = {"http://a/": "good", "http://b/": "missing", "http://c/": "refused", "http://d/": "moved"}
ALL_RIGHT: list[Record] = [("http://a/", 200), ("http://b/", 404), ("http://c/", 0), ("http://d/", 200)]
W9 = next(load for load in WORKLOADS if load.id == "W9")
W5 = next(load for load in WORKLOADS if load.id == "W5")


def test_right_answers_are_counted_by_kind() -> None:
    checked = check_records(ALL_RIGHT, EXPECTED)
    assert checked.right == {"good": 1, "missing": 1, "refused": 1, "moved": 1}
    assert not checked.wrong
    assert not checked.faults


@pytest.mark.parametrize(
    ("records", "wrong", "faults"),
    [
        ([*ALL_RIGHT[:3], ("http://d/", 301)], ["1 of 1 moved wrong"], []),
        ([*ALL_RIGHT[:1], ("http://b/", 0), *ALL_RIGHT[2:]], ["1 of 1 missing wrong"], []),
        ([*ALL_RIGHT[:2], ("http://c/", 200), *ALL_RIGHT[3:]], ["1 of 1 refused wrong"], []),
        (ALL_RIGHT[1:], ["1 of 1 good missing"], []),
        (iter(()), [f"1 of 1 {kind} missing" for kind in EXPECTED.values()], []),
        ([*ALL_RIGHT, ("http://a/", 200)], [], ["1 records too many"]),
        ([*ALL_RIGHT, ("http://e/", 200)], [], ["1 records too many"]),
    ],
)
def test_wrong_records_are_found(records: Iterable[Record], wrong: list[str], faults: list[str]) -> None:
    checked = check_records(records, EXPECTED)
    assert checked.wrong == wrong
    assert checked.faults == faults
    assert checked.right.total() == len(EXPECTED) - len(wrong)


def test_a_redirect_takes_two_requests_and_a_dead_host_none() -> None:
    right = check_records(ALL_RIGHT, EXPECTED).right
    assert check_requests(W9, right, requests=4, wall=1.0) == []
    assert check_requests(W9, right, requests=3, wall=1.0) == ["3 requests for what takes 4"]


def test_answers_that_come_too_early_are_a_fault() -> None:
    right = Counter[Kind]({"good": 10_000})
    assert check_requests(W5, right, requests=0, wall=2.0) == []
    assert check_requests(W5, right, requests=0, wall=1.0) == ["took 1.00 s for what takes 2.00 s"]
