"""One hop: names, connections and TLS, through real probes."""

import time

import pytest

import crawler
from tests.support.certs import Authority
from tests.support.dns_server import DnsServer
from tests.support.exchange import Exchange
from tests.support.probing import asking, probe_all, probe_one, status_of
from tests.support.site import OnAccept, Site

# --- Names ---


async def test_a_name_that_resolves(site: Site, names: DnsServer) -> None:
    names.a("good.test", "127.0.0.9")
    result = await probe_one(site.url("/ok", host="good.test"), **asking(names))
    assert (status_of(result), result.ip) == (200, "127.0.0.9")
    assert result.timings.dns is not None
    assert result.timings.dns > 0
    assert site.requests[0].host == f"good.test:{site.port}"


async def test_an_alias_resolves(site: Site, names: DnsServer) -> None:
    names.cname("alias.test", "good.test")
    names.a("good.test", "127.0.0.9")
    assert (await probe_one(site.url("/ok", host="alias.test"), **asking(names))).ip == "127.0.0.9"


async def test_a_name_is_looked_up_once(site: Site, names: DnsServer) -> None:
    names.a("*.good.test", "127.0.0.9")
    urls = [site.url(f"/ok?{number}", host=f"{number % 3}.good.test") for number in range(60)]
    results = await probe_all(urls, **asking(names))
    assert {status_of(result) for result in results} == {200}
    assert len(names.queries) == len(set(names.queries))


async def test_a_name_with_an_ipv6_address_only(names: DnsServer) -> None:
    names.aaaa("six.test", "::1")
    async with Site(host="::1") as site:
        result = await probe_one(site.url("/ok", host="six.test"), **asking(names))
        assert (status_of(result), result.ip) == (200, "::1")
        assert status_of(await probe_one(site.url("/ok", host="six.test"), ipv4=True, **asking(names))) == (
            "dns.name_not_resolved"
        )
        assert status_of(await probe_one(site.url("/ok"), **asking(names))) == 200


async def test_ipv6_alone_asks_for_no_ipv4_address(site: Site, names: DnsServer) -> None:
    names.a("four.test", "127.0.0.1")
    result = await probe_one(site.url("/ok", host="four.test"), ipv6=True, **asking(names))
    assert status_of(result) == "dns.name_not_resolved"
    assert {kind for _, kind in names.queries} == {"AAAA"}


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("nxdomain", "dns.name_not_resolved"),
        ("no_data", "dns.name_not_resolved"),
        ("servfail", "dns.failed"),
        ("refused", "dns.failed"),
        ("silent", "dns.timed_out"),
    ],
)
async def test_a_name_that_does_not_resolve(rule: str, expected: str, names: DnsServer) -> None:
    getattr(names, rule)("bad.test")
    result = await probe_one("http://bad.test/", retries=0, **asking(names))
    assert status_of(result) == expected
    assert result.error is not None
    assert (result.error.phase, result.ip, result.outcome) == ("dns", None, "failed")
    assert result.errors == {"http": "TIMEOUT" if rule == "silent" else "DNS_ERROR"}


async def test_a_search_domain_is_not_appended(names: DnsServer) -> None:
    await probe_one("http://bad.test/", retries=0, **asking(names))
    assert {name for name, _ in names.queries} == {"bad.test"}


async def test_an_answer_to_another_query_is_ignored(site: Site, names: DnsServer) -> None:
    names.forged("bad.test")
    result = await probe_one(site.url("/ok", host="bad.test"), timeout=2, retries=0, **asking(names))
    assert status_of(result) == "dns.timed_out"


async def test_an_answer_that_is_too_long_for_udp(site: Site, names: DnsServer) -> None:
    names.a("long.test", "127.0.0.9")
    names.truncated("long.test")
    assert status_of(await probe_one(site.url("/ok", host="long.test"), **asking(names))) == 200


