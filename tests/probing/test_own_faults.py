"""A lack of descriptors, ports or memory on this machine is never blamed on a target."""

import asyncio
import errno
import os
import subprocess
import sys
from typing import Any

import pytest

from crawler.core.options import Options
from crawler.core.results import HopResult, ProbeError, Timings
from crawler.core.urls import Target
from crawler.probing.probe import Probe
from crawler.probing.prober import HttpProber
from crawler.probing.scheduling.scheduler import Scheduler
from crawler.probing.scheduling.work_queue import WorkQueue
from crawler.transport.error_mapping import explain
from tests.support.dns_server import DnsServer
from tests.support.isolated_process import can_unshare, run_and_read
from tests.support.probing import SHORT_BACKOFF, probe_one, status_of
from tests.support.site import Site

OWN_FAULTS = [errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM, errno.ENETDOWN]


def limited(files: str, *command: str) -> list[str]:
    """Return a Python command with `ulimit` on its open files."""
    return ["sh", "-c", f'ulimit {files}; exec "$@"', "sh", sys.executable, *command]


def hosts(site: Site, count: int) -> list[str]:
    """Return `count` host names, all of this site."""
    return [f"127.0.{number // 250}.{1 + number % 250}" for number in range(count)]


# --- Descriptors ---

PROBE = ["-m", "crawler", "probe", "--quiet", "--file", "-", "--format", "ndjson", "--concurrency", "500"]


@pytest.mark.parametrize("number", [pytest.param(1, id="one host"), pytest.param(500, id="500 hosts")])
async def test_with_64_descriptors_500_probes_at_once_succeed(number: int, site: Site) -> None:
    places = hosts(site, number)
    urls = [site.url(f"/delay/0.01/{n}", host=places[n % number]) for n in range(500)]
    async with asyncio.timeout(6):
        code, results, err = await run_and_read(limited("-n 64", *PROBE, "--per-host", "500"), urls)
    assert sorted(result["url"] for result in results) == sorted(urls)
    assert {(result["status"], result["outcome"], result["attempts"]) for result in results} == {(200, "ok", 1)}
    assert (code, err) == (0, "")
    assert 8 <= site.peak <= 64


async def test_without_any_descriptor_the_error_is_local(site: Site) -> None:
    code, results, _ = await run_and_read(limited("-n 64", "-c", STARVED, site.url("/ok")), [])
    assert code == 0
    [result] = results
    assert (result["outcome"], result["errors"]) == ("failed", {"http": "LOCAL_ERROR"})
    assert (result["error"]["type"], result["attempts"]) == ("local.descriptors", 1)
    assert site.requests == []


STARVED = """
import asyncio, os, sys, msgspec, crawler
from crawler.probing.factory import open_http_prober
from tests.support.probing import SHORT_BACKOFF

async def main():
    async with open_http_prober(crawler.Options(retries=0, guard="any"), SHORT_BACKOFF) as prober:
        held = []
        try:
            while True:
                held.append(os.dup(0))
        except OSError:
            pass
        result = await prober.probe(crawler.Target.of(0, sys.argv[1]))
        os.close(held.pop())
        print(msgspec.json.encode(result).decode())

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("files", "wanted", "slots", "soft"),
    [
        ("-n 64", 500, 16, 64),
        ("-n 20", 500, 1, 20),
        ("-Sn 100", 100, 100, 532),
        ("-Sn 600", 100, 100, 600),
        ("-n 200", 100, 84, 200),
    ],
)
def test_descriptors_bound_the_slots_and_the_soft_limit_is_raised(
    files: str, wanted: int, slots: int, soft: int
) -> None:
    ask = f"""
