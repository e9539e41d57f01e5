"""Probing through a proxy: HTTP, HTTP over TLS, and SOCKS5. Its own failures are not blamed on the target.

Witnesses: curl 7.88 (`curl -x PROXY URL`) and Chromium 156 (`--proxy-server=PROXY`) against the same proxies, RFC 9110
(9.3.6, CONNECT), RFC 9112 (3.2.2, absolute-form), RFC 1928 and RFC 1929 (SOCKS5).
"""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from crawler.core.errors import OptionError
from crawler.core.options import Options
from crawler.core.results import ProbeError, ProbeResult
from tests.support.certs import Authority
from tests.support.dns_server import DnsServer
from tests.support.exchange import Exchange
from tests.support.probing import asking, probe_all, probe_one, status_of
from tests.support.proxies import HttpProxy, RawProxy, SocksProxy
from tests.support.site import Site

KNOWN = {"good.test": "127.0.0.1", "away.test": "127.0.0.2"}
Proxy = HttpProxy | SocksProxy


@pytest.fixture(params=["http", "https", "socks5h"])
async def proxy(request: pytest.FixtureRequest, authority: Authority) -> AsyncIterator[Proxy]:
    async with AsyncExitStack() as stack:
        made: Proxy = SocksProxy(KNOWN)
        if request.param != "socks5h":
            made = HttpProxy(KNOWN, tls=authority.good() if request.param == "https" else None)
        yield await stack.enter_async_context(made)


@pytest.fixture
def trusting(authority: Authority) -> dict[str, Any]:
    """Options that trust the authority of the tests, also for a proxy."""
    return {"cafile": str(authority.cafile)}


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


def error_of(result: ProbeResult) -> ProbeError:
    assert result.error is not None, result
    return result.error


# --- Requests ---


async def test_an_http_target_is_reached_through_it(proxy: Proxy, site: Site, trusting: dict[str, Any]) -> None:
    """RFC 9112, 3.2.2: a proxy gets the whole URL. curl and Chromium send http requests to an HTTP proxy like this."""
    result = await probe_one(site.url("/ok?a=b", host="good.test"), proxy=proxy.url, **trusting)
    assert (status_of(result), result.method, result.attempts) == (200, "HEAD", 1)
    assert [request.host for request in site.requests] == [f"good.test:{site.port}"]
    assert proxy.requests == [
        f"HEAD http://good.test:{site.port}/ok?a=b" if isinstance(proxy, HttpProxy) else f"good.test:{site.port}"
    ]


async def test_an_https_target_is_reached_through_it(proxy: Proxy, secure: Site, trusting: dict[str, Any]) -> None:
    """RFC 9110, 9.3.6: CONNECT names host and port. Through an https proxy, there is TLS inside TLS."""
    url = secure.url("/title/Safe", host="good.test")
    result = await probe_one(url, proxy=proxy.url, title=True, **trusting)
    assert (status_of(result), result.title) == (200, "Safe")
    assert proxy.requests == [
        f"CONNECT good.test:{secure.port}" if isinstance(proxy, HttpProxy) else f"good.test:{secure.port}"
    ]
    assert result.tls is not None
    assert result.tls.version == "TLSv1.3"
    assert result.timings.ssl


async def test_the_proxy_resolves_names(proxy: Proxy, site: Site, names: DnsServer, trusting: dict[str, Any]) -> None:
    names.nxdomain("good.test")
    result = await probe_one(site.url("/ok", host="good.test"), proxy=proxy.url, **asking(names), **trusting)
    assert status_of(result) == 200
    assert names.queries == []
    assert (result.ip, result.timings.dns) == (None, None)  # the proxy does not say


async def test_with_socks5_names_are_resolved_here(site: Site, names: DnsServer) -> None:
    """As in curl: "socks5:// ... resolves the host name locally", "socks5h:// ... let the proxy resolve"."""
    names.a("here.test", "127.0.0.1")
    async with SocksProxy() as proxy:
        url, here = site.url("/ok", host="here.test"), proxy.url.replace("socks5h", "socks5")
        result = await probe_one(url, proxy=here, **asking(names))
        assert (status_of(result), result.ip) == (200, "127.0.0.1")
        assert result.timings.dns is not None
        assert proxy.requests == [f"127.0.0.1:{site.port}"]
        assert status_of(await probe_one("http://none.test/", proxy=here, **asking(names))) == "dns.name_not_resolved"
        assert len(proxy.requests) == 1


