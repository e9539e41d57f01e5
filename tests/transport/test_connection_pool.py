"""Kept connections are reused where that is safe, closed where it is not, and never cause a wrong result."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from crawler import ProbeResult
from crawler.compose import open_prober
from crawler.core.options import Options
from crawler.core.urls import Target
from crawler.transport.sockets.connection import Connection
from crawler.transport.sockets.connection_pool import ConnectionPool
from crawler.transport.sockets.poller import Poller
from crawler.transport.sockets.poller_choice import open_poller
from tests.support.certs import Authority
from tests.support.exchange import Exchange
from tests.support.probing import probe_all, status_of
from tests.support.site import Site

Ask = Callable[..., "asyncio.Future[ProbeResult]"]


@asynccontextmanager
async def asking(**options: object) -> AsyncIterator[Ask]:
    """Open a prober; yield a function that probes one URL with it."""
    async with open_prober(Options.of({"timeout": 5, "retries": 0, **options})) as prober:

        def ask(url: str) -> "asyncio.Future[ProbeResult]":
            return asyncio.ensure_future(prober.probe(Target.of(0, url)))

        yield ask


# --- Reused ---


@pytest.mark.parametrize("method", ["HEAD", "GET"])
async def test_one_connection_serves_one_request_after_another(method: str, site: Site) -> None:
    async with asking(method=method) as ask:
        results = [await ask(site.url(f"/ok?{number}")) for number in range(20)]
    assert {status_of(result) for result in results} == {200}
    assert (site.connections, len(site.requests)) == (1, 20)


async def test_one_tls_connection_serves_one_request_after_another(authority: Authority) -> None:
    async with Site(tls=authority.good()) as site, asking(cafile=str(authority.cafile)) as ask:
        first, *others = [await ask(site.url(f"/ok?{number}")) for number in range(5)]
    assert site.connections == 1
    assert first.timings.ssl is not None
    for result in others:
        assert (status_of(result), result.tls, result.ip) == (200, first.tls, first.ip)


async def test_a_phase_that_is_skipped_has_no_time(site: Site) -> None:
    async with asking() as ask:
        first, second = await ask(site.url("/ok")), await ask(site.url("/ok"))
    assert None not in (first.timings.connect, first.timings.send, first.timings.wait)
    assert (second.timings.dns, second.timings.connect, second.timings.ssl) == (None, None, None)
    assert None not in (second.timings.send, second.timings.wait)


@pytest.mark.parametrize(
    "path", ["/status/204", "/status/304", "/status/404", "/redirect/3", "/continue", "/early-hints", "/no-reason"]
)
async def test_a_response_without_an_unread_body_keeps_the_connection_open(path: str, site: Site) -> None:
    async with asking(method="GET") as ask:
        for _ in range(3):
            await ask(site.url(path))
    assert site.connections == 1


async def test_http_1_0_with_keep_alive_keeps_the_connection_open(site: Site) -> None:
    async def keep(x: Exchange) -> None:
        await x.send(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok")

    site.on("/keep", keep)
    async with asking(method="GET") as ask:
        assert [status_of(await ask(site.url("/keep"))) for _ in range(3)] == [200] * 3
    assert site.connections == 1


async def test_each_origin_has_its_own(site: Site) -> None:
    async with asking() as ask:
        for _ in range(3):
            for host in ("127.0.0.1", "127.0.0.2", "127.0.0.3"):
                assert (await ask(site.url("/ok", host=host))).ip == host
    assert site.connections == 3


async def test_concurrent_requests_share_no_connection(site: Site) -> None:
    async with asking(per_host=4) as ask:
        await asyncio.gather(*(ask(site.url(f"/delay/0.05?{number}")) for number in range(16)))
    assert site.peak == site.connections == 4


# --- Not reused ---


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("HEAD", "/after-close"),
        ("GET", "/after-close"),
        ("HEAD", "/http10"),
        ("GET", "/http10"),
        ("HEAD", "/head-body"),  # a body where none may be
        ("GET", "/chunked"),  # of unknown length
        ("GET", "/long-body"),
        ("GET", "/slow-body"),  # not all there when the head is
        ("HEAD", "/te-cl"),
        ("GET", "/te-cl"),
        ("GET", "/more-than-its-length"),
    ],
)
async def test_a_connection_whose_next_response_could_be_misread_is_not_reused(
    method: str, path: str, site: Site
) -> None:
    async def slow_body(x: Exchange) -> None:
        await x.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
        await x.hang()

    async def more_than_its_length(x: Exchange) -> None:
        await x.send(
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
        )

    async def long_body(x: Exchange) -> None:
        await x.reply(body=b"a" * 1_000_000)

    for handler in (slow_body, more_than_its_length, long_body):
        site.on("/" + handler.__name__.replace("_", "-"), handler)
    async with asking(method=method) as ask:
        assert [status_of(await ask(site.url(path))) for _ in range(3)] == [200] * 3
    assert [request.connection for request in site.requests] == [1, 2, 3]


async def test_a_connection_with_unexpected_bytes_is_not_reused(site: Site) -> None:
    """Some servers tell an idle client in this way that it has been idle for too long."""
    said = asyncio.Event()

    async def impatient(x: Exchange) -> None:
        await x.reply()
        await x.send(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
        said.set()

    site.on("/impatient", impatient)
    async with asking() as ask:
        for _ in range(3):
            said.clear()
            assert status_of(await ask(site.url("/impatient"))) == 200
            await said.wait()
    assert [request.connection for request in site.requests] == [1, 2, 3]


async def test_a_connection_that_the_server_has_closed_costs_no_request(site: Site) -> None:
    closed = asyncio.Event()

    async def leaves(x: Exchange) -> None:
        await x.reply()
        await x.connection.half_close()
        closed.set()

    site.on("/leaves", leaves)
    async with asking() as ask:
        for _ in range(3):
            closed.clear()
            result = await ask(site.url("/leaves"))
            assert (status_of(result), len(result.hops), result.attempts) == (200, 1, 1)
            await closed.wait()
    assert [request.connection for request in site.requests] == [1, 2, 3]


# --- The server closes the connection as it is reused ---


def answers_once_a_connection(site: Site, then: bytes | None = b"") -> None:
    """Let /once end each connection at its second request: with RST, or with the bytes of `then` and FIN."""
    seen: set[int] = set()

    async def once(x: Exchange) -> None:
        if x.request.connection not in seen:
            seen.add(x.request.connection)
            await x.reply()
        elif then is None:
            x.reset()
        else:
            await x.send(then)
            x.keeps_open = False

    site.on("/once", once)


@pytest.mark.parametrize("then", [None, b""], ids=["RST", "FIN"])
@pytest.mark.parametrize("method", ["auto", "HEAD", "GET"])
async def test_a_kept_connection_that_ends_with_our_request_is_replaced_once(
    then: bytes | None, method: str, site: Site
) -> None:
    answers_once_a_connection(site, then)
    async with asking(method=method) as ask:
        await ask(site.url("/once"))
        result = await ask(site.url("/once"))
    assert (status_of(result), len(result.hops), result.attempts) == (200, 1, 1)
    assert [request.connection for request in site.requests] == [1, 1, 2]
    assert len({request.method for request in site.requests}) == 1


async def test_a_kept_tls_connection_that_ends_is_replaced_once(authority: Authority) -> None:
    async with Site(tls=authority.good()) as site, asking(cafile=str(authority.cafile)) as ask:
        for then in (None, b""):
            answers_once_a_connection(site, then)
            site.requests.clear()
            await ask(site.url("/once"))
            result = await ask(site.url("/once"))
            assert (status_of(result), len(result.hops)) == (200, 1)
            assert len(site.requests) == 3


async def test_a_kept_connection_that_ends_within_the_response_is_a_failure_of_the_target(site: Site) -> None:
    answers_once_a_connection(site, b"HTTP/1.1 2")
    async with asking(method="GET") as ask:
        await ask(site.url("/once"))
        result = await ask(site.url("/once"))
    assert status_of(result) == "tcp.closed"
    assert [request.connection for request in site.requests] == [1, 1]


async def test_a_kept_connection_without_a_response_is_not_replaced(site: Site) -> None:
    """The response may just take long."""
    site.on("/late", lambda x: x.reply() if x.hit_number == 1 else x.hang())
    async with asking(method="GET", timeout=1) as ask:
        await ask(site.url("/late"))
        assert status_of(await ask(site.url("/late"))) == "http.timed_out"
    assert [request.connection for request in site.requests] == [1, 1]


@pytest.mark.parametrize(("path", "expected"), [("/reset", "tcp.reset"), ("/close", "tcp.closed")])
@pytest.mark.parametrize("attempts", [1, 2])
async def test_a_fresh_connection_that_ends_is_one_request_for_each_attempt(
    path: str, expected: str, attempts: int, site: Site
) -> None:
    async with asking(method="GET", retries=attempts - 1) as ask:
        result = await ask(site.url(path))
    assert (status_of(result), result.attempts, len(result.hops)) == (expected, attempts, attempts)
    assert len(site.requests) == site.connections == attempts


async def test_the_connection_that_replaces_a_kept_one_is_not_replaced(site: Site) -> None:
    async def only_at_first(x: Exchange) -> None:
        if x.hit_number > 1:
            x.reset()
        await x.reply()

    site.on("/first", only_at_first)
    async with asking(method="GET") as ask:
        await ask(site.url("/first"))
        result = await ask(site.url("/first"))
    assert (status_of(result), len(result.hops)) == ("tcp.reset", 1)
    assert [request.connection for request in site.requests] == [1, 1, 2]


# --- Limits ---

A, B, C = (("http", name, 80) for name in "abc")
DEADLINE_SECONDS = 20.0
"""More than anything on loopback takes."""


@pytest.fixture
async def poller() -> AsyncIterator[Poller]:
    poller = open_poller()
    yield poller
    poller.close()


async def connect(site: Site, poller: Poller) -> Connection:
    """Open a connection with a request in flight, so that the site's `active` counts it while it is open."""
    deadline = asyncio.get_running_loop().time() + DEADLINE_SECONDS
    connection, active = await Connection.open("127.0.0.1", site.port, poller, deadline), site.active
    await connection.send(b"GET /hang HTTP/1.1\r\nHost: x\r\n\r\n", deadline)
    await site.until(lambda: site.active == active + 1)
    return connection


