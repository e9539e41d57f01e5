"""How fast a host is asked: slower at once when it is in trouble, faster again little by little."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from crawler.probing.adaptive_limit import AdaptiveLimit

QUICK = 0.01
LATER = 1000.0
"""A time of the loop at which nothing of before matters."""


def answer(pace: AdaptiveLimit, times: int, seconds: float, now: float) -> float:
    """So many answers one after another; the time after them."""
    for _ in range(times):
        now += seconds
        pace.answered(seconds, now)
    return now


def refuse(pace: AdaptiveLimit, times: int, now: float) -> float:
    """So many refusals, of requests that were not under way together."""
    for _ in range(times):
        now += 60
        pace.refused(0, now)
    return now


# --- Refusals ---


def test_a_host_has_all_its_slots_at_first() -> None:
    pace = AdaptiveLimit(8)
    assert (pace.limit, pace.is_hurt(LATER)) == (8, False)


def test_a_refusal_halves_the_slots_down_to_one() -> None:
    pace, now, seen = AdaptiveLimit(8), LATER, []
    for _ in range(6):
        now = refuse(pace, 1, now)
        seen.append(pace.limit)
    assert seen == [4, 2, 1, 1, 1, 1]
    assert pace.is_hurt(now)


def test_one_slot_stays_one() -> None:
    pace = AdaptiveLimit(1)
    refuse(pace, 5, LATER)
    assert pace.limit == 1


def test_each_round_of_answers_gives_one_slot_back_until_all_are_there() -> None:
    pace = AdaptiveLimit(8)
    now = refuse(pace, 9, LATER)
    seen = []
    for _ in range(12):
        now = answer(pace, pace.limit, QUICK, now)
        seen.append(pace.limit)
    assert all(0 <= later - earlier <= 1 for earlier, later in pairwise(seen))
    assert seen[:3] != [8, 8, 8]
    assert seen[-1] == 8
    assert not pace.is_hurt(now)


def test_refusals_of_requests_that_were_under_way_together_count_once() -> None:
    pace = AdaptiveLimit(8)
    now = answer(pace, 20, 2.0, LATER)
    for number in range(8):
        pace.refused(0, now + number * 0.2)
    assert pace.limit == 4


def test_so_they_do_if_the_host_has_answered_nothing_else_yet() -> None:
    pace = AdaptiveLimit(8)
    for number in range(8):
        pace.refused(0, LATER + number * 0.01)
    assert pace.limit == 4


def test_refusals_of_later_requests_count_again() -> None:
    pace = AdaptiveLimit(8)
    now = answer(pace, 20, 2.0, LATER)
    pace.refused(0, now)
    pace.refused(0, now + 2.0)
    assert pace.limit == 2


def test_a_refusal_may_say_when_to_come_back() -> None:
    pace = AdaptiveLimit(8)
    pace.refused(30, LATER)
    assert pace.free_at == LATER + 30
    pace.refused(5, LATER + 1)  # says less, of a request that was sent before
    assert pace.free_at == LATER + 30
    pace.refused(60, LATER + 2)
    assert pace.free_at == LATER + 62


def test_a_host_that_may_not_be_asked_yet_is_hurt_though_it_has_one_slot_anyway() -> None:
    pace = AdaptiveLimit(1)
    pace.refused(30, LATER)
    assert pace.is_hurt(LATER + 29)
    assert not pace.is_hurt(LATER + 30)


# --- Intervals ---


def test_requests_are_kept_apart() -> None:
    pace = AdaptiveLimit(8, interval=2.0)
    assert pace.free_at <= LATER
    pace.start(LATER)
    assert pace.free_at == LATER + 2
    pace.start(LATER + 2)
    assert pace.free_at == LATER + 4
    pace.start(LATER + 100)  # a pause saves nothing up
    assert pace.free_at == LATER + 102


def test_without_an_interval_nothing_is_kept_apart() -> None:
    pace = AdaptiveLimit(8)
    pace.start(LATER)
    assert pace.free_at <= LATER


def test_a_host_may_ask_for_a_longer_interval_but_not_for_a_shorter_one() -> None:
    pace = AdaptiveLimit(8, interval=2.0)
    pace.keep_apart(5.0)
    pace.start(LATER)
    assert pace.free_at == LATER + 5
    pace.keep_apart(1.0)
    pace.start(LATER + 5)
    assert pace.free_at == LATER + 10


def test_what_a_host_asked_for_is_not_to_be_forgotten() -> None:
    pace = AdaptiveLimit(8)
    pace.keep_apart(5.0)
    assert pace.is_hurt(LATER)


def test_an_interval_does_not_shorten_what_a_refusal_asked_for() -> None:
    pace = AdaptiveLimit(8, interval=2.0)
    pace.refused(30, LATER)
    pace.start(LATER)
    assert pace.free_at == LATER + 30


# --- Answers that take longer and longer ---


def test_a_host_that_answers_slower_and_slower_is_asked_less() -> None:
    pace = AdaptiveLimit(8)
    now = answer(pace, 50, QUICK, LATER)
    assert pace.limit == 8
    now = answer(pace, 10, 5.0, now)
    assert pace.limit < 8
    answer(pace, 30, 5.0, now)
    assert pace.limit == 1


def test_a_host_that_is_slow_from_the_start_is_not() -> None:
    pace = AdaptiveLimit(8)
    answer(pace, 500, 5.0, LATER)
    assert pace.limit == 8


def test_neither_is_one_whose_answers_differ_by_little() -> None:
    """Three times as long is nothing as long as it is not half a second more."""
    pace = AdaptiveLimit(8)
    now = LATER
    for number in range(500):
        now = answer(pace, 1, 0.4 if number % 2 else 0.02, now)
    assert pace.limit == 8


def test_one_slow_answer_among_many_is_nothing() -> None:
    pace = AdaptiveLimit(8)
    now = answer(pace, 50, QUICK, LATER)
    now = answer(pace, 1, 2.0, now)
    answer(pace, 5, QUICK, now)
    assert pace.limit == 8


def test_answers_of_requests_that_were_under_way_together_count_once() -> None:
    pace = AdaptiveLimit(64)
    now = answer(pace, 50, QUICK, LATER)
    for _ in range(32):
        pace.answered(10.0, now + 10)
    assert pace.limit == 32


def test_a_host_that_recovers_gets_all_its_slots_back() -> None:
    pace = AdaptiveLimit(8)
    now = answer(pace, 50, QUICK, LATER)
    now = answer(pace, 40, 5.0, now)
    assert pace.limit == 1
    now = answer(pace, 100, QUICK, now)
    assert pace.limit == 8
    assert not pace.is_hurt(now)


def test_a_host_that_stays_slower_gets_them_back_in_the_end() -> None:
    pace = AdaptiveLimit(8)
    now = answer(pace, 50, QUICK, LATER)
    now = answer(pace, 40, 2.0, now)
    assert pace.limit == 1
    answer(pace, 6000, 2.0, now)
    assert pace.limit == 8


# --- Whatever happens ---

seconds = st.floats(0, 1000, allow_nan=False)
events = st.one_of(
    st.tuples(st.just("start")),
    st.tuples(st.just("answered"), seconds),
    st.tuples(st.just("refused"), seconds),
    st.tuples(st.just("keep_apart"), seconds),
    st.tuples(st.just("wait"), seconds),
)


@given(st.integers(1, 30), seconds, st.lists(events, max_size=60))
@settings(max_examples=400, deadline=None)
def test_whatever_happens_the_slots_stay_within_bounds_and_come_back(
    slots: int, interval: float, happening: list[tuple[str, float]]
) -> None:
    pace, now, quickest = AdaptiveLimit(slots, interval), LATER, 1000.0
    for what, *how_long in happening:
        before, free_at = pace.limit, pace.free_at
        if what == "wait":
            now += how_long[0]
        elif what == "start":
            pace.start(now)
        elif what == "keep_apart":
            pace.keep_apart(how_long[0])
        else:
            getattr(pace, what)(how_long[0], now)
        if what == "answered":
            quickest = min(quickest, how_long[0])
        assert 1 <= pace.limit <= slots
        assert pace.limit <= before + 1
        assert pace.limit >= before // 2 or pace.limit == 1
        assert pace.free_at >= free_at
        assert pace.limit == slots or pace.is_hurt(now)
    answer(pace, 100 + slots * slots, quickest, now)  # a hundred to forget what was, the others to grow
    assert pace.limit == slots
    told = any(what == "keep_apart" and how_long[0] > 0 for what, *how_long in happening)
    assert pace.is_hurt(max(now, pace.free_at)) is told
