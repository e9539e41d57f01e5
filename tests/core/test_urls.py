"""Lines become targets: parsed, normalised or refused.

The witness of the tables is Chromium 156: `new URL(text).href` in a page for lines, and the URL that it asked for after
a redirect for locations. Control characters, and white space in lines of text, are refused by us alone.
"""

import base64
import ipaddress
import string

import ada_url
import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from crawler.core.errors import InputError
from crawler.core.results import ProbeError, ProbeResult
from crawler.core.urls import (
    _PLAIN_URL,
    DEFAULT_PORTS,
    MAX_URL_CHARACTERS,
    Target,
    Url,
    _read_normal,
    parse_host,
    parse_url,
    read_targets,
    resolve_redirect,
)


def read(text: str) -> Url:
    url = parse_url(text)
    assert isinstance(url, Url), url
    return url


def refusal(url: Url | ProbeError) -> ProbeError:
    assert isinstance(url, ProbeError), url
    return url


def leads(base: str, location: str) -> str:
    url = resolve_redirect(read(base), location)
    assert isinstance(url, Url), url
    return url.href


# --- Normal form ---

NORMAL = {
    # case, and what can be left out
    "http://example.com": "http://example.com/",
    "HTTP://EXAMPLE.Com/Path": "http://example.com/Path",
    "hTTpS://example.com": "https://example.com/",
    "http://example.com:80/": "http://example.com/",
    "http://example.com:/": "http://example.com/",
    "http://example.com:00080/": "http://example.com/",
    "https://example.com:443/": "https://example.com/",
    "https://example.com:80/": "https://example.com:80/",
    "http://example.com:443/": "http://example.com:443/",
    "http://example.com:65535/": "http://example.com:65535/",
    "http://example.com:1/": "http://example.com:1/",
    "http:example.com": "http://example.com/",
    "http:\\\\example.com\\a\\b": "http://example.com/a/b",
    # around it
    " \t http://example.com/ \r\n": "http://example.com/",
    "\ufeffhttp://example.com/": "http://example.com/",
    # path
    "http://example.com/a/./b/../c": "http://example.com/a/c",
    "http://example.com/../../c": "http://example.com/c",
    "http://example.com/a/%2e%2E/c": "http://example.com/c",
    "http://example.com/a//b": "http://example.com/a//b",
    "http://example.com/%41%zz": "http://example.com/%41%zz",
    "http://example.com/caf\u00e9?caf\u00e9": "http://example.com/caf%C3%A9?caf%C3%A9",
    "http://example.com/\U0001f600": "http://example.com/%F0%9F%98%80",
    'http://example.com/"<>`{}': "http://example.com/%22%3C%3E%60%7B%7D",
    # query and fragment
    "http://example.com?a=1&b": "http://example.com/?a=1&b",
    "http://example.com/?": "http://example.com/?",
    "http://example.com/#top": "http://example.com/",
    "http://example.com/a?b#c?d#e": "http://example.com/a?b",
    "http://example.com/#": "http://example.com/",
    "http://example.com/a#b c\td\ne\0f\x1b": "http://example.com/a",
    "http://example.com/^|{}`?^|{}`'": "http://example.com/%5E%7C%7B%7D%60?^|{}`%27",
    # names
    "http://example.com./": "http://example.com./",
    "http://example.com.:8080/": "http://example.com.:8080/",
    "http://xn--a/": "http://xn--a/",
    "http://xn--/": "http://xn--/",
    "http://XN--A.com/": "http://xn--a.com/",
    "http://xn--0.pt/": "http://xn--0.pt/",
    "http://a.b.c.xn--pokxncvks/": "http://a.b.c.xn--pokxncvks/",
    "http://\u1e9e.com/": "http://xn--zca.com/",  # capital sharp s; ss.com is another host
    "http://fa\u1e9e.example/": "http://xn--fa-hia.example/",
    "http://\u2183.example/": "http://xn--r5g.example/",
    "http://\u1c89.example/": "http://xn--d4f.example/",  # of Unicode 16
    "http://\ua7dc.example/": "http://xn--dia.example/",
    "http://\ua7f1.example/": "http://s.example/",  # of Unicode 17
    "http://m\u00fcnchen.example/": "http://xn--mnchen-3ya.example/",
    "http://M\u00dcNCHEN.example/": "http://xn--mnchen-3ya.example/",
    "http://fa\u00df.example/": "http://xn--fa-hia.example/",
    "http://xn--mnchen-3ya.example/": "http://xn--mnchen-3ya.example/",
    "http://\u4f8b\u3048\u3002\u30c6\u30b9\u30c8/": "http://xn--r8jz45g.xn--zckzah/",
    "http://ex\u00adample.com/": "http://example.com/",
    "http://\uff45\uff58\uff41\uff4d\uff50\uff4c\uff45\uff0ecom/": "http://example.com/",
    "http://example%2Ecom/": "http://example.com/",
    "http://my_host.example/": "http://my_host.example/",
    # one IPv4 address
    "http://2130706433/": "http://127.0.0.1/",
    "http://0x7f000001/": "http://127.0.0.1/",
    "http://0x7F.1/": "http://127.0.0.1/",
    "http://0177.0.0.01/": "http://127.0.0.1/",
    "http://017700000001/": "http://127.0.0.1/",
    "http://127.1/": "http://127.0.0.1/",
    "http://127.0.1/": "http://127.0.0.1/",
    "http://127.0.0.1./": "http://127.0.0.1/",
    "http://127.0x.0.1/": "http://127.0.0.1/",
    "http://\uff11\uff12\uff17.\uff10.\uff10.\uff11/": "http://127.0.0.1/",
    "http://127\u30020\uff0e0\uff611/": "http://127.0.0.1/",
    "http://%31%32%37.0.0.1/": "http://127.0.0.1/",
    "http://\u2460\u2461\u2466.\u24ea.\u24ea.\u2460/": "http://127.0.0.1/",
    "http://0/": "http://0.0.0.0/",
    # one IPv6 address
    "http://[::1]/": "http://[::1]/",
    "http://[0:0:0:0:0:0:0:1]:80/": "http://[::1]/",
    "http://[0000:0000::0001]/": "http://[::1]/",
    "http://[2001:DB8::A]:8080/x": "http://[2001:db8::a]:8080/x",
    "http://[::ffff:127.0.0.1]/": "http://[::ffff:7f00:1]/",
    "http://[64:ff9b::169.254.169.254]/": "http://[64:ff9b::a9fe:a9fe]/",
    # tricks with user information: the host is what follows the last @ before the path
    "http://example.com@127.0.0.1/": "http://127.0.0.1/",
    "http://example.com:80@127.0.0.1:81/": "http://127.0.0.1:81/",
    "http://a@b@127.0.0.1/": "http://127.0.0.1/",
    "http://127.0.0.1\\@example.com/": "http://127.0.0.1/@example.com/",
    "http://127.0.0.1/@example.com": "http://127.0.0.1/@example.com",
    "http://127.0.0.1?@example.com": "http://127.0.0.1/?@example.com",
    "http://127.0.0.1#@example.com": "http://127.0.0.1/",
    "http://:@example.com/": "http://example.com/",
}


