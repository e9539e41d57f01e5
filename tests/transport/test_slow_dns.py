"""Slow and failing DNS servers: the probe's own deadline is the only bound, and a retry asks again.

The witness for slow names is a real unbound 1.17 with an authoritative server that takes a second for 10 % of 2,000
names. dig and curl resolve all of them; c-ares alone, as its issue 736 says it will, stops after five times the average
latency and calls up to 200 of them timed out.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiodns
import pytest

from crawler.core.options import Options
from crawler.runtime.awake_clock import AwakeClock
from crawler.transport.dns.resolver import Resolver
from tests.support.dns_server import DnsServer
from tests.support.probing import SHORT_BACKOFF, asking, probe_one, status_of
from tests.support.site import Site


@asynccontextmanager
async def experienced_resolver(names: DnsServer, **settings: Any) -> AsyncIterator[Resolver]:
    """Open a resolver that has had enough fast answers for c-ares to become impatient."""
    names.a("*.fast.test", "127.0.0.9")
    resolver = Resolver(Options.of(asking(names)), AwakeClock(), is_dual_stack=settings.pop("dual", False), **settings)
    try:
        for number in range(5):
            await resolver.resolve(f"{number}.fast.test", 80)
        names.queries.clear()
        yield resolver
    finally:
        await resolver.close()


async def failure_of(resolver: Resolver, host: str, seconds: float) -> tuple[int, str]:
    with pytest.raises(aiodns.error.DNSError) as failure:
        await resolver.resolve(host, 80, asyncio.get_running_loop().time() + seconds)
    status, message = failure.value.args
    return status, message


# --- Slow answers ---


@pytest.mark.parametrize("dual", [False, True])
async def test_an_answer_that_takes_five_seconds_is_waited_for(dual: bool, names: DnsServer) -> None:
    """resolv.conf(5) waits 5 seconds for each server by default."""
    names.a("slow.test", "127.0.0.8")
    names.delay("slow.test", 5)
    loop = asyncio.get_running_loop()
    async with experienced_resolver(names, dual=dual) as resolver:
        started = loop.time()
        assert await resolver.resolve("slow.test", 80, started + 20) == ["127.0.0.8"]
        assert loop.time() - started < 9


async def test_many_slow_names_fail_neither_themselves_nor_the_fast_ones(names: DnsServer) -> None:
    names.a("*.slow.test", "127.0.0.8")
    names.delay("*.slow.test", 1)
    hosts = [f"{number}.{'slow' if number % 10 == 3 else 'fast'}.test" for number in range(2000)]
    async with experienced_resolver(names) as resolver:
        deadline = asyncio.get_running_loop().time() + 30
        at_once = asyncio.Semaphore(256)

        async def resolve(host: str) -> str:
            async with at_once:
                [address] = await resolver.resolve(host, 80, deadline)
                return address

        found = await asyncio.gather(*(resolve(host) for host in hosts))
    assert found == ["127.0.0.8" if "slow" in host else "127.0.0.9" for host in hosts]


@pytest.mark.parametrize("dual", [False, True])
async def test_a_silent_server_is_waited_for_until_the_deadline_and_named(dual: bool, names: DnsServer) -> None:
    names.silent("silent.test")
    loop = asyncio.get_running_loop()
    async with experienced_resolver(names, dual=dual) as resolver:
        started = loop.time()
        status, message = await failure_of(resolver, "silent.test", 1.5)
        assert (status, 1.4 < loop.time() - started < 4) == (aiodns.error.ARES_ETIMEOUT, True)
        assert message == f"no answer from DNS server {names.address} in time"


async def test_a_caller_with_more_time_prolongs_the_lookup_of_another(names: DnsServer) -> None:
    names.a("slow.test", "127.0.0.8")
    names.delay("slow.test", 2)
    async with experienced_resolver(names) as resolver:
        now = asyncio.get_running_loop().time()
        hasty, patient = (
            asyncio.ensure_future(resolver.resolve("slow.test", 80, now + seconds)) for seconds in (0.3, 20)
        )
        with pytest.raises(aiodns.error.DNSError):
            await hasty
        assert await patient == ["127.0.0.8"]


async def test_a_server_that_drops_queries_with_edns_answers(names: DnsServer) -> None:
    """RFC 6891, 6.2.2: a requestor may send queries without EDNS; glibc does, unless `options edns0` is set."""
    names.a("old.test", "127.0.0.8")
    names.drop_edns("old.test")
    async with experienced_resolver(names) as resolver:
        assert await resolver.resolve("old.test", 80) == ["127.0.0.8"]
    assert names.queries == [("old.test", "A")]


@pytest.mark.parametrize("count", [20, 200])
async def test_an_answer_of_any_length_is_read(count: int, names: DnsServer) -> None:
    """Above 512 bytes it comes over TCP (RFC 1035, 4.2.1)."""
    names.a("long.test", *(f"127.0.0.{number}" for number in range(count)))
    names.truncated("long.test")
    async with experienced_resolver(names) as resolver:
        assert len(await resolver.resolve("long.test", 80)) == count


# --- Failures that may pass ---


async def test_a_retry_asks_again_after_a_server_failure(site: Site, names: DnsServer) -> None:
    names.servfail("soon.test")
    probing = asyncio.ensure_future(probe_one(site.url("/ok", host="soon.test"), retries=1, **asking(names)))
    while len(names.queries) < 2:  # noqa: ASYNC110 - c-ares asks a failing server once more
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    names.a("soon.test", "127.0.0.1")
    result = await probing
    assert (status_of(result), result.attempts) == (200, 2)


@pytest.mark.parametrize(("rule", "is_cached"), [("servfail", False), ("refused", False), ("nxdomain", True)])
async def test_only_a_final_failure_is_cached_for_longer_than_a_moment(
    rule: str, is_cached: bool, names: DnsServer
) -> None:
    """RFC 2308, 7.1: caching server failures is optional, and only for the same query to the same server."""
    getattr(names, rule)("bad.test")
    async with experienced_resolver(names, transient_failure_ttl=0) as resolver:
        await failure_of(resolver, "bad.test", 20)
        asked = len(names.queries)
        await failure_of(resolver, "bad.test", 20)
        assert (len(names.queries) == asked) is is_cached


async def test_other_urls_of_a_name_share_a_failure_that_has_just_come(names: DnsServer) -> None:
    names.servfail("bad.test")
    async with experienced_resolver(names) as resolver:
        for _ in range(10):
            await failure_of(resolver, "bad.test", 20)
    assert len(names.queries) == 2


# --- Many addresses ---


async def test_a_retry_goes_on_with_addresses_that_were_not_tried(names: DnsServer) -> None:
    """curl tries all addresses of a host, and so gets the page of this one."""
    names.a("many.test", *(f"127.0.0.{number}" for number in range(2, 8)))
    async with Site(host="127.0.0.7") as site:
        options: dict[str, Any] = {"settings": SHORT_BACKOFF, **asking(names)}
        for retries, expected in ((0, "tcp.refused"), (1, 200)):
            result = await probe_one(site.url("/ok", host="many.test"), retries=retries, **options)
            assert status_of(result) == expected
