"""How long the pauses of a host are, and when there are no more."""

from hypothesis import given
from hypothesis import strategies as st

from crawler.probing.scheduling.host_backoff import HostBackoff
from crawler.probing.settings import RetryPolicy

POLICY = RetryPolicy(backoff_seconds=0.5, max_wait_seconds=60.0)
LATER = 1000.0


def refuse(backoff: HostBackoff, times: int, now: float = LATER) -> list[float | None]:
    """Refuse each request that follows a pause; return the pauses."""
    pauses = []
    for _ in range(times):
        pause = backoff.record_refusal(None, now)
        pauses.append(pause)
        now += pause or 0.0
    return pauses


def fail(backoff: HostBackoff, times: int, now: float = LATER) -> list[float]:
    """Let each request that follows a pause fail; return the pauses."""
    pauses = []
    for _ in range(times):
        pauses.append(backoff.record_failure(now))
        now += pauses[-1]
    return pauses


# --- Refusals ---


def test_pauses_double_until_the_host_has_been_waited_for_enough() -> None:
    """RFC 6585, 4 leaves the time without Retry-After to the client; the back-off is that of RFC 8085, 3.1.1."""
    assert refuse(HostBackoff(POLICY), 12) == [*(2.0**number for number in range(-4, 6)), None, None]


def test_refusals_of_requests_that_were_in_flight_together_make_one_pause() -> None:
    backoff = HostBackoff(POLICY)
    assert [backoff.record_refusal(None, LATER + number / 64) for number in range(4)] == [
        4 / 64,
        3 / 64,
        2 / 64,
        1 / 64,
    ]
    assert backoff.record_refusal(None, LATER + 4 / 64) == 8 / 64


def test_what_the_host_asks_for_is_what_it_gets() -> None:
    """RFC 9110, 10.2.3."""
    backoff = HostBackoff(POLICY)
    assert backoff.record_refusal(7.0, LATER) == 7
    assert backoff.record_refusal(5.0, LATER + 1) == 6, "says less, of a request that was sent before"
    assert backoff.record_refusal(3600.0, LATER + 7) == 60, "the longest wait"


def test_a_host_that_always_asks_for_a_minute_gets_two() -> None:
    backoff = HostBackoff(POLICY)
    assert [backoff.record_refusal(3600.0, LATER + 60 * number) for number in range(3)] == [60, 60, None]


def test_the_next_pause_is_most_of_what_helped_last_time_and_good_answers_give_patience_back() -> None:
    backoff = HostBackoff(POLICY)
    helped = sum(pause or 0.0 for pause in refuse(backoff, 9))
    for number in range(30):
        backoff.record_answer(LATER + 100 + number)
    quarter = helped / 4
    assert refuse(backoff, 5, LATER + 200) == [3 * quarter, quarter, 2 * quarter, 4 * quarter, None]


def test_a_late_answer_to_an_earlier_request_does_not_shorten_a_pause() -> None:
    backoff = HostBackoff(POLICY)
    refuse(backoff, 3)
    backoff.record_answer(LATER + 3 / 16)  # during the third pause
    assert backoff.record_refusal(None, LATER + 8 / 16) == 0.5


def test_there_is_no_pause_while_others_are_under_way_that_may_have_been_too_many() -> None:
    """nginx refuses with the same 503 what is too many at once (limit_conn) and what comes too soon (limit_req)."""
    backoff = HostBackoff(POLICY)
    assert backoff.record_refusal(None, LATER, is_alone=False) is None
    assert backoff.record_refusal(7.0, LATER, is_alone=False) == 7, "it says so"


def test_one_503_can_be_its_own_urls_and_a_second_in_a_row_is_about_all() -> None:
    backoff = HostBackoff(POLICY)
    for _ in range(2):
        assert backoff.record_refusal(None, LATER, is_about_pace=False) is None
        backoff.record_answer(LATER)
    pauses = [backoff.record_refusal(None, LATER + number, is_about_pace=False) for number in range(3)]
    assert pauses == [None, 1 / 16, 1 / 8]


def test_503s_that_no_pause_has_ended_are_waited_for_half_a_minute() -> None:
    backoff, now = HostBackoff(POLICY), LATER
    for _ in range(30):
        now += backoff.record_refusal(None, now, is_about_pace=False) or 0.0
    assert 30 <= now - LATER < 64
    backoff.record_answer(now, was_refused=True)
    assert backoff.record_refusal(None, now, is_about_pace=False), "now it is known to help"


def test_a_host_that_allows_no_bursts_gets_requests_at_an_interval() -> None:
    """Additive increase, multiplicative decrease, as in RFC 5681, of a rate."""
    backoff = HostBackoff(POLICY)
    backoff.record_refusal(None, LATER)
    backoff.record_answer(LATER + 1)
    assert backoff.interval == 0, "once is not enough to tell"
    backoff.record_refusal(None, LATER + 1)
    assert backoff.interval == 1 / 16, "the wait after which one was answered"
    backoff.record_answer(LATER + 2)
    assert backoff.interval == 0.9 / 16
    backoff.record_refusal(None, LATER + 3)
    assert backoff.interval == 0.9 / 16 * 1.25
    for number in range(1000):
        backoff.record_answer(LATER + 4 + number)
    assert backoff.interval == 0


def test_a_host_that_allows_bursts_gets_them() -> None:
    backoff = HostBackoff(POLICY)
    for cycle in range(4):
        backoff.record_refusal(None, LATER + 10 * cycle)
        for _ in range(3):
            backoff.record_answer(LATER + 10 * cycle + 9)
        assert backoff.interval == 0


# --- Failures ---


def test_a_host_seems_down_after_eight_failures_and_three_pauses() -> None:
    backoff = HostBackoff(POLICY)
    assert fail(backoff, 7) == [0] * 7
    assert fail(backoff, 3) == [0.25, 0.5, 1]
    assert not backoff.seems_down
    assert fail(backoff, 1, LATER + 100) == [0]
    assert (backoff.seems_down, backoff.may_be_overloaded) == (True, False)


def test_an_answer_shows_that_a_host_is_not_down() -> None:
    backoff = HostBackoff(POLICY)
    fail(backoff, 7)
    backoff.record_answer(LATER)
    assert fail(backoff, 7) == [0] * 7
    fail(backoff, 10, LATER + 10)
    assert not backoff.may_be_overloaded
    backoff.record_answer(LATER + 100)
    assert backoff.may_be_overloaded


def test_three_final_requests_that_fail_alone_show_that_fewer_do_not_help() -> None:
    backoff = HostBackoff(POLICY)
    for is_good in (False, False, True, False, False):
        backoff.record_final_retry(is_good=is_good)
        assert backoff.may_be_overloaded
    backoff.record_final_retry(is_good=False)
    assert not backoff.may_be_overloaded


# --- Anything ---


@given(st.lists(st.one_of(st.none(), st.floats(0, 1e6)), max_size=200))
def test_all_pauses_without_a_good_answer_have_a_bound(asked: list[float | None]) -> None:
    backoff, now = HostBackoff(POLICY), LATER
    for retry_after in asked:
        now += backoff.record_refusal(retry_after, now) or 0.0
        now += backoff.record_failure(now)
    assert now - LATER <= 2 * POLICY.max_wait_seconds + 2
