"""Following redirects: where one leads, which cookies go along, when to stop."""

import re
from typing import Final

import msgspec

from crawler.core.options import Options
from crawler.core.results import HopResult, ProbeError
from crawler.core.urls import Url, resolve_redirect
from crawler.probing.probe_state import ProbeState

__all__ = ["REDIRECT_STATUSES", "cookie_header", "first_method", "follow_redirect", "redirect_location"]

REDIRECT_STATUSES: Final = frozenset({301, 302, 303, 307, 308})
_MAX_COOKIES: Final = 50
_COOKIE: Final = re.compile(r"[\x20-\x7e]{1,4096}")  # others could not be sent back whole (RFC 6265, 4.1.1 and 6.1)


def redirect_location(hop: HopResult, options: Options) -> str | None:
    """Return the Location of a redirect; None if it has none, or if the options accept the redirect as the answer."""
    accepts_redirects = options.accept and not options.max_redirects
    if accepts_redirects and hop.status is not None and options.accepts(hop.status):
        return None
    return hop.header("location")


def follow_redirect(state: ProbeState, hop: HopResult, location: str, options: Options) -> ProbeError | None:
    """Make the target of a redirect the probe's next URL, or return why that is not possible."""
    url = resolve_redirect(state.url, location)
    if isinstance(url, ProbeError):
        return url
    if url.authorization is None and url.origin == state.url.origin:
        url = msgspec.structs.replace(url, authorization=state.url.authorization)
    state.visited |= {(state.url.href, cookie_header(state, state.url))}
    _keep_cookies(state, hop)
    if (url.href, cookie_header(state, url)) in state.visited:
        return ProbeError.of("http.response.redirect_loop", f"redirected back to {url.href}")
    if state.redirects >= options.max_redirects:
        return ProbeError.of("http.response.redirect_loop", f"more than {state.redirects} redirects")
    state.redirects += 1
    state.is_at_first_origin = state.is_at_first_origin and url.origin == state.url.origin
    state.url = url
    state.method = first_method(options)
    return None


def first_method(options: Options) -> str:
    """Return the method with which a URL is asked first."""
    if options.method != "auto":
        return options.method
    return "GET" if options.wants_body else "HEAD"


def cookie_header(state: ProbeState, url: Url) -> str | None:
    """Return the Cookie header for a request: what the URL's host has set during this probe."""
    if not state.cookies:
        return None
    return "; ".join(f"{name}={value}" for (host, name), value in state.cookies.items() if host == url.host) or None


def _keep_cookies(state: ProbeState, hop: HopResult) -> None:
    """Keep a redirect's cookies for its own host until the probe ends; their attributes are ignored."""
    for name, value in hop.headers:
        if name == "set-cookie" and len(state.cookies) < _MAX_COOKIES and _COOKIE.fullmatch(value):
            key, _, rest = value.partition("=")
            state.cookies = {**state.cookies, (state.url.host, key.strip()): rest.partition(";")[0].strip()}