async def test_an_address_that_a_socks_proxy_cannot_reach_is_left_for_the_next(site: Site, names: DnsServer) -> None:
    """A proxy may lack IPv6. curl tries one address only; Chromium lets the proxy resolve."""
    names.a("both.test", "127.0.0.1")
    names.aaaa("both.test", "2001:db8::1")
    async with SocksProxy(refused=["2001:db8::1"]) as proxy:
        options = {"proxy": proxy.url.replace("socks5h", "socks5"), "resolve": [], **asking(names)}
        result = await probe_one(site.url("/ok", host="both.test"), **options)
        assert (status_of(result), result.ip, result.attempts) == (200, "127.0.0.1", 1)
        assert proxy.requests[-1] == f"127.0.0.1:{site.port}"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_target_that_is_an_address(host: str, proxy: Proxy, trusting: dict[str, Any]) -> None:
    async with Site(host=host) as site:
        result = await probe_one(site.url("/ok"), proxy=proxy.url, **trusting)
        assert (status_of(result), result.ip) == (200, host)
        shown = f"[{host}]" if ":" in host else host
        assert proxy.requests[0].endswith(
            f"{shown}:{site.port}/ok" if isinstance(proxy, HttpProxy) else f":{site.port}"
        )


async def test_each_hop_of_a_redirect_goes_through_it(proxy: Proxy, site: Site, trusting: dict[str, Any]) -> None:
    there = site.url("/status/404", host="away.test")
    result = await probe_one(site.redirect_to(there).replace("127.0.0.1", "good.test"), proxy=proxy.url, **trusting)
    assert (status_of(result), result.final_url) == (404, there)
    assert {request.host for request in site.requests} == {f"good.test:{site.port}", f"away.test:{site.port}"}


async def test_connections_through_it_are_kept(proxy: Proxy, secure: Site, trusting: dict[str, Any]) -> None:
    urls = [secure.url(f"/ok?{n}", host="good.test") for n in range(50)]
    results = await probe_all(urls, proxy=proxy.url, per_host=2, **trusting)
    assert {status_of(result) for result in results} == {200}
    assert proxy.connections == secure.connections == 2


async def test_requests_to_an_http_proxy_share_its_connections(site: Site) -> None:
    async with HttpProxy(KNOWN) as proxy:
        urls = [site.url(f"/ok?{n}", host="good.test") for n in range(50)]
        results = await probe_all(urls, proxy=proxy.url, per_host=2)
        assert {status_of(result) for result in results} == {200}
        assert (proxy.connections, len(proxy.requests), len(site.requests)) == (2, 50, 50)


@pytest.mark.parametrize("path", ["/reset", "/close"])
async def test_a_target_that_breaks_off_fails(path: str, proxy: Proxy, site: Site, trusting: dict[str, Any]) -> None:
    """A proxy such as tinyproxy passes on that the target closed; curl: "(52) Empty reply from server"."""
    result = await probe_one(site.url(path, host="good.test"), proxy=proxy.url, retries=0, **trusting)
    assert error_of(result).group == "CONNECTION_ERROR"


async def test_a_target_that_hangs_times_out(proxy: Proxy, site: Site, trusting: dict[str, Any]) -> None:
    result = await probe_one(site.url("/hang", host="good.test"), proxy=proxy.url, timeout=2, **trusting)
    assert status_of(result) == "http.timed_out"


@pytest.mark.parametrize(("fault", "type_"), [("expired", "date_invalid"), ("unknown_ca", "authority_invalid")])
async def test_a_bad_certificate_is_seen_through_it(
    fault: str, type_: str, proxy: Proxy, authority: Authority, trusting: dict[str, Any]
) -> None:
    async with Site(tls=getattr(authority, fault)("good.test")) as site:
        result = await probe_one(site.url("/ok", host="good.test"), proxy=proxy.url, **trusting)
        assert status_of(result) == f"tls.cert.{type_}"
        assert result.tls is not None
        assert result.tls.not_after, "the second look, at the certificate, goes through the proxy too"
        assert proxy.connections == site.connections


