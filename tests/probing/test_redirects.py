"""Redirects as browsers follow them: how many, to where, and with which headers."""

import pytest

from crawler import Options
from crawler.core.results import HopResult, Timings
from crawler.core.urls import Target
from crawler.probing.probe import Probe
from crawler.probing.request_headers import RequestHeaders
from tests.support.exchange import Exchange
from tests.support.probing import probe_one, status_of
from tests.support.site import Site


@pytest.mark.parametrize(("length", "status"), [(20, 200), (21, "http.response.redirect_loop")])
async def test_twenty_redirects_are_followed(length: int, status: int | str, site: Site) -> None:
    """The Fetch standard ends a request whose redirect count is 20 (HTTP-redirect fetch)."""
    assert status_of(await probe_one(site.url(f"/redirect/{length}"))) == status


@pytest.mark.parametrize("method", ["auto", "GET", "HEAD"])
@pytest.mark.parametrize("times", [1, 3, 19])
async def test_a_redirect_to_the_same_url_is_followed(times: int, method: str, site: Site) -> None:
    """Chromium 156 opens a page that redirects to itself 19 times; see wummel/linkchecker#419 and encode/httpx#821."""

    async def warm_up(x: Exchange) -> None:
        if x.hit_number <= times:
            await x.reply(302, [("Location", x.request.path)])
        else:
            await x.reply()

    site.on("/self", warm_up)
    assert status_of(await probe_one(site.url("/self"), method=method)) == 200


async def test_a_redirect_without_end_is_told(site: Site) -> None:
    """Chromium: ERR_TOO_MANY_REDIRECTS."""
    result = await probe_one(site.url("/loop/2"), max_redirects=5)
    assert status_of(result) == "http.response.redirect_loop"
    assert [hop.method for hop in result.hops] == ["HEAD"] * 2 + ["GET"] * 6


async def test_a_page_wants_html_to_be_asked_for(site: Site) -> None:
    """Servers that take other clients for users of an API: sphinx-doc/sphinx#5140, getzola/zola#384 (crates.io)."""
    await probe_one(site.url("/ok"))
    [request] = site.requests
    assert request.header("Accept") == "text/html,application/xhtml+xml,*/*;q=0.8"
    assert request.header("Accept-Language") == "en;q=0.9,*;q=0.5"


async def test_a_page_is_asked_for_as_a_browser_navigates(site: Site) -> None:
    """Servers that refuse others: jarun/buku#879, searxng's limiter. Chromium sends these to https and to loopback."""
    await probe_one(site.url("/ok"), headers={"sec-fetch-site": "cross-site"})
    [request] = site.requests
    sent = {name.lower(): value for name, value in request.headers if name.lower().startswith("sec-")}
    assert sent == {"sec-fetch-dest": "document", "sec-fetch-mode": "navigate", "sec-fetch-site": "cross-site"}


@pytest.mark.parametrize(("url", "is_sent"), [("https://a.test/", True), ("http://a.test/", False)])
def test_where_a_browser_says_that_it_navigates(url: str, is_sent: bool) -> None:
    """Chromium and searxng/searxng#4962: nothing over plain http."""
    state = Probe.of(Target.of(0, url), Options(), lambda: 0.0).state
    assert (("Sec-Fetch-Mode", "navigate") in RequestHeaders(Options()).of(state)) is is_sent


async def test_a_server_that_wants_to_compress_may(site: Site) -> None:
    """Some refuse others; so did docs.github.com: stevenvachon/broken-link-checker#248, tcort/markdown-link-check#201.

    Chromium sends this header over plain HTTP without `br`.
    """
    await probe_one(site.url("/ok"))
    [request] = site.requests
    assert request.header("Accept-Encoding") == "gzip, deflate, br"


async def test_what_says_who_asks_for_what_stays_and_all_else_is_for_the_first_origin(site: Site) -> None:
    """The Fetch standard drops Authorization when the origin changes; curl drops Authorization and Cookie."""
    stays = {"Accept": "image/png", "accept-language": "de", "User-Agent": "me/1", "REFERER": "http://here.test/"}
    goes = {"Authorization": "secret", "Cookie": "a=secret", "X-Api-Key": "secret"}
    async with Site() as other:
        assert status_of(await probe_one(site.redirect_to(other.url("/ok")), headers={**stays, **goes})) == 200
        [there] = other.requests
    assert {name: there.header(name) for name in stays} == stays
    assert [value for name, value in there.headers if name.lower() == "accept"] == ["image/png"]
    assert "secret" not in str(there.headers)
    assert "secret" in str(site.requests[0].headers)


