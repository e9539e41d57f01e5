"""Names are looked up once and cached for their TTL; addresses are dialled in the order of RFC 8305."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiodns
import pytest

from crawler import ProbeResult
from crawler.core.options import Options
from crawler.core.urls import Target
from crawler.probing.prober import HttpProber
from crawler.probing.scheduling.scheduler import Scheduler
from crawler.runtime.awake_clock import AwakeClock
from crawler.transport.address_guard import AddressGuard
from crawler.transport.dns.resolver import Resolver
from crawler.transport.socket_transport import SocketTransport
from crawler.transport.sockets.connection_pool import ConnectionPool
from tests.support.dns_server import DnsServer
from tests.support.probing import asking, probe_all, probe_one, status_of
from tests.support.site import Site

ATTEMPT_DELAY_SECONDS = 0.25
"""Until the next address is tried as well."""
DNS_TIMEOUT_SECONDS = 1.5
"""The shortest wait for a DNS answer that does not come."""


@asynccontextmanager
async def resolving(
    names: DnsServer, *, dual: bool = False, max_cached_names: int = 1000, failure_ttl: float = 5.0, **options: Any
) -> AsyncIterator[Resolver]:
    checked = Options.of({**asking(names), **options})
    resolver = Resolver(
        checked, AwakeClock(), is_dual_stack=dual, max_cached_names=max_cached_names, failure_ttl=failure_ttl
    )
    try:
        yield resolver
    finally:
        await resolver.close()


async def dual_probe(url: str, names: DnsServer, **options: Any) -> ProbeResult:
    """Probe as on a machine with a route to both families."""
    checked = Options.of({"method": "GET", "retries": 0, "timeout": 10, **asking(names), **options})
    async with resolving(names, dual=True, **options) as resolver:
        transport = SocketTransport(checked, resolver, AddressGuard("any"), ConnectionPool(8), AwakeClock())
        try:
            return await HttpProber(checked, lambda _: transport, Scheduler(8, 8)).probe(Target.of(0, url))
        finally:
            await transport.close()


async def code(resolver: Resolver, host: str) -> int:
    """Return c-ares' status of a lookup that fails."""
    with pytest.raises(aiodns.error.DNSError) as failure:
        await resolver.resolve(host, 80)
    return int(failure.value.args[0])


# --- Shared lookups ---


async def test_concurrent_lookups_of_one_name_are_one(names: DnsServer) -> None:
    names.a("good.test", "127.0.0.9")
    names.delay("good.test", 0.1)
    async with resolving(names) as resolver:
        found = await asyncio.gather(*(resolver.resolve("good.test", port) for port in range(1, 51)))
    assert found == [["127.0.0.9"]] * 50
    assert names.queries == [("good.test", "A")]


async def test_concurrent_lookups_that_fail_are_one(names: DnsServer) -> None:
    names.servfail("bad.test")
    async with resolving(names) as resolver:
        lookups = [resolver.resolve("bad.test", 80) for _ in range(50)]
        found = await asyncio.gather(*lookups, return_exceptions=True)
    assert {type(failure) for failure in found} == {aiodns.error.DNSError}
    assert len(names.queries) == 2  # c-ares asks a failing server once more


async def test_each_caller_gets_its_own_list(names: DnsServer) -> None:
    names.a("good.test", "127.0.0.9")
    async with resolving(names) as resolver:
        for _ in range(2):
            (await resolver.resolve("good.test", 80)).clear()
        assert await resolver.resolve("good.test", 80) == ["127.0.0.9"]


async def test_a_caller_that_gives_up_leaves_the_lookup_to_the_others(names: DnsServer) -> None:
    names.a("slow.test", "127.0.0.9")
    names.delay("slow.test", 0.2)
    async with resolving(names) as resolver:
        hasty, patient = (asyncio.ensure_future(resolver.resolve("slow.test", 80)) for _ in range(2))
        await asyncio.wait({hasty}, timeout=0.05)
        hasty.cancel()
        assert await patient == ["127.0.0.9"]
        assert hasty.cancelled()
        assert await resolver.resolve("slow.test", 80) == ["127.0.0.9"]
    assert len(names.queries) == 1


