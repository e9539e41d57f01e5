"""The programs that are measured: how each is called for a workload, and what it lacks.

All get the same list, concurrency, timeout and number of requests to a host where they have such a limit; they do not
retry, and write a record for each URL into a file. Otherwise each has its fastest settings. `linkchecker` and
`linkinator` choose the method themselves; the others send HEAD.
"""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.check import Record
from bench.records import read_httpx, read_lines, read_linkchecker, read_linkinator, read_lychee, read_ours
from bench.workloads import Need, Workload
from bench.world import CACHE, World

__all__ = ["CONTENDERS", "LIAR", "OURS", "Contender", "Job"]

OURS: Final = "ours"
LIAR: Final = "liar"

_PEERS: Final = CACHE / "peers" / "bin"
_NODE: Final = CACHE / "node" / "node_modules" / ".bin"
_LINK_LISTS: Final = frozenset({"W8", "W9"})
_MAX_CURL_TRANSFERS: Final = 300  # at once; curl before 8.16 refuses more


@dataclass(frozen=True)
class Job:
    """One run of one contender."""

    workload: Workload
    world: World
    urls: Path
    out: Path
    """File for the records, for programs that do not print them."""


@dataclass(frozen=True)
class Contender:
    """A program to measure."""

    name: str
    version: Callable[[], str | None]
    """Returns None if it is not installed."""
    command: Callable[[Job], list[str]]
    read: Callable[[Path], Iterable[Record]]
    lacks: frozenset[Need] = frozenset()
    system_dns: bool = False
    """Whether it can only ask the DNS server of the system."""
    only: frozenset[str] = frozenset()
    """The workloads that it takes part in; empty for all."""

    def reason_to_skip(self, workload: Workload, world: World) -> str | None:
        """Return the reason why it cannot run a workload; None if it can."""
        if self.only and workload.id not in self.only:
            return f"takes part in {', '.join(sorted(self.only))} only"
        if lacking := self.lacks & workload.needs:
            return f"has no {', '.join(sorted(lacking))}"
        if self.system_dns and "names" in workload.needs and not world.system_dns:
            return "only asks the system's DNS server, which this user may not replace"
        return None

    def arguments(self, job: Job) -> list[str]:
        """Return its command line."""
        command = self.command(job)
        return job.world.as_system_dns(command) if self.system_dns and "names" in job.workload.needs else command


# --- How each is called ---


def _ours(job: Job) -> list[str]:
    load, world = job.workload, job.world
    return [
        sys.executable, "-m", "crawler", "probe", "--file", str(job.urls), "--output", str(job.out),
        "--format", "ndjson", "--concurrency", str(load.concurrency), "--per-host", str(load.per_host),
        "--timeout", str(load.timeout), "--method", "HEAD", "--retries", "0", "--max-redirects", str(load.redirects),
        "--cafile", str(world.cafile), "--dns", f"127.0.0.1:{world.dns}",
        "--ipv4",  # as the Go prober and the aiohttp script, which ask DNS for no other address
    ]  # fmt: skip


def _aiohttp(job: Job) -> list[str]:
    return [sys.executable, "-m", "bench.aiohttp_client", *_common(job)]


def _go(job: Job) -> list[str]:
    *options, urls = _common(job)
    options[options.index("--timeout") + 1] += "s"
    return [str(CACHE / "bin" / "prober"), *options, urls]


def _common(job: Job) -> list[str]:
    """Return the arguments that the clients in this folder share."""
    load, world = job.workload, job.world
    return [
        "--concurrency", str(load.concurrency), "--per-host", str(load.per_host), "--timeout", str(load.timeout),
        "--redirects", str(load.redirects), *(["--keep"] if load.keep else []),
        "--cafile", str(world.cafile), "--dns", f"127.0.0.1:{world.dns}", str(job.urls),
    ]  # fmt: skip


def _floor(job: Job) -> list[str]:
    return [str(CACHE / "bin" / "floor"), str(job.workload.concurrency), str(int(job.workload.keep)), str(job.urls)]


def _curl(job: Job) -> list[str]:
    """Write a configuration for curl, which needs a destination for each body, and return the command line."""
    config, load = job.urls.with_suffix(".curl"), job.workload
    if not config.exists():
        config.write_text("".join(f"url={url}\noutput=/dev/null\n" for url in job.urls.read_text().split()))
    return [
        "curl", "--disable", "--silent", "--head", "--ipv4", "--parallel", "--parallel-immediate",
        "--parallel-max", str(min(load.concurrency, _MAX_CURL_TRANSFERS)), "--max-time", str(load.timeout),
        "--cacert", str(job.world.cafile), "--write-out", "%{http_code} %{url}\\n", "--config", str(config),
        *([] if load.keep else ["--header", "Connection: close"]),
        *(["--location", "--max-redirs", str(load.redirects)] if load.redirects else []),
    ]  # fmt: skip