@pytest.mark.parametrize(("text", "href"), NORMAL.items(), ids=ascii)
def test_spellings_have_one_normal_form(text: str, href: str) -> None:
    assert read(text).href == href


def test_a_url_is_split_into_the_parts_of_a_request() -> None:
    assert read("https://user:pass@Example.com:8443/a/../b?c=d#e") == Url(
        href="https://example.com:8443/b?c=d",
        scheme="https",
        host="example.com",
        port=8443,
        path="/b?c=d",
        authorization="Basic dXNlcjpwYXNz",
    )


@pytest.mark.parametrize(
    ("text", "host", "port", "authority"),
    [
        ("http://example.com", "example.com", 80, "example.com"),
        ("https://example.com", "example.com", 443, "example.com"),
        ("http://example.com:443", "example.com", 443, "example.com:443"),
        ("http://example.com./", "example.com", 80, "example.com."),  # Chromium 156 sends this Host header
        ("https://example.com.:444/", "example.com", 444, "example.com.:444"),
        ("http://127.0.0.1./", "127.0.0.1", 80, "127.0.0.1"),
        ("http://[::1]", "::1", 80, "[::1]"),
        ("http://[::1]:8080", "::1", 8080, "[::1]:8080"),
    ],
)
def test_the_host_has_no_brackets_and_the_host_header_no_default_port(
    text: str, host: str, port: int, authority: str
) -> None:
    url = read(text)
    assert (url.host, url.port, url.authority) == (host, port, authority)
    assert url.origin == (url.scheme, host, port)


