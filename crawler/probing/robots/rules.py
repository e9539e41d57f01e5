"""Parse a robots.txt file for one user agent, and compare URLs with its rules (RFC 9309).

Where the RFC leaves a choice, this parser follows Google's (https://github.com/google/robotstxt): a missing colon,
frequent typos, a version after a name. No file and no URL makes it slow: the number of rules is limited, the time to
compare a rule is proportional to the length of the URL, and all work is done in steps.
"""

import math
import re
from typing import Final, Self

from crawler.runtime.turns import Steps, complete

__all__ = ["RobotsRules"]

_MAX_RULES: Final = 10_000  # of one group; later ones are not read
_MAX_WILDCARD_RULES: Final = 1_000
_MAX_COMPARED_CHARACTERS: Final = 4096  # of a URL, with rules that have wildcards; with others all of it
_MAX_LINE_BYTES: Final = 8 * 2083  # the rest is not read, as by Google's parser
_RULE_BYTES: Final = 64  # of memory for one rule, besides its pattern
_BLOCK_CHARACTERS: Final = 4096  # of a file that are read in a step
_PARTS_PER_STEP: Final = 512  # of a path that is normalised
_RULES_PER_STEP: Final = 64  # that are compared; one with wildcards takes a step of its own
_ROBOTS_PATH: Final = "/robots.txt"  # always allowed (RFC 9309, 2.2.2)

_BYTE_ORDER_MARK = re.compile(rb"(?:\xef(?:\xbb\xbf?)?)?")  # or the start of one
_LINE = re.compile(
    r"^[ \t\v\f]*+(?:(?P<agent>user(?:-| |)agent)|(?P<allow>allow)"
    r"|(?P<disallow>dis(?:allow|sallow|salow|alow|allaw)|diasllow)|(?P<delay>crawl-delay))(?P<rest>[^\n]*)",
    re.IGNORECASE | re.MULTILINE,
)
_TOKEN = re.compile(r"[a-z_-]*", re.IGNORECASE)  # a product token (RFC 9309, 2.2.1)
_PRODUCT = re.compile(r"(?<![\w./:-])([a-z_-]+)/[0-9]", re.IGNORECASE)  # of a User-Agent header (RFC 9110, 10.1.5)
_INDEX_PAGE = re.compile(r"(.*/)index\.htm[^/]*", re.DOTALL)
_ENCODED = re.compile(r"%([0-9a-fA-F]{2})|([^!%&'()+,./0-9:;=?@A-Z\[\]_a-z~-])")
_WILDCARDS = re.compile(r"\*+")
_UNRESERVED = re.compile(r"[A-Za-z0-9._~-]")


class _Group:
    """The rules and the delay of one user agent, or of all."""

    def __init__(self) -> None:
        self.is_named = False
        self.delay = 0.0
        self.rules: dict[str, bool] = {}  # whether each path is allowed
        self._wildcard_rules = 0

    def add(self, path: str, is_allowed: bool) -> None:
        """Add a rule. An empty path is not a rule. If a path is both allowed and disallowed, it is allowed."""
        if not path or len(self.rules) >= _MAX_RULES:
            return
        if "*" in path and path not in self.rules:
            self._wildcard_rules += 1
            if self._wildcard_rules > _MAX_WILDCARD_RULES:
                return
        self.rules[path] = self.rules.get(path, False) or is_allowed


