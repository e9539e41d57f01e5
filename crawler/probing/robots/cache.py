"""A cache of the rules of robots.txt files."""

import time
from collections import OrderedDict
from typing import Final

from crawler.core.results import HopResult
from crawler.probing.robots.rules import RobotsRules
from crawler.runtime.turns import complete_in_turns

__all__ = ["Origin", "RobotsCache"]

_RULES_SECONDS: Final = 24 * 3600.0  # that rules are kept (RFC 9309, 2.4)
_FAILURE_SECONDS: Final = 60.0  # until a server that failed is asked again
_MAX_ORIGINS: Final = 10_000  # whose rules are remembered
_MAX_BYTES: Final = 16 * 1024 * 1024  # of all rules together
_MAX_DELAY_SECONDS: Final = 60.0  # a file may ask for a year

Origin = tuple[str, str, int]


class RobotsCache:
    """The known rules of each origin for one user agent."""

    def __init__(self, user_agent: str) -> None:
        self._agent = user_agent
        self._rules: OrderedDict[Origin, tuple[float, RobotsRules | None]] = OrderedDict()  # with the time to ask again
        self._bytes = 0
        self._fetching: set[Origin] = set()

    def has_rules(self, origin: Origin) -> bool:
        """Whether the rules of an origin are known."""
        return self._rules.get(origin, (0.0, None))[0] > time.monotonic()

    def begin_fetch(self, origin: Origin) -> bool:
        """Claim the fetch of an origin's rules; false if it is under way."""
        if origin in self._fetching:
            return False
        self._fetching.add(origin)
        return True

    async def read(self, answer: HopResult) -> RobotsRules | None:
        """Parse the answer to a request for robots.txt; None if it allows everything.

        If there is no file, everything is allowed; a 5xx status allows nothing (RFC 9309, 2.3.1). If no server answers,
        everything is allowed too, because the probe itself then reports the error.
        """
        if (answer.status or 0) >= 500:
            return RobotsRules.parse(b"User-agent: *\nDisallow: /", self._agent)
        if answer.body is None:
            return None
        return await complete_in_turns(RobotsRules.parse_in_steps(answer.body.data, self._agent))

    def end_fetch(self, origin: Origin, answer: HopResult | None, rules: RobotsRules | None) -> None:
        """Remember the rules that were parsed from an answer; the answer is None if the request was cancelled."""
        self._fetching.discard(origin)
        if answer is None:
            return
        has_failed = (answer.status or 0) >= 500 or answer.error is not None
        self._forget(origin)
        self._rules[origin] = (time.monotonic() + (_FAILURE_SECONDS if has_failed else _RULES_SECONDS), rules)
        self._bytes += rules.size if rules is not None else 0
        while len(self._rules) > _MAX_ORIGINS or (self._bytes > _MAX_BYTES and len(self._rules) > 1):
            self._forget(next(iter(self._rules)))

    async def allows(self, origin: Origin, path: str) -> bool:
        """Whether a path with its query may be requested."""
        _, rules = self._rules.get(origin, (0.0, None))
        return rules is None or await complete_in_turns(rules.allows_in_steps(path))

    def delay(self, origin: Origin) -> float:
        """Return the seconds that the origin wants between requests."""
        _, rules = self._rules.get(origin, (0.0, None))
        return min(rules.delay, _MAX_DELAY_SECONDS) if rules is not None else 0.0

    def _forget(self, origin: Origin) -> None:
        _, rules = self._rules.pop(origin, (0.0, None))
        self._bytes -= rules.size if rules is not None else 0