@pytest.mark.parametrize("text", ["http://a/", "http://a/?", "http://a/b?c", "http://[::1]:8/?", "http://u@a/?#"])
def test_the_path_is_what_the_request_line_asks_for(text: str) -> None:
    url = read(text)
    assert f"{url.scheme}://{url.authority}{url.path}" == url.href


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("http://user:pass@a/", b"user:pass"),
        ("http://user@a/", b"user:"),
        ("http://:pass@a/", b":pass"),
        ("http://us%65r:p%40ss@a/", b"user:p@ss"),
        ("http://us%3Aer:%E9@a/", b"us:er:\xe9"),
        ("http://m\u00fc:p:p@a/", b"m\xc3\xbc:p:p"),
    ],
)
def test_user_information_becomes_a_header_and_leaves_the_url(text: str, pair: bytes) -> None:
    url = read(text)
    assert url.href == "http://a/"
    assert url.authorization == "Basic " + base64.b64encode(pair).decode()


@pytest.mark.parametrize("text", ["http://a/", "http://@a/", "http://:@a/"])
def test_no_user_information_is_no_header(text: str) -> None:
    assert read(text).authorization is None


@pytest.mark.parametrize("length", [1, 63])
def test_a_label_as_long_as_dns_allows(length: int) -> None:
    assert read(f"http://{'a' * length}.example/").host == f"{'a' * length}.example"


@pytest.mark.parametrize("dot", ["", "."])
def test_a_name_as_long_as_dns_allows(dot: str) -> None:
    name = ".".join(["a" * 63] * 3 + ["b" * 61])
    assert len(name) == 253
    assert read(f"http://{name}{dot}/").host == name


# --- Refusals ---

LABEL_64 = "a" * 64
NAME_254 = ".".join(["a" * 63] * 3 + ["b" * 62])

