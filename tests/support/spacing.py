"""Checks of the time between requests that hold however late a busy machine delivers one of them."""

from collections.abc import Sequence

__all__ = ["assert_spaced"]

CLOCK_TOLERANCE_SECONDS = 0.01


def assert_spaced(times: Sequence[float], interval: float, started: float) -> None:
    """Check that the n-th of `times` comes at least n intervals after `started`, and all of them in order.

    A machine that stops for a moment may deliver two requests together, but none of them too early.
    """
    for number, time in enumerate(sorted(times)):
        assert time >= started + number * interval - CLOCK_TOLERANCE_SECONDS, (number, started, times)
