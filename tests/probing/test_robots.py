"""robots.txt is obeyed if the option asks for it, fetched once, and no means for a server to delay other hosts."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from protego import Protego

import crawler
from crawler.core.results import HopResult, Timings
from crawler.probing.robots import RobotsCache
from tests.support.exchange import Exchange
from tests.support.probing import probe_all, probe_one, status_of
from tests.support.site import Site
from tests.support.spacing import assert_spaced

ONE, OTHER = "127.0.0.2", "127.0.0.3"
NOBODY = "User-agent: *\nDisallow: /\n"
PRIVATE = "User-agent: *\nDisallow: /private\n"


def rules(site: Site, text: str = "", *, status: int = 200, of: dict[str, str] | None = None) -> dict[str, float]:
    """Serve a robots.txt, or one for each host; return a mapping of hosts to the time of their last request for it."""
    fetched: dict[str, float] = {}

    async def answer(x: Exchange) -> None:
        host = x.request.host.partition(":")[0]
        fetched[host] = time.monotonic()
        await x.reply(status, [("Content-Type", "text/plain")], body=(of or {}).get(host, text).encode())

    site.on("/robots.txt", answer)
    return fetched


def asked(site: Site) -> list[str]:
    return [request.path for request in site.requests]


def arrivals(site: Site, handler: Callable[[Exchange], Awaitable[None]] | None = None) -> list[float]:
    """Return a list that gets the time of each request for /page."""
    times: list[float] = []

    async def page(x: Exchange) -> None:
        times.append(time.monotonic())
        await (handler(x) if handler else x.reply())

    site.on("/page", page)
    return times


# --- Whether a URL may be requested ---


async def test_it_is_not_fetched_without_the_option(site: Site) -> None:
    rules(site, NOBODY)
    assert status_of(await probe_one(site.url("/ok"))) == 200
    assert asked(site) == ["/ok"]


@pytest.mark.parametrize("transport", ["socket", "aiohttp"])
async def test_a_disallowed_url_is_not_requested(transport: str, site: Site) -> None:
    rules(site, PRIVATE)
    urls = [site.url("/private"), site.url("/private/page?x"), site.url("/ok")]
    blocked, also, fine = await probe_all(urls, robots=True, transport=transport)
    for result in (blocked, also):
        assert (result.outcome, status_of(result)) == ("blocked", "robots.disallowed")
        assert (result.errors, result.status, result.hops) == ({"http": "BLOCKED"}, None, [])
    assert (fine.outcome, status_of(fine)) == ("ok", 200)
    assert sorted(asked(site)) == ["/ok", "/robots.txt"]


async def test_it_is_fetched_with_get_as_the_user_agent(site: Site) -> None:
    rules(site, PRIVATE)
    await probe_one(site.url("/ok"), robots=True, user_agent="me/1", headers={"X-Secret": "s"})
    [robots, _] = site.requests
    assert (robots.method, robots.path, robots.header("User-Agent")) == ("GET", "/robots.txt", "me/1")
    assert robots.header("X-Secret") == ""


async def test_it_is_fetched_once_for_each_origin(site: Site) -> None:
    async def slow(x: Exchange) -> None:
        await asyncio.sleep(0.1)
        await x.reply(body=PRIVATE.encode())

    site.on("/robots.txt", slow)
    urls = [site.url(f"/ok?{n}", host=host) for n in range(50) for host in (ONE, OTHER)]
    results = await probe_all(urls, robots=True, per_host=50, concurrency=100)
    assert {status_of(result) for result in results} == {200}
    fetched = Counter(request.host.partition(":")[0] for request in site.requests if request.path == "/robots.txt")
    assert fetched == {ONE: 1, OTHER: 1}


async def test_ports_are_origins_of_their_own(site: Site) -> None:
    async with Site() as other:
        rules(site, NOBODY)
        results = await probe_all([site.url("/ok"), other.url("/ok")], robots=True)
        assert [status_of(result) for result in results] == ["robots.disallowed", 200]


@pytest.mark.parametrize(
    ("status", "meaning"),
    [(404, 200), (410, 200), (403, 200), (500, "robots.disallowed"), (503, "robots.disallowed"), (200, 200)],
)
async def test_what_its_status_means(status: int, meaning: int | str, site: Site) -> None:
    """RFC 9309, 2.3.1: a 4xx status allows everything, whatever the error page says; a 5xx status allows nothing."""
    rules(site, "" if status == 200 else NOBODY, status=status)
    assert status_of(await probe_one(site.url("/ok"), robots=True)) == meaning


async def test_if_it_cannot_be_fetched_the_probe_reports_the_error(site: Site) -> None:
    async def reset(x: Exchange) -> None:
        x.reset()

    site.on("/robots.txt", reset)
    results = await probe_all([site.url("/ok"), site.url("/reset")], robots=True, retries=0)
    assert [status_of(result) for result in results] == [200, "tcp.reset"]


async def test_a_user_agent_with_its_own_group_gets_its_rules(site: Site) -> None:
    rules(site, "User-agent: *\nDisallow: /\n\nUser-agent: other\nUser-Agent: CRAWLER # us\nDisallow: /private\n")
    results = await probe_all([site.url("/ok"), site.url("/private")], robots=True)
    assert [status_of(result) for result in results] == [200, "robots.disallowed"]
    assert status_of(await probe_one(site.url("/ok"), robots=True, user_agent="somebody/2")) == "robots.disallowed"


async def test_a_redirect_to_a_disallowed_url_is_not_followed(site: Site) -> None:
    rules(site, PRIVATE)
    result = await probe_one(site.redirect_to(site.url("/private")), robots=True)
    assert (result.outcome, status_of(result)) == ("blocked", "robots.disallowed")
    assert [(hop.method, hop.status) for hop in result.hops] == [("HEAD", 302)]
    assert "/private" not in asked(site)


async def test_a_redirect_to_another_origin_obeys_the_rules_there(site: Site) -> None:
    rules(site, of={OTHER: NOBODY})
    result = await probe_one(site.redirect_to(site.url("/ok", host=OTHER)), robots=True)
    assert status_of(result) == "robots.disallowed"
    assert "/ok" not in asked(site)


# --- Crawl-delay ---


async def test_a_crawl_delay_spaces_the_requests_of_its_host_only(site: Site) -> None:
    fetched = rules(site, of={ONE: "User-agent: *\nCrawl-delay: 0.3\n"})
    times, started = arrivals(site), time.monotonic()
    slow = [site.url(f"/page?{n}", host=ONE) for n in range(5)]
    quick = [site.url(f"/ok?{n}", host=OTHER) for n in range(50)]
    results = await probe_all([*slow, *quick], robots=True)
    assert {status_of(result) for result in results} == {200}
    assert_spaced([fetched[ONE], *times], 0.3, started)


async def test_a_crawl_delay_holds_even_if_its_file_takes_longer(site: Site) -> None:
    """While the file is fetched no other item uses the host, and a host that is not used is forgotten."""

    async def slow(x: Exchange) -> None:
        await asyncio.sleep(0.5)
        await x.reply(body=b"User-agent: *\nCrawl-delay: 0.2\n")

    site.on("/robots.txt", slow)
    times, started = arrivals(site), time.monotonic()
    await probe_all([site.url(f"/page?{n}") for n in range(5)], robots=True)
    assert_spaced(times, 0.2, started)


@pytest.mark.parametrize(
    ("asks", "seconds"),
    [("1", 1.0), ("0.5", 0.5), ("0", 0.0), ("-1", 0.0), ("86400", 60.0), ("1e300", 60.0), ("1e999", 0.0), ("nan", 0.0)],
)
def test_a_crawl_delay_has_its_bounds(asks: str, seconds: float) -> None:
    robots = learned(f"User-agent: *\nCrawl-delay: {asks}\n")
    assert robots.delay(ORIGIN) == seconds


# --- Servers that misbehave ---


async def endless(x: Exchange) -> None:
    x.args = []
    await x.send(b"HTTP/1.1 200 OK\r\n\r\nUser-agent: *\nDisallow: /private\n")
    while True:
        await x.send(b"# a comment that goes on and on\n" * 1000)


async def hang(x: Exchange) -> None:
    await x.hang()


async def drip(x: Exchange) -> None:
    await x.send(b"HTTP/1.1 200 OK\r\n\r\nUser-agent: *\nDisallow: /private\n")
    await x.drip(0.05, None)


@pytest.mark.parametrize(
    ("handler", "of_private"), [(endless, "robots.disallowed"), (hang, 404), (drip, "robots.disallowed")]
)
@pytest.mark.parametrize("method", ["auto", "GET"])
async def test_an_endless_file_delays_only_its_own_host_and_not_for_long(
    handler: Callable[[Exchange], Awaitable[None]], of_private: int | str, method: str, site: Site
) -> None:
    async def answer(x: Exchange) -> None:
        await (handler(x) if x.request.host.startswith(ONE) else x.reply(404))

    site.on("/robots.txt", answer)
    stuck = [site.url(path, host=ONE) for path in ("/ok", "/private", "/ok?2")]
    others = [site.url(f"/ok?{n}", host=OTHER) for n in range(20)]
    order: list[str] = []
    started = time.monotonic()
    found = {}
    async for result in crawler.probe([*stuck, *others], robots=True, timeout=1, method=method):
        order.append(result.url)
        found[result.url] = status_of(result)
    assert time.monotonic() - started < 2.0
    assert [found[url] for url in stuck] == [200, of_private, 200]
    assert {found[url] for url in others} == {200}
    if handler is not endless:
        assert set(order[:20]) == set(others)


async def test_the_file_is_fetched_on_the_probes_time(site: Site) -> None:
    site.on("/robots.txt", hang)
    started = time.monotonic()
    assert status_of(await probe_one(site.url("/hang"), robots=True, timeout=1, method="GET")) == "http.timed_out"
    assert time.monotonic() - started < 1.5


@pytest.mark.parametrize(
    "text",
    [
        "".join(f"User-agent: a{n}\n" for n in range(20_000)) + "Disallow: /a\n" * 20_000,
        "".join(f"User-agent: {'crawler'[: n % 7 + 1]}\n" for n in range(20_000)) + "Disallow: /a\n" * 20_000,
        "User-agent: *\n" + "".join(f"Disallow: /{n}*x*y$\n" for n in range(25_000)),
        "x: y\n" * 100_000,
        "\n" * 500_000,
    ],
    ids=["agents times rules", "agents like us times rules", "wildcards", "nonsense", "nothing"],
)
def test_no_file_takes_too_long_to_parse(text: str) -> None:
    started = time.process_time()
    robots = learned(text[: 500 * 1024])
    for n in range(3):
        robots.allows(ORIGIN, f"http://a.test/x/{n}")
    assert time.process_time() - started < 2


# --- Rules of the reduced file, compared with those of the whole file ---

ORIGIN = ("http", "a.test", 80)


def learned(text: str, agent: str = "crawler/0.1") -> RobotsCache:
    robots = RobotsCache(agent)
    assert robots.begin_fetch(ORIGIN)
    assert not robots.begin_fetch(ORIGIN)
    robots.end_fetch(ORIGIN, HopResult(Timings(), status=200, body=text))
    return robots


AGENTS = ["*", "crawler", "CRAWLER", "crawl", "bot", "other", "crawler/0.1", "crawler*", "", "rawler"]
LINES = st.one_of(
    st.sampled_from(AGENTS).map(lambda name: f"User-agent: {name}"),
    st.sampled_from(AGENTS).map(lambda name: f"user agent {name} # comment"),
    st.sampled_from(["/", "/a", "/a*b", "/b$", "", "a"]).map(lambda path: f"Disallow: {path}"),
    st.sampled_from(["/", "/a", "/ab", ""]).map(lambda path: f"allow:{path}"),
    st.sampled_from(["1", "2", "x", ""]).map(lambda delay: f"Crawl-delay: {delay}"),
    st.sampled_from(["", "   ", "# remark", "Sitemap: http://a.test/map", "Host: a.test", "nonsense", "x: y"]),
    st.sampled_from(["Disallow /a", "Crawl-delay 1", "allow /", "Sitemap x", "dissallow: /", "disallow", "a: b"]),
)


@settings(max_examples=1000)
@given(st.lists(LINES, max_size=12), st.sampled_from(["/", "/a", "/ab", "/axb", "/b", "/bc"]))
def test_the_reduced_file_has_the_same_rules_as_the_whole(lines: list[str], path: str) -> None:
    text, href = "\n".join(lines), f"http://a.test{path}"
    robots, whole = learned(text), Protego.parse(text)
    assert robots.allows(ORIGIN, href) == whole.can_fetch(href, "crawler/0.1"), text
    assert robots.delay(ORIGIN) == (whole.crawl_delay("crawler/0.1") or 0.0), text


def test_unknown_lines_do_not_end_a_list_of_user_agents() -> None:
    robots = learned("User-agent: crawler\nSitemap: http://a.test/map\nnonsense\nUser-agent: x\nDisallow /a\n")
    assert [robots.allows(ORIGIN, f"http://a.test/{path}") for path in "ab"] == [False, True]


def test_groups_of_one_name_are_merged() -> None:
    robots = learned("User-agent: *\nDisallow: /a\n\nUser-agent: x\nDisallow: /b\n\nUser-agent: *\nDisallow: /c\n")
    assert [robots.allows(ORIGIN, f"http://a.test/{path}") for path in "abc"] == [False, True, False]


@given(st.text(max_size=300), st.text(max_size=20))
def test_any_text_can_be_parsed(text: str, agent: str) -> None:
    robots = learned(text, agent)
    robots.allows(ORIGIN, "http://a.test/x")
    assert robots.delay(ORIGIN) >= 0


def test_a_byte_order_mark_hides_no_rule() -> None:
    assert not learned("\ufeff" + NOBODY).allows(ORIGIN, "http://a.test/")


def test_a_cancelled_fetch_is_repeated_by_the_next_probe() -> None:
    robots = RobotsCache("crawler/0.1")
    assert robots.begin_fetch(ORIGIN)
    robots.end_fetch(ORIGIN, None)
    assert not robots.has_rules(ORIGIN)
    assert robots.begin_fetch(ORIGIN)


def test_the_number_of_remembered_origins_is_bounded() -> None:
    robots = RobotsCache("crawler/0.1")
    for port in range(1, 11_000):
        robots.end_fetch(("http", "a.test", port), HopResult(Timings(), status=404))
    assert not robots.has_rules(("http", "a.test", 1))
    assert robots.has_rules(("http", "a.test", 10_999))