INVALID = {
    "": "empty",
    " \t\r\n": "empty",
    # no scheme
    "example.com": "no scheme",
    "/path": "no scheme",
    "//example.com/": "no scheme",
    "?": "no scheme",
    "1http://a/": "not a URL",
    "://a/": "not a URL",
    # no host
    "http://": "not a URL",
    "http:///": "not a URL",
    "https://?a": "not a URL",
    "http://#a": "not a URL",
    "http://user:pass@/": "not a URL",
    "http://:80/": "not a URL",
    "http://./": "empty label",
    "http://../": "empty label",
    "http://\u00ad/": "not a URL",
    # hosts
    "http://a..example/": "empty label",
    "http://.example/": "empty label",
    "http://a.example../": "empty label",
    f"http://{LABEL_64}.example/": "longer than DNS allows",
    f"http://{NAME_254}/": "longer than DNS allows",
    f"http://{NAME_254}./": "longer than DNS allows",
    "http://a%2Fb/": "not a URL",
    "http://a%00b/": "not a URL",
    "http://a%20b/": "not a URL",
    "http://a%0Ab/": "not a URL",
    "http://a%40b/": "not a URL",
    "http://a%3A80/": "not a URL",
    "http://a\u00a0b/": "the invisible character U+00A0 at character 9",
    "http://a<b/": "not a URL",
    "http://a|b/": "not a URL",
    "http://a^b/": "not a URL",
    "http://\ud7ff\uffff/": "not a URL",
    "http://\u180e/": "not a URL",
    "http://\uff05\uff10\uff10/": "not a URL",
    # addresses
    "http://256.0.0.1/": "not a URL",
    "http://1.2.3.4.5/": "not a URL",
    "http://4294967296/": "not a URL",
    "http://09.0.0.1/": "not a URL",
    "http://a.1/": "not a URL",
    "http://[::1/": "not a URL",
    "http://::1/": "not a URL",
    "http://[]/": "not a URL",
    "http://[1::2::3]/": "not a URL",
    "http://[12345::]/": "not a URL",
    "http://[::1%25eth0]/": "not a URL",
    "http://[fe80::1%eth0]/": "not a URL",
    "http://[127.0.0.1]/": "not a URL",
    "http://[v1.x]/": "not a URL",
    # ports
    "http://a:0/": "port 0",
    "http://a:65536/": "not a URL",
    "http://a:99999999999999999999/": "not a URL",
    "http://a:-1/": "not a URL",
    "http://a:+1/": "not a URL",
    "http://a:abc/": "not a URL",
    "http://a:8 0/": "not a URL",
    "http://a b/": "not a URL",
    "http://a:\uff18\uff10/": "not a URL",
    # characters
    "http://a/b http://a/c": "white space at character 11",
    "http://a/?b HTTPS://a/c": "white space at character 12",
    "http://a/b\tc": "white space at character 11",
    "http://a/b\nc": "white space at character 11",
    "http://a/b\r\nX-Injected: 1": "white space at character 11",
    "ht\ntp://a/": "white space at character 3",
    "http://a\0.example/": "a control character at character 9",
    "\0http://a/": "a control character at character 1",
    "http://a/\0": "a control character at character 10",
    "http://a/\x1b[31m": "a control character at character 10",
    "http://a/\x7f": "a control character at character 10",
    "http://a/\ud800": "a lone surrogate at character 10",
    "http://a/#b\ud800": "a lone surrogate at character 12",
    "http://\udcff.example/": "a lone surrogate at character 8",
}

SCHEME = {
    "javascript: alert(1)": "javascript",
    "ftp://example.com/": "ftp",
    "file:///etc/passwd": "file",
    "FILE:///etc/passwd": "file",
    "javascript:alert(1)": "javascript",
    "mailto:someone@example.com": "mailto",
    "data:text/plain,x": "data",
    "ws://example.com/": "ws",
    "gopher://example.com/": "gopher",
    "blob:http://example.com/": "blob",
    "view-source:http://example.com/": "view-source",
    "httpx://example.com/": "httpx",
    "localhost:8000": "localhost",
    "example.com:80/": "example.com",
}


@pytest.mark.parametrize(("text", "why"), INVALID.items(), ids=ascii)
def test_texts_that_are_no_url_or_ambiguous_are_refused(text: str, why: str) -> None:
    problem = refusal(parse_url(text))
    assert (problem.type, problem.phase, problem.transient) == ("url.invalid", "url", False)
    assert why in problem.message


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("http://a/b c?d e", "/b%20c?d%20e"),
        ("http://a/b  c", "/b%20%20c"),
        ("http://a/b #c d", "/b%20"),
        ("http://a/b ?c #d", "/b%20?c%20"),
        ("http://a/b c ", "/b%20c"),
        ("http://a/b?u= http:/c", "/b?u=%20http:/c"),
    ],
)
def test_a_blank_in_a_text_that_is_one_url_is_encoded(text: str, path: str) -> None:
    """Chromium 156 sends these request lines. In a line of a text file, what follows may be a comment."""
    assert read(text).path == path
    assert refusal(Target.of(0, text.encode()).url).message.startswith("white space at character")
    assert isinstance(Target.of(0, b" http://a/b\n").url, Url)


