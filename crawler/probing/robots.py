"""robots.txt, for those who choose to obey it (RFC 9309)."""

import re
import time
from collections import OrderedDict
from typing import Final

from protego import Protego

from crawler.core.results import HopResult

__all__ = ["PATH", "SIZE", "RobotsCache"]

PATH: Final = "/robots.txt"
SIZE: Final = 500 * 1024  # bytes that have to be read (RFC 9309, 2.5)

_HOLDS: Final = 24 * 3600.0  # seconds that rules are kept (RFC 9309, 2.4)
_FAILURE_HOLDS: Final = 60.0  # seconds until a server in trouble is asked again
_REMEMBERED: Final = 10_000  # origins
_LONGEST_DELAY: Final = 60.0  # seconds; a file may ask for a year
_AGENT = re.compile(r"user[- ]?agent(?:\s*:|\s|$)\s*(.*)", re.IGNORECASE)
_OF_THE_SITE = re.compile(r"(?:site-?maps?|host)(?:\s*:|\s|$)", re.IGNORECASE)
_RULE = re.compile(r".*:|(?:dis\w*|allow|crawl[- ]delay|request[- ]rate|visit[- ]time)(?:\s|$)", re.IGNORECASE)

Origin = tuple[str, str, int]


class RobotsCache:
    """The rules of each origin, as far as they are known, for one user agent."""

    def __init__(self, user_agent: str) -> None:
        self._agent = user_agent.lower()
        self._rules: OrderedDict[Origin, tuple[float, Protego | None]] = OrderedDict()  # with when to ask again
        self._fetching: set[Origin] = set()

    def knows(self, origin: Origin) -> bool:
        """Whether the rules of an origin are known."""
        return self._rules.get(origin, (0.0, None))[0] > time.monotonic()

    def begin(self, origin: Origin) -> bool:
        """Whether it falls to the caller to fetch the rules; false if somebody already does."""
        if origin in self._fetching:
            return False
        self._fetching.add(origin)
        return True

    def learn(self, origin: Origin, answer: HopResult | None) -> None:
        """Take what came of asking for an origin's robots.txt; None if that was broken off.

        Without a file all is allowed; a server in trouble allows nothing (RFC 9309, 2.3.1). Where there is no server,
        there is nothing to forbid, and the probe itself will tell why.
        """
        self._fetching.discard(origin)
        if answer is None:
            return
        text = "User-agent: *\nDisallow: /" if (answer.status or 0) >= 500 else answer.body
        holds = _HOLDS if answer.error is None and (answer.status or 0) < 500 else _FAILURE_HOLDS
        rules = Protego.parse(_rules_for(self._agent, text)) if text is not None else None
        self._rules[origin] = (time.monotonic() + holds, rules)
        if len(self._rules) > _REMEMBERED:
            self._rules.popitem(last=False)

    def allows(self, origin: Origin, href: str) -> bool:
        """Whether a URL may be asked for."""
        _, rules = self._rules.get(origin, (0.0, None))
        return rules is None or bool(rules.can_fetch(href, "*"))

    def delay(self, origin: Origin) -> float:
        """Seconds that the origin wants between requests."""
        _, rules = self._rules.get(origin, (0.0, None))
        return min(float(rules.crawl_delay("*") or 0.0), _LONGEST_DELAY) if rules is not None else 0.0


def _rules_for(agent: str, text: str) -> str:
    """A file with the rules for one user agent only, now for all (RFC 9309, 2.2.1).

    Protego keeps each rule once for each agent of its group. Thousands of either, which 500 KiB hold, are gigabytes.
    """
    rules: list[str] = []
    best = fit = 0
    in_head = False  # among the names that a group begins with
    for line in text.removeprefix("\ufeff").splitlines():
        line = line.partition("#")[0].strip()
        if (named := _AGENT.match(line)) is not None:
            fit = max(fit if in_head else 0, _fit(named[1].lower(), agent))
            in_head = True
            if fit > best:
                best, rules = fit, []
        elif _RULE.match(line) and not _OF_THE_SITE.match(line):
            in_head = False
            if fit and fit == best:
                rules.append(line)
    return "\n".join(["User-agent: *", *rules])


def _fit(name: str, agent: str) -> int:
    """How much of an agent's own name a group is for: its length, 1 for everybody's, 0 for another's."""
    if name == "*":
        return 1
    name = name.replace("*", "")
    if not name or name not in agent:
        return 0
    return len(name) if re.search(rf"(?<![\w-]){re.escape(name)}", agent) else 0