async def test_a_lookup_without_callers_goes_on_for_the_next_one(names: DnsServer) -> None:
    names.a("slow.test", "127.0.0.9")
    names.delay("slow.test", 0.2)
    async with resolving(names) as resolver:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await resolver.resolve("slow.test", 80)
        assert await resolver.resolve("slow.test", 80) == ["127.0.0.9"]
    assert len(names.queries) == 1


async def test_closing_ends_lookups_without_callers(names: DnsServer) -> None:
    names.silent("slow.test")
    loop = asyncio.get_running_loop()
    started = loop.time()
    async with resolving(names) as resolver:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await resolver.resolve("slow.test", 80)
    assert loop.time() - started < DNS_TIMEOUT_SECONDS
    assert asyncio.all_tasks() <= {asyncio.current_task(), *names.tasks}


def threads() -> int:
    return sum(1 for _ in Path("/proc/self/task").iterdir())


async def test_no_thread_is_left_behind(names: DnsServer) -> None:
    """Each of c-ares' channels has one."""
    names.a("good.test", "127.0.0.9")
    async with resolving(names) as resolver:
        await resolver.resolve("good.test", 80)
    before = threads()
    for _ in range(3):
        async with resolving(names) as resolver:
            await resolver.resolve("good.test", 80)
    async with asyncio.timeout(5):
        while threads() > before:  # noqa: ASYNC110 - a channel is destroyed in a thread of its own
            await asyncio.sleep(0.01)


# --- The cache ---


async def test_an_answer_is_cached_for_its_ttl(names: DnsServer) -> None:
    names.a("short.test", "127.0.0.9", ttl=1)
    loop = asyncio.get_running_loop()
    async with resolving(names) as resolver:
        await resolver.resolve("short.test", 80)
        answered = loop.time()
        while len(names.queries) == 1:
            await resolver.resolve("short.test", 80)
            await asyncio.sleep(0.02)
    assert loop.time() - answered > 0.9


async def test_an_answer_with_ttl_0_is_not_cached(names: DnsServer) -> None:
    names.rotating("rebinding.test", ["127.0.0.8", "127.0.0.9"])
    async with resolving(names) as resolver:
        found = [await resolver.resolve("rebinding.test", 80) for _ in range(4)]
    assert found == [["127.0.0.8"], ["127.0.0.9"]] * 2


# Not "no_data": c-ares caches it itself, by its SOA or for an hour.
@pytest.mark.parametrize("rule", ["nxdomain", "servfail", "refused"])
async def test_a_failure_is_cached_for_a_short_while(rule: str, names: DnsServer) -> None:
    getattr(names, rule)("bad.test")
    async with resolving(names, failure_ttl=0.2) as resolver:
        first = await code(resolver, "bad.test")
        asked = len(names.queries)
        assert await code(resolver, "bad.test") == first
        assert len(names.queries) == asked
        names.a("bad.test", "127.0.0.9")
        async with asyncio.timeout(2):
            while True:
                await asyncio.sleep(0.02)
                try:
                    assert await resolver.resolve("bad.test", 80) == ["127.0.0.9"]
                except aiodns.error.DNSError:
                    continue
                break
    assert len(names.queries) > asked


async def test_a_full_cache_drops_the_name_that_was_not_asked_for_longest(names: DnsServer) -> None:
    names.a("*.test", "127.0.0.9")
    async with resolving(names, max_cached_names=3) as resolver:
        for name in ("a", "b", "c", "a", "d"):  # "b" is the one not asked for longest
            await resolver.resolve(f"{name}.test", 80)
        assert list(resolver._cache) == ["c.test", "a.test", "d.test"]


