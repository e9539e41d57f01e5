"""Fifty probes at once of each kind of server that misbehaves: all end in time, in bounded memory.

The prober runs in a process of its own, which measures itself: the growth of its peak, after a first probe that has
everything imported and allocated.
"""

import asyncio
import json
import os
import subprocess
import sys
from collections import Counter
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

from tests.support.behaviours import MIB
from tests.support.certs import Authority
from tests.support.exchange import Exchange
from tests.support.site import OnAccept, Site

COUNT = 50
TIMEOUT = 1.0
SLACK = 3.0  # seconds, of which a busy machine takes most

# Bytes that fifty probes may have at their peak together: what the head may be, twice, and some for each connection.
# A bug that reads on without end makes hundreds of MiB in the same time.
BOUND = 40 * MIB
# With a body: fifty times a cap of 1 MiB, as it came, as it is unpacked, and as text.
BODY_BOUND = 260 * MIB


class Run(NamedTuple):
    """What the measured process reports."""

    outcomes: list[int | str]
    growth: int
    seconds: float
    late: float


# It imports no test's modules: they take longer than most of these batches.
MEASURED = """
import json, sys, time, uvloop, crawler

def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM:"))

async def outcomes(urls, options):
    results = [result async for result in crawler.probe(urls, **options)]
    return [result.error.type if result.error else result.status for result in results]

async def main(first, batches, options):
    await outcomes([first], options)
    found = {}
    for name, urls in batches.items():
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # the peak is what it is now
        before, started = peak(), time.monotonic()
        found[name] = [await outcomes(urls, options), peak() - before, time.monotonic() - started]
    print(json.dumps(found))

uvloop.run(main(**json.load(sys.stdin)))
"""


async def probed(first: str, batches: dict[str, list[str]], **given: Any) -> dict[str, Run]:
    """Probe lists of URLs one after the other in a process of its own; before them one URL that works."""
    options = {"timeout": TIMEOUT, "retries": 0, "concurrency": COUNT, "per_host": COUNT, **given}
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CRAWLER_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", MEASURED, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=clean
    )
    try:
        out, _ = await process.communicate(
            json.dumps({"first": first, "batches": batches, "options": options}).encode()
        )
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0
    late = options["timeout"] + SLACK
    return {name: Run(outcomes, growth, seconds, late) for name, (outcomes, growth, seconds) in json.loads(out).items()}


async def check(first: str, meanings: dict[str, int | str], bound: int = 0, **options: Any) -> None:
    """Probe each of these URLs fifty times: all have the expected result, in time and in bounded memory."""
    runs = await probed(first, {url: fifty(url) for url in meanings}, **options)
    for url, run in runs.items():
        assert Counter(run.outcomes) == {meanings[url]: COUNT}, url
        assert run.growth < (bound or BOUND), f"{url}: {run.growth / MIB:.0f} MiB"
        assert run.seconds < run.late, f"{url}: {run.seconds:.1f} s"


def fifty(url: str) -> list[str]:
    """Return fifty different URLs."""
    return [f"{url}{'&' if '?' in url else '?'}n={n}" for n in range(COUNT)]


# --- Heads ---

HEADS: dict[str, int | str] = {
    "/endless-1xx": "http.response.invalid",
    "/many-headers/10000": 200,
    "/long-header/1000000": "http.response.invalid",
    "/nul-header": "http.response.invalid",
    "/non-ascii": 200,
    "/garbage": "http.protocol.error",
    "/http09": "http.protocol.error",
    "/h2-preface": "http.protocol.error",
    "/partial": "tcp.closed",
    "/status/099": "http.response.invalid",
    "/status/999": 999,
    "/loop/1": "http.response.redirect_loop",
    "/loop/2": "http.response.redirect_loop",
    "/loop/20": "http.response.redirect_loop",
    "/redirect-to?url=file:///etc/passwd": "url.scheme",
    "/empty-location": 302,
    "/half-close": 200,
    "/reset": "tcp.reset",
}


async def test_heads_of_all_kinds(site: Site) -> None:
    await check(site.url("/ok"), {site.url(path): meaning for path, meaning in HEADS.items()}, timeout=20)


async def test_a_redirect_to_a_blocked_address(site: Site) -> None:
    url = site.redirect_to("http://169.254.169.254/")
    await check(site.url("/ok"), {url: "address.blocked"}, guard="public", allow=["127.0.0.1/32"])


def repeats(site: Site, path: str, start: bytes, more: bytes) -> str:
    """Return a URL whose answer is `start`, then `more` without end."""

    async def answer(x: Exchange) -> None:
        await x.send(start)
        while True:
            await x.send(more)

    site.on(path, answer)
    return site.url(path)


async def test_heads_without_end(site: Site) -> None:
    meanings: dict[str, int | str] = {
        repeats(site, "/fields", b"HTTP/1.1 200 OK\r\n", b"X-More: and more\r\n" * 4000): "http.response.invalid",
        repeats(site, "/field", b"HTTP/1.1 200 OK\r\nX: ", b"a" * 65536): "http.response.invalid",
        repeats(site, "/status-line", b"HTTP/1.1 200 OK", b" " * 65536): "http.response.invalid",
        repeats(site, "/blank-lines", b"", b"\r\n" * 30_000): "http.protocol.error",
        repeats(site, "/zeros", b"", b"\0" * 65536): "http.protocol.error",
    }
    await check(site.url("/ok"), meanings, timeout=20)