@pytest.mark.parametrize(("text", "scheme"), SCHEME.items())
def test_other_schemes_are_refused(text: str, scheme: str) -> None:
    problem = refusal(parse_url(text))
    assert (problem.type, problem.phase, problem.transient) == ("url.scheme", "url", False)
    assert problem.message == f"{scheme}: is neither http nor https"


def test_a_refusal_does_not_repeat_the_secret() -> None:
    for text in ("http://user:hunter2@/", "http://user:hunter2@a:0/", "http://user:hunter2@a b/", "user:hunter2@a"):
        assert "hunter2" not in refusal(parse_url(text)).message


# --- Lines ---


def test_a_target_keeps_its_position_and_its_text_as_submitted() -> None:
    target = Target.of(7, " HTTP://A/#x ")
    assert (target.seq, target.text) == (7, " HTTP://A/#x ")
    assert target.url == read("http://a/")


def test_bytes_are_read_as_utf_8() -> None:
    assert Target.of(0, "http://m\u00fc.example/".encode()).url == read("http://m\u00fc.example/")


@pytest.mark.parametrize(
    ("line", "text", "place"),
    [
        (b"http://a/\xff", "http://a/\ufffd", 9),
        (b"\xfe\xff\0h", "\ufffd\ufffd\0h", 0),
        (b"http://a/\xc0\xaf", "http://a/\ufffd\ufffd", 9),
        (b"http://a/\xed\xa0\x80", "http://a/\ufffd\ufffd\ufffd", 9),
    ],
)
def test_bytes_that_are_not_utf_8_are_refused_and_shown_with_replacements(line: bytes, text: str, place: int) -> None:
    target = Target.of(0, line)
    assert target.text == text
    assert refusal(target.url).type == "url.invalid"
    assert refusal(target.url).message == f"not UTF-8 at byte {place}"


def test_a_lone_surrogate_is_shown_as_a_question_mark() -> None:
    target = Target.of(0, "http://a/\ud800")
    assert refusal(target.url).type == "url.invalid"
    assert target.text == "http://a/?"


def test_lines_are_numbered_from_0() -> None:
    read = list(read_targets(["http://a/", b"http://b/", "x"]))
    assert [target.seq for target in read] == [0, 1, 2]
    assert [isinstance(target.url, Url) for target in read] == [True, True, False]


# --- Redirects ---

LOCATIONS = {
    "/b": "http://a.example/b",
    "b": "http://a.example/x/b",
    "../b": "http://a.example/b",
    "?q": "http://a.example/x/y?q",
    "#f": "http://a.example/x/y?z",
    "": "http://a.example/x/y?z",
    "//b.example": "http://b.example/",
    "https:b": "https://b/",
    "http:b": "http://a.example/x/b",
    "HTTPS://B.example/#f": "https://b.example/",
    " /b\t": "http://a.example/b",
    "/b c": "http://a.example/b%20c",
    "/caf\u00c3\u00a9": "http://a.example/caf%C3%A9",  # UTF-8, as Latin-1
    "/caf\u00e9": "http://a.example/caf%E9",  # Latin-1
    "/b\r\nX: y": "http://a.example/bX:%20y",  # they vanish
    "/ot\ther": "http://a.example/other",
    "ht\ttp\r://\nb.exa\tmple/": "http://b.example/",
    "\x01/b": "http://a.example/b",
    "/b\x01c": "http://a.example/b%01c",
    "/b #c d": "http://a.example/b%20",
    "/b|c^d?e|f^g": "http://a.example/b%7Cc%5Ed?e|f^g",
    "//b\xc3\xbc.example": "http://xn--b-eha.example/",
    "/b%zz": "http://a.example/b%zz",
    "/?|'\"<>`{}^\\": "http://a.example/?|%27%22%3C%3E`{}^\\",
    "/b\0c": "http://a.example/b%00c",
    "/b\x7f\xff": "http://a.example/b%7F%FF",
    "\\\\b.example\\c": "http://b.example/c",
    "http://b.example:80/": "http://b.example/",
    "http://0x7f.1/": "http://127.0.0.1/",
}


