"""The limit of one host falls at once when the host fails or slows down, and rises again little by little."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from crawler.probing.scheduling.adaptive_limit import AdaptiveLimit

QUICK = 0.01
LATER = 1000.0
"""A loop time at which nothing earlier matters."""


def answer(adaptive_limit: AdaptiveLimit, times: int, seconds: float, now: float) -> float:
    """Record `times` answers one after another; return the time after them."""
    for _ in range(times):
        now += seconds
        adaptive_limit.record_answer(seconds, now)
    return now


def refuse(adaptive_limit: AdaptiveLimit, times: int, now: float) -> float:
    """Record `times` refusals of requests that were not in flight together; return the time after them."""
    for _ in range(times):
        now += 60
        adaptive_limit.record_refusal(0, now)
    return now


# --- Refusals ---


def test_a_host_has_all_its_slots_at_first() -> None:
    adaptive_limit = AdaptiveLimit(8)
    assert (adaptive_limit.limit, adaptive_limit.is_slowed(LATER)) == (8, False)


def test_a_refusal_halves_the_slots_down_to_one() -> None:
    adaptive_limit, now, seen = AdaptiveLimit(8), LATER, []
    for _ in range(6):
        now = refuse(adaptive_limit, 1, now)
        seen.append(adaptive_limit.limit)
    assert seen == [4, 2, 1, 1, 1, 1]
    assert adaptive_limit.is_slowed(now)


def test_one_slot_stays_one() -> None:
    adaptive_limit = AdaptiveLimit(1)
    refuse(adaptive_limit, 5, LATER)
    assert adaptive_limit.limit == 1


def test_each_round_of_answers_gives_one_slot_back_until_all_are_there() -> None:
    adaptive_limit = AdaptiveLimit(8)
    now = refuse(adaptive_limit, 9, LATER)
    seen = []
    for _ in range(12):
        now = answer(adaptive_limit, adaptive_limit.limit, QUICK, now)
        seen.append(adaptive_limit.limit)
    assert all(0 <= later - earlier <= 1 for earlier, later in pairwise(seen))
    assert seen[:3] != [8, 8, 8]
    assert seen[-1] == 8
    assert not adaptive_limit.is_slowed(now)


def test_refusals_of_requests_that_were_in_flight_together_count_once() -> None:
    adaptive_limit = AdaptiveLimit(8)
    now = answer(adaptive_limit, 20, 2.0, LATER)
    for number in range(8):
        adaptive_limit.record_refusal(0, now + number * 0.2)
    assert adaptive_limit.limit == 4


def test_refusals_at_the_same_time_count_once_even_before_any_answer() -> None:
    adaptive_limit = AdaptiveLimit(8)
    for number in range(8):
        adaptive_limit.record_refusal(0, LATER + number * 0.01)
    assert adaptive_limit.limit == 4


def test_refusals_of_later_requests_count_again() -> None:
    adaptive_limit = AdaptiveLimit(8)
    now = answer(adaptive_limit, 20, 2.0, LATER)
    adaptive_limit.record_refusal(0, now)
    adaptive_limit.record_refusal(0, now + 2.0)
    assert adaptive_limit.limit == 2


def test_a_refusal_may_say_when_the_next_request_may_start() -> None:
    adaptive_limit = AdaptiveLimit(8)
    adaptive_limit.record_refusal(30, LATER)
    assert adaptive_limit.free_at == LATER + 30
    adaptive_limit.record_refusal(5, LATER + 1)  # says less, of a request that was sent before
    assert adaptive_limit.free_at == LATER + 30
    adaptive_limit.record_refusal(60, LATER + 2)
    assert adaptive_limit.free_at == LATER + 62


def test_a_host_with_one_slot_is_slowed_while_it_may_get_no_request() -> None:
    adaptive_limit = AdaptiveLimit(1)
    adaptive_limit.record_refusal(30, LATER)
    assert adaptive_limit.is_slowed(LATER + 29)
    assert not adaptive_limit.is_slowed(LATER + 30)


# --- Intervals ---


def test_an_interval_spaces_requests() -> None:
    adaptive_limit = AdaptiveLimit(8, interval=2.0)
    assert adaptive_limit.free_at <= LATER
    adaptive_limit.start_request(LATER)
    assert adaptive_limit.free_at == LATER + 2
    adaptive_limit.start_request(LATER + 2)
    assert adaptive_limit.free_at == LATER + 4
    adaptive_limit.start_request(LATER + 100)  # a pause saves nothing up
    assert adaptive_limit.free_at == LATER + 102


def test_without_an_interval_requests_follow_at_once() -> None:
    adaptive_limit = AdaptiveLimit(8)
    adaptive_limit.start_request(LATER)
    assert adaptive_limit.free_at <= LATER


def test_a_host_may_ask_for_a_longer_interval_but_not_for_a_shorter_one() -> None:
    adaptive_limit = AdaptiveLimit(8, interval=2.0)
    adaptive_limit.require_interval(5.0)
    adaptive_limit.start_request(LATER)
    assert adaptive_limit.free_at == LATER + 5
    adaptive_limit.require_interval(1.0)
    adaptive_limit.start_request(LATER + 5)
    assert adaptive_limit.free_at == LATER + 10


def test_an_interval_that_a_host_asked_for_is_remembered() -> None:
    adaptive_limit = AdaptiveLimit(8)
    adaptive_limit.require_interval(5.0)
    assert adaptive_limit.is_slowed(LATER)


def test_an_interval_does_not_shorten_what_a_refusal_asked_for() -> None:
    adaptive_limit = AdaptiveLimit(8, interval=2.0)
    adaptive_limit.record_refusal(30, LATER)
    adaptive_limit.start_request(LATER)
    assert adaptive_limit.free_at == LATER + 30


# --- Answers that take longer and longer ---


def test_a_host_whose_answers_take_longer_and_longer_gets_fewer_requests() -> None:
    adaptive_limit = AdaptiveLimit(8)
    now = answer(adaptive_limit, 50, QUICK, LATER)
    assert adaptive_limit.limit == 8
    now = answer(adaptive_limit, 10, 5.0, now)
    assert adaptive_limit.limit < 8
    answer(adaptive_limit, 30, 5.0, now)
    assert adaptive_limit.limit == 1


def test_a_host_that_is_slow_from_the_start_keeps_its_slots() -> None:
    adaptive_limit = AdaptiveLimit(8)
    answer(adaptive_limit, 500, 5.0, LATER)
    assert adaptive_limit.limit == 8


def test_a_host_whose_answers_differ_by_little_keeps_its_slots() -> None:
    """Three times as long does not count unless it is half a second longer."""
    adaptive_limit = AdaptiveLimit(8)
    now = LATER
    for number in range(500):
        now = answer(adaptive_limit, 1, 0.4 if number % 2 else 0.02, now)
    assert adaptive_limit.limit == 8


def test_one_slow_answer_among_many_changes_nothing() -> None:
    adaptive_limit = AdaptiveLimit(8)
    now = answer(adaptive_limit, 50, QUICK, LATER)
    now = answer(adaptive_limit, 1, 2.0, now)
    answer(adaptive_limit, 5, QUICK, now)
    assert adaptive_limit.limit == 8


def test_answers_of_requests_that_were_in_flight_together_count_once() -> None:
    adaptive_limit = AdaptiveLimit(64)
    now = answer(adaptive_limit, 50, QUICK, LATER)
    for _ in range(32):
        adaptive_limit.record_answer(10.0, now + 10)
    assert adaptive_limit.limit == 32


def test_a_host_that_recovers_gets_all_its_slots_back() -> None:
    adaptive_limit = AdaptiveLimit(8)
    now = answer(adaptive_limit, 50, QUICK, LATER)
    now = answer(adaptive_limit, 40, 5.0, now)
    assert adaptive_limit.limit == 1
    now = answer(adaptive_limit, 100, QUICK, now)
    assert adaptive_limit.limit == 8
    assert not adaptive_limit.is_slowed(now)


def test_a_host_that_stays_slower_gets_its_slots_back_in_the_end() -> None:
    adaptive_limit = AdaptiveLimit(8)
    now = answer(adaptive_limit, 50, QUICK, LATER)
    now = answer(adaptive_limit, 40, 2.0, now)
    assert adaptive_limit.limit == 1
    answer(adaptive_limit, 6000, 2.0, now)
    assert adaptive_limit.limit == 8


# --- The number that was too much ---


def four_of_eight() -> AdaptiveLimit:
    """Return the limit of a host that has reset four of eight connections."""
    adaptive_limit = AdaptiveLimit(8)
    for in_flight in (8, 7, 6, 5):
        adaptive_limit.record_refusal(0, LATER, in_flight)
    assert adaptive_limit.limit == 4
    return adaptive_limit


def test_a_limit_that_was_too_much_is_tried_again_after_more_and_more_answers() -> None:
    """A host that resets above 4 connections is driven above 4 by one, and after 640 answers in the end."""
    adaptive_limit = four_of_eight()
    for answers in (10, 20, 40, 80, 160, 320, 640, 640):
        now = answer(adaptive_limit, answers - 1, QUICK, LATER)
        assert adaptive_limit.limit == 4
        answer(adaptive_limit, 1, QUICK, now)
        assert adaptive_limit.limit == 5
        adaptive_limit.record_refusal(0, now, 5)
        assert adaptive_limit.limit == 4, "known to be borne: not half of it"


def test_a_limit_that_has_risen_is_followed() -> None:
    adaptive_limit = four_of_eight()
    seen = []
    for _ in range(4):
        answer(adaptive_limit, 10, QUICK, LATER)
        seen.append(adaptive_limit.limit)
    assert seen == [5, 6, 7, 8]


def test_trouble_below_the_number_that_is_tried_halves_the_slots() -> None:
    adaptive_limit = four_of_eight()
    now = answer(adaptive_limit, 10, QUICK, LATER + 60)
    adaptive_limit.record_refusal(0, now, 4)
    assert adaptive_limit.limit == 2


def test_a_failure_of_the_only_request_says_nothing_about_how_many_are_too_much() -> None:
    adaptive_limit = AdaptiveLimit(8)
    adaptive_limit.record_refusal(0, LATER, 1)
    answer(adaptive_limit, 50, QUICK, LATER)
    assert adaptive_limit.limit == 8


def test_a_host_that_works_on_one_request_at_a_time_gets_fewer_after_two_answers() -> None:
    """By Little's law eight requests of 4.5 s each, worked on together, would be answered one each 0.6 s."""
    adaptive_limit = AdaptiveLimit(8)
    adaptive_limit.record_answer(4.5, LATER + 4.5, 8)
    assert adaptive_limit.limit == 7, "no other one instead of the first, which may have been alone"
    adaptive_limit.record_answer(9.0, LATER + 9.0, 7)
    assert adaptive_limit.limit == 3


