"""The phases of a hop as they pass."""

from time import perf_counter
from typing import Final, Literal

from crawler.models import Timings, TLSInfo

__all__ = ["Clock", "Phase"]

Phase = Literal["dns", "connect", "ssl", "send", "wait", "receive"]

_ERROR_PHASES: Final[dict[Phase, str]] = {
    "dns": "dns",
    "connect": "connect",
    "ssl": "tls",
    "send": "http",
    "wait": "http",
    "receive": "http",
}


_INSTANT: Final = 0.05  # ms; before the first phase proper


class Clock:
    """What a hop has come to so far: which phase it is in, how long each took, whom it talks to."""

    __slots__ = ("_began", "_phase", "_since", "_timings", "ip", "tls")

    def __init__(self) -> None:
        self.ip: str | None = None
        self.tls: TLSInfo | None = None
        self._phase: Phase = "connect"
        self._timings = Timings()
        self._began = self._since = perf_counter()

    def start(self, phase: Phase) -> None:
        """Leave the phase it is in for another."""
        if self._phase is not phase:
            now = perf_counter()
            self._stop(now)
            self._phase, self._since = phase, now

    @property
    def phase(self) -> str:
        """The phase it is in, under the name that error types have for it."""
        return _ERROR_PHASES[self._phase]

    @property
    def has_bytes(self) -> bool:
        """Whether anything of the response has come."""
        return self._phase == "receive"

    def timings(self) -> Timings:
        """End the last phase and give all."""
        now = perf_counter()
        self._stop(now)
        self._timings.total = round((now - self._began) * 1000, 3)
        return self._timings

    def _stop(self, now: float) -> None:
        spent = (now - self._since) * 1000
        if spent < _INSTANT and self._since == self._began:
            self._began = now  # nothing was done before the first phase proper
        else:
            setattr(self._timings, self._phase, round((getattr(self._timings, self._phase) or 0.0) + spent, 3))
