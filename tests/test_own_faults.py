"""What this machine lacks is never said of a target: descriptors, ports, memory."""

import asyncio
import errno
import functools
import json
import os
import subprocess
import sys
from typing import Any

import pytest

from crawler.failures import explain
from crawler.lane import Lane
from crawler.models import Answer, ProbeError, Timings
from crawler.options import Options
from crawler.prober import HttpProber
from crawler.targets import Target
from crawler.throttle import Throttle
from crawler.verdict import Probe
from tests.site import Site

OWN_FAULTS = [errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM, errno.ENETDOWN]


async def run(command: list[str], urls: list[str]) -> tuple[int, list[Any], str]:
    """Probe URLs in a process of its own: exit code, results, standard error."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CRAWLER_")}
    process = await asyncio.create_subprocess_exec(
        *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean
    )
    try:
        out, err = await process.communicate("\n".join(urls).encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, [json.loads(line) for line in out.splitlines()], err.decode()


def limited(files: str, *command: str) -> list[str]:
    """A command with `ulimit` on its open files."""
    return ["sh", "-c", f'ulimit {files}; exec "$@"', "sh", sys.executable, *command]


def hosts(site: Site, count: int) -> list[str]:
    """Names of as many hosts as there shall be, all of them this site."""
    return [f"127.0.{number // 250}.{1 + number % 250}" for number in range(count)]


# --- Descriptors ---

PROBE = ["-m", "crawler", "probe", "--file", "-", "--format", "ndjson", "--concurrency", "500"]


@pytest.mark.parametrize("number", [pytest.param(1, id="one host"), pytest.param(500, id="500 hosts")])
async def test_with_64_descriptors_500_at_once_are_all_right(number: int, site: Site) -> None:
    places = hosts(site, number)
    urls = [site.url(f"/delay/0.01/{n}", host=places[n % number]) for n in range(500)]
    async with asyncio.timeout(6):
        code, results, err = await run(limited("-n 64", *PROBE, "--per-host", "500"), urls)
    assert sorted(result["url"] for result in results) == sorted(urls)
    assert {(result["status"], result["outcome"], result["attempts"]) for result in results} == {(200, "ok", 1)}
    assert (code, err) == (0, "")
    assert 8 <= site.peak <= 64


async def test_with_too_few_descriptors_for_anything_what_is_said_is_not_of_the_target(site: Site) -> None:
    code, results, _ = await run(limited("-n 64", "-c", STARVED, site.url("/ok")), [])
    assert code == 0
    [result] = results
    assert (result["outcome"], result["errors"]) == ("failed", {"http": "LOCAL_ERROR"})
    assert (result["error"]["type"], result["attempts"]) == ("local.descriptors", 1)
    assert site.requests == []


STARVED = """
import asyncio, os, sys, msgspec, crawler, crawler.verdict
crawler.verdict._backoff = lambda times: 0.01

async def main():
    async with crawler.open_prober(crawler.Options(retries=0)) as prober:
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
        ("-Sn 100", 100, 100, 232),
        ("-Sn 300", 100, 100, 300),
        ("-n 200", 100, 84, 200),
    ],
)
def test_slots_are_as_many_as_descriptors_allow_and_the_soft_limit_is_raised(
    files: str, wanted: int, slots: int, soft: int
) -> None:
    ask = f"""
import resource
from crawler.limits import within_descriptors
print(within_descriptors({wanted}), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""
    done = subprocess.run(limited(files, "-c", ask), capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(slots), str(soft)]


# --- Ports ---


@functools.cache
def can_unshare() -> bool:
    """Whether this machine lets us have a network of our own, with as few ports as we like."""
    try:
        return subprocess.run(["unshare", "-rn", "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


FEW_PORTS = """
import asyncio, collections, sys, uvloop
from tests.probing import probe_all, verdict
from tests.site import Site

async def main():
    async with Site() as site:
        with open("/proc/sys/net/ipv4/ip_local_port_range", "w") as file:
            file.write("20000 20009")
        urls = [site.url(f"/delay/0.05/{number}") for number in range(100)]
        results = await probe_all(urls, concurrency=50, per_host=50, retries=0)
        assert {(verdict(result), result.attempts) for result in results} == {(200, 1)}, results
        faults = sum(hop.error == "local.ports" for result in results for hop in result.hops)
        assert faults > 0, "there were enough ports"
        assert site.peak <= 10
        print('"as it should be"')