def test_a_slow_host_that_works_on_all_requests_gets_as_many_as_before() -> None:
    adaptive_limit = AdaptiveLimit(8)
    for number in range(8):
        adaptive_limit.record_answer(4.5, LATER + 4.5 + number / 100, 8 - number)
    for number in range(8):
        adaptive_limit.record_answer(4.5, LATER + 9 + number / 100, 8)
    assert adaptive_limit.limit == 8


def test_a_timeout_leaves_a_slow_host_the_time_to_finish_what_was_given_up() -> None:
    adaptive_limit = AdaptiveLimit(8)
    adaptive_limit.record_answer(5.0, LATER, 3)
    adaptive_limit.record_timeout(LATER + 10, 2)
    adaptive_limit.record_timeout(LATER + 10, 1)
    assert adaptive_limit.free_at == LATER + 10 + 2 * 4


def test_a_timeout_does_not_make_a_quick_host_pause() -> None:
    adaptive_limit = AdaptiveLimit(8)
    adaptive_limit.record_answer(0.1, LATER, 3)
    adaptive_limit.record_timeout(LATER + 10, 2)
    assert adaptive_limit.free_at <= LATER + 10


# --- Any events ---

seconds = st.floats(0, 1000, allow_nan=False)
events = st.one_of(
    st.tuples(st.just("start_request")),
    st.tuples(st.just("record_answer"), seconds),
    st.tuples(st.just("record_refusal"), seconds),
    st.tuples(st.just("require_interval"), seconds),
    st.tuples(st.just("wait"), seconds),
)