async def wait_until_open(site: Site, count: int) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        await site.until(lambda: site.active == count)


async def test_the_last_used_connection_is_taken_first(site: Site, poller: Poller) -> None:
    pool = ConnectionPool(10)
    first, second = await connect(site, poller), await connect(site, poller)
    pool.put(A, first)
    pool.put(A, second)
    assert pool.take(B) is None
    assert [pool.take(A), pool.take(A), pool.take(A)] == [second, first, None]
    first.close()
    second.close()


async def test_a_full_pool_closes_the_connection_that_is_idle_longest(site: Site, poller: Poller) -> None:
    pool = ConnectionPool(2)
    first, second, third = [await connect(site, poller) for _ in range(3)]
    pool.put(A, first)
    pool.put(B, second)
    pool.put(A, third)
    await wait_until_open(site, 2)
    assert [pool.take(A), pool.take(A), pool.take(B)] == [third, None, second]
    second.close()
    third.close()


async def test_a_reused_connection_is_not_the_longest_idle(site: Site, poller: Poller) -> None:
    pool = ConnectionPool(2)
    first, second, third = [await connect(site, poller) for _ in range(3)]
    pool.put(A, first)
    pool.put(B, second)
    assert pool.take(A) is first
    pool.put(A, first)
    pool.put(C, third)
    assert [pool.take(A), pool.take(B), pool.take(C)] == [first, None, third]
    first.close()
    third.close()
    await wait_until_open(site, 0)


