"""The rules of robots.txt files (RFC 9309)."""

import re
import time
from collections import OrderedDict
from typing import Final

from protego import Protego

from crawler.core.results import HopResult

__all__ = ["Origin", "RobotsCache"]

_RULES_SECONDS: Final = 24 * 3600.0  # that rules are kept (RFC 9309, 2.4)
_FAILURE_SECONDS: Final = 60.0  # until a server that failed is asked again
_MAX_ORIGINS: Final = 10_000  # whose rules are remembered
_MAX_DELAY_SECONDS: Final = 60.0  # a file may ask for a year
_AGENT = re.compile(r"user[- ]?agent(?:\s*:|\s|$)\s*(.*)", re.IGNORECASE)
_SITE_LINE = re.compile(r"(?:site-?maps?|host)(?:\s*:|\s|$)", re.IGNORECASE)
_RULE = re.compile(r".*:|(?:dis\w*|allow|crawl[- ]delay|request[- ]rate|visit[- ]time)(?:\s|$)", re.IGNORECASE)

Origin = tuple[str, str, int]


class RobotsCache:
    """The known rules of each origin for one user agent."""

    def __init__(self, user_agent: str) -> None:
        self._agent = user_agent.lower()
        self._rules: OrderedDict[Origin, tuple[float, Protego | None]] = OrderedDict()  # with the time to ask again
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

    def end_fetch(self, origin: Origin, answer: HopResult | None) -> None:
        """Read the answer to a request for robots.txt; None if the request was cancelled.

        Without a file everything is allowed; a 5xx status allows nothing (RFC 9309, 2.3.1). Where no server answers
        everything is allowed too: the probe itself then reports the error.
        """
        self._fetching.discard(origin)
        if answer is None:
            return
        is_server_error = (answer.status or 0) >= 500
        text = "User-agent: *\nDisallow: /" if is_server_error else answer.body
        seconds = _FAILURE_SECONDS if is_server_error or answer.error is not None else _RULES_SECONDS
        rules = Protego.parse(_rules_for(self._agent, text)) if text is not None else None
        self._rules[origin] = (time.monotonic() + seconds, rules)
        if len(self._rules) > _MAX_ORIGINS:
            self._rules.popitem(last=False)

    def allows(self, origin: Origin, href: str) -> bool:
        """Whether a URL may be requested."""
        _, rules = self._rules.get(origin, (0.0, None))
        return rules is None or bool(rules.can_fetch(href, "*"))

    def delay(self, origin: Origin) -> float:
        """Return the seconds that the origin wants between requests."""
        _, rules = self._rules.get(origin, (0.0, None))
        return min(float(rules.crawl_delay("*") or 0.0), _MAX_DELAY_SECONDS) if rules is not None else 0.0


def _rules_for(agent: str, text: str) -> str:
    """Reduce a file to the rules for one user agent, and address them to all (RFC 9309, 2.2.1).

    Protego stores each rule once for each agent of its group. Thousands of either, which fit into 500 KiB, would take
    gigabytes.
    """
    rules: list[str] = []
    best = match = 0
    in_head = False  # among the User-agent lines that a group begins with
    for line in text.removeprefix("\ufeff").splitlines():
        line = line.partition("#")[0].strip()
        if (named := _AGENT.match(line)) is not None:
            match = max(match if in_head else 0, _match_length(named[1].lower(), agent))
            in_head = True
            if match > best:
                best, rules = match, []
        elif _RULE.match(line) and not _SITE_LINE.match(line):
            in_head = False
            if match and match == best:
                rules.append(line)
    return "\n".join(["User-agent: *", *rules])


def _match_length(name: str, agent: str) -> int:
    """Return how specifically a group's name matches an agent: the name's length, 1 for `*`, 0 for no match."""
    if name == "*":
        return 1
    name = name.replace("*", "")
    if not name or name not in agent:
        return 0
    return len(name) if re.search(rf"(?<![\w-]){re.escape(name)}", agent) else 0
