"""Follow redirects: the next URL, the credentials and cookies that it gets, and the limits."""

import time

import msgspec

from crawler.core.options import Options
from crawler.core.results import HopResult, ProbeError
from crawler.core.urls import DEFAULT_PORTS, Url, resolve_redirect
from crawler.probing.cookies import update_cookies
from crawler.probing.probe_state import ProbeState
from crawler.probing.result_bounds import shorten_hop
from crawler.probing.strict_transport import update_strict_hosts, upgrade_to_https

__all__ = ["first_method", "follow_redirect", "redirect_location"]


def redirect_location(hop: HopResult, options: Options) -> str | None:
    """Return the Location of a redirect; None without one, or if the options accept the redirect as the answer."""
    accepts_redirects = options.accept and not options.max_redirects
    if accepts_redirects and hop.status is not None and options.accepts(hop.status):
        return None
    return hop.header("location") or None  # as in Chromium, an empty one is none


def follow_redirect(state: ProbeState, hop: HopResult, location: str, options: Options) -> ProbeError | None:
    """Make the target of a redirect the probe's next URL, or return why that is not possible.

    A redirect to a URL that redirected before is followed too: some sites count visits, or wait until they are ready.
    Only HEAD is not sent twice to a URL: the GET that follows it can get out of a loop too.
    """
    url = resolve_redirect(state.url, location)
    if isinstance(url, ProbeError):
        return url
    strict_hosts = update_strict_hosts(state.strict_hosts, hop.headers, state.url)
    url = upgrade_to_https(url, strict_hosts)
    if state.redirects >= options.max_redirects:
        return ProbeError.of("http.response.redirect_loop", f"more than {state.redirects} redirects")
    cookies = update_cookies(state.cookies, hop.headers, state.url, time.time())
    is_tentative = state.method == "HEAD" and options.method == "auto"
    if is_tentative and cookies == state.cookies and any(each.url == url.href for each in state.hops):
        return ProbeError.of("http.response.redirect_loop", f"redirected back to {url.href}")
    stays = _is_same_origin(state.url, url)
    if url.authorization is None:
        known = state.url.authorization if stays else dict(state.signed_in).get(url.origin)
        url = msgspec.structs.replace(url, authorization=known)
    state.is_at_first_origin = state.is_at_first_origin and stays
    shorten_hop(state.hops[-1])
    state.cookies, state.strict_hosts = cookies, strict_hosts
    state.redirects += 1
    state.url = url
    state.challenges = 0
    return None


def first_method(options: Options) -> str:
    """Return the method with which a probe begins."""
    if options.method != "auto":
        return options.method
    return "GET" if options.wants_body else "HEAD"


def _is_same_origin(before: Url, after: Url) -> bool:
    """Whether a redirect stays with its origin; a host's step from http to https at the usual ports does."""
    return before.origin == after.origin or (
        before.host == after.host
        and (before.scheme, after.scheme) == ("http", "https")
        and (before.port, after.port) == (DEFAULT_PORTS["http"], DEFAULT_PORTS["https"])
    )
