"""How a probe finds its result, on a real site that misbehaves."""

import asyncio
import email.utils
import itertools
import time
from collections.abc import AsyncIterator, Iterator

import pytest

import crawler
from crawler import OptionError, ProbeResult
from crawler.core.options import Options
from crawler.core.results import HopResult, Timings
from crawler.core.urls import Target
from crawler.probing.probe import Probe
from tests.support.exchange import Exchange
from tests.support.expected_results import EXPECTED_RESULTS
from tests.support.probing import probe_all, probe_one, status_of
from tests.support.site import Site

OUTCOMES = {"http_error": range(400, 1000), "ok": range(100, 400)}


@pytest.mark.parametrize("path", EXPECTED_RESULTS)
async def test_the_result_of_each_server_behaviour(path: str, site: Site) -> None:
    result = await probe_one(site.url(path), timeout=2)
    assert (status_of(result), result.method) == EXPECTED_RESULTS[path], result
    is_well_formed(result, site)


def is_well_formed(result: ProbeResult, site: Site) -> None:
    if result.error is None:
        assert result.status in OUTCOMES[result.outcome]
        assert result.errors == ({} if result.outcome == "ok" else {"http": result.status})
    else:
        assert result.outcome == "failed"
        assert result.errors == {"http": result.error.group}
    assert result.ip == "127.0.0.1"
    assert abs(result.timestamp - time.time()) < 60
    assert result.final_url == result.hops[-1].url
    assert result.timings.total == pytest.approx(sum(hop.timings.total for hop in result.hops), abs=0.01)
    for hop in result.hops:
        phases = [hop.timings.dns, hop.timings.connect, hop.timings.ssl]
        phases += [hop.timings.send, hop.timings.wait, hop.timings.receive]
        assert sum(phase or 0.0 for phase in phases) == pytest.approx(hop.timings.total, abs=0.01)


async def test_each_hop_is_one_request(site: Site) -> None:
    for path in ("/ok", "/redirect/3", "/reset", "/close", "/status/404"):
        site.requests.clear()
        result = await probe_one(site.url(path))
        assert [(hop.method, hop.url) for hop in result.hops] == [
            (request.method, site.url(request.path)) for request in site.requests
        ]


async def test_the_whole_deadline_bounds_all_hops_and_attempts(site: Site) -> None:
    loop = asyncio.get_running_loop()
    started = loop.time()
    result = await probe_one(site.redirect_to(site.url("/hang")), timeout=0.5, retries=5)
    assert status_of(result) == "http.timed_out"
    assert loop.time() - started < 5  # six attempts, or a HEAD and a GET of half a second each, would be more
    assert result.timings.total < 1000


async def test_a_transient_failure_is_retried(site: Site) -> None:
    result = await probe_one(site.url("/flaky/2/ok"), retries=1)
    assert (status_of(result), result.attempts, len(result.hops)) == (200, 2, 3)


async def test_no_retries_means_one_attempt(site: Site) -> None:
    result = await probe_one(site.url("/flaky/2/ok"), retries=0)
    assert (status_of(result), result.attempts) == ("tcp.reset", 1)
    assert [request.method for request in site.requests] == ["HEAD", "GET"]


async def test_a_final_failure_is_not_retried(site: Site) -> None:
    result = await probe_one(site.url("/status/404"), retries=5)
    assert (result.attempts, len(site.requests)) == (1, 2)


async def test_a_retry_waits_for_retry_after(site: Site) -> None:
    loop = asyncio.get_running_loop()
    started = loop.time()
    result = await probe_one(site.url("/retry-after/1"))
    assert (status_of(result), result.method) == (200, "GET")
    assert loop.time() - started >= 1


def asks(value: str) -> float | None:
    return HopResult(Timings(), headers=[("retry-after", value)]).retry_after


@pytest.mark.parametrize(
    ("value", "seconds"), [("0", 0), ("120", 120), ("-1", None), ("soon", None), ("", None), ("9" * 400, float("inf"))]
)
def test_retry_after_in_seconds(value: str, seconds: float | None) -> None:
    assert asks(value) == seconds


def test_retry_after_as_a_date() -> None:
    seconds = asks(email.utils.formatdate(time.time() + 100, usegmt=True))
    assert seconds == pytest.approx(100, abs=5)
    assert asks("Thu, 01 Jan 1970 00:00:00 GMT") == 0
    assert asks("Thu, 99 Foo 99999 00:00:00 GMT") is None