async def test_a_running_lookup_is_not_dropped_and_counts_once_it_has_ended(names: DnsServer) -> None:
    names.a("*.test", "127.0.0.9")
    names.a("slow.test", "127.0.0.8")
    names.delay("slow.test", 0.3)
    async with resolving(names, max_cached_names=3) as resolver:
        slow = asyncio.ensure_future(resolver.resolve("slow.test", 80))
        await asyncio.sleep(0)
        await asyncio.gather(*(resolver.resolve(f"{number}.test", 80) for number in range(20)))
        assert await resolver.resolve("slow.test", 80) == await slow == ["127.0.0.8"]
        await resolver.resolve("last.test", 80)
        assert len(resolver._cache) == 3
    assert names.queries.count(("slow.test", "A")) == 1


# --- Address families ---


async def test_every_address_of_a_name_is_found(names: DnsServer) -> None:
    names.a("many.test", *(f"127.0.0.{number}" for number in range(2, 6)))
    async with resolving(names) as resolver:
        assert sorted(await resolver.resolve("many.test", 80)) == [f"127.0.0.{number}" for number in range(2, 6)]


async def test_without_a_route_to_ipv6_only_names_without_ipv4_are_asked_for_ipv6(names: DnsServer) -> None:
    names.a("both.test", "127.0.0.9")
    names.aaaa("both.test", "::1")
    names.aaaa("six.test", "::1")
    async with resolving(names) as resolver:
        assert await resolver.resolve("both.test", 80) == ["127.0.0.9"]
        assert names.queries == [("both.test", "A")]
        assert await resolver.resolve("six.test", 80) == ["::1"]


async def test_with_a_route_to_ipv6_both_are_asked_for_and_ipv6_is_first(names: DnsServer) -> None:
    names.a("both.test", "127.0.0.9")
    names.aaaa("both.test", "::1")
    async with resolving(names, dual=True) as resolver:
        assert await resolver.resolve("both.test", 80) == ["::1", "127.0.0.9"]
    assert sorted(names.queries) == [("both.test", "A"), ("both.test", "AAAA")]


@pytest.mark.parametrize(("option", "address"), [("ipv4", "127.0.0.9"), ("ipv6", "::1")])
async def test_one_family_may_be_asked_for_alone(option: str, address: str, names: DnsServer) -> None:
    names.a("both.test", "127.0.0.9")
    names.aaaa("both.test", "::1")
    async with resolving(names, dual=True, **{option: True}) as resolver:
        assert await resolver.resolve("both.test", 80) == [address]
    assert len(names.queries) == 1


async def test_a_missing_ipv6_answer_does_not_delay_the_ipv4_answer(names: DnsServer) -> None:
    names.a("broken.test", "127.0.0.9")
    names.silent("broken.test", "AAAA")
    loop = asyncio.get_running_loop()
    async with resolving(names, dual=True) as resolver:
        started = loop.time()
        assert await resolver.resolve("broken.test", 80) == ["127.0.0.9"]
        assert 0.05 <= loop.time() - started < DNS_TIMEOUT_SECONDS


async def test_a_missing_ipv4_answer_does_not_delay_the_ipv6_answer(names: DnsServer) -> None:
    names.aaaa("broken.test", "::1")
    names.silent("broken.test", "A")
    loop = asyncio.get_running_loop()
    async with resolving(names, dual=True) as resolver:
        started = loop.time()
        assert await resolver.resolve("broken.test", 80) == ["::1"]
        assert loop.time() - started < DNS_TIMEOUT_SECONDS


@pytest.mark.parametrize(("add", "address"), [("a", "127.0.0.9"), ("aaaa", "::1")])
async def test_a_name_with_one_family_has_no_delay(add: str, address: str, names: DnsServer) -> None:
    getattr(names, add)("one.test", address)
    loop = asyncio.get_running_loop()
    async with resolving(names, dual=True) as resolver:
        started = loop.time()
        assert await resolver.resolve("one.test", 80) == [address]
        assert loop.time() - started < DNS_TIMEOUT_SECONDS


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("nxdomain", aiodns.error.ARES_ENOTFOUND),
        ("no_data", aiodns.error.ARES_ENODATA),
        ("servfail", aiodns.error.ARES_ESERVFAIL),
        ("refused", aiodns.error.ARES_EREFUSED),
    ],
)
@pytest.mark.parametrize("dual", [False, True])
async def test_a_failure_keeps_its_status(rule: str, expected: int, dual: bool, names: DnsServer) -> None:
    getattr(names, rule)("bad.test")
    async with resolving(names, dual=dual) as resolver:
        assert await code(resolver, "bad.test") == expected