@pytest.mark.parametrize(("location", "href"), LOCATIONS.items(), ids=ascii)
def test_a_location_leads_where_browsers_go(location: str, href: str) -> None:
    assert leads("http://a.example/x/y?z", location) == href


def test_a_redirect_drops_credentials_that_its_location_does_not_repeat() -> None:
    base = read("http://user:pass@a/")
    for location, authorization in [("/b", None), ("http://c@a/", "Basic Yzo="), ("http://b/", None)]:
        url = resolve_redirect(base, location)
        assert isinstance(url, Url)
        assert url.authorization == authorization


@pytest.mark.parametrize("location", ["file:///etc/passwd", "javascript:alert(1)", "mailto:a@b", "data:,x"])
def test_a_location_with_another_scheme_is_refused(location: str) -> None:
    assert refusal(resolve_redirect(read("http://a/"), location)).type == "url.scheme"


@pytest.mark.parametrize("location", ["http://", "http://b:65536/", "//b%2Fc/", "http://b c/", "//[::1"])
def test_a_location_that_is_no_url_is_an_invalid_response(location: str) -> None:
    problem = refusal(resolve_redirect(read("http://a/"), location))
    assert (problem.type, problem.phase) == ("http.response.invalid", "http")


def test_a_location_is_as_long_as_a_line_may_be() -> None:
    base = read("http://a/")
    assert len(leads("http://a/", "/" + "b" * (MAX_URL_CHARACTERS - 9))) == MAX_URL_CHARACTERS
    for location in ("/" + "b" * MAX_URL_CHARACTERS, "/" + "b" * (MAX_URL_CHARACTERS - 8), "/" + "\xe9" * 40_000):
        assert refusal(resolve_redirect(base, location)).type == "http.response.invalid"


@pytest.mark.parametrize("location", ["http://b:0/", "http://b..c/", f"http://{LABEL_64}/"])
def test_a_location_that_cannot_be_connected_to_is_refused(location: str) -> None:
    assert refusal(resolve_redirect(read("http://a/"), location)).type == "url.invalid"


# --- Any text at all ---

# Delimiters of hosts, ports and paths, and characters that some parsers confuse with them.
SYNTAX = st.sampled_from([*":/?#[]@\\.%+-_~!&'", "://", "%2e", "%2F", "%00", "xn--", "\u3002", "\uff0f", "\uff1a"])
WORDS = st.sampled_from(["http", "https", "ftp", "a", "A", "example", "com", "80", "443", "0", "0x7f", "::1", "user"])
ODD = st.characters()
URLISH = st.lists(st.one_of(WORDS, SYNTAX, ODD), max_size=24).map("".join)
ANY_TEXT = st.one_of(
    st.text(),
    URLISH,
    st.builds("{}://{}".format, st.sampled_from(["http", "https", "HTTP"]), st.one_of(st.text(), URLISH)),
)
LATIN_1 = st.text(st.characters(max_codepoint=255))
VISIBLE_ASCII = frozenset(string.ascii_letters + string.digits + string.punctuation)


def whole(url: Url) -> Url:
    """Check the invariants of every URL and return it."""
    assert set(url.href) | set(url.host) | set(url.path) <= VISIBLE_ASCII
    assert url.scheme in DEFAULT_PORTS
    assert 1 <= url.port <= 65535
    assert url.path.startswith("/")
    assert url.href == f"{url.scheme}://{url.authority}{url.path}"
    assert url.host
    assert not set(url.host) & set("[]/@?#\\%")
    assert url.host == url.host.lower()
    if ":" in url.host:
        assert ipaddress.IPv6Address(url.host)
    else:
        assert len(url.host) <= 253
        assert all(1 <= len(label) <= 63 for label in url.host.split("."))
    if url.authorization is not None:
        method, _, value = url.authorization.partition(" ")
        assert method == "Basic"
        assert base64.b64decode(value, validate=True).count(b":") >= 1
    return url


