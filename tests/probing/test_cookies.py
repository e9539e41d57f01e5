"""The cookies of one probe.

The expected Cookie headers are those that Chromium 156 sent, asked with the same responses (`Location` included). It
also agrees with the code on all 218 cases of the IETF's corpus (github.com/abarth/http-state, tests/data/parser).
"""

import msgspec
import pytest

from crawler.core.urls import Url, parse_url, resolve_redirect
from crawler.probing.cookies import Cookie, cookie_header, update_cookies
from crawler.probing.probe_state import ProbeState
from tests.support.exchange import Exchange
from tests.support.probing import probe_one, status_of
from tests.support.site import Site

NOW = 1_795_000_000.0  # November 2026


def sent_back(url: str, set_cookies: list[str], location: str, now: float = NOW) -> str | None:
    """Return the Cookie header after a redirect that sets cookies."""
    first = parsed(url)
    cookies = update_cookies((), [("set-cookie", text) for text in set_cookies], first, NOW)
    following = resolve_redirect(first, location)
    assert isinstance(following, Url)
    return cookie_header(cookies, following, now)


def parsed(url: str) -> Url:
    result = parse_url(url)
    assert isinstance(result, Url)
    return result


@pytest.mark.parametrize(
    ("url", "set_cookies", "location", "expected"),
    [
        # Domain, with the public suffix list.
        ("http://example.com/", ["s=1"], "http://www.example.com/", None),
        ("http://example.com/", ["s=1; Domain=example.com"], "http://www.example.com/", "s=1"),
        ("http://www.example.com/", ["s=1; Domain=.example.com"], "http://example.com/", "s=1"),
        ("http://a.example.com/", ["s=1; Domain=b.example.com"], "http://b.example.com/", None),
        ("http://example.com/", ["s=1; Domain=example.com"], "http://notexample.com/", None),
        ("http://example.com/", ["s=1; Domain=com"], "/", None),
        ("http://a.x.co.uk/", ["s=1; Domain=co.uk", "t=2; Domain=x.co.uk"], "http://b.x.co.uk/", "t=2"),
        ("http://me.github.io/", ["s=1; Domain=github.io"], "http://you.github.io/", None),
        ("http://github.io/", ["s=1; Domain=github.io"], "/", "s=1"),
        ("http://github.io/", ["s=1; Domain=github.io"], "http://me.github.io/", None),
        ("http://a.b.corp/", ["s=1; Domain=corp", "t=1; Domain=b.corp"], "http://c.b.corp/", "t=1"),
        ("http://127.0.0.1/", ["s=1; Domain=127.0.0.1", "t=1; Domain=0.0.1"], "/", "s=1"),
        ("http://example.com/", ["s=1; Domain="], "http://www.example.com/", None),
        ("http://example.com/", ["s=1; Domain=..example.com"], "/", None),
        ("http://www.example.com/", ["s=1; Domain=other.com; Domain=example.com"], "/", "s=1"),
        ("http://example.com/", ["s=1; Domain=m\u00fc.example.com"], "/", None),
        ("http://example.com/", ["s=1", "s=2; Domain=example.com"], "/", "s=1; s=2"),
        # Path.
        ("http://example.com/a/b/c", ["s=1"], "/a/b/d", "s=1"),
        ("http://example.com/a/b/c", ["s=1"], "/a/bx", None),
        ("http://example.com/a/b/c", ["s=1; Path=/a/b/"], "/a/b", None),
        ("http://example.com/a/b/c", ["s=1; Path=x"], "/a/b/c/d", "s=1"),
        ("http://example.com/a", ["s=1; Path=/", "t=2; Path=/a/b", "u=3; Path=/a"], "/a/b/c", "t=2; u=3; s=1"),
        # Secure; the machine itself needs no https.
        ("http://example.com/", ["s=1; Secure"], "/", None),
        ("http://example.com/", ["s=1; Secure"], "https://example.com/", None),
        ("http://localhost/", ["s=1; Secure"], "/", "s=1"),
        ("http://127.0.0.1/", ["s=1; Secure"], "/", "s=1"),
        ("http://example.com/", ["__Secure-s=1", "__Host-t=1; Path=/"], "/", None),
        # Deletion and expiry.
        ("http://example.com/", ["s=1", "t=2", "s=; Max-Age=0"], "/", "t=2"),
        ("http://example.com/", ["s=1; Max-Age=-1"], "/", None),
        ("http://example.com/", ["s=1; Max-Age=60; Expires=Thu, 01 Jan 1970 00:00:00 GMT"], "/", "s=1"),
        ("http://example.com/", ["s=1; Max-Age=1.5"], "/", "s=1"),
        ("http://example.com/", ["s=1", "s=x; Expires=Thu, 01-Jan-1970 00:00:01 GMT"], "/", None),
        ("http://example.com/", ["s=1", "t=2", "s=3"], "/", "t=2; s=3"),
        # Names and values.
        ("http://example.com/", ["s=caf\xe9\xff"], "/", "s=caf\xe9\xff"),
        ("http://example.com/", ['s="a b"'], "/", 's="a b"'),
        ("http://example.com/", ["=x", "y"], "/", "y"),
        ("http://example.com/", ["=a=bar"], "/", None),
        ("http://example.com/", ["s=1\x012", "t=2"], "/", "t=2"),
        ("http://example.com/", ["s=1\t2", "s\tx=3", "t=4; X=a\tb", "u=\t5\t;\tPath=/"], "/", "u=5"),
        ("http://example.com/", ["s=1; X=\x7f", "t=2; X=" + "a" * 1025], "/", "t=2"),
        ("http://example.com/", ["s=1; Domain=.", "t=2; Domain=.example.com"], "/", "t=2"),
        # SameSite=None and Partitioned want Secure; the last SameSite counts.
        ("http://example.com/", ["s=1; SameSite=None", "t=2; samesite=NONE", "u=3; SameSite=Lax"], "/", "u=3"),
        ("http://example.com/", ["s=1; SameSite=Lax; SameSite=None", "t=2; SameSite=None; SameSite=x"], "/", "t=2"),
        ("https://example.com/", ["s=1; SameSite=None", "t=2; SameSite=None; Secure"], "/", "t=2"),
        ("https://example.com/", ["s=1; Partitioned", "t=2; Partitioned; Secure"], "/", "t=2"),
        # Prefixes.
        ("https://example.com/", ["__Secure-s=1", "__secure-t=2", "__SECURE-u=3; Secure"], "/", "__SECURE-u=3"),
        ("https://example.com/", ["__Host-s=1; Secure", "__Host-t=2; Secure; Path=/"], "/", "__Host-t=2"),
        ("https://example.com/", ["__Host-s=1; Secure; Path=/; Domain=example.com"], "/", None),
        ("https://127.0.0.1/", ["__Host-s=1; Secure; Path=/; Domain=127.0.0.1"], "/", "__Host-s=1"),
        ("https://example.com/", ["__Http-s=1; Secure", "__Http-t=2; Secure; HttpOnly"], "/", "__Http-t=2"),
        ("https://example.com/", ["__Host-Http-s=1; Secure; Path=/"], "/", None),
        ("https://example.com/", ["__Host-Http-s=1; Secure; Path=/; HttpOnly"], "/", "__Host-Http-s=1"),
        ("https://example.com/", ["__Host-", "=__Secure-s; Secure", "=__Host-s=1; Secure; Path=/"], "/", None),
        ("http://example.com/", ["s=" + "a" * 4095, "t=" + "b" * 4096], "/", "s=" + "a" * 4095),
        ("http://example.com/", ["s=" + "a" * 4095 + "; Path=/; Expires=Wed, 09 Jun 2100 10:18:14 GMT"], "/",
         "s=" + "a" * 4095),
    ],
)  # fmt: skip
def test_a_cookie_goes_back_as_in_chromium(
    url: str, set_cookies: list[str], location: str, expected: str | None
) -> None:
    assert sent_back(url, set_cookies, location) == expected


