"""Probes in child processes find the same, keep the same limits, and lose nothing when a child ends."""

import asyncio
import json
import os
import resource
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from pathlib import Path
from shutil import rmtree
from typing import Any

import msgspec
import pytest

import crawler
from crawler import Options, ProbeResult
from crawler.compose import open_prober
from crawler.core.errors import ChildError
from crawler.core.task_options import apply_task_options
from crawler.core.urls import read_targets
from crawler.distributed.child_process import PoolSettings
from crawler.distributed.process_pool import ISOLATED, ProcessPool, child_of
from crawler.distributed.process_prober import ProcessProber
from crawler.probing.factory import open_http_prober
from crawler.stores.memory import MemoryRegistry
from tests.support.app_client import manager_of, registry_of, serving, until_ended
from tests.support.behaviours import redirect_path
from tests.support.exchange import Exchange
from tests.support.probing import probe_all, status_of
from tests.support.process import Served, registry_flags
from tests.support.site import Site

HOSTS = [f"127.0.0.{number}" for number in range(1, 21)]
OF_FIRST = next(host for host in HOSTS if child_of(host, 2) == 0)
OF_SECOND = next(host for host in HOSTS if child_of(host, 2) == 1)


@asynccontextmanager
async def open_process_prober(
    settings: PoolSettings | None = None, **options: Any
) -> AsyncIterator[tuple[ProcessProber, ProcessPool]]:
    """Open a prober on two processes."""
    chosen = Options.of(options).with_guard("any")
    async with open_http_prober(chosen) as local_prober, ProcessPool(chosen, 2, settings or PoolSettings()) as pool:
        yield ProcessProber(local_prober, pool), pool


async def found(prober: ProcessProber, urls: list[str]) -> list[ProbeResult]:
    async with aclosing(prober.probe_many(read_targets(urls))) as results:
        return sorted([result async for result in results], key=lambda result: result.seq)


def without_times(result: ProbeResult) -> object:
    """Return a result without what differs each time."""
    hops = [(hop.url, hop.method, hop.status, hop.ip, hop.error) for hop in result.hops]
    return msgspec.structs.replace(result, timestamp=0, timings=crawler.Timings(), hops=[]), hops


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended but was not waited for does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


async def until_gone(pids: list[int]) -> None:
    async with asyncio.timeout(20):
        while any(map(is_alive, pids)):  # noqa: ASYNC110 - nothing tells of the end of another's process
            await asyncio.sleep(0.02)


def children(pid: int) -> list[int]:
    """Return the pids of its children that probe; it may have others, for example servers of the tests."""
    pids = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in pids if b"crawler.distributed.child" in Path(f"/proc/{child}/cmdline").read_bytes()]


def files_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


# --- The same results ---


async def test_children_find_the_same_as_one_process(site: Site) -> None:
    paths = ["/ok", "/status/404", "/redirect/3", "/loop/2", "/loop/20", "/head-only-405", "/reset", "/cookie-wall"]
    urls = [site.url(path, host=host) for path in paths for host in (OF_FIRST, OF_SECOND)]
    urls += [site.url(redirect_path(site.url("/title/there", host=OF_SECOND)), host=OF_FIRST)]
    urls += [
        site.url(redirect_path(site.url("/redirect/2", host=OF_FIRST)), host=OF_SECOND),
        "nonsense",
        urls[0],
        "nonsense",
    ]
    options: dict[str, Any] = {"title": True, "retries": 0, "accept": ["200-399", "418"]}
    apart = await probe_all(urls, processes=2, **options)
    assert [without_times(result) for result in apart] == [
        without_times(result) for result in await probe_all(urls, **options)
    ]
    assert [result.url for result in apart] == urls


async def test_a_probe_is_handed_over_with_all_it_knows(site: Site) -> None:
    """Each redirect leads to a host of the other child: the count of redirects moves along."""
    url = site.url("/ok", host=OF_FIRST)
    for number in range(4):
        url = site.url(redirect_path(url), host=OF_SECOND if number % 2 == 0 else OF_FIRST)
    [done] = await probe_all([url], processes=2, retries=0)
    assert (done.outcome, len(done.hops)) == ("ok", 5)
    [short] = await probe_all([url], processes=2, retries=0, max_redirects=2)
    assert (status_of(short), [hop.method for hop in short.hops]) == (
        "http.response.redirect_loop", ["HEAD"] * 3 + ["GET"] * 3
    )  # fmt: skip