async def test_old_ones_are_closed_after_their_time(site: Site, poller: Poller) -> None:
    loop, pool = asyncio.get_running_loop(), ConnectionPool(10, max_idle_seconds=0.2)
    started = loop.time()
    for origin in (A, B):
        pool.put(origin, await connect(site, poller))
    await asyncio.sleep(0.1)  # half the idle time later
    pool.put(C, await connect(site, poller))
    await wait_until_open(site, 1)
    assert loop.time() - started > 0.19
    assert (pool.take(A), pool.take(B)) == (None, None)
    await wait_until_open(site, 0)
    assert loop.time() - started > 0.29
    assert pool.take(C) is None
    pool.put(A, await connect(site, poller))  # connections that come later expire too
    await wait_until_open(site, 0)


async def test_closing_the_pool_closes_all_connections(site: Site, poller: Poller) -> None:
    pool = ConnectionPool(10)
    for origin in (A, B, B):
        pool.put(origin, await connect(site, poller))
    pool.close()
    assert (pool.take(A), pool.take(B)) == (None, None)
    await wait_until_open(site, 0)


async def test_the_pool_keeps_no_more_than_four_connections_per_probe(site: Site) -> None:
    async with asking(concurrency=1) as ask:
        for number in (1, 2, 3, 4, 5, 1, 5):
            await ask(site.url("/ok", host=f"127.0.0.{number}"))
    assert [request.connection for request in site.requests] == [1, 2, 3, 4, 5, 6, 5]


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_no_descriptor_is_left_behind(scheme: str, authority: Authority) -> None:
    async with Site(host="0.0.0.0", tls=authority.good() if scheme == "https" else None) as site:
        paths = ["/ok", "/http10", "/reset", "/close", "/partial", "/head-body", "/garbage", "/hang", "/redirect/2"]
        urls = [site.url(path, host=f"127.0.0.{number}") for path in paths for number in (1, 2, 3)]
        gc.collect()
        before = descriptors()
        await probe_all(urls, timeout=0.5, retries=0, cafile=str(authority.cafile))
        await probe_all(urls, timeout=0.5, retries=0, insecure=True)
        # The site closes its own ends as soon as it notices; ours are closed already.
        async with asyncio.timeout(DEADLINE_SECONDS):
            while descriptors() > before:  # noqa: ASYNC110 - there is no event for it
                await asyncio.sleep(0.01)
    gc.collect()  # an unclosed socket would be a ResourceWarning, and so a failure
