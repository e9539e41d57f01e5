"""The cookies of one probe, by RFC 6265 with the changes of its revision (draft-ietf-httpbis-rfc6265bis).

Some sites redirect until their cookie comes back. The cookies are plain records, so they move with the probe to another
process. The standard library's `http.cookiejar` has older rules: it does not know public suffixes, and parses fewer
forms of dates. Its jar has locks, so it cannot be sent to another process.
"""

import calendar
import re
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING, Final

import msgspec

from crawler.core.urls import Url

if TYPE_CHECKING:
    from publicsuffixlist import PublicSuffixList

__all__ = ["Cookie", "cookie_header", "is_trustworthy", "update_cookies"]

_MAX_COOKIES: Final = 50  # of all hosts of a probe (RFC 6265, 6.1: at least 50 of each)
_MAX_COOKIE_BYTES: Final = 4096  # of name and value together
_MAX_ATTRIBUTE_BYTES: Final = 1024  # longer attributes are ignored
# Names that promise something (rfc6265bis, 4.1.3, and its revision): with HttpOnly, and for one host only.
_PREFIXES: Final = (
    ("__secure-", False, False),
    ("__host-http-", True, True),
    ("__host-", False, True),
    ("__http-", True, False),
)
_CONTROL_CHARACTER: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_INTEGER: Final = re.compile(r"-?[0-9]+")
_IPV4: Final = re.compile(r"[0-9.]+")
_WHITE_SPACE: Final = " \t"

# The parts of a date (RFC 6265, 5.1.1), in any order. What follows the digits of a part is ignored.
_DATE_DELIMITER: Final = re.compile(r"[\x09\x20-\x2f\x3b-\x40\x5b-\x60\x7b-\x7e]+")
_TIME: Final = re.compile(r"([0-9]{1,2}):([0-9]{1,2}):([0-9]{1,2})(?![0-9])")
_DAY: Final = re.compile(r"([0-9]{1,2})(?![0-9])")
_YEAR: Final = re.compile(r"([0-9]{2,4})(?![0-9])")
_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")


class Cookie(msgspec.Struct, frozen=True, gc=False):
    """One cookie.

    Attributes:
        name: May be empty; then only the value is sent.
        value: Bytes as Latin-1, like all header values.
        domain: The host that gets it.
        path: Requests whose path begins with this get it.
        is_host_only: Whether hosts below `domain` get none.
        is_secure: Whether only https gets it.
        expires: Unix seconds; None for the end of the probe.
    """

    name: str
    value: str
    domain: str
    path: str
    is_host_only: bool
    is_secure: bool
    expires: float | None

    def is_for(self, url: Url, now: float) -> bool:
        """Whether a request to this URL gets the cookie (RFC 6265, 5.4)."""
        return (
            (url.host == self.domain if self.is_host_only else _is_within(url.host, self.domain))
            and _is_path_within(_path(url), self.path)
            and (is_trustworthy(url) or not self.is_secure)
            and (self.expires is None or self.expires > now)
        )

    @property
    def key(self) -> tuple[str, str, str, bool]:
        """Equal for a cookie and its replacement."""
        return self.name, self.domain, self.path, self.is_host_only


def cookie_header(cookies: Iterable[Cookie], url: Url, now: float) -> str | None:
    """Return the Cookie header of a request, longer paths first; None without a cookie.

    Args:
        cookies: The cookies of the probe, the oldest first.
        url: The URL to request.
        now: Unix seconds.
    """
    matching = sorted((cookie for cookie in cookies if cookie.is_for(url, now)), key=lambda each: -len(each.path))
    return "; ".join(f"{each.name}={each.value}" if each.name else each.value for each in matching) or None


def update_cookies(
    cookies: tuple[Cookie, ...], headers: Iterable[tuple[str, str]], url: Url, now: float
) -> tuple[Cookie, ...]:
    """Return the cookies after a response: added, replaced and deleted as its Set-Cookie headers say.

    Args:
        cookies: The cookies before the response, the oldest first.
        headers: The headers of the response, with lower-case names.
        url: The URL that answered.
        now: Unix seconds.
    """
    values = [value for name, value in headers if name == "set-cookie"]
    if not values:
        return cookies
    jar = {cookie.key: cookie for cookie in cookies}
    for value in values:
        if (cookie := _parse(value, url, now)) is None:
            continue
        if cookie.expires is not None and cookie.expires <= now:
            jar.pop(cookie.key, None)
        else:
            if (old := jar.get(cookie.key)) is not None and old.value != cookie.value:
                del jar[cookie.key]  # Chromium sends a changed cookie after the older ones
            jar[cookie.key] = cookie
    return tuple(jar.values())[-_MAX_COOKIES:]