async def test_a_retry_after_is_bounded() -> None:
    loop = asyncio.get_running_loop()
    probe = Probe.of(Target.of(0, "http://a/"), Options(method="GET"), loop.time)
    probe.take(HopResult(Timings(), status=503, headers=[("retry-after", "9" * 400)]), 0.0)
    assert not probe.is_finished
    assert probe.not_before <= loop.time() + 60


@pytest.mark.parametrize("method", ["HEAD", "GET"])
async def test_a_given_method_is_the_only_one_sent(method: str, site: Site) -> None:
    result = await probe_one(site.url("/head/404"), method=method)
    assert {request.method for request in site.requests} == {method}
    assert (status_of(result), result.method) == ({"HEAD": 404, "GET": 200}[method], method)


async def test_redirects_need_not_be_followed(site: Site) -> None:
    result = await probe_one(site.url("/redirect/1"), max_redirects=0)
    assert status_of(result) == "http.response.redirect_loop"


async def test_the_request_line_and_headers_that_are_sent(site: Site) -> None:
    await probe_one(site.url("/ok"), user_agent="me/1", headers={"X-Mine": "yes", "accept": "text/html"})
    [request] = site.requests
    assert request.host == f"127.0.0.1:{site.port}"
    assert request.header("User-Agent") == "me/1"
    assert request.header("X-Mine") == "yes"
    assert [value for name, value in request.headers if name.lower() == "accept"] == ["text/html"]


async def test_path_and_query_are_sent_as_they_are(site: Site) -> None:
    path = "/echo/a%2Fb;c=%7e+%20?q=%zz&a=1&&b=[]%E9'"
    await probe_one(site.url(path))
    assert site.requests[0].path == path.replace("'", "%27")


async def test_given_headers_stay_with_their_origin(site: Site) -> None:
    async with Site() as other:
        away = site.redirect_to(other.redirect_to(site.url("/ok")))
        await probe_one(away, headers={"Authorization": "secret", "Cookie": "secret", "X-Api-Key": "secret"})
        assert [request.header("X-Api-Key") for request in site.requests] == ["secret", ""]
        assert "secret" not in str(other.requests)


async def test_cookies_go_back_to_the_host_that_set_them_and_to_no_other(site: Site) -> None:
    site.on("/in", b"HTTP/1.1 302 Found\r\nSet-Cookie: a=1; Path=/\r\nSet-Cookie: b=2\r\nLocation: /out\r\n\r\n")
    async with Site(host="127.0.0.2") as other:
        away = other.url("/ok").encode()
        site.on("/out", b"HTTP/1.1 302 Found\r\nLocation: " + away + b"\r\n\r\n")
        assert status_of(await probe_one(site.url("/in"))) == 200
        assert [request.header("Cookie") for request in site.requests] == ["", "a=1; b=2"]
        assert [request.header("Cookie") for request in other.requests] == [""]


async def test_headers_stay_through_a_redirect_within_the_origin(site: Site) -> None:
    await probe_one(site.url("/redirect/1"), headers={"X-Api-Key": "secret"})
    assert [request.header("X-Api-Key") for request in site.requests] == ["secret", "secret"]


async def test_equal_urls_are_probed_once_and_each_line_has_its_result(site: Site) -> None:
    shouted = site.url("/ok").upper().replace("/OK", "/x/../ok")
    urls = [site.url("/ok"), site.url("/ok#part"), shouted, site.url("/count")]
    results = await probe_all(urls * 2)
    assert [(result.seq, result.url) for result in results] == list(enumerate(urls * 2))
    assert {status_of(result) for result in results} == {200}
    assert sorted(request.path for request in site.requests) == ["/count", "/ok"]


async def test_a_line_that_is_no_url_has_a_result(site: Site) -> None:
    results = await probe_all(["nonsense", site.url("/ok"), b"http://\xff/", "", "ftp://x/"])
    assert [result.outcome for result in results] == ["invalid", "ok", "invalid", "invalid", "invalid"]
    assert results[0].errors == {"http": "INVALID_URL"}
    assert results[0].hops == []