async def test_no_answer_for_one_family_outweighs_no_address_of_the_other(names: DnsServer) -> None:
    """With an empty A answer and no AAAA answer, it is unknown whether the name has an address."""
    for kind in ("A", "AAAA"):
        names.no_data(f"half-{kind}.test")
        names.silent(f"half-{kind}.test", kind)
    async with resolving(names, dual=True) as resolver:
        codes = await asyncio.gather(*(code(resolver, f"half-{kind}.test") for kind in ("A", "AAAA")))
    assert codes == [aiodns.error.ARES_ETIMEOUT] * 2


# --- Without DNS ---


async def test_given_addresses_are_used_without_a_query(site: Site, names: DnsServer) -> None:
    names.a("given.test", "127.0.0.9")
    given = [f"GIVEN.test:{site.port}:127.0.0.7", "given.test:1:127.0.0.6", f"six.test:{site.port}:[::1]"]
    async with resolving(names, resolve=given) as resolver:
        assert await resolver.resolve("given.test", site.port) == ["127.0.0.7"]
        assert await resolver.resolve("six.test", site.port) == ["::1"]
        assert names.queries == []
        assert await resolver.resolve("given.test", 2) == ["127.0.0.9"]  # another port was not given
    result = await probe_one(site.url("/ok", host="given.test"), resolve=given, **asking(names))
    assert (status_of(result), result.ip) == (200, "127.0.0.7")
    assert site.requests[0].host == f"given.test:{site.port}"


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "2001:db8::1", "10.0.0.1"])
async def test_an_address_needs_no_lookup(address: str, names: DnsServer) -> None:
    async with resolving(names) as resolver:
        assert await resolver.resolve(address, 80) == [address]
    assert names.queries == []


@pytest.mark.parametrize("dual", [False, True])
async def test_localhost_needs_no_query(dual: bool, names: DnsServer) -> None:
    async with resolving(names, dual=dual) as resolver:
        found = await resolver.resolve("localhost", 80)
    assert "127.0.0.1" in found
    assert set(found) <= {"127.0.0.1", "::1"}
    assert names.queries == []


async def test_the_hosts_file_is_obeyed(names: DnsServer) -> None:
    """Uses a line of this machine's own file."""
    with open("/etc/hosts") as file:  # noqa: ASYNC230, PTH123 - a small local file
        rows = [line.split() for line in file if line[:1].isdigit()]
    address, name = next((row[0], row[1]) for row in rows if "localhost" not in row[1] and ":" not in row[0])
    async with resolving(names) as resolver:
        assert address in await resolver.resolve(name, 80)
    assert names.queries == []


