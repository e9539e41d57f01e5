"""The phases of a hop as they pass."""

from time import perf_counter
from typing import Final, Literal

from crawler.core.results import Timings, TLSInfo

__all__ = ["HopTimer", "Phase"]

Phase = Literal["dns", "connect", "ssl", "send", "wait", "receive"]

_ERROR_PHASES: Final[dict[Phase, str]] = {
    "dns": "dns",
    "connect": "connect",
    "ssl": "tls",
    "send": "http",
    "wait": "http",
    "receive": "http",
}


class HopTimer:
    """What a hop has come to so far: which phase it is in, how long each took, whom it talks to.

    It starts with the first phase; until then nothing has happened that a target could be charged with.
    """

    __slots__ = ("_marks", "_phase", "ip", "tls")

    def __init__(self) -> None:
        self.ip: str | None = None
        self.tls: TLSInfo | None = None
        self._phase: Phase = "connect"
        self._marks: list[tuple[Phase, float]] = []

    def start(self, phase: Phase) -> None:
        """Leave the phase it is in for another."""
        self._phase = phase
        self._marks.append((phase, perf_counter()))

    @property
    def phase(self) -> str:
        """The phase it is in, under the name that error types have for it."""
        return _ERROR_PHASES[self._phase]

    @property
    def has_bytes(self) -> bool:
        """Whether anything of the response has come."""
        return self._phase == "receive"

    def timings(self) -> Timings:
        """End the last phase and give all: how long each took, together with those that it was in again."""
        now = perf_counter()
        spent: dict[str, float] = {}
        ended = now
        for phase, began in reversed(self._marks):
            spent[phase] = round(spent.get(phase, 0.0) + (ended - began) * 1000, 3)
            ended = began
        return Timings(**spent, total=round((now - ended) * 1000, 3))