async def test_the_options_of_a_task_reach_the_children(site: Site) -> None:
    async with open_process_prober(retries=0) as (prober, _):
        chosen = apply_task_options(prober._local_prober.options, {"headers": {"X-Task": "this"}, "method": "GET"})
        results = [result async for result in prober.probe_many(read_targets([site.url("/echo")]), chosen)]
    assert results[0].method == "GET"
    assert site.requests[0].header("X-Task") == "this"


async def test_an_error_of_the_callers_iterable_is_raised(site: Site) -> None:
    def lines() -> Any:
        yield site.url("/ok")
        raise OSError("unreadable")

    with pytest.raises(OSError, match="unreadable"):
        await probe_all(lines(), processes=2)


async def test_a_service_probes_in_child_processes(site: Site) -> None:
    async with serving(crawler.create_app(Options(guard="any", processes=2), registry=MemoryRegistry())) as client:
        task = await manager_of(client).submit([site.url("/ok", host=host) for host in HOSTS])
        await until_ended(registry_of(client), task)
        assert (task.status, task.counts.ok) == ("ready", len(HOSTS))


# --- The same limits ---


async def test_a_host_has_one_set_of_slots_however_probes_come_to_it(site: Site) -> None:
    async def slow(x: Exchange) -> None:
        await asyncio.sleep(0.01)
        await x.reply(200)

    site.on("/slow", slow)
    urls = [site.url(redirect_path(site.url(f"/slow?{number}")), host=HOSTS[number % 20]) for number in range(200)]
    urls += [site.url(f"/slow?direct{number}") for number in range(100)]
    results = await probe_all(urls, processes=2, per_host=3, concurrency=100, method="GET")
    assert [result.outcome for result in results] == ["ok"] * 300
    assert site.peak_of("127.0.0.1") == 3


async def test_children_together_have_no_more_slots_than_one_process(site: Site) -> None:
    async def slow(x: Exchange) -> None:
        await asyncio.sleep(0.01)
        await x.reply(200)

    site.on("/slow", slow)
    urls = [site.url(f"/slow?{number}", host=HOSTS[number % 20]) for number in range(300)]
    results = await probe_all(urls, processes=2, concurrency=10)
    assert [result.outcome for result in results] == ["ok"] * 300
    assert 5 < site.peak <= 10


async def test_a_stuck_host_delays_no_other_of_the_same_child(site: Site) -> None:
    """All URLs of the fast hosts finish while the stuck host does not answer."""
    hosts = [host for host in HOSTS if child_of(host, 2) == child_of("127.0.0.1", 2)]
    stuck = [site.url(f"/hang?{number}") for number in range(10_000)]
    fast = [site.url(f"/ok?{number}", host=host) for number in range(200) for host in hosts[1:]]
    async with (
        open_process_prober(per_host=8, concurrency=40, timeout=60) as (prober, _),
        aclosing(prober.probe_many(read_targets([*stuck, *fast]))) as results,
    ):
        first = [await anext(results) for _ in fast]
    assert {result.outcome for result in first} == {"ok"}


async def test_a_stopped_run_sends_no_more_requests(site: Site) -> None:
    async with open_process_prober() as (prober, _):
        results = prober.probe_many(read_targets([site.url(f"/hang?{number}", host=OF_FIRST) for number in range(100)]))
        waiting = asyncio.ensure_future(anext(results))
        await site.until(lambda: site.active == 8)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await results.aclose()
        await site.until(lambda: site.active == 0)
        before = len(site.requests)
        assert len(await found(prober, [site.url("/ok", host=host) for host in HOSTS])) == 20
        assert len(site.requests) == before + 20


# --- Children that end ---


async def test_a_child_that_ends_is_replaced_and_its_targets_are_probed_again(site: Site) -> None:
    urls = [site.url(f"/delay/0.05?{number}", host=HOSTS[number % 20]) for number in range(400)]
    async with open_process_prober(per_host=4) as (prober, pool):
        killed: list[int] = []
        results = []
        async with aclosing(prober.probe_many(read_targets(urls))) as coming:
            async for result in coming:
                results.append(result)
                if len(results) in (50, 150):
                    killed.append(pool.pids[len(killed)])
                    os.kill(killed[-1], signal.SIGKILL)
        assert set(pool.pids).isdisjoint(killed)
        await until_gone(killed)
    assert sorted(result.seq for result in results) == list(range(400)), "each line once"
    assert {result.outcome for result in results} == {"ok"}


