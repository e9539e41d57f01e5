"""Checks of a contender's records: which answers are right, and whether the servers saw the requests for them."""

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from bench.kinds import TRUTHS, Kind
from bench.workloads import Workload

__all__ = ["Checked", "check_records", "check_requests"]

Record = tuple[str, int]
"""A URL, and the status of its answer; 0 without one."""


class Checked(NamedTuple):
    """What the records of one run are worth."""

    right: Counter[Kind]
    """How many URLs of each kind have the right answer."""
    wrong: list[str]
    """What is wrong with the others, a line for each kind."""
    faults: list[str]
    """Why the run is worth nothing."""


def check_records(records: Iterable[Record], expected: dict[str, Kind]) -> Checked:
    """Compare records with the truth: each URL needs exactly one record, with the right status."""
    found = list(records)
    statuses = dict(found)
    kinds = Counter(expected.values())
    missing = Counter(kind for url, kind in expected.items() if url not in statuses)
    right = Counter(kind for url, kind in expected.items() if statuses.get(url) == TRUTHS[kind].status)
    wrong = kinds - missing - right
    more = len(found) - len(statuses.keys() & expected.keys())
    return Checked(
        right,
        [
            *(f"{count} of {kinds[kind]} {kind} wrong" for kind, count in wrong.items()),
            *(f"{count} of {kinds[kind]} {kind} missing" for kind, count in missing.items()),
        ],
        [f"{more} records too many"] if more else [],
    )


def check_requests(load: Workload, right: Counter[Kind], requests: int, wall: float) -> list[str]:
    """Return the faults that the servers know of: too few requests, or too little time for them."""
    if load.latency:
        least = right["good"] * load.latency / load.concurrency
        return [f"took {wall:.2f} s for what takes {least:.2f} s"] if wall < least else []
    needed = sum(TRUTHS[kind].requests * count for kind, count in right.items())
    return [f"{requests} requests for what takes {needed}"] if requests < needed else []