uvloop.run(main())
"""


@pytest.mark.skipif(not can_unshare(), reason="needs `unshare --net`")
async def test_with_ten_ports_fifty_at_once_are_all_right() -> None:
    script = 'ip link set lo up && exec "$@"'
    code, out, err = await run(["unshare", "-rn", "sh", "-c", script, "sh", sys.executable, "-c", FEW_PORTS], [])
    assert (code, out) == (0, ["as it should be"]), err


# --- Any of them, told by the kernel to a probe ---


@pytest.mark.parametrize("number", OWN_FAULTS, ids=errno.errorcode.__getitem__)
def test_a_fault_of_this_machine_is_called_so(number: int) -> None:
    problem = explain(OSError(number, os.strerror(number)), "connect")
    assert (problem.group, problem.transient) == ("LOCAL_ERROR", True)


def fault(number: int = errno.EADDRNOTAVAIL) -> Answer:
    return Answer(Timings(), error=explain(OSError(number, os.strerror(number)), "connect"))


class Hands:
    """A clock that is turned by hand."""

    time = 1000.0

    def __call__(self) -> float:
        return self.time


def a_probe(clock: Hands, **options: Any) -> Probe:
    return Probe(Target.of(0, "http://a.test/"), Options(**options), clock)


def test_a_fault_that_passes_costs_no_attempt_and_no_time() -> None:
    clock = Hands()
    probe = a_probe(clock, timeout=10, retries=0)
    for _ in range(4):
        probe.take(fault(), 9.0)
        assert not probe.done
        assert not probe.last_look
        assert probe.not_before > clock.time
        assert (probe.attempts, probe.method, probe.patience) == (1, "HEAD", 5.0)
        clock.time = probe.not_before
    probe.take(Answer(Timings(), status=200), 1.0)
    assert (probe.result.outcome, probe.result.attempts, probe.result.method) == ("ok", 1, "HEAD")


def test_a_fault_that_stays_is_reported_after_longer_and_longer_waits() -> None:
    clock = Hands()
    probe, waits = a_probe(clock, retries=0), []
    probe.take(fault(), 0.0)
    while not probe.done:
        waits.append(probe.not_before - clock.time)
        clock.time = probe.not_before
        probe.take(fault(), 0.0)
    assert len(waits) == 8
    assert all(min(0.25 * 2**n, 30) <= wait <= 0.5 * 2**n for n, wait in enumerate(waits))
    assert (probe.result.outcome, probe.result.attempts) == ("failed", 1)
    assert probe.result.errors == {"http": "LOCAL_ERROR"}
    assert probe.result.error is not None
    assert probe.result.error.type == "local.ports"


def test_a_fault_that_stays_costs_no_attempt_whatever_retries_there_are() -> None:
    probe = a_probe(Hands(), retries=5)
    while not probe.done:
        probe.take(fault(), 0.0)
    assert (probe.result.attempts, len(probe.result.hops)) == (1, 9)


# --- Slots ---


class Piece:
    """Work that is done at once."""

    host: str = "host"
    not_before: float = 0.0
    last_look: bool = False


async def let_pass(throttle: Throttle, count: int) -> None:
    """As many good answers, one after the other."""

    async def turn(piece: Piece) -> bool:
        throttle.answered(piece.host, 0.001)
        return True

    async with Lane(throttle, turn) as lane:
        for _ in range(count):
            lane.put(Piece())
        lane.seal()
        assert len([piece async for piece in lane]) == count


async def peak(throttle: Throttle, count: int = 200) -> int:
    """The most pieces that ran at once, of so many that each wait for the loop to have nothing better to do."""
    running = most = 0

    async def turn(_: Piece) -> bool:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _round in range(5):
            await asyncio.sleep(0)
        running -= 1
        return True

    async with Lane(throttle, turn) as lane:
        for _ in range(count):
            lane.put(Piece())
        lane.seal()
        async for _ in lane:
            pass
    return most


async def test_slots_shrink_by_half_of_those_in_use_and_grow_back_one_by_one() -> None:
    throttle = Throttle(concurrency=64, per_host=1000)
    assert await peak(throttle) == 64
    shrunk = asyncio.Event()

    async def shrink(_: Piece) -> bool:
        if not shrunk.is_set():
            throttle.shrink()
            shrunk.set()
        return True

    async with Lane(throttle, shrink) as lane:
        for _ in range(64):
            lane.put(Piece())
        lane.seal()
        async for _ in lane:
            pass
    assert throttle._limit == 32, "no turn that brings no answer is a reason to grow"
    await let_pass(throttle, 32 * 32)
    assert 48 <= throttle._limit < 64
    await let_pass(throttle, 64 * 32)
    assert throttle._limit == 64
    assert await peak(throttle) == 64


async def test_faults_that_come_together_shrink_once_and_never_below_one_slot() -> None:
    throttle = Throttle(concurrency=8, per_host=8)
    throttle.active = 8  # as if all were taken
    for _ in range(8):
        throttle.shrink()
    assert throttle._limit == 4
    for _ in range(10):
        throttle._shrunk_at = 0.0  # as if a while had passed
        throttle.shrink()
    assert throttle._limit == 1


async def test_a_prober_in_trouble_goes_on_until_all_is_done() -> None:
    """Its transport has four connections and not one more."""
    transport = FourAtOnce()
    throttle = Throttle(concurrency=32, per_host=32)
    prober = HttpProber(Options(retries=0), transport, throttle)
    results = [r async for r in prober.probe_many(Target.of(n, f"http://h{n}.test/") for n in range(60))]
    assert {(result.outcome, result.attempts) for result in results} == {("ok", 1)}
    assert transport.refused > 0


class FourAtOnce:
    active = refused = 0

    async def hop(self, *_: Any, **__: Any) -> Answer:
        if self.active == 4:
            self.refused += 1
            return Answer(Timings(), error=ProbeError.of("local.descriptors", "too many"))
        self.active += 1
        await asyncio.sleep(0.01)
        self.active -= 1
        return Answer(Timings(), status=200)

    async def close(self) -> None:
        pass