@contextmanager
def descriptors(more: int) -> Iterator[None]:
    """Allow only `more` more open files."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = max(int(entry.name) for entry in Path("/proc/self/fd").iterdir())
    taken = [os.open(os.devnull, os.O_RDONLY)]  # those that were free below it
    while taken[-1] <= before:
        taken.append(os.open(os.devnull, os.O_RDONLY))
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken[-1] + 1 + more, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for descriptor in taken:
            os.close(descriptor)


async def test_more_runs_than_a_child_accepts_at_once_all_get_through() -> None:
    async with open_process_prober(retries=0) as (prober, pool):
        for pid in pool.pids:
            os.kill(pid, signal.SIGSTOP)
        runs = [asyncio.ensure_future(found(prober, ["http://127.0.0.1:1/"])) for _ in range(300)]
        await asyncio.sleep(0.1)  # they all try
        for pid in pool.pids:
            os.kill(pid, signal.SIGCONT)
        assert {status_of(result) for results in await asyncio.gather(*runs) for result in results} == {"tcp.refused"}


async def test_runs_wait_for_descriptors() -> None:
    async with open_process_prober(retries=0) as (prober, _):
        with descriptors(20):
            runs = [asyncio.ensure_future(found(prober, ["http://127.0.0.1:1/"])) for _ in range(100)]
            results = await asyncio.gather(*runs)
    assert {status_of(result) for [result] in results} == {"tcp.refused"}


async def test_a_child_that_cannot_be_replaced_now_is_replaced_later(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The start fails more often than a first start may."""
    async with open_process_prober(settings=PoolSettings(restart_seconds=0.01)) as (prober, pool):
        with monkeypatch.context() as meanwhile:
            meanwhile.setattr(sys, "executable", "/nowhere")
            os.kill(pool.pids[0], signal.SIGKILL)
            async with asyncio.timeout(20):
                while caplog.text.count("cannot be started") < 4:  # noqa: ASYNC110 - nothing tells of a log line
                    await asyncio.sleep(0.02)
        results = await found(prober, [site.url("/ok", host=host) for host in HOSTS])
    assert {result.outcome for result in results} == {"ok"}


async def test_a_target_that_ends_three_children_is_given_up_and_no_other(site: Site) -> None:
    async with open_process_prober(per_host=4, retries=0) as (prober, pool):

        async def kill(x: Exchange) -> None:
            for pid in pool.pids:
                os.kill(pid, signal.SIGKILL)
            await asyncio.Event().wait()

        site.on("/kill", kill)
        ordinary = [site.url(f"/delay/0.05?{number}", host=HOSTS[number % 20]) for number in range(100)]
        results = await found(prober, [*ordinary[:50], site.url("/kill"), *ordinary[50:]])
    marked = results.pop(50)
    assert (status_of(marked), marked.outcome) == ("unknown", "failed")
    assert marked.error is not None and marked.error.message == "3 processes ended while they probed it"
    assert [result.outcome for result in results] == ["ok"] * 100
    assert Counter(request.path for request in site.requests)["/kill"] == 3


async def test_only_one_suspect_is_isolated_at_a_time(site: Site) -> None:
    """Otherwise a target of another caller, in flight at each crash, would be given up."""
    async with open_process_prober(per_host=4, retries=0) as (prober, pool):

        async def kill(x: Exchange) -> None:
            await asyncio.sleep(0.1)
            for pid in pool.pids:
                os.kill(pid, signal.SIGKILL)
            await asyncio.Event().wait()

        site.on("/kill", kill)
        slow = [site.url(f"/delay/0.3?{number}", host=HOSTS[number]) for number in range(10)]
        [marked], others = await asyncio.gather(found(prober, [site.url("/kill")]), found(prober, slow))
    assert status_of(marked) == "unknown"
    assert [result.outcome for result in others] == ["ok"] * 10


