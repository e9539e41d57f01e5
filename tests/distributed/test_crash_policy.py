"""The rules for a target that crashes the process probing it."""

import pytest

from crawler.distributed.crash_policy import TARGET_CRASH_POLICY, crash_error, plan_isolation


def test_a_target_is_isolated_before_it_is_given_up() -> None:
    policy = TARGET_CRASH_POLICY
    assert [policy.must_isolate(crashes) for crashes in range(4)] == [False, False, True, True]
    assert [policy.must_give_up(crashes) for crashes in range(4)] == [False, False, False, True]


def test_the_error_says_how_many_processes_ended() -> None:
    error = crash_error(3)
    assert (error.type, error.message) == ("unknown", "3 processes ended while they probed it")


@pytest.mark.parametrize("culprit", range(10))
def test_halving_gives_up_the_one_line_that_crashes_workers(culprit: int) -> None:
    pending, suspects, given_up, crashes = list(range(10)), list[int](), list[int](), 0
    while pending:
        plan = plan_isolation(pending, suspects)
        given_up += plan.given_up
        pending = [seq for seq in pending if seq not in plan.given_up]
        for group in plan.groups:
            suspects = group
            if culprit in group:
                crashes += 1
                break
            pending = [seq for seq in pending if seq not in group]
    assert given_up == [culprit]
    assert crashes <= 5


def test_a_single_line_is_tried_once_more_before_it_is_given_up() -> None:
    assert plan_isolation([7], []) == ([], [[7]])
    assert plan_isolation([7], [7]) == ([7], [])
