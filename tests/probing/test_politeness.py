"""Bounds on requests to one host: how many at once, how often, and how long fewer after it asked for fewer."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

import crawler
from crawler import Options, ProbeResult, Target
from crawler.probing.factory import open_http_prober
from crawler.probing.scheduling.adaptive_limit import AdaptiveLimit
from crawler.probing.scheduling.scheduler import Scheduler
from crawler.probing.settings import ProberSettings, RetryPolicy
from tests.support.dns_server import DnsServer
from tests.support.exchange import Exchange
from tests.support.probing import asking, probe_all, probe_one, status_of
from tests.support.site import Site
from tests.support.slow_page import SlowPage
from tests.support.spacing import assert_spaced

ONE, OTHER = "127.0.0.2", "127.0.0.3"

TENTH = ProberSettings(retry=RetryPolicy(backoff_seconds=0.05))
"""Settings of a prober that waits a tenth of the usual time before retries."""


def now() -> float:
    return asyncio.get_running_loop().time()


def sent(site: Site, path: str) -> list[str]:
    return [request.method for request in site.requests if request.path == path]


# --- A host that refuses or slows down ---


async def test_a_host_that_has_too_many_requests_gets_fewer_and_then_more_again(site: Site) -> None:
    page = SlowPage(site, {ONE: 1.2}, status=429)
    results = await probe_all(page.urls(ONE, 220), retries=0, method="GET", per_host=8)
    refused = [status_of(result) for result in results].count(429)
    assert max(page.crowd[ONE][:8]) == 8
    assert max(page.crowd[ONE][refused : refused + 5]) <= 2, "after three halvings"
    assert max(page.crowd[ONE][-8:]) >= 7, "after a hundred good answers"
    assert max(page.crowd[ONE]) == 8


async def test_other_hosts_keep_all_their_slots(site: Site) -> None:
    page = SlowPage(site, {ONE: 60.0}, status=503)
    await probe_all([*page.urls(ONE, 100), *page.urls(OTHER, 120)], retries=0, method="GET", per_host=8)
    assert max(page.crowd[ONE][-8:]) <= 4, "after half a second"
    assert page.crowd[OTHER].count(8) >= 12, "of fifteen rounds of eight"
    assert page.times[OTHER][-1] < page.times[ONE][-1]


def test_refusals_at_the_same_time_count_once() -> None:
    adaptive_limit = AdaptiveLimit(16)
    for _ in range(16):
        adaptive_limit.record_refusal(0.0, now=10.0)
    assert adaptive_limit.limit == 8
    adaptive_limit.record_refusal(0.0, now=11.0)
    assert adaptive_limit.limit == 4
    for second in range(100):
        adaptive_limit.record_refusal(0.0, now=12.0 + second)
    assert adaptive_limit.limit == 1


def test_a_host_that_answers_slower_and_slower_gets_fewer() -> None:
    adaptive_limit = AdaptiveLimit(8)
    for second in range(10):
        adaptive_limit.record_answer(0.1, now=float(second))
    assert adaptive_limit.limit == 8
    for second in range(10, 20):
        adaptive_limit.record_answer(2.0, now=float(second))
    assert adaptive_limit.limit < 8


def test_a_host_that_is_slow_from_the_start_keeps_all_slots() -> None:
    adaptive_limit = AdaptiveLimit(8)
    for second in range(100):
        adaptive_limit.record_answer(5.0 + second % 2, now=float(second))
    assert adaptive_limit.limit == 8


def test_an_interval_that_the_host_asked_for_is_not_forgotten_with_its_last_request() -> None:
    adaptive_limit = AdaptiveLimit(8)
    adaptive_limit.require_interval(0.5)
    adaptive_limit.start_request(now=1.0)
    assert adaptive_limit.is_slowed(now=100.0)


def test_a_host_that_asked_for_no_interval_is_forgotten() -> None:
    adaptive_limit = AdaptiveLimit(8)
    adaptive_limit.require_interval(0.0)
    assert not adaptive_limit.is_slowed(now=100.0)


@pytest.mark.parametrize(
    ("path", "seconds"), [("/retry-after/1?status=429", 1.0), ("/retry-after-date/0.6?status=503", 0.6)]
)
async def test_retry_after_delays_all_requests_of_its_host_and_no_other(path: str, seconds: float, site: Site) -> None:
    page, started = SlowPage(site), now()
    results = await probe_all(
        [site.url(path, host=ONE), *page.urls(ONE, 8), *page.urls(OTHER, 8)], per_host=1, method="GET"
    )
    assert {status_of(result) for result in results} == {200}
    assert min(page.times[ONE]) >= started + seconds
    assert max(page.times[OTHER]) < min(page.times[ONE])


async def test_a_refused_head_waits_as_long_as_a_refused_get(site: Site) -> None:
    page, started = SlowPage(site), now()
    await probe_all([site.url("/retry-after/1", host=ONE), *page.urls(ONE, 5)], per_host=1)
    assert min(page.times[ONE]) >= started + 1


async def test_retry_after_delays_the_next_request_of_probes_in_progress(site: Site) -> None:
    """One page answers Retry-After. The other was asked with HEAD by then, and its GET would be a further request."""
    refused = asyncio.Event()
    gets: list[float] = []

    async def refuse(x: Exchange) -> None:
        await x.reply(429, [("Retry-After", "1")])
        refused.set()

    async def no_head(x: Exchange) -> None:
        if x.request.method == "HEAD":
            await refused.wait()
            await asyncio.sleep(0.05)
            await x.reply(405)
        else:
            gets.append(now())
            await x.reply()

    site.on("/refuse", refuse)
    site.on("/no-head", no_head)
    started = now()
    await probe_all([site.url("/refuse"), site.url("/no-head")], retries=0)
    assert min(gets) >= started + 1


async def test_a_retry_after_holds_after_a_hold_for_another_reason_ends() -> None:
    scheduler = Scheduler(concurrency=8, per_host=8)
    scheduler._host("host")
    scheduler.hold("host", 60)
    scheduler.record_refusal("host", 429, 30)
    scheduler.resume("host")
    assert scheduler.is_held("host")
    scheduler._host("other")
    scheduler.hold("other", 60)
    assert scheduler.is_held("other")
    scheduler.resume("other")
    assert not scheduler.is_held("other")


# --- How often, and how many ---


async def test_an_interval_spaces_the_urls_of_a_host(site: Site) -> None:
    page, started = SlowPage(site), now()
    await probe_all([*page.urls(ONE, 5), *page.urls(OTHER, 5)], interval=0.1)
    for host in (ONE, OTHER):
        assert_spaced(page.times[host], 0.1, started)
    assert page.times[OTHER][0] < page.times[ONE][1], "hosts do not wait for each other"


async def test_an_interval_spaces_the_requests_of_one_url_too(site: Site) -> None:
    """A redirect within the host and the GET after a HEAD are requests like any other."""
    started = now()
    await probe_all([site.url("/redirect/3"), site.url("/head/405")], interval=0.2)
    assert len(site.requests) == 6
    assert now() - started >= 5 * 0.2


async def test_an_interval_holds_for_later_batches_of_the_same_prober(site: Site) -> None:
    page, started = SlowPage(site), now()
    options = crawler.Options(interval=0.2)
    async with crawler.open_prober(options) as prober:
        for seq, url in enumerate(page.urls(ONE, 3)):
            await prober.probe(crawler.Target.of(seq, url))
    assert_spaced(page.times[ONE], 0.2, started)


async def test_two_names_of_one_address_are_two_hosts(site: Site, names: DnsServer) -> None:
    page = SlowPage(site)
    for name in ("one.test", "two.test"):
        names.a(name, "127.0.0.1")
    await probe_all([*page.urls("one.test", 20), *page.urls("two.test", 20)], per_host=2, **asking(names))
    assert (max(page.crowd["one.test"]), max(page.crowd["two.test"])) == (2, 2)


# --- The final retry ---


@pytest.mark.parametrize(("retries", "is_last"), [(1, True), (2, False)])
async def test_a_last_attempt_comes_after_all_other_targets(retries: int, is_last: bool, site: Site) -> None:
    """The other targets take ten times as long as the back-off, so it is not the back-off that makes the retry last."""
    flaky = ["/flaky/2/ok?1", "/flaky/2/ok?2"]
    others = [site.url(f"/delay/0.05/{number}", host=OTHER) for number in range(40)]
    urls = [*(site.url(path, host=ONE) for path in flaky), *others]
    results = await probe_all(urls, settings=TENTH, per_host=4, retries=retries)
    assert {status_of(result) for result in results} == {200}
    assert [result.attempts for result in results[:2]] == [2, 2]
    order = [request.path for request in site.requests]
    assert (set(order[-2:]) == set(flaky)) is is_last


async def test_a_last_attempt_waits_no_longer_than_its_bound_for_an_input_that_stays_open(site: Site) -> None:
    result_seen = asyncio.Event()

    async def lines() -> AsyncIterator[Target]:
        yield Target.of(0, site.url("/flaky/2/ok"))
        await result_seen.wait()

    started = now()
    async with (
        asyncio.timeout(5),
        open_http_prober(Options(guard="any"), ProberSettings(max_deferral_seconds=0.7)) as prober,
        aclosing(prober.probe_many(lines())) as results,
    ):
        async for result in results:
            assert (status_of(result), result.attempts) == (200, 2)
            result_seen.set()
    assert now() - started >= 0.7


async def test_a_lone_target_gets_its_last_attempt_at_once(site: Site) -> None:
    started = now()
    assert status_of(await probe_one(site.url("/flaky/2/ok"))) == 200
    assert now() - started < 2


# --- The retry budget ---


async def dead_urls(count: int) -> list[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    return [f"http://127.0.{number // 250}.{1 + number % 250}:{port}/" for number in range(count)]


def retries(results: list[ProbeResult]) -> int:
    return sum(result.attempts - 1 for result in results)


async def test_without_a_budget_a_dead_batch_makes_a_hundred_retries_in_all() -> None:
    results = await probe_all(await dead_urls(1000), settings=TENTH, retry_budget=0, retries=5)
    assert {status_of(result) for result in results} == {"tcp.refused"}
    assert retries(results) == 100


async def test_with_a_budget_each_finished_url_adds_its_share_of_a_retry() -> None:
    results = await probe_all(await dead_urls(1000), settings=TENTH, retry_budget=0.1, retries=1)
    assert 100 < retries(results) <= 200


async def test_a_small_batch_has_all_its_retries() -> None:
    results = await probe_all(await dead_urls(50), settings=TENTH, retry_budget=0, retries=2)
    assert retries(results) == 100


# --- Hosts that refuse HEAD ---


async def test_a_host_that_keeps_failing_head_and_passing_get_is_asked_with_get(site: Site) -> None:
    urls = [site.url(f"/head/405?{number}", host=ONE) for number in range(6)]
    results = await probe_all([*urls, site.url("/ok", host=OTHER)], per_host=1)
    assert [sent(site, f"/head/405?{number}") for number in range(6)] == [["HEAD", "GET"]] * 3 + [["GET"]] * 3
    assert sent(site, "/ok") == ["HEAD"], "what is known of one host says nothing of another"
    assert [result.method for result in results] == ["GET"] * 6 + ["HEAD"]


async def test_a_head_that_works_clears_the_count(site: Site) -> None:
    paths = ["/head/405?1", "/head/405?2", "/ok", "/head/405?3", "/head/405?4", "/head/405?5", "/ok?last"]
    results = await probe_all([site.url(path) for path in paths], per_host=1, concurrency=1)
    assert [sent(site, path) for path in paths] == [
        *[["HEAD", "GET"]] * 2,
        ["HEAD"],
        *[["HEAD", "GET"]] * 3,
        ["GET"],
    ]
    assert {status_of(result) for result in results} == {200}


async def test_a_host_where_get_fails_too_is_still_asked_with_head(site: Site) -> None:
    paths = [f"/status/404?{number}" for number in range(6)]
    results = await probe_all([site.url(path) for path in paths], per_host=1)
    assert [sent(site, path) for path in paths] == [["HEAD", "GET"]] * 6
    assert {(status_of(result), result.method) for result in results} == {(404, "GET")}


async def test_knowledge_about_head_is_kept_after_its_task(site: Site) -> None:
    async with crawler.open_prober(crawler.Options(per_host=1)) as prober:
        for seq in range(5):
            await prober.probe(crawler.Target.of(seq, site.url(f"/head/405?{seq}")))
    assert [request.method for request in site.requests] == ["HEAD", "GET"] * 3 + ["GET", "GET"]