async def test_a_handshake_that_stalls_times_out(proxy: Proxy, trusting: dict[str, Any]) -> None:
    async with Site(on_accept="stall") as site:
        url = site.url("/ok", host="good.test").replace("http:", "https:")
        options = {"timeout": 20, "connect_timeout": 0.5, "retries": 0, **trusting}
        result = await probe_one(url, proxy=proxy.url, **options)
        assert status_of(result) == "tls.timed_out"
        assert result.timings.total < 10_000  # not the timeout of the whole probe


async def test_a_target_that_speaks_first_is_heard(proxy: Proxy, trusting: dict[str, Any]) -> None:
    """The bytes of an SSH server may come with the proxy's reply; they are the target's."""
    if isinstance(proxy, HttpProxy):
        return

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
        await reader.read(1)
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        result = await probe_one(f"http://good.test:{port}/", proxy=proxy.url, retries=0, **trusting)
        assert status_of(result) == "http.protocol.error"


async def test_the_time_of_a_tunnel_is_that_of_connecting(secure: Site, trusting: dict[str, Any]) -> None:
    async with HttpProxy(KNOWN) as proxy:
        result = await probe_one(secure.url("/ok", host="good.test"), proxy=proxy.url, **trusting)
        timings = result.timings
        phases = [timings.dns, timings.connect, timings.ssl, timings.send, timings.wait, timings.receive]
        assert timings.connect
        assert sum(phase or 0.0 for phase in phases) == pytest.approx(timings.total, abs=0.05)


# --- Credentials ---


@pytest.mark.parametrize("target", ["http", "https"])
@pytest.mark.parametrize("kind", [HttpProxy, SocksProxy])
async def test_credentials_open_a_proxy(
    kind: type[Proxy], target: str, site: Site, secure: Site, trusting: dict[str, Any]
) -> None:
    """Percent-encoded as in curl; Basic (RFC 7617), or user and password of SOCKS5 (RFC 1929)."""
    url = (site if target == "http" else secure).url("/ok", host="good.test")
    async with kind(KNOWN, credentials="a user:p:ss@w%rd") as proxy:
        right, wrong = proxy.url_with("a%20user:p:ss%40w%25rd@"), proxy.url_with("a%20user:x@")
        assert status_of(await probe_one(url, proxy=right, **trusting)) == 200
        for refused in (wrong, proxy.url):
            before = proxy.connections
            result = await probe_one(url, proxy=refused, retries=3, **trusting)
            assert (status_of(result), result.errors) == ("proxy.auth_required", {"http": "PROXY_ERROR"})
            assert (result.attempts, proxy.connections - before) == (1, 1), "asked once: no other answer will come"
            assert str(proxy.port) in error_of(result).message
            assert "p:ss" not in error_of(result).message


async def test_a_target_gets_no_credentials_of_the_proxy(secure: Site, trusting: dict[str, Any]) -> None:
    async with HttpProxy(KNOWN, credentials="a:b") as proxy:
        await probe_one(secure.url("/ok", host="good.test"), proxy=proxy.url_with("a:b@"), **trusting)
    assert [value for name, value in secure.requests[0].headers if name.lower().startswith("proxy")] == []


async def test_a_target_that_answers_407_in_a_tunnel_is_itself(secure: Site, trusting: dict[str, Any]) -> None:
    async with HttpProxy(KNOWN) as proxy:
        url = secure.url("/status/407", host="good.test")
        assert status_of(await probe_one(url, proxy=proxy.url, **trusting)) == 407


# --- The proxy refuses ---


@pytest.mark.parametrize(
    ("status", "type_"),
    [
        (302, "proxy.refused"),
        (401, "proxy.auth_required"),  # tinyproxy, for a wrong password
        (403, "proxy.refused"),
        (404, "proxy.refused"),  # privoxy, for a name without address
        (405, "proxy.refused"),  # a web server
        (407, "proxy.auth_required"),
        (500, "proxy.failed"),  # tinyproxy, for a target that refuses
        (501, "proxy.refused"),
        (502, "proxy.failed"),
        (503, "proxy.failed"),  # Squid and privoxy, for a target that refuses
        (504, "proxy.failed"),
    ],
)
async def test_a_refused_tunnel_is_not_a_response_of_the_target(status: int, type_: str) -> None:
    """curl: "CONNECT tunnel failed, response 403"; Chromium: ERR_TUNNEL_CONNECTION_FAILED."""
    async with HttpProxy(refuse=status) as proxy:
        result = await probe_one("https://good.test/", proxy=proxy.url, retries=0)
        assert (status_of(result), result.status, result.errors) == (type_, None, {"http": "PROXY_ERROR"})
        assert f"the proxy 127.0.0.1:{proxy.port}" in error_of(result).message
        assert str(status) in error_of(result).message
        assert (error_of(result).phase, len(proxy.requests)) == ("connect", 1)


