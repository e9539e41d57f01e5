"""The headers of the requests of one caller: the defaults, the user's, and those that a URL or a cookie adds."""

import time
from collections.abc import Mapping
from typing import Final

from crawler.core.options import Options
from crawler.probing.authentication import authorization
from crawler.probing.cookies import cookie_header, is_trustworthy
from crawler.probing.probe_state import ProbeState
from crawler.transport.http.response_body import ACCEPT_ENCODING

__all__ = ["RequestHeaders"]

Headers = list[tuple[str, str]]

# The headers of a browser that loads a page. Without them, servers may answer a probe as a client of their API.
_ACCEPT: Final = "text/html,application/xhtml+xml,*/*;q=0.8"
_ACCEPT_LANGUAGE: Final = "en;q=0.9,*;q=0.5"
# The request is for a page, and no other page has caused it (W3C Fetch Metadata). Browsers send this over https only.
# Sec-Fetch-User (a person has acted) and the name of a browser are not sent, because they would not be true.
_NAVIGATION: Final = (("Sec-Fetch-Dest", "document"), ("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Site", "none"))
_SENT_TO_ALL_ORIGINS: Final = frozenset({"accept", "accept-language", "user-agent", "referer"})


class RequestHeaders:
    """Returns the headers of each request.

    Args:
        options: Which headers the user has given.

    Attributes:
        for_other_origins: The headers for an origin that the user did not name.
    """

    def __init__(self, options: Options) -> None:
        given = options.headers
        for_first_origin = _with_defaults(options, given)
        self.for_other_origins = _with_defaults(
            options, {name: value for name, value in given.items() if name.lower() in _SENT_TO_ALL_ORIGINS}
        )
        self._plain = for_first_origin, self.for_other_origins
        self._navigation = _with_navigation(for_first_origin), _with_navigation(self.for_other_origins)

    def of(self, state: ProbeState) -> Headers:
        """Return the headers of a probe's next request."""
        for_first_origin, for_others = self._navigation if is_trustworthy(state.url) else self._plain
        headers = for_first_origin if state.is_at_first_origin else for_others
        if state.challenge is not None:
            headers = [*headers, ("Authorization", authorization(state.challenge, state.url, state.method))]
        if state.cookies and (cookies := cookie_header(state.cookies, state.url, time.time())):
            headers = _with_cookies(headers, cookies)
        return headers


def _with_defaults(options: Options, given: Mapping[str, str]) -> Headers:
    """Return the default headers, replaced by those that the user has given."""
    defaults = {
        "User-Agent": options.user_agent,
        "Accept": _ACCEPT,
        "Accept-Language": _ACCEPT_LANGUAGE,
        "Accept-Encoding": ACCEPT_ENCODING,
    }
    names = {name.lower() for name in given}
    return [*((name, value) for name, value in defaults.items() if name.lower() not in names), *given.items()]


def _with_navigation(headers: Headers) -> Headers:
    names = {name.lower() for name, _ in headers}
    return [*headers, *(field for field in _NAVIGATION if field[0].lower() not in names)]


def _with_cookies(headers: Headers, cookies: str) -> Headers:
    """Add cookies to those of the user, in one header (RFC 6265, 5.4). Of equal names, the site's cookie is sent."""
    names = {_cookie_name(pair) for pair in cookies.split("; ")}
    given = [pair.strip() for name, value in headers if name.lower() == "cookie" for pair in value.split(";")]
    kept = [pair for pair in given if pair and _cookie_name(pair) not in names]
    others = [(name, value) for name, value in headers if name.lower() != "cookie"]
    return [*others, ("Cookie", "; ".join([*kept, cookies]))]


def _cookie_name(pair: str) -> str:
    return pair.partition("=")[0]
