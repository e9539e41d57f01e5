"""robots.txt files are read as RFC 9309 and Google's parser read them, in little time whatever they contain.

The witnesses are the examples of the RFC, and the tests of https://github.com/google/robotstxt (robots_test.cc); each
table says which. The two differ in one point: the RFC decodes %62 before it compares, Google's parser does not.
"""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawler.probing.robots.rules import RobotsRules

LONG_PATH = "/" + "a" * 65_000


def allowed(text: str, path: str = "/x", agent: str = "crawler/0.1") -> bool:
    return RobotsRules.parse(text.encode(), agent).allows(path)


def rules(*lines: str) -> str:
    return "\n".join(["User-agent: *", *lines])


# --- Lines and groups ---

FILES: dict[str, bool] = {
    # RFC 9309, 2.1, and Google's "ID_LineSyntax_Line"
    "user-agent: crawler\ndisallow: /\n": False,
    "foo: crawler\nbar: /\n": True,
    "user-agent crawler\ndisallow /\n": False,  # no colon
    "user agent crawler\ndisallow /\n": True,  # three words
    "USER-AGENT: crawler\nDISALLOW: /\n": False,
    "User-agent : crawler # us\n \t Disallow\t: /x # why\n": False,
    "User-agent: crawler\rDisallow: /\r": False,
    "User-agent: crawler\r\nDisallow: /\r\n": False,
    "Useragent: crawler\nDissallow: /\n": False,  # Google's "frequent typos"
    "User agent: crawler\nDisalow: /\n": False,
    "User-agent: crawler\nDiasllow: /\n": False,
    "User-agent: crawler\nDisallaw: /\n": False,
    "User-agent: crawler\n# Disallow: /\n": True,
    # RFC 9309, 2.2.1, and Google's "ID_LineSyntax_Groups_OtherRules": other lines end no group
    "User-agent: crawler\nSitemap: http://a.test/map\nUser-agent: *\nDisallow: /\n": False,
    "User-agent: crawler\nUnknown: line\n\nnonsense\nUser-agent: other\nDisallow: /\n": False,
    "User-agent: crawler\nCrawl-delay: 3\nUser-agent: other\nDisallow: /\n": False,
    "User-agent: crawler\nAllow: /y\nUser-agent: other\nDisallow: /\n": True,
    "Disallow: /\nUser-agent: crawler\nAllow: /y\n": True,  # before the first group
    # Google's "ID_UserAgentValueCaseInsensitive" and "GoogleOnly_AcceptUserAgentUpToFirstSpace"
    "User-agent: CRAWLER\nDisallow: /\n": False,
    "User-agent: crawler/9.9\nDisallow: /\n": False,
    "User-agent: crawler bot\nDisallow: /\n": False,
    "User-agent: *\nDisallow: /\nUser-agent: crawler bot\nAllow: /x\n": True,
    "User-agent: crawl\nDisallow: /\n": True,
    "User-agent: crawlerbot\nDisallow: /\n": True,
    "User-agent: rawler\nDisallow: /\n": True,
    "User-agent:\nDisallow: /\n": True,
    "User-agent: *\nDisallow: /\n": False,
    "User-agent: * all\nDisallow: /\n": False,
    "User-agent: *crawler\nDisallow: /\n": True,
    # RFC 9309, 2.2.1, and Google's "ID_GlobalGroups_Secondary": the group of all counts if there is none of ours
    "User-agent: *\nDisallow: /\nUser-agent: crawler\n": True,
    "User-agent: *\nAllow: /\nUser-agent: crawler\nDisallow: /\n": False,
    "User-agent: other\nDisallow: /\n": True,
    "User-agent: crawler\nDisallow: /a\n\nUser-agent: other\nDisallow: /\n\nUser-agent: crawler\nDisallow: /x\n": False,
    "": True,
    "\0\xff\n:\n::\n#": True,
}


@pytest.mark.parametrize("text", FILES)
def test_lines_and_groups(text: str) -> None:
    assert allowed(text) is FILES[text]


@pytest.mark.parametrize(
    ("agent", "name", "is_ours"),
    [
        ("Mozilla/5.0 (compatible; me-bot/1.2; +http://me.test/bot)", "me-bot", True),
        ("Mozilla/5.0 (compatible; me-bot/1.2; +http://me.test/bot)", "mozilla", True),
        ("Mozilla/5.0 (compatible; me-bot/1.2; +http://me.test/bot)", "test", False),
        ("Mozilla/5.0 (compatible; me-bot/1.2; +http://me.test/bot)", "bot", False),
        ("me", "ME/3", True),
        ("", "", False),
    ],
)
def test_a_user_agent_has_the_names_of_its_products(agent: str, name: str, is_ours: bool) -> None:
    assert allowed(f"User-agent: {name}\nDisallow: /\n", agent=agent) is not is_ours


