"""An answer that comes within the timeout counts, however late, and whatever else may be asked meanwhile.

The witness is any browser with that patience: Chromium shows a page whose first byte comes after minutes, and
`curl --max-time` succeeds with each of these. That a second request begins while the first is silent, and the first
answer wins, is the hedged request of Dean and Barroso, "The Tail at Scale" (CACM 56, 2).
"""

import asyncio
from collections.abc import Callable

import pytest

from crawler import ProbeResult
from tests.support.certs import Authority
from tests.support.exchange import Exchange
from tests.support.http2_server import Http2Server
from tests.support.probing import probe_one, status_of
from tests.support.site import Site

TIMEOUT = 4.0
SHARES = (0.45, 0.55, 0.7, 0.85)


def slow(share: float) -> Callable[[Exchange], "asyncio.Future[None]"]:
    """Return a handler that answers after this share of the timeout."""

    async def answer(x: Exchange) -> None:
        await asyncio.sleep(share * TIMEOUT)
        await x.reply()

    return answer  # type: ignore[return-value]


async def probe(url: str, method: str = "auto", **options: object) -> ProbeResult:
    return await probe_one(url, method=method, timeout=TIMEOUT, retries=0, **options)


@pytest.mark.parametrize("method", ["auto", "GET"])
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_an_answer_within_the_timeout_counts(authority: Authority, scheme: str, method: str) -> None:
    async with Site(tls=authority.good() if scheme == "https" else None) as site:
        for share in SHARES:
            site.on(f"/{share}", slow(share))
        results = await asyncio.gather(
            *(probe(site.url(f"/{share}"), method, cafile=str(authority.cafile)) for share in SHARES)
        )
        assert [status_of(result) for result in results] == [200] * len(SHARES)
        assert {result.method for result in results} == {"HEAD" if method == "auto" else "GET"}
        assert {len(result.hops) for result in results} == {1}
        assert [request.path for request in site.requests].count("/0.45") == 1, "no second request before half of it"


async def test_a_get_beside_a_silent_head_has_the_other_half(site: Site) -> None:
    async def answer(x: Exchange) -> None:
        if x.request.method == "HEAD":
            await x.hang()
        await slow(0.4)(x)

    site.on("/deaf", answer)
    result = await probe(site.url("/deaf"))
    assert [(hop.method, hop.status or hop.error) for hop in result.hops] == [("HEAD", "http.timed_out"), ("GET", 200)]


@pytest.mark.parametrize("late", [405, 200])
async def test_the_first_good_answer_wins(site: Site, late: int) -> None:
    """HEAD answers at 0.6 of the time; the GET that begins at half of it takes 0.3."""

    async def answer(x: Exchange) -> None:
        await asyncio.sleep((0.6 if x.request.method == "HEAD" else 0.3) * TIMEOUT)
        await x.reply(late if x.request.method == "HEAD" else 200)

    site.on("/late", answer)
    result = await probe(site.url("/late"))
    assert (status_of(result), result.method) == (200, "HEAD" if late == 200 else "GET")
    assert [request.method for request in site.requests] == ["HEAD", "GET"]


async def test_a_failure_of_get_is_the_result_though_head_is_still_silent(site: Site) -> None:
    async def answer(x: Exchange) -> None:
        if x.request.method == "GET":
            x.reset()
        await x.hang()

    site.on("/reset", answer)
    result = await probe(site.url("/reset"))
    assert (status_of(result), result.method) == ("tcp.reset", "GET")


async def test_nothing_in_time_is_a_timeout(site: Site) -> None:
    result = await probe(site.url("/hang"))
    assert status_of(result) == "http.timed_out"


async def test_a_head_that_comes_in_parts_counts_however_late(site: Site) -> None:
    async def answer(x: Exchange) -> None:
        if x.request.method == "GET":
            await x.hang()
        await x.send(b"HTTP/1.1 200 OK\r\n")
        await asyncio.sleep(0.7 * TIMEOUT)
        await x.send(b"Content-Length: 0\r\n\r\n")

    site.on("/parts", answer)
    result = await probe(site.url("/parts"))
    assert (status_of(result), result.method) == (200, "HEAD")


@pytest.mark.parametrize("method", ["auto", "GET"])
async def test_http2_is_asked_beside_a_silent_http1(authority: Authority, method: str) -> None:
    async with Http2Server(authority.http2(), http1="silence") as server:
        result = await probe(server.url("/ok"), method, cafile=str(authority.cafile))
        assert (status_of(result), result.hops[-1].http_version) == (200, "2")
        assert [request.version for request in server.requests] == [1, 2]


async def test_with_an_interval_head_has_half_of_the_time_and_get_the_other(site: Site) -> None:
    """Requests that overlap would be closer than the interval."""

    async def answer(x: Exchange) -> None:
        await asyncio.sleep((0.6 if x.request.method == "HEAD" else 0) * TIMEOUT)
        await x.reply()

    site.on("/page", answer)
    result = await probe(site.url("/page"), interval=0.01)
    assert (status_of(result), result.method) == (200, "GET")
