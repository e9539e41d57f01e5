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
    assert refuse(HostBackoff(POLICY), 9) == [0.5, 1, 2, 4, 8, 16, 32, None, None]


def test_refusals_of_requests_that_were_in_flight_together_make_one_pause() -> None:
    backoff = HostBackoff(POLICY)
    assert [backoff.record_refusal(None, LATER + number / 8) for number in range(4)] == [0.5, 0.375, 0.25, 0.125]
    assert backoff.record_refusal(None, LATER + 0.5) == 1


def test_what_the_host_asks_for_is_what_it_gets() -> None:
    """RFC 9110, 10.2.3."""
    backoff = HostBackoff(POLICY)
    assert backoff.record_refusal(7.0, LATER) == 7
    assert backoff.record_refusal(5.0, LATER + 1) == 6, "says less, of a request that was sent before"
    assert backoff.record_refusal(3600.0, LATER + 7) == 60, "the longest wait"


def test_a_host_that_always_asks_for_a_minute_gets_two() -> None:
    backoff = HostBackoff(POLICY)
    assert [backoff.record_refusal(3600.0, LATER + 60 * number) for number in range(3)] == [60, 60, None]


def test_a_good_answer_shortens_the_next_pause_and_gives_patience_back() -> None:
    backoff = HostBackoff(POLICY)
    assert refuse(backoff, 6)[-1] == 16
    for number in range(30):
        backoff.record_answer(LATER + 100 + number)
    assert refuse(backoff, 9, LATER + 200) == [8, 16, 32, 60, None, None, None, None, None]


def test_a_late_answer_to_an_earlier_request_does_not_shorten_a_pause() -> None:
    backoff = HostBackoff(POLICY)
    refuse(backoff, 3)
    backoff.record_answer(LATER + 2)  # during the third pause
    assert backoff.record_refusal(None, LATER + 3.5) == 4


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