def _lychee(job: Job) -> list[str]:
    load = job.workload
    return [
        "env", f"SSL_CERT_FILE={job.world.cafile}", str(_PEERS / "lychee"), "--no-progress",
        "--format", "json", "--verbose", "--method", "head", "--max-retries", "0",
        "--max-redirects", str(load.redirects), "--max-concurrency", str(load.concurrency),
        "--timeout", str(load.timeout),
        "--host-concurrency", str(load.per_host), "--host-request-interval", "0s",
        *([] if load.keep else ["--header", "Connection: close"]),
        "--output", str(job.out), str(job.urls),
    ]  # fmt: skip


def _linkchecker(job: Job) -> list[str]:
    """Write its configuration, and return a command line that gives it the list as standard input.

    It has no limit for one host, and closes no connection that a server keeps. By default it sends a host at most ten
    requests a second.
    """
    config, load = job.urls.with_suffix(".rc"), job.workload
    config.write_text(
        f"[checking]\nsslverify={job.world.cafile}\nmaxrequestspersecond=1000000\n"
        f"maxhttpredirects={load.redirects}\n[csv]\nparts=urlname,result\n"
    )
    program = [
        str(_PEERS / "linkchecker"), "--config", str(config), "--stdin", "--recursion-level", "0", "--no-robots",
        "--no-status", "--no-warnings", "--verbose", "--output", "csv", "--threads", str(load.concurrency),
        "--timeout", str(load.timeout),
    ]  # fmt: skip
    return ["sh", "-c", 'exec "$@" <"$0"', str(job.urls), *program]


def _linkinator(job: Job) -> list[str]:
    """Write a page that links to all URLs, and return a command line that checks the links of this page.

    It has no limit for one host.
    """
    page, load = job.urls.with_suffix(".html"), job.workload
    page.write_text("".join(f'<a href="{url}"></a>\n' for url in job.urls.read_text().split()))
    return [
        "env", f"NODE_EXTRA_CA_CERTS={job.world.cafile}", str(_NODE / "node"), str(_NODE / "linkinator"), str(page),
        "--server-root", "/", "--format", "json", "--verbosity", "debug", "--concurrency", str(load.concurrency),
        "--timeout", str(load.timeout * 1000),
    ]  # fmt: skip


def _httpx(job: Job) -> list[str]:
    load = job.workload
    return [
        str(CACHE / "bin" / "httpx"), "-list", str(job.urls), "-no-stdin", "-silent", "-no-color", "-json", "-probe",
        "-disable-update-check", "-cdn=false", "-no-fallback-scheme", "-x", "HEAD", "-retries", "0",
        "-threads", str(load.concurrency), "-timeout", str(load.timeout), "-rate-limit", "0",
        "-max-host-error", "1000000", "-resolvers", f"127.0.0.1:{job.world.dns}",
    ]  # fmt: skip


def _liar(job: Job) -> list[str]:
    return ["sed", "s/^/200 /", str(job.urls)]


# --- The programs ---


def _version_of(*command: str | Path) -> Callable[[], str | None]:
    """Return a function that finds the version in the output of a command."""

    def version() -> str | None:
        if not shutil.which(command[0]):
            return None
        done = subprocess.run(command, capture_output=True, text=True)
        found = re.search(r"\d+\.\d+[.\w]*", done.stdout + done.stderr)
        return found[0] if found else "unknown"

    return version


def _version_of_package(module: str) -> Callable[[], str | None]:
    return _version_of(sys.executable, "-c", f"import importlib.metadata as m; print(m.version({module!r}))")


def _go_version() -> str | None:
    return _version_of("go", "version")() if (CACHE / "bin" / "prober").exists() else None


def _linkinator_version() -> str | None:
    package = _NODE.parent / "linkinator" / "package.json"
    return str(json.loads(package.read_text())["version"]) if package.exists() else None


CONTENDERS: Final = (
    Contender(OURS, _version_of(sys.executable, "-m", "crawler", "--version"), _ours, read_ours),
    Contender("aiohttp", _version_of_package("aiohttp"), _aiohttp, read_lines),
    Contender("go", _go_version, _go, read_lines),
    Contender("curl", _version_of("curl", "--version"), _curl, read_lines, system_dns=True),
    Contender("lychee", _version_of(_PEERS / "lychee", "--version"), _lychee, read_lychee, system_dns=True),
    Contender(
        "linkchecker",
        _version_of(_PEERS / "linkchecker", "--version"),
        _linkchecker,
        read_linkchecker,
        system_dns=True,
        only=_LINK_LISTS,
    ),
    Contender(
        "linkinator",
        _linkinator_version,
        _linkinator,
        read_linkinator,
        system_dns=True,
        only=_LINK_LISTS,
    ),
    # It verifies no certificates, so it cannot recognize a bad one.
    Contender("httpx", _version_of(CACHE / "bin" / "httpx", "-version"), _httpx, read_httpx, frozenset({"https"})),
    Contender("floor", lambda: "own", _floor, read_lines, frozenset({"https", "names", "failures"})),
    # Sends no requests and reports success for all: shows that the checks notice it.
    Contender(LIAR, lambda: "own", _liar, read_lines),
)
