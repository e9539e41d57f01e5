"""Hosts that get more requests than they accept: with the default options, all of their working URLs are ok.

Users of link checkers often ask for this; each test names a report. A browser that opens the same URLs one after the
other shows them all.

The servers count their requests. Times are those of real hosts. Where a test says so, they are divided by ten or
fifteen, and the prober's waits too.
"""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Literal

import pytest

import crawler
from crawler.probing.settings import ProberSettings, RetryPolicy
from tests.support.exchange import Exchange
from tests.support.overloaded_host import (
    ConnectionLimit,
    DownAtFirst,
    OneAtATime,
    OverloadedHost,
    RateBucket,
    RateLimit,
    RefusesAll,
    RequestLimit,
)
from tests.support.probing import probe_all, status_of
from tests.support.site import Site
from tests.support.webserver import WebServer

TENTH = ProberSettings(retry=RetryPolicy(backoff_seconds=0.05, max_wait_seconds=6.0))
FIFTEENTH = ProberSettings(retry=RetryPolicy(backoff_seconds=0.5 / 15, max_wait_seconds=4.0))


def outcomes(results: list[crawler.ProbeResult]) -> Counter[int | str]:
    return Counter(status_of(result) for result in results)


# --- Too many at once ---


@pytest.mark.parametrize("limit", [4, 2, 1])
@pytest.mark.parametrize("how", ["reset", "close", "503"])
async def test_a_host_with_a_limit_of_connections_is_asked_within_it(
    limit: int, how: Literal["reset", "close", "503"]
) -> None:
    """github.com/github/choosealicense.com/pull/612: "503 if too many connections opened".

    Also github.com/raviqqe/muffet/issues/5 and medic/cht-docs/pull/2181, which lower the number by hand.
    """
    async with ConnectionLimit(limit, how) as host:
        results = await probe_all(host.urls(60))
        assert outcomes(results) == {200: 60}
        assert host.most_at_once == limit
        assert host.refused <= 40, "as many as meet the limit before it is known, and one now and then"


@pytest.mark.parametrize("status", [503, 429])
@pytest.mark.parametrize("limit", [1, 3, 8])
async def test_a_host_with_a_limit_of_requests_is_asked_within_it(limit: int, status: int) -> None:
    """nginx refuses with `limit_conn_status`, 503 or 429, and says no word about when to come again."""
    async with RequestLimit(limit, status) as host:
        results = await probe_all(host.urls(60), per_host=16)
        assert outcomes(results) == {200: 60}
        assert {result.attempts for result in results} == {1}
        assert host.refused <= 30


@pytest.mark.parametrize("how", ["reset", "503"])
async def test_a_limit_that_changes_is_followed_down_and_up(how: Literal["reset", "503"]) -> None:
    """A server that scales; RFC 5681 adapts to a path that changes in the same way."""
    async with ConnectionLimit(6, how) as host:
        seen = []
        async for result in crawler.probe(host.urls(300)):
            seen.append(status_of(result))
            if len(seen) in (100, 200):
                host.limit = 1 if len(seen) == 100 else 6
                host.most_at_once = 0
        assert seen == [200] * 300
        assert host.most_at_once >= 4
        assert host.refused <= 60


async def test_several_hosts_with_limits_do_not_delay_each_other() -> None:
    hosts = [ConnectionLimit(1, "reset"), RequestLimit(2, 429), RateBucket(20, 5, 503), ConnectionLimit(3, "close")]
    async with hosts[0], hosts[1], hosts[2], hosts[3], ConnectionLimit(1000, seconds=0.0) as healthy:
        urls = [url for host in hosts for url in host.urls(40)]
        order = [result.seq async for result in crawler.probe([*urls, *healthy.urls(100)]) if result.outcome == "ok"]
        assert len(order) == 260
        assert max(order.index(seq) for seq in range(160, 260)) < 200


@pytest.mark.parametrize("per_host", [8, 64])
async def test_a_host_with_a_limit_does_not_delay_another(per_host: int) -> None:
    async with ConnectionLimit(2, "reset") as host, ConnectionLimit(1000, seconds=0.0) as healthy:
        order = [
            result.seq
            async for result in crawler.probe([*host.urls(60), *healthy.urls(200)], per_host=per_host)
            if result.outcome == "ok"
        ]
        assert len(order) == 260
        assert max(order.index(seq) for seq in range(60, 260)) < max(order.index(seq) for seq in range(60))


async def test_a_host_that_serves_one_request_at_a_time_gets_to_all() -> None:
    """10 URLs of 4.5 s each with a timeout of 30 s, divided by 15: eight at once would wait for up to 36 s.

    github.com/bda-research/node-crawler/issues/231: ETIMEDOUT with more than 5 connections, and none with fewer.
    """
    async with OneAtATime(0.3) as host:
        results = await probe_all(host.urls(10), settings=FIFTEENTH, timeout=2, connect_timeout=2 / 3)
        assert outcomes(results) == {200: 10}
        assert host.served <= 16, "requests that were given up, included"


# --- Too many in a time ---


@pytest.mark.parametrize("says_when", [True, False])
async def test_a_host_with_a_rate_gets_all_its_requests_within_it(says_when: bool) -> None:
    """30 requests per 10 s, divided by ten. Retry-After has whole seconds (RFC 9110, 10.2.3; RFC 6585, 4).

    github.com/lycheeverse/lychee/issues/36, 634 and 1873; raviqqe/muffet/issues/172;
    gjtorikian/html-proofer/issues/131.
    """
    async with RateLimit(30, 1.0, says_when=says_when) as host:
        results = await probe_all(host.urls(100), settings=TENTH)
        assert outcomes(results) == {200: 100}
        assert {result.attempts for result in results} == {1}, "to be told to wait is no attempt"
        assert host.served == 100
        assert host.refused <= 60


