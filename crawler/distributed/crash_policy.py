"""When a target that may crash its process is probed alone, and when it is given up. Pure rules, no I/O.

Two places apply them:
- A child process of one machine reports which targets it has begun. The crash counts for each of these targets.
- A worker process has a chunk of many lines. The chunk counts the crash, and halving finds the line that causes it.
"""

from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

from crawler.core.results import ProbeError

__all__ = [
    "CHUNK_ISOLATION_CRASHES",
    "TARGET_CRASH_POLICY",
    "CrashPolicy",
    "IsolationPlan",
    "crash_error",
    "plan_isolation",
]


class CrashPolicy(NamedTuple):
    """What happens to a target after crashes of processes that had begun it.

    Attributes:
        isolate_after: Crashes after which it is probed alone.
        give_up_after: Crashes after which it is not probed again.
    """

    isolate_after: int
    give_up_after: int

    def must_isolate(self, crashes: int) -> bool:
        """Whether the target must be probed alone."""
        return crashes >= self.isolate_after

    def must_give_up(self, crashes: int) -> bool:
        """Whether the target gets `crash_error` instead of another probe."""
        return crashes >= self.give_up_after


TARGET_CRASH_POLICY: Final = CrashPolicy(isolate_after=2, give_up_after=3)
"""For child processes, where the crashes of each target are known."""

CHUNK_ISOLATION_CRASHES: Final = 3
"""Crashes of worker processes on one chunk after which its lines are probed by `plan_isolation`."""


class IsolationPlan(NamedTuple):
    """How the next worker process probes a chunk that has crashed others.

    Attributes:
        given_up: Positions of lines that get `crash_error`.
        groups: Positions to probe one group after the other, with nothing else in the process.
    """

    given_up: list[int]
    groups: list[list[int]]


def plan_isolation(pending: Sequence[int], suspects: Collection[int]) -> IsolationPlan:
    """Plan how to find the line that crashes worker processes: each crash halves the suspected group.

    Args:
        pending: Positions of the chunk's lines that have no result yet.
        suspects: The group that was being probed at the last crash; empty if no group has been tried.
    """
    given_up = [seq for seq in pending if seq in suspects] if len(suspects) == 1 else []
    rest = [seq for seq in pending if seq not in given_up]
    size = max(1, (len(suspects) if len(suspects) > 1 else len(rest)) // 2)
    return IsolationPlan(given_up, [rest[start : start + size] for start in range(0, len(rest), size)])


def crash_error(crashes: int) -> ProbeError:
    """Return the error of a target that is given up after this number of crashes."""
    return ProbeError.of("unknown", f"{crashes} processes ended while they probed it")