@pytest.mark.parametrize(
    ("date", "is_past"),
    [
        ("Mon, 10-Dec-2007 17:02:24 GMT", True),
        ("Mon Dec 10 16:32:30 2007 GMT", True),
        ("Thu, 01 Jan 1970 00:00:00 GMT", True),
        ("Wednesday, 01-Jan-10 00:00:00 GMT", True),
        ("Wednesday, 01-Jan-10 0:0:00 GMT", True),
        ("Sun, 06 Nov 1994 08:49:37 GMT", True),
        ("Thu, 31 Dec 23:55:55 2037 GMT", False),
        ("Wed, 09 Jun 2100 10:18:14 GMT", False),
        ("Mon, 10-Dec-2007 17:02", False),
        ("Wed, 32-Dec-2007 17:02:24 GMT", False),
    ],
)
def test_dates_of_all_forms_are_read(date: str, is_past: bool) -> None:
    """RFC 6265, 5.1.1. The dates are from its corpus, tests/data/dates; a text that is not a date sets no limit."""
    assert (sent_back("http://example.com/", [f"s=1; Expires={date}"], "/") is None) == is_past


def test_a_cookie_ends_when_its_time_is_over() -> None:
    """RFC 6265, 5.3: no expired cookie is sent."""
    assert sent_back("http://example.com/", ["s=1; Max-Age=5"], "/", NOW + 4) == "s=1"
    assert sent_back("http://example.com/", ["s=1; Max-Age=5"], "/", NOW + 6) is None