async def test_no_search_domain_is_used(names: DnsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """With ndots:5, as in Kubernetes, the search domain would be tried before the name itself."""
    monkeypatch.setenv("LOCALDOMAIN", "elsewhere.test")
    monkeypatch.setenv("RES_OPTIONS", "ndots:5")
    names.a("*.elsewhere.test", "127.0.0.66")
    names.a("good.test", "127.0.0.9")
    async with resolving(names) as resolver:
        assert await resolver.resolve("good.test", 80) == ["127.0.0.9"]
        assert await code(resolver, "bad.test") == aiodns.error.ARES_ENOTFOUND
        assert await code(resolver, "bad") == aiodns.error.ARES_ENOTFOUND
    assert {name for name, _ in names.queries} == {"good.test", "bad.test", "bad"}


# --- The order of dialling ---


async def test_an_ipv6_address_that_answers_is_preferred(names: DnsServer) -> None:
    names.a("both.test", "127.0.0.1")
    names.aaaa("both.test", "::1")
    async with Site(host="::1") as six, Site(port=six.port) as four:
        result = await dual_probe(six.url("/ok", host="both.test"), names)
        assert (status_of(result), result.ip) == (200, "::1")
        assert (six.connections, four.connections) == (1, 0)


async def test_after_a_refused_ipv6_address_the_ipv4_one_is_dialled(names: DnsServer) -> None:
    names.a("both.test", "127.0.0.1")
    names.aaaa("both.test", "::1")
    async with Site() as four:
        result = await dual_probe(four.url("/ok", host="both.test"), names)
    assert (status_of(result), result.ip) == (200, "127.0.0.1")


async def test_a_silent_ipv6_address_delays_the_ipv4_one_by_the_attempt_delay(names: DnsServer) -> None:
    names.a("both.test", "127.0.0.1")
    names.aaaa("both.test", "::1")
    async with Site(host="::1", on_accept="full") as six, Site(port=six.port) as four:
        result = await dual_probe(four.url("/ok", host="both.test"), names)
        assert (status_of(result), result.ip, four.connections) == (200, "127.0.0.1", 1)
    assert result.timings.connect is not None
    assert result.timings.connect > ATTEMPT_DELAY_SECONDS * 1000 * 0.95


async def test_a_late_ipv6_address_still_wins_over_a_silent_ipv4_one(names: DnsServer) -> None:
    names.a("both.test", "127.0.0.1")
    names.aaaa("both.test", "::1")
    async with Site(on_accept="full") as four, Site(host="::1", port=four.port):
        result = await dual_probe(four.url("/ok", host="both.test"), names)
    assert (status_of(result), result.ip) == (200, "::1")


async def test_two_dead_addresses_are_one_failed_hop(names: DnsServer) -> None:
    names.a("dead.test", "127.0.0.1")
    names.aaaa("dead.test", "::1")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    result = await dual_probe(f"http://dead.test:{port}/", names)
    assert (status_of(result), len(result.hops)) == ("tcp.refused", 1)


async def test_the_connect_timeout_covers_both_addresses_together(names: DnsServer) -> None:
    names.a("dead.test", "127.0.0.1")
    names.aaaa("dead.test", "::1")
    async with Site(host="::1", on_accept="full") as six, Site(port=six.port, on_accept="full"):
        result = await dual_probe(six.url("/", host="dead.test"), names, connect_timeout=1)
    assert (status_of(result), len(result.hops)) == ("tcp.timed_out", 1)
    assert result.timings.total < 1900


async def test_a_name_with_four_dead_addresses_costs_one_connection(site: Site, names: DnsServer) -> None:
    """The addresses reset instead of refuse, because the site can count that; trying all would count four."""
    names.a("many.test", *(f"127.0.0.{number}" for number in range(2, 6)))
    async with Site(host="0.0.0.0", on_accept="reset") as dead:
        result = await probe_one(dead.url("/", host="many.test"), method="GET", retries=0, **asking(names))
        assert (status_of(result), len(result.hops), dead.connections) == ("tcp.reset", 1, 1)


async def test_one_address_of_each_family_is_dialled(names: DnsServer) -> None:
    names.a("many.test", *(f"127.0.0.{number}" for number in range(2, 6)))
    names.aaaa("many.test", "::1", "::2", "::3")
    async with Site(host="0.0.0.0", on_accept="reset") as dead:
        await dual_probe(dead.url("/", host="many.test"), names)
        assert dead.connections == 1


async def test_many_targets_look_each_name_up_once(site: Site, names: DnsServer) -> None:
    names.a("*.good.test", "127.0.0.9")
    urls = [site.url(f"/ok?{number}", host=f"{number % 7}.good.test") for number in range(70)]
    assert {status_of(result) for result in await probe_all(urls, ipv4=True, **asking(names))} == {200}
    assert sorted(names.queries) == [(f"{number}.good.test", "A") for number in range(7)]