@given(st.integers(1, 30), seconds, st.lists(events, max_size=60))
@settings(max_examples=400, deadline=None)
def test_slots_stay_within_bounds_and_come_back_after_any_events(
    slots: int, interval: float, happening: list[tuple[str, float]]
) -> None:
    adaptive_limit, now, quickest = AdaptiveLimit(slots, interval), LATER, 1000.0
    for number, (what, *how_long) in enumerate(happening):
        in_flight = 1 + number % slots
        before, free_at = adaptive_limit.limit, adaptive_limit.free_at
        if what == "wait":
            now += how_long[0]
        elif what == "start_request":
            adaptive_limit.start_request(now)
        elif what == "require_interval":
            adaptive_limit.require_interval(how_long[0])
        else:
            getattr(adaptive_limit, what)(how_long[0], now, in_flight)
        if what == "record_answer":
            quickest = min(quickest, how_long[0])
        assert 1 <= adaptive_limit.limit <= slots
        assert adaptive_limit.limit <= before + 1
        assert adaptive_limit.limit >= min(before // 2, max(1, in_flight - 1))
        assert adaptive_limit.free_at >= free_at
        assert adaptive_limit.limit == slots or adaptive_limit.is_slowed(now)
    # A hundred to forget what was, the others to grow: fifty for each slot that was too much.
    answer(adaptive_limit, 100 + slots * (slots + 51), quickest, now)
    assert adaptive_limit.limit == slots
    told = any(what == "require_interval" and how_long[0] > 0 for what, *how_long in happening)
    assert adaptive_limit.is_slowed(max(now, adaptive_limit.free_at)) is told