async def test_the_reason_that_a_proxy_gives_is_passed_on() -> None:
    """RFC 9209, 2.1.2."""
    async with HttpProxy(refuse=502, fields=b"Proxy-Status: edge; error=connection_refused\r\n") as proxy:
        result = await probe_one("https://good.test/", proxy=proxy.url, retries=0)
        assert error_of(result).message.endswith(
            "answered 502 to CONNECT good.test:443 (edge; error=connection_refused)"
        )


async def test_a_status_from_an_http_proxy_may_be_the_targets() -> None:
    """Nothing tells whose it is, so it stands, as in browsers."""
    async with HttpProxy(refuse=403) as proxy:
        assert status_of(await probe_one("http://good.test/", proxy=proxy.url)) == 403


@pytest.mark.parametrize(
    ("reply", "meaning"),
    [
        (1, "proxy.failed"),
        (2, "proxy.refused"),
        (3, "tcp.address_unreachable"),
        (4, "tcp.address_unreachable"),
        (5, "tcp.refused"),
        (6, "tcp.timed_out"),
        (7, "proxy.refused"),
        (8, "proxy.refused"),
        (99, "proxy.failed"),
    ],
)
async def test_a_socks_proxy_that_cannot_reach_the_target_says_why(reply: int, meaning: str) -> None:
    """RFC 1928, 6: replies 3 to 6 are about the target, the others about the proxy."""
    async with SocksProxy(reply=reply) as proxy:
        result = await probe_one("http://good.test/", proxy=proxy.url, retries=0)
        assert status_of(result) == meaning
        assert f"the proxy 127.0.0.1:{proxy.port} answered {reply}" in error_of(result).message


async def test_a_dead_target_behind_a_proxy_is_dead(dead_port: int) -> None:
    url = f"http://127.0.0.1:{dead_port}/"
    async with SocksProxy() as socks, HttpProxy() as http:
        assert status_of(await probe_one(url, proxy=socks.url, retries=0)) == "tcp.refused"
        assert status_of(await probe_one(url, proxy=http.url, retries=0)) == 502


# --- The proxy fails ---

TARGETS = pytest.mark.parametrize("target", ["http://good.test/", "https://good.test/"])


@pytest.mark.parametrize("scheme", ["http", "https", "socks5h"])
@TARGETS
async def test_a_dead_proxy_is_not_the_targets_fault(scheme: str, target: str, dead_port: int) -> None:
    """Chromium: ERR_PROXY_CONNECTION_FAILED."""
    result = await probe_one(target, proxy=f"{scheme}://127.0.0.1:{dead_port}", retries=0)
    assert (status_of(result), result.errors, result.attempts) == ("proxy.unreachable", {"http": "PROXY_ERROR"}, 1)
    assert "refused" in error_of(result).message


async def test_a_proxy_without_an_address_is_not_the_targets_fault(names: DnsServer) -> None:
    """Chromium: ERR_PROXY_CONNECTION_FAILED."""
    names.nxdomain("proxy.test")
    options = {"proxy": "http://proxy.test:3128", "retries": 0, **asking(names)}
    result = await probe_one("http://good.test/", **options)
    assert status_of(result) == "proxy.unreachable"
    assert error_of(result).message.startswith("the proxy proxy.test:3128 has no address")
    assert {name for name, _ in names.queries} == {"proxy.test"}


async def test_a_proxy_that_cannot_be_connected_to_ends_with_the_connect_timeout() -> None:
    async with Site(on_accept="full") as full:
        proxy = f"http://127.0.0.1:{full.port}"
        result = await probe_one("http://good.test/", proxy=proxy, timeout=20, connect_timeout=0.5, retries=0)
        assert status_of(result) == "proxy.unreachable"
        assert result.timings.total < 10_000