def _parse(header: str, url: Url, now: float) -> Cookie | None:
    """Parse one Set-Cookie header; None if it has to be ignored (RFC 6265, 5.2 and 5.3)."""
    if _CONTROL_CHARACTER.search(header):
        return None
    pair, *rest = header.split(";")
    name, value = _split_pair(pair)
    if "=" not in pair:  # a name without a value: browsers take it for a value without a name
        name, value = "", name
    if not name and (not value or "=" in value):  # sent back, the value would read as a name and a value
        return None
    if "\t" in name or "\t" in value:
        return None
    if len(name) + len(value) > _MAX_COOKIE_BYTES:
        return None
    attributes = {}  # the last one of a name counts
    for attribute in rest:
        key, text = _split_pair(attribute)
        if "\t" in key or "\t" in text:
            return None
        if len(text) <= _MAX_ATTRIBUTE_BYTES:
            attributes[key.lower()] = text
    if attributes.get("domain") == ".":
        return None
    domain = attributes.get("domain", "").removeprefix(".").lower()
    if domain and not _may_set_for(url.host, domain):
        return None
    is_secure = "secure" in attributes
    if is_secure and not is_trustworthy(url):
        return None
    if not is_secure and (attributes.get("samesite", "").lower() == "none" or "partitioned" in attributes):
        return None
    path = attributes.get("path", "")
    if not _keeps_promise(name or value, attributes, url, is_named=bool(name)):
        return None
    return Cookie(
        name,
        value,
        domain=domain or url.host,
        path=path if path.startswith("/") else _path(url).rpartition("/")[0] or "/",
        is_host_only=not domain or _is_public_suffix(domain),
        is_secure=is_secure,
        expires=_expiry(attributes, now),
    )


def _split_pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name.strip(_WHITE_SPACE), value.strip(_WHITE_SPACE)


def _keeps_promise(name: str, attributes: dict[str, str], url: Url, *, is_named: bool) -> bool:
    """Whether a cookie has the attributes that the prefix of its name says; a value without a name has no prefix."""
    for prefix, is_for_http, is_for_host in _PREFIXES:
        if name.lower().startswith(prefix):
            is_of_host = not attributes.get("domain") or _is_address(url.host)
            is_whole_host = is_of_host and attributes.get("path") == "/"
            is_safe = "secure" in attributes and ("httponly" in attributes or not is_for_http)
            return is_named and is_safe and (is_whole_host or not is_for_host)
    return True


def _expiry(attributes: dict[str, str], now: float) -> float | None:
    """Return when a cookie expires, in Unix seconds. Max-Age goes before Expires."""
    seconds = attributes.get("max-age", "")
    if _INTEGER.fullmatch(seconds):
        return now + float(seconds)
    return _parse_date(attributes.get("expires", ""))


def _parse_date(text: str) -> float | None:
    """Parse a date in any of the forms that servers send (RFC 6265, 5.1.1); None if it is not a date."""
    time = day = month = year = None
    for token in _DATE_DELIMITER.split(text):
        if time is None and (found := _TIME.match(token)):
            time = [int(part) for part in found.groups()]
        elif day is None and (found := _DAY.match(token)):
            day = int(found[1])
        elif month is None and token[:3].lower() in _MONTHS:
            month = _MONTHS.index(token[:3].lower()) + 1
        elif year is None and (found := _YEAR.match(token)):
            year = int(found[1])
    if time is None or day is None or month is None or year is None:
        return None
    if year < 100:
        year += 1900 if year >= 70 else 2000
    hour, minute, second = time
    if year < 1601 or hour > 23 or minute > 59 or second > 59:
        return None
    if not 1 <= day <= calendar.monthrange(year, month)[1]:
        return None
    return float(calendar.timegm((year, month, day, hour, minute, second)))


def _may_set_for(host: str, domain: str) -> bool:
    """Whether a host may set cookies for a domain: its own, or a parent that is not a public suffix."""
    if not domain.isascii():  # Chromium ignores such cookies, because servers do not agree on the encoding
        return False
    return host == domain or (_is_within(host, domain) and not _is_public_suffix(domain))


def _is_within(host: str, domain: str) -> bool:
    return host == domain or (host.endswith(f".{domain}") and not _is_address(host))


def _is_address(host: str) -> bool:
    return ":" in host or _IPV4.fullmatch(host) is not None


def _is_public_suffix(domain: str) -> bool:
    """Whether a domain is a public suffix, such as co.uk and github.io: its hosts have different owners."""
    return _public_suffixes().is_public(domain)


@cache
def _public_suffixes() -> "PublicSuffixList":
    # Most processes never see a cookie with a domain. Reading the list takes 50 ms and 3 MiB.
    from publicsuffixlist import PublicSuffixList

    return PublicSuffixList()


def _path(url: Url) -> str:
    return url.path.partition("?")[0]


def _is_path_within(path: str, above: str) -> bool:
    return path == above or path.startswith(above if above.endswith("/") else f"{above}/")


def is_trustworthy(url: Url) -> bool:
    """Whether a URL may set and get Secure cookies. Like browsers, trust loopback hosts without https."""
    if url.scheme == "https" or url.host in ("localhost", "::1"):
        return True
    # A host whose last label is a number is an address.
    return url.host.startswith("127.") and url.host[url.host.rfind(".") + 1 :].isdigit()
