"""How long each phase of a hop takes."""

from collections.abc import Callable
from time import perf_counter
from typing import Final, Literal

from crawler.core.results import Timings, TLSInfo

__all__ = ["HopTimer", "Phase"]

Phase = Literal["dns", "connect", "ssl", "send", "wait", "receive"]  # HAR's names

_ERROR_PHASES: Final[dict[Phase, str]] = {
    "dns": "dns",
    "connect": "connect",
    "ssl": "tls",
    "send": "http",
    "wait": "http",
    "receive": "http",
}


class HopTimer:
    """Follows one hop: its current phase, how long each phase took, and its peer.

    The time begins with the first phase.

    Args:
        now: The clock.

    Attributes:
        ip: The address that is or was dialled.
        tls: What the TLS handshake agreed on.
    """

    __slots__ = ("_marks", "_now", "_phase", "ip", "tls")

    def __init__(self, now: Callable[[], float] = perf_counter) -> None:
        self.ip: str | None = None
        self.tls: TLSInfo | None = None
        self._now = now
        self._phase: Phase = "connect"
        self._marks: list[tuple[Phase, float]] = []

    def start(self, phase: Phase) -> float:
        """End the current phase and start another; return the clock's time."""
        self._phase = phase
        now = self._now()
        self._marks.append((phase, now))
        return now

    @property
    def error_phase(self) -> str:
        """The current phase, by the name that errors have for it."""
        return _ERROR_PHASES[self._phase]

    @property
    def has_received(self) -> bool:
        """Whether bytes of the response have come."""
        return self._phase == "receive"

    def timings(self) -> Timings:
        """End the last phase and return milliseconds of each; a phase that was entered twice counts once, summed."""
        # Whole microseconds: then the phases add up to the total, and no duration has to be rounded.
        now = ended = int(self._now() * 1_000_000)
        spent: dict[str, int] = {}
        for phase, mark in reversed(self._marks):
            began = int(mark * 1_000_000)
            spent[phase] = spent.get(phase, 0) + ended - began
            ended = began
        return Timings(**{phase: each / 1000 for phase, each in spent.items()}, total=(now - ended) / 1000)
