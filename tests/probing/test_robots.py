"""robots.txt is obeyed if the option asks for it, fetched once, and no means for a server to delay other hosts."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

import crawler
from crawler.core.results import Body, HopResult, Timings
from crawler.probing.robots.cache import Origin, RobotsCache
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


async def test_a_disallowed_url_is_not_requested(site: Site) -> None:
    rules(site, PRIVATE)
    urls = [site.url("/private"), site.url("/private/page?x"), site.url("/ok")]
    blocked, also, fine = await probe_all(urls, robots=True)
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
async def test_a_crawl_delay_has_its_bounds(asks: str, seconds: float) -> None:
    robots = await learned(f"User-agent: *\nCrawl-delay: {asks}\n")
    assert robots.delay(ORIGIN) == seconds


async def test_a_file_is_utf_8_whatever_its_header_says(site: Site) -> None:
    """RFC 9309, 2.3."""
    text = "User-agent: *\nDisallow: /\u30c4\n".encode()
    site.on("/robots.txt", lambda x: x.reply(200, [("Content-Type", "text/plain; charset=shift_jis")], body=text))
    assert status_of(await probe_one(site.url("/\u30c4"), robots=True)) == "robots.disallowed"


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


# --- What is remembered ---

ORIGIN = ("http", "a.test", 80)


async def learned(text: str, origin: Origin = ORIGIN, robots: RobotsCache | None = None) -> RobotsCache:
    robots = robots or RobotsCache("crawler/0.1")
    assert robots.begin_fetch(origin)
    assert not robots.begin_fetch(origin)
    answer = HopResult(Timings(), status=200, body=Body(text.encode(), "utf-8", is_cut=False))
    robots.end_fetch(origin, answer, await robots.read(answer))
    return robots


async def test_a_large_file_is_parsed_in_turns() -> None:
    """So other probes go on: all of it takes a tenth of a second."""
    text = "User-agent: *\nDisallow: /x\n" + "".join(f"Allow: /{n}\n" for n in range(40_000))
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counting = asyncio.ensure_future(count())
    robots = await learned(text)
    counting.cancel()
    assert turns > 2
    assert not await robots.allows(ORIGIN, "/x")


async def test_the_memory_of_all_rules_is_bounded() -> None:
    text = "User-agent: *\n" + "".join(f"Disallow: /{n}{'x' * 40}\n" for n in range(9_000))
    robots = RobotsCache("crawler/0.1")
    for port in range(1, 41):
        await learned(text, ("http", "a.test", port), robots)
    known = [port for port in range(1, 41) if robots.has_rules(("http", "a.test", port))]
    assert known == list(range(known[0], 41))  # the oldest are forgotten
    assert 3 < len(known) < 20


def test_a_cancelled_fetch_is_repeated_by_the_next_probe() -> None:
    robots = RobotsCache("crawler/0.1")
    assert robots.begin_fetch(ORIGIN)
    robots.end_fetch(ORIGIN, None, None)
    assert not robots.has_rules(ORIGIN)
    assert robots.begin_fetch(ORIGIN)


def test_the_number_of_remembered_origins_is_bounded() -> None:
    robots = RobotsCache("crawler/0.1")
    for port in range(1, 11_000):
        robots.end_fetch(("http", "a.test", port), HopResult(Timings(), status=404), None)
    assert not robots.has_rules(("http", "a.test", 1))
    assert robots.has_rules(("http", "a.test", 10_999))