class UnluckyPool(ProcessPool):
    """Connects three times to the isolated child just as that ends."""

    missed = 0

    async def connect(self, index: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if index != ISOLATED or self.missed == 3:
            return await super().connect(index)
        self.missed += 1
        near, far = socket.socketpair()
        far.close()
        return await asyncio.open_unix_connection(sock=near)


async def test_a_child_that_ends_before_it_begins_a_target_is_not_the_targets_fault(site: Site) -> None:
    chosen = Options(guard="any", retries=0)
    async with open_http_prober(chosen) as local_prober, UnluckyPool(chosen, 2) as pool:

        async def kill_twice(x: Exchange) -> None:
            if len(site.requests) <= 2:
                for pid in pool.pids:
                    os.kill(pid, signal.SIGKILL)
                await asyncio.Event().wait()
            await x.reply()

        site.on("/twice", kill_twice)
        [result] = await found(ProcessProber(local_prober, pool), [site.url("/twice")])
        assert (status_of(result), pool.missed) == (200, 3)


async def test_a_stopped_child_does_not_delay_a_drain(site: Site) -> None:
    async with (
        open_process_prober() as (prober, pool),
        aclosing(prober.probe_many(read_targets([site.url("/hang"), site.url("/ok")]))) as results,
    ):
        assert status_of(await anext(results)) == 200
        pids = pool.pids
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            async with asyncio.timeout(20):
                await prober.drain(0)
                assert [result async for result in results] == []
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)


async def test_children_that_cannot_start_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ChildError, match="do not start"):
        await probe_all(["http://127.0.0.1/"], processes=2)


async def test_children_that_do_not_listen_in_time_are_an_error() -> None:
    before = children(os.getpid())
    with pytest.raises(ChildError, match="do not start"):
        async with ProcessPool(Options(), 2, PoolSettings(start_timeout_seconds=0.01)):
            pass
    assert children(os.getpid()) == before


async def test_options_may_be_larger_than_a_pipe_holds(site: Site) -> None:
    names = [f"www{number}.example:80:127.0.0.1" for number in range(10_000)]
    [result] = await probe_all([site.url("/ok")], processes=2, resolve=names)
    assert result.outcome == "ok"


