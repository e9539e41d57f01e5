"""Probing through a proxy: it resolves and connects, and its own failures are not blamed on the target."""

import socket
from collections.abc import AsyncIterator, Iterator

import pytest

from crawler.core.errors import OptionError
from crawler.core.options import Options
from tests.support.certs import Authority
from tests.support.dns_server import DnsServer
from tests.support.probing import SHORT_BACKOFF, asking, probe_all, probe_one, status_of
from tests.support.proxies import HttpProxy, SocksProxy
from tests.support.site import Site

KNOWN = {"good.test": "127.0.0.1", "away.test": "127.0.0.2"}
Proxy = HttpProxy | SocksProxy


@pytest.fixture(params=["http", "socks5"])
async def proxy(request: pytest.FixtureRequest) -> AsyncIterator[Proxy]:
    async with HttpProxy(KNOWN) if request.param == "http" else SocksProxy(KNOWN) as proxy:
        yield proxy


@pytest.fixture
async def secure(authority: Authority) -> AsyncIterator[Site]:
    async with Site(tls=authority.good("good.test")) as site:
        yield site


@pytest.fixture
def dead_port() -> Iterator[int]:
    """A port on which nothing listens, and that nothing else can take."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


# --- Requests ---


async def test_an_http_target_is_reached_through_it(proxy: Proxy, site: Site) -> None:
    result = await probe_one(site.url("/ok", host="good.test"), proxy=proxy.url)
    assert (status_of(result), result.method, result.attempts) == (200, "HEAD", 1)
    assert [request.host for request in site.requests] == [f"good.test:{site.port}"]
    assert proxy.requests == [
        f"HEAD http://good.test:{site.port}/ok" if isinstance(proxy, HttpProxy) else f"good.test:{site.port}"
    ]


async def test_an_https_target_is_reached_through_it(proxy: Proxy, secure: Site, authority: Authority) -> None:
    url = secure.url("/title/Safe", host="good.test")
    result = await probe_one(url, proxy=proxy.url, cafile=str(authority.cafile), title=True)
    assert (status_of(result), result.title) == (200, "Safe")
    assert proxy.requests == [
        f"CONNECT good.test:{secure.port}" if isinstance(proxy, HttpProxy) else f"good.test:{secure.port}"
    ]
    if isinstance(proxy, HttpProxy):
        assert result.tls is not None
        assert result.tls.version == "TLSv1.3"
        assert result.timings.ssl


async def test_the_proxy_resolves_names(proxy: Proxy, site: Site, names: DnsServer) -> None:
    names.nxdomain("good.test")
    result = await probe_one(site.url("/ok", host="good.test"), proxy=proxy.url, **asking(names))
    assert status_of(result) == 200
    assert names.queries == []
    assert result.ip is None, "the proxy does not say"


async def test_socks5h_is_socks5(site: Site) -> None:
    async with SocksProxy(KNOWN) as proxy:
        url = proxy.url.replace("socks5", "socks5h")
        assert status_of(await probe_one(site.url("/ok", host="good.test"), proxy=url)) == 200


async def test_each_hop_of_a_redirect_goes_through_it(proxy: Proxy, site: Site) -> None:
    there = site.url("/status/404", host="away.test")
    result = await probe_one(site.redirect_to(there).replace("127.0.0.1", "good.test"), proxy=proxy.url)
    assert (status_of(result), result.final_url) == (404, there)
    assert len(proxy.requests) == 3, "a HEAD for each URL, and a GET for the bad one"


async def test_many_targets_go_through_it(proxy: Proxy, site: Site) -> None:
    urls = [site.url(f"/ok?{n}", host="good.test") for n in range(100)]
    assert {status_of(result) for result in await probe_all(urls, proxy=proxy.url)} == {200}
    assert len(proxy.requests) == 100


@pytest.mark.parametrize("path", ["/reset", "/close"])
async def test_a_target_that_breaks_off_fails(path: str, proxy: Proxy, site: Site) -> None:
    result = await probe_one(site.url(path, host="good.test"), proxy=proxy.url, retries=0)
    assert result.error is not None
    assert result.errors == {"http": "CONNECTION_ERROR"}


async def test_a_target_that_hangs_times_out(proxy: Proxy, site: Site) -> None:
    result = await probe_one(site.url("/hang", host="good.test"), proxy=proxy.url, timeout=2)
    assert status_of(result) == "http.timed_out"


@pytest.mark.parametrize(("fault", "type_"), [("expired", "date_invalid"), ("unknown_ca", "authority_invalid")])
async def test_a_bad_certificate_is_seen_through_it(fault: str, type_: str, proxy: Proxy, authority: Authority) -> None:
    async with Site(tls=getattr(authority, fault)("good.test")) as site:
        result = await probe_one(site.url("/ok", host="good.test"), proxy=proxy.url, cafile=str(authority.cafile))
        assert status_of(result) == f"tls.cert.{type_}"
        assert len(proxy.requests) == 1


async def test_a_handshake_that_stalls_times_out(proxy: Proxy) -> None:
    async with Site(on_accept="stall") as site:
        url = site.url("/ok", host="good.test")
        result = await probe_one(url, proxy=proxy.url, timeout=5, connect_timeout=0.3, retries=0)
        assert result.errors == {"http": "TIMEOUT"}
        assert result.timings.total < 4500  # not the timeout of the whole probe


# --- Failures of the target ---


@pytest.mark.parametrize(
    ("reply", "meaning"),
    [
        (1, "tcp.failed"),
        (3, "tcp.address_unreachable"),
        (4, "tcp.address_unreachable"),
        (5, "tcp.refused"),
        (6, "tcp.timed_out"),
    ],
)
async def test_a_socks_proxy_that_cannot_reach_the_target_says_why(reply: int, meaning: str) -> None:
    async with SocksProxy(reply=reply) as proxy:
        assert status_of(await probe_one("http://good.test/", proxy=proxy.url, retries=0)) == meaning


async def test_a_dead_target_behind_a_proxy_is_dead(dead_port: int) -> None:
    url = f"http://127.0.0.1:{dead_port}/"
    async with SocksProxy() as socks, HttpProxy() as http:
        assert status_of(await probe_one(url, proxy=socks.url, retries=0)) == "tcp.refused"
        assert status_of(await probe_one(url, proxy=http.url, retries=0)) == 502


async def test_a_refused_tunnel_is_not_a_response_of_the_target() -> None:
    async with HttpProxy(refuse=502) as proxy:
        result = await probe_one("https://good.test/", proxy=proxy.url, retries=0)
        assert (status_of(result), result.status) == ("http.failed", None)


# --- Failures of the proxy ---


@pytest.mark.parametrize("scheme", ["http", "socks5"])
@pytest.mark.parametrize("target", ["http://good.test/", "https://good.test/"])
async def test_a_dead_proxy_is_not_the_targets_fault(scheme: str, target: str, dead_port: int) -> None:
    result = await probe_one(target, proxy=f"{scheme}://127.0.0.1:{dead_port}", retries=0, settings=SHORT_BACKOFF)
    assert (status_of(result), result.errors, result.attempts) == ("local.network", {"http": "LOCAL_ERROR"}, 1)
    assert result.error is not None
    assert "proxy" in result.error.message


async def test_a_proxy_without_an_address_is_not_the_targets_fault(names: DnsServer) -> None:
    options = {"proxy": "http://proxy.test:3128", "retries": 0, **asking(names)}
    result = await probe_one("http://good.test/", settings=SHORT_BACKOFF, **options)
    assert status_of(result) == "local.network"
    assert {name for name, _ in names.queries} == {"proxy.test"}


@pytest.mark.parametrize("target", ["http://good.test/", "https://good.test/"])
async def test_a_proxy_that_requires_a_password_is_not_the_targets_fault(target: str) -> None:
    async with HttpProxy(refuse=407) as proxy:
        assert status_of(await probe_one(target, proxy=proxy.url, retries=0, settings=SHORT_BACKOFF)) == "local.network"


@pytest.mark.parametrize("reply", [2, 7, 8])
async def test_a_socks_proxy_that_refuses_is_not_the_targets_fault(reply: int) -> None:
    async with SocksProxy(reply=reply) as proxy:
        assert (
            status_of(await probe_one("http://good.test/", proxy=proxy.url, retries=0, settings=SHORT_BACKOFF))
            == "local.network"
        )


# --- The guard ---


def test_a_public_guard_excludes_a_proxy() -> None:
    for scheme in ("http", "socks5", "socks4"):
        with pytest.raises(OptionError) as refused:
            Options.of({"proxy": f"{scheme}://127.0.0.1:1", "guard": "public"})
        assert refused.value.place == "proxy"
        with pytest.raises(OptionError):
            Options(proxy=f"{scheme}://127.0.0.1:1").with_guard("public")
    assert Options(proxy="http://127.0.0.1:1").with_guard("any").guard == "any"


async def test_a_public_guard_with_a_proxy_probes_nothing(site: Site) -> None:
    async with HttpProxy() as proxy:
        with pytest.raises(OptionError, match="proxy"):
            await probe_one(site.url("/ok"), proxy=proxy.url, guard="public")
        assert proxy.requests == []


@pytest.mark.parametrize("url", ["https://127.0.0.1:1", "ftp://127.0.0.1:1", "127.0.0.1:1", ""])
def test_a_proxy_of_another_kind_is_refused(url: str) -> None:
    with pytest.raises(OptionError) as refused:
        Options(proxy=url)
    assert refused.value.place == "proxy"