@pytest.mark.parametrize("mark", [b"", b"\xef", b"\xef\xbb", b"\xef\xbb\xbf"])
def test_a_byte_order_mark_or_the_start_of_one_hides_no_line(mark: bytes) -> None:
    """Google's "ID_UTF8ByteOrderMarkIsSkipped"."""
    assert not RobotsRules.parse(mark + b"User-agent: crawler\nDisallow: /", "crawler/0.1").allows("/x")


def test_other_bytes_in_front_hide_the_first_line() -> None:
    """Google's "ID_UTF8ByteOrderMarkIsSkipped"."""
    for start in (b"\xef\x11\xbf", b"\xbb\xbf", b"\xef\xbb\xbf\xef\xbb\xbf"):
        assert RobotsRules.parse(start + b"User-agent: crawler\nDisallow: /", "crawler/0.1").allows("/x")


# --- Paths ---

PATHS: list[tuple[list[str], str, bool]] = [
    # RFC 9309, 2.2.2: the longest match counts; of equal ones, Allow. The first is the RFC's example 5.2.
    (["Allow: /example/page/", "Disallow: /example/page/disallowed.gif"], "/example/page/disallowed.gif", False),
    (["Allow: /example/page/", "Disallow: /example/page/disallowed.gif"], "/example/page/", True),
    (["Disallow: /x/page.html", "Allow: /x/"], "/x/page.html", False),
    (["Allow: /x/page.html", "Disallow: /x/"], "/x/page.html", True),
    (["Allow: /x/page.html", "Disallow: /x/"], "/x/", False),
    (["Disallow: ", "Allow: "], "/x", True),
    (["Disallow: /", "Allow: /"], "/x", True),
    (["Disallow: /x", "Allow: /x/"], "/x", False),
    (["Disallow: /x", "Allow: /x/"], "/x/", True),
    (["Disallow: /x/page.html", "Allow: /x/page.html"], "/x/page.html", True),
    (["Allow: /page", "Disallow: /*.html"], "/page.html", False),
    (["Allow: /page", "Disallow: /*.html"], "/page", True),
    (["Allow: /x/page.", "Disallow: /*.html"], "/x/page.html", True),
    # RFC 9309, 2.2.2: percent-encoding; its table, and Google's "ID_Encoding"
    (["Disallow: /", "Allow: /foo/bar?baz=quz"], "/foo/bar?baz=quz", True),
    (["Disallow: /", "Allow: /foo/bar?baz=http://foo.bar"], "/foo/bar?baz=http://foo.bar", True),
    (["Disallow: /", "Allow: /foo/bar/\u30c4"], "/foo/bar/%E3%83%84", True),
    (["Disallow: /", "Allow: /foo/bar/%E3%83%84"], "/foo/bar/%e3%83%84", True),
    (["Disallow: /", "Allow: /foo/bar/%62%61%7A"], "/foo/bar/baz", True),
    (["Disallow: /", "Allow: /foo/bar/%62%61%7A"], "/foo/bar/%62%61%7A", True),
    (["Disallow: /a%2fb"], "/a%2Fb", False),
    (["Disallow: /a%2fb"], "/a/b", True),
    (["Disallow: /a b|c"], "/a%20b%7Cc", False),
    # case
    (["Disallow: /X/"], "/x/", True),
    # RFC 9309, 2.2.3: special characters, and Google's "ID_SpecialCharacters"
    (["Disallow: /foo/bar/quz", "Allow: /foo/*/qux"], "/foo/bar/quz", False),
    (["Disallow: /foo/bar/quz", "Allow: /foo/*/qux"], "/foo/quz", True),
    (["Disallow: /foo/bar$", "Allow: /foo/bar/qux"], "/foo/bar", False),
    (["Disallow: /foo/bar$", "Allow: /foo/bar/qux"], "/foo/bar/", True),
    (["Disallow: /foo/bar$", "Allow: /foo/bar/qux"], "/foo/bar/baz", True),
    (["Disallow: /*.gif$"], "/a.gif", False),
    (["Disallow: /*.gif$"], "/a.gif.gif", False),
    (["Disallow: /*.gif$"], "/a.gifs", True),
    (["Disallow: /*.gif$"], "/.gif", False),
    (["Disallow: /path/file-with-a-%2A.html"], "/path/file-with-a-*.html", False),
    (["Disallow: /path/file-with-a-%2A.html"], "/path/file-with-a-b.html", True),
    (["Disallow: /path/foo-%24"], "/path/foo-$", False),
    (["Disallow: /a$b"], "/a$b", False),
    (["Disallow: /*$"], "/x", False),
    (["Disallow: *"], "/x", False),
    (["Disallow: *x"], "/ax", False),
    (["Disallow: /**x**y"], "/axby", False),
    (["Disallow: /a*b*c$"], "/abbc", False),
    (["Disallow: /ab*bc$"], "/abc", True),  # the b counts once
    (["Disallow: /$"], "/", False),
    (["Disallow: /$"], "/x", True),
    (["Disallow: x"], "/x", True),  # rules begin at the start
    (["Disallow: /"], "/robots.txt", True),
    # Google's "GoogleOnly_IndexHTMLisDirectory"
    (["Disallow: /", "Allow: /allowed-slash/index.html"], "/allowed-slash/", True),
    (["Disallow: /", "Allow: /allowed-slash/index.html"], "/allowed-slash/index.html", True),
    (["Disallow: /", "Allow: /allowed-slash/index.html"], "/allowed-slash/index.htm", False),
    (["Disallow: /", "Allow: /allowed-slash/index.html"], "/anyother-url", False),
]