@pytest.mark.parametrize("status", [503, 429])
@pytest.mark.parametrize(("rate", "burst"), [(20, 0), (20, 5), (4, 10)])
async def test_a_host_that_fills_a_bucket_gets_all_its_requests(rate: float, burst: int, status: int) -> None:
    """nginx.org/en/docs/http/ngx_http_limit_req_module.html; the refusals of these say neither what nor when."""
    async with RateBucket(rate, burst, status) as host:
        results = await probe_all(host.urls(40 if rate > 10 else 16))
        assert outcomes(results) == {200: len(results)}
        assert host.refused <= 60


@pytest.mark.parametrize("burst", ["", "burst=5 nodelay"])
async def test_nginx_that_limits_requests_gives_all_its_pages(tmp_path: Path, burst: str) -> None:
    """A real one, with a rate and otherwise its defaults: 503 without Retry-After."""
    root, scratch = tmp_path / "root", tmp_path / "scratch"
    for folder in (root, scratch):
        folder.mkdir()
    (root / "page").write_text("here")
    limits = "limit_req_zone $server_name zone=pace:1m rate=20r/s;"
    server = WebServer(root, scratch, limits=limits, server_limits=f"limit_req zone=pace {burst};")
    with server.running():
        results = await probe_all(f"{server.origin}/page?{number}" for number in range(40))
    assert outcomes(results) == {200: 40}


async def test_a_few_urls_that_always_give_503_do_not_hold_up_their_host(site: Site) -> None:
    """A back end is down, and the rest of the site is well: Chromium shows the 503 and the pages of the others."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    urls = [site.url(f"/status/503?{number}" if number % 25 == 0 else f"/ok?{number}") for number in range(100)]
    results = await probe_all(urls)
    assert outcomes(results) == {503: 4, 200: 96}
    assert loop.time() - started < 15


async def test_a_host_that_refuses_for_ever_is_given_up() -> None:
    """It gets two of the longest pauses; then its answer stands."""
    settings = ProberSettings(retry=RetryPolicy(backoff_seconds=0.01, max_wait_seconds=0.2))
    async with RateLimit(0, 1.0, says_when=True) as host:
        results = await probe_all(host.urls(200), settings=settings)
        assert outcomes(results) == {429: 200}
        assert host.refused <= 200 * 3 + 20


async def test_a_url_that_is_refused_for_ever_does_not_hold_up_its_host(site: Site) -> None:
    """The others answer well in between, so the host itself has not been waited for enough: the URL has."""
    settings = ProberSettings(retry=RetryPolicy(backoff_seconds=0.01, max_wait_seconds=0.02, max_slow_downs=4))
    urls = [site.url("/status/429"), *(site.url(f"/ok?{number}") for number in range(50))]
    results = await probe_all(urls, settings=settings)
    assert outcomes(results) == {429: 1, 200: 50}
    assert sum(request.path == "/status/429" for request in site.requests) <= 4 + 3


# --- Down ---


async def test_a_host_that_is_down_for_a_second_loses_no_url() -> None:
    """A restart. The retry budget of 5,000 URLs allows for 600 retries; not one URL may need it."""
    async with DownAtFirst(1.0) as host:
        results = await probe_all(host.urls(5000))
        assert outcomes(results) == {200: 5000}
        assert sum(result.attempts - 1 for result in results) <= 100


async def test_a_host_that_resets_everything_for_a_while_loses_no_url(site: Site) -> None:
    """The back end behind a load balancer restarts. URLs that fail after all pauses are looked at again at the end."""
    served = 0

    async def page(x: Exchange) -> None:
        nonlocal served
        served += 1
        if 100 <= served < 300:
            await x.reset()
        await x.reply()

    site.on("/page", page)
    results = await probe_all((site.url(f"/page?{number}") for number in range(1000)), settings=TENTH)
    assert outcomes(results) == {200: 1000}


async def test_a_dead_host_costs_hardly_more_than_one_attempt_per_url() -> None:
    async with RefusesAll() as host:
        results = await probe_all(host.urls(3000))
        assert outcomes(results) == {"tcp.refused": 3000}
        assert sum(result.attempts - 1 for result in results) <= 100


async def test_a_host_that_answers_some_and_hangs_on_others_is_not_asked_one_by_one_for_ever(site: Site) -> None:
    """Three final requests that fail though they are alone show that the failures are the URLs' own."""
    hanging = [site.url(f"/hang?{number}") for number in range(40)]
    urls = [*(site.url(f"/ok?{number}") for number in range(40)), *hanging]
    loop = asyncio.get_running_loop()
    started = loop.time()
    results = await probe_all(urls, settings=TENTH, timeout=0.5)
    assert outcomes(results) == {200: 40, "http.timed_out": 40}
    assert loop.time() - started < 40 * 0.5, "one by one they would take so long"


# --- The user's word ---


@pytest.mark.parametrize(
    "host",
    [lambda: RateLimit(10, 60.0, says_when=False), lambda: ConnectionLimit(2, "reset")],
    ids=["rate", "connections"],
)
async def test_without_retries_the_first_word_stands(host: "type[OverloadedHost]") -> None:
    async with host() as server:
        results = await probe_all(server.urls(20), settings=TENTH, retries=0, method="GET")
        assert {result.attempts for result in results} == {1}
        assert not all(result.outcome == "ok" for result in results)