@pytest.mark.parametrize("scheme", ["http", "https", "socks5h"])
async def test_a_silent_proxy_ends_with_the_connect_timeout(scheme: str) -> None:
    """curl: "(28) Connection timed out"."""
    async with RawProxy(closes=False, scheme=scheme) as proxy:
        begun = time.monotonic()
        result = await probe_one("https://good.test/", proxy=proxy.url, timeout=20, connect_timeout=0.5, retries=0)
        assert (status_of(result), result.errors) == ("proxy.timed_out", {"http": "PROXY_ERROR"})
        assert time.monotonic() - begun < 10


async def test_a_socks_proxy_that_consents_and_is_silent_waits_for_the_target() -> None:
    async with RawProxy(b"\x05\x00", closes=False, scheme="socks5h") as proxy:
        result = await probe_one("http://good.test/", proxy=proxy.url, connect_timeout=0.5, retries=0)
        assert status_of(result) == "tcp.timed_out"
        assert f"the proxy 127.0.0.1:{proxy.port} could not connect to good.test:80 in time" == error_of(result).message


@pytest.mark.parametrize(
    ("scheme", "answer"),
    [("http", b""), ("http", b"HTTP/1.1 200"), ("socks5h", b""), ("socks5h", b"\x05"), ("socks5h", b"\x05\x00")],
)
async def test_a_proxy_that_closes_has_failed(scheme: str, answer: bytes) -> None:
    """curl: "(56) Proxy CONNECT aborted"."""
    async with RawProxy(answer, scheme=scheme) as proxy:
        result = await probe_one("https://good.test/", proxy=proxy.url, retries=0)
        assert status_of(result) == "proxy.failed"


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"220 mail.test ESMTP\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"HTTP/1.1 200 OK\r\n\r\nmore",  # Chromium: ERR_TUNNEL_CONNECTION_FAILED; curl gives it to TLS
    ],
)
async def test_what_is_no_http_proxy_is_said_to_be_none(answer: bytes) -> None:
    """Chromium: ERR_TUNNEL_CONNECTION_FAILED."""
    async with RawProxy(answer) as proxy:
        result = await probe_one("https://good.test/", proxy=proxy.url, retries=3)
        assert (status_of(result), result.errors) == ("proxy.protocol.error", {"http": "PROXY_ERROR"})
        assert (result.attempts, proxy.connections) == (1, 1)


async def test_what_is_no_http_proxy_is_said_to_be_none_for_an_http_target() -> None:
    async with RawProxy(b"SSH-2.0-OpenSSH_9.2\r\n") as proxy:
        result = await probe_one("http://good.test/", proxy=proxy.url, method="GET")
        assert status_of(result) == "proxy.protocol.error"


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x04\x5a", b"\x05\x01", b"\x05\x02", b"SSH-2.0-x\r\n"]
)
async def test_what_is_no_socks_proxy_is_said_to_be_none(answer: bytes) -> None:
    """RFC 1928, 3: version 5, and a method that was offered. Chromium: ERR_SOCKS_CONNECTION_FAILED."""
    async with RawProxy(answer, scheme="socks5h") as proxy:
        result = await probe_one("http://good.test/", proxy=proxy.url, retries=3)
        assert (status_of(result), proxy.connections) == ("proxy.protocol.error", 1)


