"""Probing works where parts of Linux are missing: in a process that removes them before it imports the package."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

from tests.support.certs import Authority
from tests.support.site import Site

ROOT = Path(__file__).parents[2]

WITHOUT_LINUX = """
import os, select
for name in [name for name in dir(select) if name.lower().startswith("epoll")]:
    delattr(select, name)
import socket  # after that, for it imports `selectors`, which looks for epoll
for module, name in (os, "sched_getaffinity"), (socket, "SOCK_NONBLOCK"), (socket, "SOCK_CLOEXEC"):
    delattr(module, name)
"""
WITH_SELECT_ONLY = "import select\nfor name in 'epoll', 'poll': delattr(select, name)\n"
WITHOUT_UVLOOP = "import sys\nsys.modules['uvloop'] = None\n"
WITH_GEVENT = "import gevent.monkey\ngevent.monkey.patch_all()\n"

PROBE = """
import json, sys
import crawler
from crawler.runtime.event_loop import run_on_event_loop
from crawler.runtime.resources import process_count

async def main():
    assert process_count("auto") >= 1
    options = {"cafile": sys.argv[1], "timeout": 20, "retries": 0}
    results = [result async for result in crawler.probe(sys.argv[2:], **options)]
    for result in sorted(results, key=lambda result: result.seq):
        print(json.dumps([result.status, result.error and result.error.type]))

run_on_event_loop(main())
"""


async def probe_in_process(prelude: str, authority: Authority, *urls: str) -> list[list[object]]:
    """Run `prelude`, then probe in the same process; return (status, error type) of each URL."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", prelude + PROBE, str(authority.cafile), *urls),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return [json.loads(line) for line in output.splitlines()]


@pytest.mark.parametrize(
    "prelude",
    [WITHOUT_LINUX, WITHOUT_LINUX + WITHOUT_UVLOOP, WITH_SELECT_ONLY + WITHOUT_UVLOOP, WITHOUT_UVLOOP, WITH_GEVENT],
    ids=["without Linux", "without Linux and uvloop", "with select alone", "without uvloop", "with gevent"],
)
async def test_a_process_probes(prelude: str, authority: Authority) -> None:
    async with Site() as http, Site(tls=authority.good()) as https, Site(on_accept="close") as closing:
        urls = [http.url("/ok"), https.url("/ok"), http.url("/status/404"), http.url("/reset"), closing.url()]
        results = await probe_in_process(prelude, authority, *urls, "http://127.0.0.1:9/")
    assert results == [
        [200, None],
        [200, None],
        [404, None],
        [None, "tcp.reset"],
        [None, "tcp.closed"],
        [None, "tcp.refused"],
    ]


async def test_a_gevent_process_without_uvloop_probes(authority: Authority) -> None:
    async with Site() as http, Site(tls=authority.good()) as https:
        results = await probe_in_process(WITHOUT_UVLOOP + WITH_GEVENT, authority, http.url("/ok"), https.url("/ok"))
    assert results == [[200, None], [200, None]]