async def test_the_reader_may_stop_early(site: Site) -> None:
    results = crawler.probe([site.url(f"/hang/{number}") for number in range(50)] + [site.url("/ok", host="127.0.0.2")])
    async for result in results:
        assert result.status == 200
        break
    await results.aclose()
    await site.until(lambda: site.active == 0)


async def test_a_fault_in_the_callers_iterable_is_raised_to_the_caller(site: Site) -> None:
    def lines() -> Iterator[str]:
        yield site.url("/ok")
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        async for _ in crawler.probe(lines()):
            pass


async def test_urls_are_read_as_they_come(site: Site) -> None:
    first_result = asyncio.Event()

    async def lines() -> AsyncIterator[str]:
        yield site.url("/ok")
        await first_result.wait()
        yield site.url("/count")

    seen = 0
    async for _ in crawler.probe(lines()):
        seen += 1
        first_result.set()
    assert seen == 2


async def test_requests_are_bounded_for_all_and_for_each_host(site: Site) -> None:
    urls = [site.url(f"/delay/0.02?{number}", host=f"127.0.0.{1 + number % 5}") for number in range(300)]
    await probe_all(urls, concurrency=12, per_host=3)
    assert 8 < site.peak <= 12
    assert max(site.peak_of(f"127.0.0.{1 + number}") for number in range(5)) == 3


async def test_a_redirect_takes_a_slot_of_the_host_that_it_leads_to(site: Site) -> None:
    urls = [
        site.url("/redirect-to", host=f"127.0.0.{2 + number}") + f"?url={site.url(f'/delay/0.05/{number}')}"
        for number in range(20)
    ]
    results = await probe_all(urls, per_host=2)
    assert {status_of(result) for result in results} == {200}
    assert site.peak_of("127.0.0.1") <= 2


async def test_a_host_that_never_answers_delays_no_other(site: Site) -> None:
    """Of two thousand URLs of a stuck host and two thousand of others, the others all finish first."""
    stuck = [site.url(f"/hang/{number}", host="127.1.1.1") for number in range(2000)]
    quick = [site.url("/ok", host=f"127.0.{number // 200}.{1 + number % 200}") for number in range(2000)]
    mixed = [url for pair in zip(stuck, quick, strict=True) for url in pair]
    answered = 0
    results = crawler.probe(mixed, timeout=600, concurrency=64, per_host=8)
    async for result in results:
        assert result.status == 200, result
        answered += 1
        if answered == len(quick):
            break
    await results.aclose()
    assert site.peak_of("127.1.1.1") == 8


async def test_a_body_after_head_that_comes_late_is_not_the_next_answer(site: Site) -> None:
    async def naive(x: Exchange) -> None:
        if x.request.method == "GET":
            await x.reply(200)
        else:
            await x.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 25\r\n\r\n")
            await asyncio.sleep(0.002)
            await x.send(b"<html>not here</html>....")

    site.on("/naive", naive)
    results = await probe_all([site.url(f"/naive?{number}") for number in range(50)])
    assert {(status_of(result), result.method) for result in results} == {(200, "GET")}


async def test_a_cookie_cannot_split_a_request(site: Site) -> None:
    """As in Chromium, a CR ends the line of the cookie."""
    site.on("/in", b"HTTP/1.1 302 Found\r\nSet-Cookie: a=b\rX-Evil: 1\r\nSet-Cookie: c=d\r\nLocation: /ok\r\n\r\n")
    assert status_of(await probe_one(site.url("/in"))) == 200
    assert [request.header("Cookie") for request in site.requests] == ["", "a=b; c=d"]
    assert {request.header("X-Evil") for request in site.requests} == {""}


async def test_an_endless_list_of_one_url_gives_results_in_bounded_memory(site: Site) -> None:
    seen = 0
    results = crawler.probe(itertools.repeat(site.url("/ok")))
    async for result in results:
        assert result.status == 200
        seen += 1
        if seen == 100_000:
            break
    await results.aclose()
    assert len(site.requests) == 1


async def test_options_out_of_bounds_are_refused_however_they_were_made(site: Site) -> None:
    with pytest.raises(OptionError, match="per_host"):
        async with crawler.open_prober(crawler.Options(per_host=0)):
            pass
    with pytest.raises(OptionError, match="timeout"):
        crawler.create_app(crawler.Options(timeout=-1))
