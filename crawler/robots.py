"""robots.txt, for those who choose to obey it (RFC 9309)."""

from collections import OrderedDict
from typing import Final

from protego import Protego

from crawler.models import Answer

__all__ = ["PATH", "SIZE", "Robots"]

PATH: Final = "/robots.txt"
SIZE: Final = 500 * 1024  # bytes that have to be read (RFC 9309, 2.5)

_REMEMBERED: Final = 10_000  # origins

Origin = tuple[str, str, int]


class Robots:
    """The rules of each origin, as far as they are known, for one user agent."""

    def __init__(self, user_agent: str) -> None:
        self._agent = user_agent
        self._rules: OrderedDict[Origin, Protego | None] = OrderedDict()
        self._fetching: set[Origin] = set()

    def knows(self, origin: Origin) -> bool:
        """Whether the rules of an origin are known."""
        return origin in self._rules

    def begin(self, origin: Origin) -> bool:
        """Whether it falls to the caller to fetch the rules; false if somebody already does."""
        if origin in self._fetching:
            return False
        self._fetching.add(origin)
        return True

    def learn(self, origin: Origin, answer: Answer | None) -> None:
        """Take what came of asking for an origin's robots.txt; None if that was broken off.

        Without a file all is allowed; a server in trouble allows nothing (RFC 9309, 2.3.1). Where there is no server,
        there is nothing to forbid, and the probe itself will tell why.
        """
        self._fetching.discard(origin)
        if answer is None:
            return
        text = "User-agent: *\nDisallow: /" if (answer.status or 0) >= 500 else answer.body
        self._rules[origin] = Protego.parse(text) if text is not None else None
        if len(self._rules) > _REMEMBERED:
            self._rules.popitem(last=False)

    def allows(self, origin: Origin, href: str) -> bool:
        """Whether a URL may be asked for."""
        rules = self._rules.get(origin)
        return rules is None or bool(rules.can_fetch(href, self._agent))

    def delay(self, origin: Origin) -> float:
        """Seconds that the origin wants between requests."""
        rules = self._rules.get(origin)
        return float(rules.crawl_delay(self._agent) or 0.0) if rules is not None else 0.0