def test_the_number_of_cookies_is_bounded_and_the_newest_stay() -> None:
    """RFC 6265, 6.1: at least 50 are kept."""
    cookies = update_cookies((), [("set-cookie", f"c{n}=1") for n in range(1000)], parsed("http://example.com/"), NOW)
    assert [cookie.name for cookie in cookies] == [f"c{n}" for n in range(950, 1000)]


@pytest.mark.parametrize("domain", ["com", "co.uk", "github.io", "other.com", "www.example.com"])
def test_a_cookie_for_a_domain_of_others_is_not_kept(domain: str) -> None:
    """RFC 6265, 5.3, steps 5 and 6."""
    url = parsed(f"http://example.{domain}/" if domain in ("co.uk", "github.io") else "http://example.com/")
    assert update_cookies((), [("set-cookie", f"s=1; Domain={domain}")], url, NOW) == ()


def test_cookies_move_to_another_process() -> None:
    url = parsed("https://example.com/a/")
    cookies = update_cookies((), [("set-cookie", "s=caf\xe9; Secure; Max-Age=5")], url, NOW)
    assert cookies == (Cookie("s", "caf\xe9", "example.com", "/a", True, True, NOW + 5),)
    state = ProbeState(0, "", url, url, "HEAD", 1, [], cookies=cookies)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=ProbeState) == state


async def test_a_site_that_needs_its_cookie_everywhere_is_alive() -> None:
    """As in Chromium: from the bare name to www, with bytes above 127, until the cookie comes back."""

    async def wall(x: Exchange) -> None:
        if x.request.header("Cookie") == "lang=caf\xe9; seen=1":
            await x.reply()
        else:
            www = f"http://www.cookie.test:{site.port}/"
            cookies = [("Set-Cookie", f"{pair}; Domain=cookie.test; Path=/") for pair in ("lang=caf\xe9", "seen=1")]
            await x.reply(302, [("Location", www), *cookies])

    async with Site() as site:
        site.on("/", wall)
        names = [f"{name}:{site.port}:127.0.0.1" for name in ("cookie.test", "www.cookie.test")]
        result = await probe_one(f"http://cookie.test:{site.port}/", resolve=names)
    assert (status_of(result), result.method, len(result.hops)) == (200, "HEAD", 2)