# --- Bodies ---

BODIES = ["/endless-body", "/bomb/100"]


async def test_bodies_that_are_not_read(site: Site) -> None:
    await check(site.url("/ok"), {site.url(path): 200 for path in BODIES}, method="GET", timeout=2)


async def test_bodies_that_are_read(site: Site) -> None:
    options = {"title": True, "match": "x", "timeout": 5}
    await check(site.url("/ok"), {site.url(path): 200 for path in BODIES}, BODY_BOUND, **options)


async def test_chunks_of_one_byte(site: Site) -> None:
    start = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    url = repeats(site, "/chunks", start, b"1\r\na\r\n" * 10_000)
    await check(site.url("/ok"), {url: 200}, title=True, max_read=5_000, timeout=2)


async def test_robots_files_without_end(site: Site) -> None:
    """Each of fifty origins sends more user agents with more rules than memory would hold."""
    repeats(
        site,
        "/robots.txt",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"".join(b"User-agent: a%d\n" % n for n in range(10_000)) + b"Disallow: /a\n" * 10_000,
    )
    urls = [site.url("/ok", host=f"127.0.1.{n + 1}") for n in range(COUNT)]
    run = (await probed(site.url("/ok"), {"": urls}, robots=True, timeout=30, connect_timeout=30))[""]
    assert Counter(run.outcomes) == {200: COUNT}
    assert run.growth < BODY_BOUND


# --- Before a response head ---

ON_ACCEPT: dict[OnAccept, str] = {
    "silent": "http.timed_out",
    "stall": "tls.timed_out",
    "close": "tcp.closed",
    "full": "tcp.timed_out",
}


async def test_servers_that_never_answer(site: Site) -> None:
    """They run together, for each takes the whole timeout."""
    async with AsyncExitStack() as stack:
        never = {site.url("/hang"): "http.timed_out", site.url("/drip-head/0.05"): "http.timed_out"}
        for on_accept, meaning in ON_ACCEPT.items():
            bad = await stack.enter_async_context(Site(on_accept=on_accept))
            never[bad.url("/")] = meaning
        checks = [check(site.url("/ok"), {url: meaning}, timeout=3) for url, meaning in never.items()]
        drip: dict[str, int | str] = {site.url("/drip-body/0.05"): 200}
        checks.append(check(site.url("/ok"), drip, title=True, timeout=3))
        await asyncio.gather(*checks)


async def test_connections_that_are_reset_at_once(site: Site) -> None:
    async with Site(on_accept="reset") as bad:
        run = (await probed(site.url("/ok"), {"": fifty(bad.url("/"))}))[""]
        assert set(run.outcomes) <= {"tcp.reset", "tcp.aborted", "tcp.closed"}
        assert run.growth < BOUND


FAULTS: dict[str, str] = {
    "expired": "tls.cert.date_invalid",
    "not_yet_valid": "tls.cert.date_invalid",
    "self_signed": "tls.cert.authority_invalid",
    "unknown_ca": "tls.cert.authority_invalid",
    "wrong_host": "tls.cert.name_invalid",
    "old_tls": "tls.version_or_cipher_mismatch",
}


async def test_certificates_with_faults(site: Site, authority: Authority) -> None:
    async with AsyncExitStack() as stack:
        meanings: dict[str, int | str] = {}
        for fault, meaning in FAULTS.items():
            bad = await stack.enter_async_context(Site(tls=getattr(authority, fault)()))
            meanings[bad.url("/ok")] = meaning
        await check(site.url("/ok"), meanings, cafile=str(authority.cafile), timeout=20)


async def test_a_body_without_end_over_tls(site: Site, authority: Authority) -> None:
    async with Site(tls=authority.good()) as bad:
        options = {"cafile": str(authority.cafile), "title": True, "timeout": 5}
        await check(site.url("/ok"), {bad.url("/endless-body"): 200}, BODY_BOUND, **options)


async def test_http_where_tls_should_be_and_the_reverse(site: Site, authority: Authority) -> None:
    async with Site(tls=authority.good()) as secure:
        urls = {"tls": site.url("/ok").replace("http:", "https:"), "http": secure.url("/ok").replace("https:", "http:")}
        runs = await probed(site.url("/ok"), {name: fifty(url) for name, url in urls.items()})
    assert set(runs["tls"].outcomes) == {"tls.protocol.error"}
    assert set(runs["http"].outcomes) <= {400, "http.protocol.error", "tcp.closed", "tcp.reset"}
    assert max(run.growth for run in runs.values()) < BOUND


# --- The measurement itself ---


async def test_the_measurement_sees_memory_in_use(site: Site) -> None:
    """Fifty bodies of 4 MiB are read: if that stayed below the bound, the bound would prove nothing."""

    all_have_it = asyncio.Barrier(COUNT)

    async def large(x: Exchange) -> None:
        await x.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (4 * MIB))
        await x.send(b"a" * (4 * MIB - 1))
        await all_have_it.wait()  # but for its last byte
        await x.send(b"a")

    site.on("/large", large)
    options = {"title": True, "max_read": 4 * MIB, "timeout": 20}
    run = (await probed(site.url("/ok"), {"": fifty(site.url("/large"))}, **options))[""]
    assert run.growth > BOUND