async def test_a_command_that_cannot_start_children_says_so() -> None:
    program = "import sys; from crawler.cli.main import main; sys.executable = '/bin/false'; sys.exit(main())"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, "probe", "--processes", "2", "http://127.0.0.1/",
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, said = await process.communicate()
    assert process.returncode == 2
    message = "crawler: the child processes do not start; see their messages on standard error"
    assert said.decode().splitlines()[-1] == message


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
async def test_no_child_is_left_behind(number: signal.Signals, site: Site, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "crawler", "probe", "--processes", "2", "--guard", "any"]
    process = await asyncio.create_subprocess_exec(
        *command, site.url("/hang", host=OF_FIRST), site.url("/hang", host=OF_SECOND),
        stdout=asyncio.subprocess.PIPE, env={**os.environ, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    await site.until(lambda: site.active == 2)
    pids = children(process.pid)
    assert len(pids) == 2
    process.send_signal(number)
    await process.communicate()
    await until_gone(pids)
    assert files_in(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_children_ignore_signals_meant_for_the_parent(number: signal.Signals, site: Site) -> None:
    """A terminal and systemd send them to every process."""
    async with open_process_prober() as (prober, pool):
        before = pool.pids
        for pid in before:
            os.kill(pid, number)
        assert status_of((await found(prober, [site.url("/ok")]))[0]) == 200
        assert pool.pids == before


# --- Children that are stopped ---

BRISK = PoolSettings(ping_seconds=0.2, max_silence_seconds=1.5)


def silence_of(prober: ProcessProber) -> str | None:
    return prober.fault


async def until_readiness(service: Served, status: int) -> str:
    """Ask until `/readyz` has this status; return its detail."""
    async with asyncio.timeout(9):
        while (reply := await service.ask("GET", "/readyz")).status != status:  # noqa: ASYNC110 - as a load balancer
            await asyncio.sleep(0.1)
    return str(json.loads(reply.body).get("detail"))


async def test_the_targets_of_a_stopped_child_are_probed_in_another(site: Site) -> None:
    """SIGSTOP has no answer in the child: only its parent can notice (signal(7))."""
    urls = [site.url(f"/delay/0.2?{number}", host=HOSTS[number % 20]) for number in range(100)]
    async with open_process_prober(settings=BRISK, per_host=1, retries=0) as (prober, pool):
        finding = asyncio.ensure_future(found(prober, urls))
        await site.until(lambda: site.active > 10)
        stopped = pool.pids[0]
        os.kill(stopped, signal.SIGSTOP)
        while silence_of(prober) is None:  # noqa: ASYNC110 - what a load balancer does
            await asyncio.sleep(0.05)
        assert silence_of(prober) == "1 of 2 child processes does not answer"
        results = await finding
        assert stopped not in pool.pids
        assert pool.replaced == 1
        assert silence_of(prober) is None
        await until_gone([stopped])
    assert [result.seq for result in results] == list(range(100)), "each line once"
    assert {result.outcome for result in results} == {"ok"}


async def test_a_child_that_is_stopped_shortly_keeps_its_work(site: Site) -> None:
    settings = PoolSettings(ping_seconds=0.2, max_silence_seconds=8.0)
    urls = [site.url("/delay/1", host=host) for host in HOSTS]
    async with open_process_prober(settings=settings, retries=0, timeout=2) as (prober, pool):
        before = pool.pids
        finding = asyncio.ensure_future(found(prober, urls))
        await site.until(lambda: site.active == 20)
        for pid in before:
            os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(3)
        for pid in before:
            os.kill(pid, signal.SIGCONT)
        results = await finding
        assert (pool.pids, pool.replaced) == (before, 0)
    assert {result.outcome for result in results} == {"ok"}
    assert len(site.requests) == 20


async def test_no_target_is_blamed_however_often_its_child_is_stopped(site: Site) -> None:
    """Three children that crash would condemn it; three that are stopped say nothing of it."""
    async with open_process_prober(settings=BRISK, retries=0) as (prober, pool):

        async def stop(x: Exchange) -> None:
            if len(site.requests) <= 4:
                for pid in pool.pids:
                    os.kill(pid, signal.SIGSTOP)
                await asyncio.Event().wait()
            await x.reply()

        site.on("/stop", stop)
        [result] = await found(prober, [site.url("/stop")])
    assert (status_of(result), len(site.requests)) == (200, 5)


async def test_a_parent_that_was_stopped_kills_no_child(site: Site) -> None:
    """Its children have answered all the time; it could not hear them."""
    async with open_process_prober(settings=BRISK, retries=0) as (prober, pool):
        before = pool.pids
        time.sleep(3)  # noqa: ASYNC251 - the parent stands still
        results = await found(prober, [site.url("/delay/1", host=host) for host in HOSTS])
        assert (pool.pids, pool.replaced) == (before, 0)
    assert {result.outcome for result in results} == {"ok"}


async def test_children_need_no_files(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cleaners of /tmp such as systemd-tmpfiles(8) remove what is old there, sockets included."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    async with open_process_prober() as (prober, _):
        assert files_in(tmp_path) == []
        rmtree(tmp_path)
        results = await found(prober, [site.url("/ok", host=host) for host in HOSTS])
    assert {status_of(result) for result in results} == {200}


async def test_readyz_names_silent_children(site: Site, tmp_path: Path) -> None:
    async with Served("--processes", "2", *registry_flags(tmp_path)) as service:
        assert (await service.ask("GET", "/readyz")).status == 200
        pid = children(service.process.pid)[0]
        os.kill(pid, signal.SIGSTOP)
        assert await until_readiness(service, 503) == "prober: 1 of 2 child processes does not answer"
        os.kill(pid, signal.SIGCONT)
        await until_readiness(service, 200)


# --- How many ---


async def test_as_many_children_start_as_are_asked_for() -> None:
    others = len(children(os.getpid()))  # what the tests use serves on
    async with open_prober(Options(processes=3)):
        assert len(children(os.getpid())) - others == 3
    async with open_prober(Options(processes=1)):
        assert len(children(os.getpid())) == others
    cores = len(os.sched_getaffinity(0))
    async with open_prober(Options(processes="auto")):
        assert len(children(os.getpid())) - others == (cores if cores > 1 else 0)


def test_hosts_are_shared_evenly() -> None:
    counts = Counter(child_of(f"www{number}.example", 8) for number in range(8000))
    assert min(counts.values()) > 850
    assert max(counts.values()) < 1150