import resource
from crawler.runtime.resources import limit_concurrency
print(limit_concurrency({wanted}), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""
    done = subprocess.run(limited(files, "-c", ask), capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(slots), str(soft)]


# --- Ports ---


async def in_a_network_of_its_own(program: str) -> tuple[int, list[Any], str]:
    """Run a Python program in a network that has only loopback."""
    script = 'ip link set lo up && exec "$@"'
    return await run_and_read(["unshare", "-rn", "sh", "-c", script, "sh", sys.executable, "-c", program], [])


FEW_PORTS = """
import asyncio, collections, sys, uvloop
from tests.support.probing import SHORT_BACKOFF, probe_all, status_of
from tests.support.site import Site

async def main():
    async with Site() as site:
        with open("/proc/sys/net/ipv4/ip_local_port_range", "w") as file:
            file.write("20000 20009")
        urls = [site.url(f"/delay/0.05/{number}") for number in range(100)]
        results = await probe_all(urls, concurrency=50, per_host=50, retries=0)
        assert {(status_of(result), result.attempts) for result in results} == {(200, 1)}, results
        faults = sum(hop.error == "local.ports" for result in results for hop in result.hops)
        assert faults > 0, "there were enough ports"
        assert site.peak <= 10
        print('"as it should be"')

uvloop.run(main())
"""


@pytest.mark.skipif(not can_unshare(), reason="needs `unshare --net`")
async def test_with_ten_ports_fifty_probes_at_once_succeed() -> None:
    assert await in_a_network_of_its_own(FEW_PORTS) == (0, ["as it should be"], "")


# --- The network ---


async def test_a_dns_server_that_cannot_be_reached_is_waited_for(site: Site) -> None:
    async with DnsServer() as names:
        port = names.port
    probing = asyncio.ensure_future(probe_one(site.url("/ok", host="a.test"), retries=0, dns=[f"127.0.0.1:{port}"]))
    await asyncio.sleep(0.5)  # as long as the first wait is: it has tried and failed
    async with DnsServer(port=port) as names:
        names.a("a.test", "127.0.0.1")
        result = await probing
    assert (status_of(result), result.attempts) == (200, 1)
    assert {hop.error for hop in result.hops[:-1]} == {"dns.unreachable"}


async def test_a_missing_dns_server_is_a_local_error() -> None:
    result = await probe_one("http://any.test/", settings=SHORT_BACKOFF, dns=["127.0.0.1:9"])
    assert (status_of(result), result.errors) == ("dns.unreachable", {"http": "LOCAL_ERROR"})
    assert (result.attempts, len(result.hops)) == (1, 7)


# Runs in a network of its own, which leads nowhere until the address is added.
NO_NETWORK = """
import asyncio, subprocess, sys, uvloop
from tests.support.probing import SHORT_BACKOFF, probe_all, status_of
from tests.support.site import Site

async def main():
    async with Site(host="0.0.0.0") as site:
        urls = [site.url(f"/ok?{number}", host="192.0.2.1") for number in range(20)]
        probing = asyncio.ensure_future(probe_all(urls, retries=0))
        await asyncio.sleep(0.5)
        subprocess.run(["ip", "address", "add", "192.0.2.1/32", "dev", "lo"], check=True)
        results = await probing
    assert {(status_of(result), result.attempts) for result in results} == {(200, 1)}, results
    assert all(result.hops[0].error == "local.network" for result in results), results
    for url, family in (("http://192.0.2.2/", "IPv4"), ("http://[2001:db8::1]/", "IPv6")):
        [result] = await probe_all([url], settings=SHORT_BACKOFF)
        assert (status_of(result), result.errors) == ("local.network", {"http": "LOCAL_ERROR"}), result
        assert result.error.message == f"this machine has no route to {family} addresses"
    print('"as it should be"')

uvloop.run(main())
"""


@pytest.mark.skipif(not can_unshare(), reason="needs `unshare --net`")
async def test_a_network_that_is_down_is_waited_for() -> None:
    assert await in_a_network_of_its_own(NO_NETWORK) == (0, ["as it should be"], "")


# --- Error numbers of the kernel ---


@pytest.mark.parametrize("number", OWN_FAULTS, ids=errno.errorcode.__getitem__)
def test_an_os_error_of_this_machine_is_a_local_error(number: int) -> None:
    problem = explain(OSError(number, os.strerror(number)), "connect")
    assert (problem.group, problem.transient) == ("LOCAL_ERROR", True)


def fault(number: int = errno.EADDRNOTAVAIL) -> HopResult:
    return HopResult(Timings(), error=explain(OSError(number, os.strerror(number)), "connect"))


class ManualClock:
    """A clock that the test sets."""

    time = 1000.0

    def __call__(self) -> float:
        return self.time


def a_probe(clock: ManualClock, **options: Any) -> Probe:
    return Probe.of(Target.of(0, "http://a.test/"), Options(**options), clock)


def test_a_fault_that_passes_counts_as_no_attempt_and_no_time() -> None:
    clock = ManualClock()
    probe = a_probe(clock, timeout=10, retries=0)
    for _ in range(4):
        probe.take(fault(), 9.0)
        assert not probe.is_finished
        assert not probe.wants_deferral
        assert probe.not_before > clock.time
        assert (probe.state.attempts, probe.state.method, probe.request_timeout) == (1, "HEAD", 10.0)
        clock.time = probe.not_before
    probe.take(HopResult(Timings(), status=200), 1.0)
    assert (probe.result.outcome, probe.result.attempts, probe.result.method) == ("ok", 1, "HEAD")


def test_a_fault_that_stays_is_reported_after_longer_and_longer_waits() -> None:
    clock = ManualClock()
    probe, waits = a_probe(clock, retries=0), []
    probe.take(fault(), 0.0)
    while not probe.is_finished:
        waits.append(probe.not_before - clock.time)
        clock.time = probe.not_before
        probe.take(fault(), 0.0)
    assert len(waits) == 6
    assert all(min(0.25 * 2**n, 30) <= wait <= 0.5 * 2**n for n, wait in enumerate(waits))
    assert (probe.result.outcome, probe.result.attempts) == ("failed", 1)
    assert probe.result.errors == {"http": "LOCAL_ERROR"}
    assert probe.result.error is not None
    assert probe.result.error.type == "local.ports"


def test_a_fault_that_stays_counts_as_no_attempt() -> None:
    probe = a_probe(ManualClock(), retries=5)
    while not probe.is_finished:
        probe.take(fault(), 0.0)
    assert (probe.result.attempts, len(probe.result.hops)) == (1, 7)


# --- Slots ---


class QuickItem:
    """An item that is finished at once."""

    host: str = "host"
    not_before: float = 0.0
    wants_deferral: bool = False
    wants_host_alone: bool = False


async def let_pass(scheduler: Scheduler, count: int) -> None:
    """Record `count` good answers."""

    async def run_item(item: QuickItem) -> bool:
        scheduler.record_answer(item.host, 0.001)
        return True

    async with WorkQueue(scheduler, run_item) as queue:
        for _ in range(count):
            queue.put(QuickItem())
        queue.seal()
        assert len([item async for item in queue]) == count


async def peak(scheduler: Scheduler, count: int = 200) -> int:
    """Return the largest number of items that ran at once; each gives way to the others a few times."""
    running = most = 0

    async def run_item(_: QuickItem) -> bool:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _round in range(5):
            await asyncio.sleep(0)
        running -= 1
        return True

    async with WorkQueue(scheduler, run_item) as queue:
        for _ in range(count):
            queue.put(QuickItem())
        queue.seal()
        async for _ in queue:
            pass
    return most


async def shortage(scheduler: Scheduler, count: int, fails: int) -> None:
    """Run `count` items at once; the first few fail because this machine lacks something."""

    async def run_item(_: QuickItem) -> bool:
        nonlocal fails
        await asyncio.sleep(0)
        if fails:
            fails -= 1
            scheduler.record_shortage()
        return True

    async with WorkQueue(scheduler, run_item) as queue:
        for _ in range(count):
            queue.put(QuickItem())
        queue.seal()
        assert len([item async for item in queue]) == count


async def test_slots_shrink_after_shortages_and_grow_back_with_answers() -> None:
    scheduler = Scheduler(concurrency=64, per_host=1000)
    assert await peak(scheduler) == 64
    await shortage(scheduler, 64, fails=24)
    assert scheduler._limit == 40, "without answers, nothing grows back"
    assert await peak(scheduler) == 40
    await let_pass(scheduler, 50)
    assert 40.9 < scheduler._limit < 41.1
    await let_pass(scheduler, 50 * 64)
    assert scheduler._limit == 64
    assert await peak(scheduler) == 64


async def test_there_is_always_one_slot_left() -> None:
    scheduler = Scheduler(concurrency=8, per_host=8)
    await shortage(scheduler, 50, fails=50)
    assert scheduler._limit == 1
    assert await peak(scheduler) == 1


async def test_a_prober_short_of_connections_still_finishes_everything() -> None:
    """Its transport can open only four connections at once."""
    transport = FourAtOnce()
    scheduler = Scheduler(concurrency=32, per_host=32)
    prober = HttpProber(Options(retries=0), lambda _: transport, scheduler)
    results = [r async for r in prober.probe_many(Target.of(n, f"http://h{n}.test/") for n in range(400))]
    assert {(result.outcome, result.attempts) for result in results} == {("ok", 1)}
    assert 28 <= transport.refused < 200, "it does not try again and again"


class FourAtOnce:
    active = refused = 0

    async def hop(self, *_: Any, **__: Any) -> HopResult:
        if self.active == 4:
            self.refused += 1
            return HopResult(Timings(), error=ProbeError.of("local.descriptors", "too many"))
        self.active += 1
        await asyncio.sleep(0.01)
        self.active -= 1
        return HopResult(Timings(), status=200)

    async def close(self) -> None:
        pass