async def test_a_probe_that_gives_up_does_not_cancel_a_shared_lookup(site: Site, names: DnsServer) -> None:
    names.a("slow.test", "127.0.0.9")
    names.delay("slow.test", 0.5)
    [hasty] = await probe_all([site.url("/ok", host="slow.test")], timeout=0.2, retries=0, **asking(names))
    assert status_of(hasty) == "dns.timed_out"
    assert status_of(await probe_one(site.url("/ok", host="slow.test"), **asking(names))) == 200


# --- Connections ---


@pytest.mark.parametrize(
    ("on_accept", "expected", "timeouts"),
    [
        ("reset", "tcp.reset", {}),
        ("close", "tcp.closed", {}),
        ("silent", "http.timed_out", {"timeout": 1}),
        ("full", "tcp.timed_out", {"connect_timeout": 0.4}),
    ],
)
async def test_a_server_that_accepts_and_then(on_accept: OnAccept, expected: str, timeouts: dict[str, float]) -> None:
    async with Site(on_accept=on_accept) as site:
        result = await probe_one(site.url("/"), retries=0, **timeouts)
    assert status_of(result) == expected
    assert result.error is not None
    # The RST may arrive before the connect is noticed.
    assert result.error.phase in {"full": ["connect"], "reset": ["connect", "http"]}.get(on_accept, ["http"])


async def test_a_port_without_a_listener() -> None:
    result = await probe_one("http://127.0.0.1:9/", retries=0)
    assert status_of(result) == "tcp.refused"
    assert (result.error and result.error.phase, result.ip) == ("connect", "127.0.0.1")


# --- TLS ---


@pytest.mark.parametrize(
    ("certificate", "expected"),
    [
        ("good", 200),
        ("intermediate", 200),
        ("many_names", 200),
        ("expired", "tls.cert.date_invalid"),
        ("not_yet_valid", "tls.cert.date_invalid"),
        ("wrong_host", "tls.cert.name_invalid"),
        ("self_signed", "tls.cert.authority_invalid"),
        ("unknown_ca", "tls.cert.authority_invalid"),
        ("unknown_root", "tls.cert.authority_invalid"),
        ("missing_intermediate", "tls.cert.authority_invalid"),
        ("old_tls", "tls.version_or_cipher_mismatch"),
        ("no_shared_cipher", "tls.version_or_cipher_mismatch"),
    ],
)
async def test_a_certificate(certificate: str, expected: int | str, authority: Authority) -> None:
    async with Site(tls=getattr(authority, certificate)()) as site:
        result = await probe_one(site.url("/ok", host="localhost"), cafile=str(authority.cafile), timeout=5)
        assert status_of(result) == expected, result
        if isinstance(expected, str):
            assert result.errors == {"http": "SSL_ERROR"}
            assert (result.error and result.error.phase) == "tls"
            assert site.requests == []
            assert status_of(await probe_one(site.url("/ok"), insecure=True)) == (
                expected if "cipher" in expected else 200
            )


