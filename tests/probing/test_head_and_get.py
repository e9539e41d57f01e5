"""No bad verdict stands while a request before it was HEAD. The witness is Chromium, which sends GET from the start.

Checkers that stop at HEAD report live pages: UNLSiteMaster/site_master#62, stevenvachon/broken-link-checker#114,
nanoc/nanoc#1178, repology/repology-updater#211. Servers that answer HEAD with 200 and GET with 404:
adamcaudill/yawast#69.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

import crawler
from crawler import Options
from crawler.core.results import Hop, HopResult, Timings
from crawler.core.urls import Target
from crawler.probing.head_support import HeadEvidence, HeadSupport, compare_answers
from tests.support.behaviours import Handler
from tests.support.certs import Authority
from tests.support.exchange import Exchange
from tests.support.probing import probe_one, status_of
from tests.support.site import Site


def redirects_head(location: str, status_of_get: int = 200) -> Handler:
    """Answer HEAD with a redirect, and GET with a status."""

    async def answer(x: Exchange) -> None:
        if x.request.method == "HEAD":
            await x.reply(302, [("Location", location)])
        else:
            await x.reply(status_of_get)

    return answer


def asked(site: Site) -> list[tuple[str, str]]:
    return [(request.method, request.path) for request in site.requests]


@pytest.mark.parametrize(
    "location",
    [
        "/status/404",
        "/status/500",
        "/page",
        "http://127.0.0.1:1/",
        "http://no.invalid/",
        "mailto:me",
        "http://[",
        "/hang",
    ],
)
async def test_a_page_is_alive_wherever_head_is_sent(location: str, site: Site) -> None:
    """To an error page, in a circle, to a dead host, to no page at all."""
    site.on("/page", redirects_head(location))
    result = await probe_one(site.url("/page"), timeout=2)
    assert (status_of(result), result.method, result.final_url) == (200, "GET", site.url("/page"))
    assert asked(site)[0] == ("HEAD", "/page")
    assert asked(site)[-1] == ("GET", "/page")
    assert len(asked(site)) <= 3, "a HEAD that comes back to a URL is not sent twenty times"


async def test_get_decides_each_step_again(site: Site) -> None:
    site.on("/page", redirects_head("/elsewhere", status_of_get=404))
    result = await probe_one(site.redirect_to(site.url("/page")))
    assert (status_of(result), result.method, result.final_url) == (404, "GET", site.url("/page"))
    start = site.requests[0].path
    assert asked(site) == [
        ("HEAD", start), ("HEAD", "/page"), ("HEAD", "/elsewhere"), ("GET", start), ("GET", "/page")
    ]  # fmt: skip


async def test_get_begins_without_the_cookies_of_head(site: Site) -> None:
    async def answer(x: Exchange) -> None:
        if x.request.method == "HEAD":
            await x.reply(302, [("Location", "/status/403"), ("Set-Cookie", "is_robot=1; Path=/")])
        else:
            await x.reply(403 if x.request.header("Cookie") else 200)

    site.on("/page", answer)
    assert status_of(await probe_one(site.url("/page"))) == 200


async def test_a_failure_before_the_request_needs_no_get() -> None:
    result = await probe_one("http://127.0.0.1:1/", retries=0)
    assert (status_of(result), [hop.method for hop in result.hops]) == ("tcp.refused", ["HEAD"])


async def test_get_after_head_has_a_connection_of_its_own(site: Site) -> None:
    """Some servers answer nothing on a connection that has had a HEAD."""
    after_head: set[int] = set()

    async def deaf(x: Exchange) -> None:
        if x.request.connection in after_head:
            await x.hang()
        elif x.request.method == "HEAD":
            after_head.add(x.request.connection)
            await x.reply(404)
        else:
            await x.reply(200)

    site.on("/deaf", deaf)
    async with crawler.open_prober(Options(timeout=5, per_host=1)) as prober:
        for number in range(2):
            result = await anext(prober.probe_many([Target.of(0, site.url(f"/deaf?{number}"))]))
            assert (status_of(result), result.method) == (200, "GET")
    first_head, first_get, *_ = site.requests
    assert first_head.connection != first_get.connection


async def test_the_fresh_connection_takes_the_place_of_the_kept_one(site: Site) -> None:
    """A host that allows few connections at once gets no more of them than without the GET."""
    site.on("/page", redirects_head("/status/404"))
    async with crawler.open_prober(Options()) as prober:
        result = await anext(prober.probe_many([Target.of(0, site.url("/page"))]))
        assert (status_of(result), site.connections) == (200, 2)
        await site.until(lambda: site.open_connections == 1)


# --- What a host teaches ---


def answers(head: int | None, get: int | None) -> tuple[Hop, HopResult]:
    return Hop("http://a.test/", "HEAD", head, None, Timings()), HopResult(Timings(), get)


@pytest.mark.parametrize(
    ("head", "get", "evidence"),
    [
        (404, 200, HeadEvidence.REFUSED),
        (None, 200, HeadEvidence.REFUSED),
        (405, 301, HeadEvidence.REFUSED),
        (302, 200, HeadEvidence.REFUSED),
        (200, 404, HeadEvidence.MISLEADS),
        (301, 410, HeadEvidence.MISLEADS),
        (200, 503, None),
        (404, 404, None),
        (302, 302, None),
        (200, 200, None),
        (200, None, None),
    ],
)
def test_what_two_answers_show(head: int | None, get: int | None, evidence: HeadEvidence | None) -> None:
    assert compare_answers(*answers(head, get)) is evidence


def test_a_host_is_asked_with_get_after_three_refusals_or_one_wrong_answer() -> None:
    support = HeadSupport()
    for evidence in (HeadEvidence.REFUSED, HeadEvidence.REFUSED, HeadEvidence.WORKS, HeadEvidence.REFUSED):
        support.learn("a.test", evidence)
        assert not support.refuses_head("a.test")
    support.learn("b.test", HeadEvidence.MISLEADS)
    assert support.refuses_head("b.test")
    support.learn("b.test", HeadEvidence.WORKS)
    assert support.refuses_head("b.test"), "what it said about other URLs may be wrong too"


async def test_a_host_that_says_200_to_head_and_404_to_get_is_asked_with_get_from_then_on(site: Site) -> None:
    async def misleads(x: Exchange) -> None:
        await x.reply(200 if x.request.method == "HEAD" else 404)

    site.on("/soft", misleads)
    async with crawler.open_prober(Options(accept=("404",))) as prober:
        first = [result async for result in prober.probe_many([Target.of(0, site.url("/soft"))])]
        assert [(hop.method, hop.status) for hop in first[0].hops] == [("HEAD", 200), ("GET", 404)]
        site.requests.clear()
        _ = [result async for result in prober.probe_many([Target.of(0, site.url("/ok"))])]
    assert asked(site) == [("GET", "/ok")]


# --- Time ---


@asynccontextmanager
async def behind_a_slow_start(site: Site, seconds: float) -> AsyncIterator[int]:
    """Open a port that leads to a site and lets the first bytes of a connection wait."""

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            hello = await reader.read(65536)
            await asyncio.sleep(seconds)
            site_reader, site_writer = await asyncio.open_connection(site.host, site.port)
            site_writer.write(hello)
            await asyncio.gather(copy(reader, site_writer), copy(site_reader, writer))

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_a_slow_handshake_is_not_taken_off_the_time_of_head(authority: Authority) -> None:
    """curl --max-time 2 opens it too: the handshake takes more than half of the time, the answer none."""
    async with Site(tls=authority.good()) as site, behind_a_slow_start(site, 1.1) as port:
        result = await probe_one(f"https://127.0.0.1:{port}/ok", timeout=2, retries=0, cafile=str(authority.cafile))
    assert (status_of(result), result.method, len(result.hops)) == (200, "HEAD", 1)