async def test_interim_responses_to_connect_are_skipped(secure: Site, trusting: dict[str, Any]) -> None:
    """RFC 9110, 15.2."""
    async with RawProxy(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 403 No\r\n\r\n") as proxy:
        assert status_of(await probe_one("https://good.test/", proxy=proxy.url)) == "proxy.refused"


@pytest.mark.parametrize("status", [b"201 Created", b"204 No Content", b"200 OK\r\nContent-Length: 5"])
async def test_any_status_of_success_opens_the_tunnel(status: bytes) -> None:
    """RFC 9110, 9.3.6: any 2xx; Content-Length is ignored. So does curl; Chromium takes 200 only."""
    async with RawProxy(b"HTTP/1.1 " + status + b"\r\n\r\n", closes=False) as proxy:
        result = await probe_one("https://good.test/", proxy=proxy.url, connect_timeout=0.5, retries=0)
        assert status_of(result) == "tls.timed_out"


# --- TLS with the proxy ---


@pytest.mark.parametrize("fault", ["expired", "unknown_ca", "self_signed"])
@pytest.mark.parametrize("insecure", [False, True])
async def test_the_certificate_of_a_proxy_is_verified(
    fault: str, insecure: bool, authority: Authority, trusting: dict[str, Any]
) -> None:
    """Also with --insecure, as in curl, where that is --proxy-insecure. Chromium: ERR_PROXY_CERTIFICATE_INVALID."""
    async with HttpProxy(KNOWN, tls=getattr(authority, fault)()) as proxy:
        result = await probe_one("http://good.test/", proxy=proxy.url, insecure=insecure, retries=3, **trusting)
        assert (status_of(result), result.errors) == ("proxy.tls.failed", {"http": "PROXY_ERROR"})
        assert (result.attempts, proxy.requests) == (1, [])


async def test_a_proxy_without_tls_is_said_to_be_one() -> None:
    """Chromium: ERR_PROXY_CONNECTION_FAILED."""
    async with RawProxy(b"HTTP/1.1 400 Bad Request\r\n\r\n", scheme="https") as proxy:
        result = await probe_one("https://good.test/", proxy=proxy.url, retries=0)
        assert status_of(result) == "proxy.tls.failed"


@pytest.mark.parametrize("engine", ["rustls", "openssl"])
async def test_a_large_response_comes_through_tls_in_tls(
    engine: str, authority: Authority, trusting: dict[str, Any]
) -> None:
    async with (
        HttpProxy(KNOWN, tls=authority.good()) as proxy,
        Site(tls=authority.good("good.test")) as site,
    ):

        async def answer(x: Exchange) -> None:
            await x.reply(200, [("Content-Length", "1000000")], b"x" * 999_990 + b"the end!!!")

        site.on("/large", answer)
        url = site.url("/large", host="good.test")
        options = {"proxy": proxy.url, "match": "the end!!!", "max_read": 2_000_000, "tls": engine, **trusting}
        result = await probe_one(url, **options)
        assert (status_of(result), result.matched) == (200, True)
        assert result.tls is not None
        assert result.tls.engine == engine


# --- The guard ---


@pytest.mark.parametrize("scheme", ["http", "https", "socks5h"])
def test_a_public_guard_excludes_a_proxy_that_resolves_names(scheme: str) -> None:
    with pytest.raises(OptionError) as refused:
        Options.of({"proxy": f"{scheme}://127.0.0.1:1", "guard": "public"})
    assert refused.value.place == "proxy"
    with pytest.raises(OptionError):
        Options(proxy=f"{scheme}://127.0.0.1:1").with_guard("public")
    assert Options(proxy=f"{scheme}://127.0.0.1:1").with_guard("any").guard == "any"


async def test_the_guard_checks_the_proxy_and_what_is_resolved_here(site: Site, names: DnsServer) -> None:
    names.a("inside.test", "127.0.0.1")
    names.a("metadata.test", "169.254.169.254")
    async with SocksProxy() as proxy:
        options = {"proxy": proxy.url.replace("socks5h", "socks5"), "guard": "public", **asking(names)}
        result = await probe_one("http://203.0.113.1/", **options, allow=["203.0.113.0/24"])
        assert (result.outcome, status_of(result)) == ("blocked", "address.blocked")
        assert error_of(result).message.startswith(f"the proxy 127.0.0.1:{proxy.port}: 127.0.0.1")
        options["allow"] = ["127.0.0.1/32"]
        for host in ("metadata.test", "169.254.169.254", "127.0.0.2"):
            result = await probe_one(f"http://{host}/", **options)
            assert (result.outcome, status_of(result)) == ("blocked", "address.blocked")
        assert proxy.connections == 0
        assert status_of(await probe_one(site.url("/ok", host="inside.test"), **options)) == 200


# --- The option ---


@pytest.mark.parametrize(
    "url",
    [
        "ftp://127.0.0.1:1", "socks4://127.0.0.1:1", "127.0.0.1:1", "", "http://", "http://:3128", "http://a:0",
        "http://a:99999", "http://a:x", "http://a/path", "http://a?x", "http://a b", "http://[::1", "http://a..b",
        "socks5://" + "u" * 256 + "@a",
    ],
)  # fmt: skip
def test_a_proxy_of_another_kind_is_refused(url: str) -> None:
    with pytest.raises(OptionError) as refused:
        Options(proxy=url)
    assert refused.value.place == "proxy"


def test_a_refusal_shows_no_password() -> None:
    with pytest.raises(OptionError) as refused:
        Options(proxy="ftp://user:PLANTED@a")
    assert "PLANTED" not in str(refused.value)