@pytest.mark.parametrize(
    ("start", "location", "stays"),
    [
        ("http://a.test/", "https://a.test/", True),
        ("http://a.test/", "/there", True),
        ("http://a.test:8080/", "https://a.test/", False),
        ("http://a.test/", "https://a.test:8443/", False),
        ("http://a.test/", "https://www.a.test/", False),
        ("https://a.test/", "http://a.test/", False),
        ("http://a.test/", "http://a.test:8080/", False),
    ],
)
def test_the_step_to_https_stays_with_the_origin(start: str, location: str, stays: bool) -> None:
    """A browser that knows the host from RFC 6797 (8.3) makes this step itself, before it sends anything."""
    url = start.replace("://", "://me:secret@")
    probe = Probe.of(Target.of(0, url), Options(), lambda: 0.0)
    probe.take(HopResult(Timings(), 301, headers=[("location", location)]), 0.1)
    assert not probe.is_finished
    assert probe.state.is_at_first_origin == stays
    assert (probe.state.url.authorization is not None) == stays


async def test_given_cookies_and_those_of_the_site_are_one_header(site: Site) -> None:
    """RFC 6265, 5.4: at most one Cookie header. A site that sets a cookie anew replaces it, as in a browser."""
    cookies = "Set-Cookie: session=new; Path=/\r\nSet-Cookie: seen=1; Path=/\r\n"
    site.on("/in", f"HTTP/1.1 302 Found\r\n{cookies}Location: /ok\r\n\r\n".encode())
    await probe_one(site.url("/in"), headers={"Cookie": "session=old; lang=de"})
    sent = [[value for name, value in request.headers if name == "Cookie"] for request in site.requests]
    assert sent == [["session=old; lang=de"], ["lang=de; session=new; seen=1"]]


# --- Hosts that want https only ---


def follow(start: str, *steps: tuple[str, str | None]) -> list[str]:
    """Return the URLs that a probe requests for these Locations, each with a Strict-Transport-Security."""
    probe = Probe.of(Target.of(0, start), Options(method="GET"), lambda: 0.0)
    for location, policy in steps:
        headers = [("location", location)] + ([] if policy is None else [("strict-transport-security", policy)])
        probe.take(HopResult(Timings(), 301, headers=headers), 0.1)
    return [probe.state.url.href, *(hop.url for hop in probe.state.hops)]


@pytest.mark.parametrize(
    ("policy", "location", "requested"),
    [
        ("max-age=1000", "http://a.test/b/", "https://a.test/b/"),
        ('Max-Age = "1000" ; preload', "http://a.test/b/", "https://a.test/b/"),
        ("max-age=1000", "http://a.test:8443/", "https://a.test:8443/"),
        ("max-age=1000", "http://a.test:443/", "https://a.test/"),
        ("max-age=1000", "http://www.a.test/", "http://www.a.test/"),
        ("max-age=1000; IncludeSubDomains", "http://www.a.test/", "https://www.a.test/"),
        ("max-age=1000; includeSubDomains", "http://aa.test/", "http://aa.test/"),
        ("max-age=0", "http://a.test/", "http://a.test/"),
        ("includeSubDomains", "http://a.test/", "http://a.test/"),
        (None, "http://a.test/", "http://a.test/"),
    ],
)
def test_a_host_that_wants_https_only_gets_no_redirect_to_http(
    policy: str | None, location: str, requested: str
) -> None:
    """RFC 6797, 6.1 and 8.3. Chromium 156 opens a site that redirects from https to http and back, if the first step
    has the header; other clients go in circles: ajayyy/SponsorBlockSite#68.
    """
    assert follow("https://a.test/b", (location, policy))[0] == requested


def test_only_https_and_names_say_that_they_want_https_only() -> None:
    """RFC 6797, 8.1: over http, and from an address, the header is ignored."""
    assert follow("http://a.test/", ("http://a.test/b", "max-age=9"))[0] == "http://a.test/b"
    assert follow("https://192.0.2.1/", ("http://192.0.2.1/b", "max-age=9"))[0] == "http://192.0.2.1/b"


def test_a_host_can_take_back_that_it_wants_https_only() -> None:
    """RFC 6797, 6.1.1: max-age 0."""
    steps = [("https://a.test/2", "max-age=9"), ("https://a.test/3", "max-age=0"), ("http://a.test/4", None)]
    assert follow("https://a.test/1", *steps)[0] == "http://a.test/4"