@pytest.mark.parametrize(("lines", "path", "is_allowed"), PATHS)
def test_paths(lines: list[str], path: str, is_allowed: bool) -> None:
    assert allowed(rules(*lines), path) is is_allowed
    assert allowed(rules(*reversed(lines)), path) is is_allowed


@pytest.mark.parametrize(
    ("lines", "delay"),
    [
        (["Crawl-delay: 1"], 1.0),
        (["crawl-delay: 0.5", "Disallow: /"], 0.5),
        (["Crawl-delay 2"], 2.0),
        (["Crawl-delay: 1", "Crawl-delay: 3"], 3.0),
        (["Crawl-delay: x"], 0.0),
        (["Crawl-delay: -1"], 0.0),
        (["Crawl-delay: nan"], 0.0),
        (["Crawl-delay: 1e999"], 0.0),
        (["User-agent: other", "Disallow: /", "User-agent: third", "Crawl-delay: 3"], 0.0),
        (["Disallow: /", "User-agent: crawler", "Crawl-delay: 2"], 2.0),
        (["Crawl-delay: 9", "Disallow: /", "User-agent: crawler"], 0.0),
    ],
)
def test_the_delay_is_of_the_same_group(lines: list[str], delay: float) -> None:
    assert RobotsRules.parse(rules(*lines).encode(), "crawler/0.1").delay == delay


# --- Bounds ---

HOSTILE: dict[str, tuple[str, str]] = {
    "agents": ("".join(f"User-agent: a{n}\n" for n in range(40_000)), "/x"),
    "rules": ("User-agent: *\n" + "".join(f"Allow:/{n:x}\n" for n in range(60_000)), "/x"),
    "nothing": ("\n" * 500_000, "/x"),
    "nonsense": ("allow\n" * 90_000, "/x"),
    "long rules": (rules(*(f"Disallow: /{'a' * 400}{n}" for n in range(1200))), LONG_PATH),
    "wildcards": (rules(*(f"Disallow: /*{n}*x*y$" for n in range(25_000))), LONG_PATH),
    "almost": (rules(*(f"Disallow: /*{'a' * 90}{n}" for n in range(5_000))), LONG_PATH),
    "many wildcards each": (rules(*(f"Disallow: /{'a*' * 50}{n}" for n in range(5_000))), LONG_PATH),
    "one of wildcards": (rules("Disallow: /" + "*a" * 250_000), LONG_PATH),
    "encoded": (rules("Disallow: /" + "%61" * 160_000), "/" + "%61" * 20_000),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_no_file_and_no_url_takes_long(kind: str) -> None:
    """Milliseconds; patterns that are tried at each place of the URL take minutes."""
    text, path = HOSTILE[kind]
    started = time.process_time()
    read = RobotsRules.parse(text.encode()[: 500 * 1024], "crawler/0.1")
    for _ in range(3):
        read.allows(path)
    assert time.process_time() - started < 2
    assert read.size < 4 * 1024 * 1024


def test_rules_after_the_limit_are_not_read() -> None:
    filler = [f"Allow: /{n}" for n in range(9_999)]
    assert not allowed(rules(*filler, "Disallow: /x"))
    assert allowed(rules(*filler, "Allow: /more", "Disallow: /x"))
    wildcards = [f"Allow: /*{n}" for n in range(999)]
    assert not allowed(rules(*wildcards, "Disallow: /*x"))
    assert allowed(rules(*wildcards, "Allow: /*more", "Disallow: /*x"))
    assert not allowed(rules(*wildcards, "Allow: /*more", "Disallow: /x"))


@given(st.binary(max_size=300), st.text(max_size=20), st.text(max_size=20))
def test_any_bytes_can_be_read(data: bytes, agent: str, path: str) -> None:
    read = RobotsRules.parse(data, agent)
    assert read.delay >= 0
    assert read.allows("/" + path) in (True, False)


@given(st.lists(st.sampled_from(["a", "b", "ab", "*", "$"]), max_size=8), st.text("ab$", max_size=8))
def test_wildcards_match_as_a_regular_expression_does(parts: list[str], path: str) -> None:
    pattern = "/" + "".join(parts)
    is_whole = pattern.endswith("$")
    body = pattern.removesuffix("$")
    expression = "".join(".*" if c == "*" else re.escape(c) for c in body) + (r"\Z" if is_whole else "")
    assert allowed(rules(f"Disallow: {pattern}"), "/" + path) is (re.match(expression, "/" + path) is None)
