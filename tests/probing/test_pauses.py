"""Time in which this process stood still is not the target's fault.

Witnesses: curl is the counterexample: stopped for 4 s while an answer arrives after 1 s, `curl --max-time 2` ends with
exit code 28. RFC 9110, 15.5.9: 408 says that the server had no complete request in the time that it would wait, and the
client may repeat it. `make chaos` does the same to services, children and workers, for up to 120 s.
"""

import asyncio
import json
import os
import signal
import sys
import time
from contextlib import suppress
from subprocess import PIPE
from typing import Any

import pytest

from crawler import ProbeResult
from crawler.probing.settings import ProberSettings, RetryPolicy
from tests.support.dns_server import DnsServer
from tests.support.exchange import Exchange
from tests.support.probing import SHORT_BACKOFF, asking, probe_all, probe_one, status_of
from tests.support.site import Site

PAUSE_SECONDS = 1.8
"""More than the timeouts here, and more than the second from which on a failure is not judged."""


def stand_still() -> None:
    """Keep the event loop busy: both this process' probes and its servers miss the time."""
    time.sleep(PAUSE_SECONDS)


async def probe_with_a_stop(urls: list[str], site: Site, *flags: str) -> list[Any]:
    """Probe by the command; stop its process while all requests are in flight."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "crawler", "probe", "--format", "ndjson", *flags, *urls, stdout=PIPE
    )
    await site.until(lambda: site.active == len(urls))
    os.kill(process.pid, signal.SIGSTOP)
    await asyncio.sleep(4)
    os.kill(process.pid, signal.SIGCONT)
    out, _ = await process.communicate()
    return [json.loads(line) for line in out.splitlines()]


async def test_what_came_while_the_process_was_stopped_counts(site: Site) -> None:
    async def answer_later(x: Exchange) -> None:
        await asyncio.sleep(1)
        await x.reply()

    site.on("/slow", answer_later)
    urls = [site.url("/slow", host=f"127.0.0.{number}") for number in range(1, 21)]
    results = await probe_with_a_stop(urls, site, "--timeout", "2", "--retries", "0", "--method", "GET")
    assert [(r["outcome"], r["attempts"], len(r["hops"])) for r in results] == [("ok", 1, 1)] * 20
    assert max(r["timings"]["total"] for r in results) < 2_500, "the pause is in no timing"
    assert len(site.requests) == 20


async def test_stolen_time_counts_no_more_than_lost_time(site: Site) -> None:
    """Of each second the process has a twentieth, as on a machine whose CPU is promised to too many."""

    async def redirect_later(x: Exchange) -> None:
        await asyncio.sleep(1.2)
        await x.reply(302, [("Location", "/then")])

    async def answer_later(x: Exchange) -> None:
        await asyncio.sleep(0.5)
        await x.reply()

    site.on("/slow", redirect_later)
    site.on("/then", answer_later)
    urls = [site.url("/slow", host=f"127.0.0.{number}") for number in range(1, 21)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "crawler", "probe", "--format", "ndjson", "--timeout", "1.9", "--retries", "0",
        "--method", "GET", *urls, stdout=PIPE,
    )  # fmt: skip
    await site.until(lambda: site.active == len(urls))
    with suppress(ProcessLookupError):  # it has ended
        for _ in range(8):
            process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(0.95)
            process.send_signal(signal.SIGCONT)
            await asyncio.sleep(0.05)
    out, _ = await process.communicate()
    assert [json.loads(line)["outcome"] for line in out.splitlines()] == ["ok"] * 20


async def test_a_target_that_gave_up_meanwhile_is_asked_again(site: Site) -> None:
    """A pause of 4 s outlasts the patience of the target, which resets the connection."""
    hits = 0

    async def lose_patience(x: Exchange) -> None:
        nonlocal hits
        hits += 1
        if hits <= 5:
            await asyncio.sleep(2)
            x.reset()
        await x.reply()

    site.on("/impatient", lose_patience)
    urls = [site.url("/impatient", host=f"127.0.0.{number}") for number in range(1, 6)]
    results = await probe_with_a_stop(urls, site, "--timeout", "3", "--retries", "0", "--method", "GET")
    assert [(r["outcome"], r["attempts"]) for r in results] == [("ok", 1)] * 5
    assert [[hop["error"] for hop in r["hops"]] for r in results] == [["local.paused", None]] * 5


@pytest.mark.parametrize("ending", ["reset", "close", "408"])
async def test_a_failure_after_a_late_loop_is_not_judged(ending: str, site: Site) -> None:
    async def fail_once(x: Exchange) -> None:
        if len(site.requests) == 1:
            stand_still()
            if ending == "reset":
                x.reset()
            if ending == "close":
                return
            await x.reply(408)
        await x.reply()

    site.on("/", fail_once)
    result = await probe_one(site.url("/"), retries=0, method="GET", timeout=5, settings=SHORT_BACKOFF)
    assert (status_of(result), result.attempts) == (200, 1)
    assert [hop.error for hop in result.hops] == ["local.paused", None]


async def test_408_without_a_pause_is_the_servers_answer(site: Site) -> None:
    assert status_of(await probe_one(site.url("/status/408"), retries=0)) == 408


async def test_a_good_answer_counts_however_late(site: Site) -> None:
    async def stand_still_and_answer(x: Exchange) -> None:
        stand_still()
        await x.reply()

    site.on("/", stand_still_and_answer)
    result = await probe_one(site.url("/"), retries=0, timeout=1, method="GET")
    assert (status_of(result), len(site.requests)) == (200, 1)


async def test_a_silent_target_still_times_out_after_its_time(site: Site) -> None:
    """The time that did not pass is added, and no more."""

    async def stay_silent(x: Exchange) -> None:
        if len(site.requests) == 1:
            stand_still()
        await asyncio.sleep(60)

    site.on("/", stay_silent)
    began = time.monotonic()
    result = await probe_one(site.url("/"), retries=0, timeout=1, method="GET", settings=SHORT_BACKOFF)
    assert status_of(result) == "http.timed_out"
    assert PAUSE_SECONDS < time.monotonic() - began < PAUSE_SECONDS + 1 + 1 + 1


async def test_a_target_that_could_never_be_asked_in_peace_is_not_blamed(site: Site) -> None:
    async def disturb(x: Exchange) -> None:
        stand_still()
        x.reset()

    site.on("/", disturb)
    settings = ProberSettings(retry=RetryPolicy(backoff_seconds=0.01, max_wait_seconds=0.01, max_local_faults=1))
    result = await probe_one(site.url("/"), retries=0, method="GET", timeout=5, settings=settings)
    assert result.error is not None
    assert (result.error.type, result.errors, len(site.requests)) == ("local.paused", {"http": "LOCAL_ERROR"}, 2)
    assert "stood still for" in result.error.message
    assert "127.0.0.1" in result.error.message


async def test_a_pause_during_a_lookup_is_not_the_names_fault(site: Site) -> None:
    """Half of the time for the lookups passes without this process."""
    async with DnsServer() as names:
        names.a("*.test", "127.0.0.1")
        loop = asyncio.get_running_loop()

        async def probe(number: int) -> ProbeResult:
            return await probe_one(f"http://h{number}.test:{site.port}/ok", retries=0, timeout=1, **asking(names))

        loop.call_later(0.005, stand_still)
        results = await asyncio.gather(*(probe(number) for number in range(5)))
    assert [status_of(result) for result in results] == [200] * 5


async def test_many_that_are_ready_at_once_after_a_late_loop_all_count(site: Site) -> None:
    """A late loop runs its timers before it looks at sockets: the answers that wait there have come in time."""

    async def answer_after_all_are_here(x: Exchange) -> None:
        await site.until(lambda: site.active == 60 or len(site.requests) == 60)
        await x.reply()
        if not stood_still:
            stood_still.append(True)
            time.sleep(0.9)  # noqa: ASYNC251 - too short to be asked again

    stood_still: list[bool] = []
    site.on("/", answer_after_all_are_here)
    urls = [site.url(f"/?{number}", host=f"127.0.0.{number}") for number in range(1, 61)]
    results = await probe_all(urls, retries=0, timeout=0.6, method="GET")
    assert {status_of(result) for result in results} == {200}
    assert len(site.requests) == 60