class RobotsRules:
    """The rules of one file for one user agent.

    Args:
        patterns: The path of each rule, normalised by `_normal_pattern`, and whether it is allowed; the rule that
            decides between those that match comes first.
        delay: Seconds that the file wants between requests (Crawl-delay, which the RFC does not have).

    Attributes:
        size: About how many bytes of memory the rules take.
    """

    def __init__(self, patterns: list[tuple[str, bool]], delay: float) -> None:
        self.delay = delay
        self.size = sum(len(pattern) + _RULE_BYTES for pattern, _ in patterns)
        self._patterns = [pattern for pattern, _ in patterns]
        self._allowed = bytes(is_allowed for _, is_allowed in patterns)

    @classmethod
    def parse(cls, data: bytes, user_agent: str) -> Self:
        """Do all steps of `parse_in_steps` at once."""
        return complete(cls.parse_in_steps(data, user_agent))

    @classmethod
    def parse_in_steps(cls, data: bytes, user_agent: str) -> Steps[Self]:
        """Parse a file for a User-Agent header.

        A group is ours if it names one of the header's products, in any case and without version. All groups that are
        ours count. If there is none, the groups for `*` count (RFC 9309, 2.2.1).
        """
        names = {name.lower() for name in _PRODUCT.findall(user_agent)} | {_parse_token(user_agent)}
        ours, everyone, nobody = _Group(), _Group(), _Group()
        group, has_rule = nobody, False
        start = _BYTE_ORDER_MARK.match(data)
        text = data[start.end() if start else 0 :].decode("latin-1").replace("\r", "\n")
        end = 0
        while end < len(text):
            position = end
            end = 1 + text.find("\n", position + _BLOCK_CHARACTERS) or len(text)
            yield
            for line in _LINE.finditer(text, position, end):
                if (value := _value(line)) is None:
                    continue
                if line["agent"]:
                    if has_rule:  # only a rule ends the list of names that a group begins with
                        group, has_rule = nobody, False
                    if _parse_token(value) in names and _parse_token(value):
                        group = ours
                        ours.is_named = True
                    elif group is nobody and re.match(r"\*(?:\s|\Z)", value):
                        group = everyone
                elif line["delay"]:
                    group.delay = max(group.delay, _parse_delay(value))
                else:
                    has_rule = True
                    if group is not nobody:
                        group.add(value, bool(line["allow"]))
                        if line["allow"] and (index_page := _INDEX_PAGE.fullmatch(value)):
                            group.add(index_page[1] + "$", True)
        chosen = ours if ours.is_named else everyone
        # The longest match decides, and of equally long ones Allow (RFC 9309, 2.2.2).
        patterns = []
        for path, is_allowed in sorted(chosen.rules.items(), key=lambda rule: (-len(rule[0]), not rule[1])):
            patterns.append(((yield from _normal_pattern(path)), is_allowed))
            yield
        return cls(patterns, chosen.delay)

    def allows(self, path: str) -> bool:
        """Do all steps of `allows_in_steps` at once."""
        return complete(self.allows_in_steps(path))

    def allows_in_steps(self, path: str) -> Steps[bool]:
        """Find out whether a path with its query, as in the request line, may be requested."""
        path = yield from _normalise(path)
        if path == _ROBOTS_PATH:
            return True
        for number, pattern in enumerate(self._patterns):
            has_wildcards = "*" in pattern
            if _match_wildcards(pattern, path) if has_wildcards else _match(pattern, path):
                return bool(self._allowed[number])
            if has_wildcards or number % _RULES_PER_STEP == 0:
                yield
        return True


def _match(pattern: str, path: str) -> bool:
    """Whether a pattern without wildcards matches a normalised path."""
    return path == pattern[:-1] if pattern.endswith("$") else path.startswith(pattern)


def _match_wildcards(pattern: str, path: str) -> bool:
    first, *others = pattern.removesuffix("$").split("*")
    if not path.startswith(first):
        return False
    last = others.pop() if pattern.endswith("$") else ""  # it ends the path
    position = len(first)
    for piece in others:  # the leftmost place of each leaves the most to the next
        position = path.find(piece, position, _MAX_COMPARED_CHARACTERS)
        if position < 0:
            return False
        position += len(piece)
    return len(path) - len(last) >= position and path.endswith(last)


def _value(line: re.Match[str]) -> str | None:
    """Return the value of a line; None if it has no separator."""
    rest = line["rest"][:_MAX_LINE_BYTES].partition("#")[0]
    _, colon, value = rest.partition(":")
    if colon:
        return value.strip()
    words = (line[0][: line.start("rest") - line.start()] + rest).split()
    return words[1] if len(words) == 2 and " " not in (line["agent"] or "") else None


def _parse_token(name: str) -> str:
    found = _TOKEN.match(name)
    return found[0].lower() if found else ""


def _parse_delay(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        return 0.0
    return seconds if math.isfinite(seconds) else 0.0


def _normal_pattern(path: str) -> Steps[str]:
    """Normalise the path of a rule, except the wildcards `*` and `$`: neither is in a normalised path."""
    whole = "$" if path.endswith("$") else ""
    pieces = ""
    for piece in _WILDCARDS.split(path.removesuffix("$")):
        pieces += "*" + (yield from _normalise(piece))
    return pieces[1:] + whole


def _normalise(path: str) -> Steps[str]:
    """Make equal what is the same path: unreserved characters are not percent-encoded, all other odd ones are."""
    parts: list[str] = []
    position = 0
    for found in _ENCODED.finditer(path):
        parts += path[position : found.start()], _normalise_character(found)
        position = found.end()
        if len(parts) > _PARTS_PER_STEP:
            parts = ["".join(parts)]  # hundreds of paths may wait for their turn with what they have
            yield
    return "".join(parts) + path[position:]


def _normalise_character(found: re.Match[str]) -> str:
    if found[1] is None:
        return f"%{ord(found[2]):02X}"
    character = chr(int(found[1], 16))
    return character if _UNRESERVED.match(character) else found[0].upper()
