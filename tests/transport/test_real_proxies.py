"""Probing through proxies that other people wrote; the witness of each test is `curl -x` with the same proxy."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.certs import Authority
from tests.support.probing import probe_all, probe_one, status_of
from tests.support.process import free_port
from tests.support.real_proxies import REAL_PROXIES, run_real_proxy
from tests.support.site import Site

SCHEMES = {"tinyproxy": ["http"], "microsocks": ["socks5", "socks5h"]}
CASES = [(name, scheme) for name, schemes in SCHEMES.items() for scheme in schemes]
CURL_COULD_NOT_RECEIVE = 56  # also of a tunnel that was refused
CURL_PROXY = 97


class Running(NamedTuple):
    name: str
    scheme: str
    port: int

    def url(self, credentials: str = "") -> str:
        return f"{self.scheme}://{credentials}127.0.0.1:{self.port}"


@pytest.fixture(params=CASES, ids=":".join)
def proxy(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Running]:
    name, scheme = request.param
    with run_real_proxy(name, tmp_path) as port:
        yield Running(name, scheme, port)


@pytest.fixture(params=CASES, ids=":".join)
def locked(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Running]:
    """A proxy that wants `ann:secret`."""
    name, scheme = request.param
    with run_real_proxy(name, tmp_path, "ann:secret") as port:
        yield Running(name, scheme, port)


def curl(proxy: str, url: str, *arguments: str) -> tuple[int, str]:
    """Return curl's exit code and the status of the response."""
    command = ["/usr/bin/curl", "-sS", "-I", "-x", proxy, "-w", "%{http_code}", "-o", "/dev/null", *arguments, url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    return done.returncode, done.stdout


def test_every_real_proxy_is_tried() -> None:
    assert SCHEMES.keys() == REAL_PROXIES.keys()


async def test_http_targets(proxy: Running, site: Site) -> None:
    results = await probe_all([site.url(f"/ok?{n}") for n in range(30)], proxy=proxy.url())
    assert {(status_of(result), result.method, result.attempts) for result in results} == {(200, "HEAD", 1)}


async def test_https_targets(proxy: Running, authority: Authority) -> None:
    async with Site(tls=authority.good()) as site:
        urls = [site.url(f"/ok?{n}") for n in range(30)]
        results = await probe_all(urls, proxy=proxy.url(), cafile=str(authority.cafile), per_host=3)
        assert {status_of(result) for result in results} == {200}
        assert site.connections == 3, "tunnels are kept"


async def test_a_status_of_the_target_is_the_targets(proxy: Running, site: Site) -> None:
    assert status_of(await probe_one(site.url("/status/404"), proxy=proxy.url())) == 404


async def test_a_target_on_which_nothing_listens(proxy: Running) -> None:
    """A status of the proxy for an http target stands, as in curl; a refused tunnel is named as the proxy's."""
    port = free_port()
    plain = await probe_one(f"http://127.0.0.1:{port}/", proxy=proxy.url(), retries=0)
    tunnel = await probe_one(f"https://127.0.0.1:{port}/", proxy=proxy.url(), retries=0)
    if proxy.scheme == "http":
        assert curl(proxy.url(), f"http://127.0.0.1:{port}/") == (0, str(status_of(plain)))
        assert curl(proxy.url(), f"https://127.0.0.1:{port}/") == (CURL_COULD_NOT_RECEIVE, "000")
        assert status_of(tunnel) == "proxy.failed"
    else:
        assert curl(proxy.url(), f"http://127.0.0.1:{port}/") == (CURL_PROXY, "000")
        assert status_of(plain) == status_of(tunnel) == "tcp.refused"


async def test_credentials(locked: Running, site: Site) -> None:
    """tinyproxy answers 401 to a wrong password. To a request for an http target that may be the target's."""
    for url in (site.url("/ok"), site.url("/ok").replace("http:", "https:")):
        for credentials in ("", "ann:wrong@"):
            result = await probe_one(url, proxy=locked.url(credentials), retries=3)
            is_ambiguous = locked.name == "tinyproxy" and credentials != "" and url.startswith("http:")
            assert (status_of(result), result.attempts) == (401 if is_ambiguous else "proxy.auth_required", 1)
            assert (curl(locked.url(credentials), url)[1] == "401") == is_ambiguous
    assert site.requests == []
    assert status_of(await probe_one(site.url("/ok"), proxy=locked.url("ann:secret@"))) == 200
    assert len(site.requests) == 1


async def test_a_proxy_of_the_other_kind(proxy: Running) -> None:
    """microsocks closes the connection; tinyproxy waits for the end of a line that never comes."""
    other = f"http://127.0.0.1:{proxy.port}" if proxy.name == "microsocks" else f"socks5h://127.0.0.1:{proxy.port}"
    result = await probe_one("https://127.0.0.1:1/", proxy=other, connect_timeout=1, retries=0)
    assert result.errors == {"http": "PROXY_ERROR"}