@given(ANY_TEXT)
@example("http://a/?")
@example("http://%2e/")
@example("http://a/#\udfff")
def test_any_text_is_a_whole_url_or_is_refused(text: str) -> None:
    url = parse_url(text)
    if isinstance(url, Url):
        again = parse_url(whole(url).href)
        assert again == msgspec.structs.replace(url, authorization=None)
    else:
        assert url.type in ("url.invalid", "url.scheme")
        assert url.phase == "url"


@given(ANY_TEXT, ANY_TEXT)
def test_urls_of_one_href_and_one_user_are_equal(one: str, other: str) -> None:
    urls = [parse_url(text) for text in (one, other, one.swapcase(), f" {one}#{other.strip()}")]
    found: dict[tuple[str, str | None], Url] = {}
    for url in urls:
        if isinstance(url, Url):
            assert found.setdefault((url.href, url.authorization), url) == url


@given(st.one_of(st.binary(), ANY_TEXT.map(lambda text: text.encode(errors="surrogatepass"))))
def test_any_bytes_are_a_target(line: bytes) -> None:
    target = Target.of(0, line)
    if isinstance(target.url, Url):
        whole(target.url)
        assert target.text.encode() == line


@given(st.sampled_from(["http://a/x/y?z", "https://[::1]:8/"]), st.one_of(LATIN_1, URLISH.map(ascii)))
def test_any_location_leads_to_a_whole_url_or_is_refused(base: str, location: str) -> None:
    url = resolve_redirect(read(base), location)
    if isinstance(url, Url):
        whole(url)
    else:
        assert url.type in ("http.response.invalid", "url.invalid", "url.scheme")


@given(st.one_of(ANY_TEXT, st.binary()))
def test_the_result_of_any_line_can_be_written_as_json(line: str | bytes) -> None:
    target = Target.of(3, line)
    problem = target.url if isinstance(target.url, ProbeError) else None
    final_url = target.url.href if isinstance(target.url, Url) else None
    result = ProbeResult(seq=3, url=target.text, timestamp=0, outcome="ok", error=problem, final_url=final_url)
    assert msgspec.json.decode(msgspec.json.encode(result), type=ProbeResult) == result


@given(st.from_regex(_PLAIN_URL, fullmatch=True))
@example("http://a.bc/")
@example("https://a-b.0.1.co/x.y/~z/?q=/../a&b=..")
@example("http://255.10.0.9:8080/")
def test_a_plain_url_is_what_ada_returns_for_it(text: str) -> None:
    assert parse_url(text) == _read_normal(ada_url.normalize_url(text))


@pytest.mark.parametrize(
    "text",
    [
        "http://xn--a.com/", "http://A.com/", "http://1.2.3/", "http://1.2.3.256/", "http://01.2.3.4/",
        "http://1.2.3.4./", "http://1.2.3.4.5/", "http://a.com", "http://a.com:80/", "http://a.com/./b",
        "http://a.com/a/..", "http://a.com/%7e", "http://a.com//b", "http://a.com/#b", "http://u@a.com/", "http://a.0x1/",
        f"http://{'a' * 64}.com/",
    ],
)  # fmt: skip
def test_a_url_that_ada_changes_or_refuses_is_not_plain(text: str) -> None:
    assert _PLAIN_URL.fullmatch(text) is None


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("a", "a"),
        ("A.", "a"),
        ("B.Example", "b.example"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("::1", "::1"),
        ("[0:0::1]", "::1"),
        ("127.1", "127.0.0.1"),
    ],
)
def test_a_host_is_read_in_the_form_that_urls_have(text: str, host: str) -> None:
    assert parse_host(text) == host


@pytest.mark.parametrize("text", ["", " ", "a b", "a/b", "a/", "a\\", "a?", "a#", "u@a", "u:p@a", "a:80", "a\n", "[a]"])
def test_what_is_more_than_a_host_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"place: is not a host"):
        parse_host(text, "place")