async def test_a_handshake_is_reported(authority: Authority) -> None:
    async with Site(tls=authority.good()) as site:
        result = await probe_one(site.url("/ok", host="localhost"), cafile=str(authority.cafile))
    assert result.tls is not None
    assert result.tls.version == "TLSv1.3"
    assert result.tls.cipher
    assert result.tls.issuer
    assert result.tls.not_after
    assert result.tls.not_after > time.time()
    assert result.tls.days_left == int((result.tls.not_after - time.time()) // 86400)
    assert result.timings.ssl
    assert result.timings.connect


async def test_a_wrong_address_in_the_certificate(authority: Authority) -> None:
    async with Site(tls=authority.good("localhost")) as site:
        result = await probe_one(site.url("/ok", host="127.0.0.1"), cafile=str(authority.cafile))
    assert status_of(result) == "tls.cert.name_invalid"


async def test_an_authority_that_is_not_trusted(authority: Authority) -> None:
    async with Site(tls=authority.good()) as site:
        assert status_of(await probe_one(site.url("/ok"))) == "tls.cert.authority_invalid"


async def test_plain_http_on_the_tls_port(site: Site) -> None:
    result = await probe_one(site.url("/ok").replace("http:", "https:"))
    assert status_of(result) == "tls.protocol.error"


async def test_tls_on_the_plain_port(authority: Authority) -> None:
    async with Site(tls=authority.good()) as site:
        result = await probe_one(site.url("/ok").replace("https:", "http:"), retries=0)
    assert result.outcome == "failed"
    assert status_of(result) in ("http.response.invalid", "http.protocol.error", "tcp.reset", "tcp.closed")


async def test_a_handshake_that_stalls() -> None:
    async with Site(on_accept="stall") as site:
        result = await probe_one(site.url("/"), connect_timeout=1, retries=0)
    assert status_of(result) == "tls.timed_out"
    assert (result.error and result.error.phase) == "tls"


async def test_after_a_refusal_the_next_address_is_tried(names: DnsServer) -> None:
    names.a("two.test", "127.0.0.7", "127.0.0.9")
    names.a("dead.test", "127.0.0.7", "127.0.0.8")
    async with Site(host="127.0.0.9") as site:
        result = await probe_one(site.url("/ok", host="two.test"), **asking(names))
        assert (status_of(result), result.ip, result.attempts) == (200, "127.0.0.9", 1)
        assert (
            status_of(await probe_one(site.url("/ok", host="dead.test"), retries=0, **asking(names))) == "tcp.refused"
        )


async def test_a_tls_session_is_resumed(authority: Authority) -> None:
    """By OpenSSL; rustls makes a full handshake each time."""
    async with Site(tls=authority.good()) as site:
        urls = [site.url(f"/close-after?{number}", host="localhost") for number in range(2)]
        reused: list[bool] = []

        async def ending(x: Exchange) -> None:
            reused.append(x.connection.is_resumed)
            x.keeps_open = False
            await x.reply(200, [("Connection", "close")])

        site.on("/close-after", ending)
        async with crawler.open_prober(crawler.Options(cafile=str(authority.cafile), tls="openssl")) as prober:
            for seq, url in enumerate(urls):
                assert (await prober.probe(crawler.Target.of(seq, url))).status == 200
    assert reused == [False, True]


# --- Heads that the end of the stream cuts off ---


@pytest.mark.parametrize("end", [b"", b"\r\n"])
async def test_a_cut_head_is_a_response_over_plain_http_alone(end: bytes, site: Site, authority: Authority) -> None:
    """Chromium 156 follows the redirect over http, and says net::ERR_RESPONSE_HEADERS_TRUNCATED over https."""
    answer = b"HTTP/1.1 302 Found\r\nLocation: /ok" + end
    site.on("/cut", answer)
    assert status_of(await probe_one(site.url("/cut"))) == 200
    async with Site(tls=authority.good()) as secure:
        secure.on("/cut", answer)
        result = await probe_one(secure.url("/cut", host="localhost"), retries=0, insecure=True)
    assert status_of(result) == "tcp.closed"


async def test_the_message_shows_what_came_instead_of_http(site: Site) -> None:
    site.on("/ssh", b"SSH-2.0-OpenSSH_9.2\r\n")
    error = (await probe_one(site.url("/ssh"), retries=0)).error
    assert error is not None
    assert error.type == "http.protocol.error"
    assert error.message == 'the response is not HTTP: it begins with "SSH-2.0-OpenSSH_9.2"'


# --- The guard ---


async def test_the_guard_checks_names_and_addresses(site: Site) -> None:
    for url in (site.url("/ok"), site.url("/ok", host="localhost")):
        result = await probe_one(url, guard="public")
        assert (result.outcome, status_of(result)) == ("blocked", "address.blocked")
    assert site.connections == 0


async def test_the_guard_checks_redirects_too(site: Site) -> None:
    async with Site(host="127.0.0.2") as inside:
        result = await probe_one(site.redirect_to(inside.url("/ok")), guard="public", allow=["127.0.0.1/32"])
        assert status_of(result) == "address.blocked"
        assert inside.connections == 0
    assert site.requests
