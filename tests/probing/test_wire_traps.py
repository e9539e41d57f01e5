"""The traps of general HTTP clients for a prober, one by one, and the facts of DNS, TLS and the system beside them.

Each has cost some prober wrong results. Where another file tests the matter at length, the test here is short.
"""

import asyncio
import gc
import json
import math
import resource
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

import crawler
from crawler import OptionError
from tests.support.certs import Authority
from tests.support.dns_server import DnsServer
from tests.support.exchange import Exchange
from tests.support.probing import SHORT_BACKOFF, asking, probe_all, probe_one, status_of
from tests.support.site import Site

FOUR = [f"127.0.0.{number}" for number in range(2, 6)]
PATIENCE = 5.0
"""Seconds that nothing on loopback takes."""


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


# --- 1. One address, one handshake ---


async def test_trap_1_a_self_signed_host_with_four_addresses_is_asked_at_one_of_them(
    names: DnsServer, authority: Authority
) -> None:
    """And one by the other library, and one look at what they refused, at the same address."""
    names.a("four.test", *FOUR)
    async with Site(host="0.0.0.0", tls=authority.self_signed("four.test")) as site:
        result = await probe_one(site.url("/ok", host="four.test"), **asking(names))
        assert (status_of(result), len(result.hops)) == ("tls.cert.authority_invalid", 1)
        assert (site.connections, site.requests) == (3, [])


async def test_trap_1_a_host_with_four_addresses_that_fail_gets_one_connection_an_attempt(names: DnsServer) -> None:
    names.a("four.test", *FOUR)
    async with Site(host="0.0.0.0", on_accept="reset") as site:
        url = site.url("/", host="four.test")
        result = await probe_one(url, method="GET", retries=2, ipv4=True, **asking(names))
        assert (result.attempts, len(result.hops), site.connections) == (3, 3, 3)


async def test_trap_1_a_host_with_four_addresses_that_refuse_is_one_failure(names: DnsServer) -> None:
    names.a("four.test", *FOUR)
    result = await probe_one("http://four.test:9/", retries=0, **asking(names))
    assert (status_of(result), len(result.hops)) == ("tcp.refused", 1)


# --- 2. One request for one attempt ---


@pytest.mark.parametrize("path", ["/reset", "/close", "/partial"])
async def test_trap_2_a_request_on_a_new_connection_that_ends_is_not_repeated(path: str, site: Site) -> None:
    result = await probe_one(site.url(path), method="GET", retries=0)
    assert (len(site.requests), site.connections, len(result.hops)) == (1, 1, 1)


async def test_trap_2_a_request_on_a_new_tls_connection_that_ends_is_not_repeated(authority: Authority) -> None:
    async with Site(tls=authority.good()) as site:
        for path in ("/reset", "/close", "/partial"):
            site.requests.clear()
            url = site.url(path, host="localhost")
            result = await probe_one(url, method="GET", http="1", retries=0, cafile=str(authority.cafile))
            assert (result.outcome, len(site.requests)) == ("failed", 1)


# --- 3. HEAD proves only that a server is well ---


@pytest.mark.parametrize(
    "path", ["/head/400", "/head/403", "/head/404", "/head/405", "/head/500", "/head/501", "/head-hang", "/head-reset"]
)
async def test_trap_3_a_head_that_fails_in_any_way_is_confirmed_with_get(path: str, site: Site) -> None:
    result = await probe_one(site.url(path), timeout=1)
    assert (status_of(result), result.method) == (200, "GET")
    assert [request.method for request in site.requests] == ["HEAD", "GET"]


async def test_trap_3_a_head_answered_with_bytes_that_are_not_http_is_confirmed_with_get(site: Site) -> None:
    async def rubbish(x: Exchange) -> None:
        x.keeps_open = False
        await (x.send(b"what?") if x.request.method == "HEAD" else x.reply())

    site.on("/rubbish", rubbish)
    assert status_of(await probe_one(site.url("/rubbish"))) == 200


async def test_trap_3_a_head_answered_with_a_body_is_an_answer(site: Site) -> None:
    result = await probe_one(site.url("/head-body"))
    assert (status_of(result), result.method, len(site.requests)) == (200, "HEAD", 1)


# --- 4. No status that no server sent ---


@pytest.mark.parametrize(
    "path", ["/te-cl", "/two-lengths", "/space-name", "/no-colon", "/long-header/100000", "/many-headers/1000",
             "/lf-only", "/after-close", "/obs-fold", "/non-ascii", "/no-reason", "/lowercase-proto"],
)  # fmt: skip
@pytest.mark.parametrize("method", ["HEAD", "GET"])
async def test_trap_4_a_response_that_a_strict_parser_refuses_is_accepted(path: str, method: str, site: Site) -> None:
    assert status_of(await probe_one(site.url(path), method=method)) == 200


@pytest.mark.parametrize("path", ["/bad-lengths", "/nul-header", "/http09", "/h2-preface", "/garbage", "/status/099"])
async def test_trap_4_an_unreadable_response_has_no_invented_status_400(path: str, site: Site) -> None:
    result = await probe_one(site.url(path), retries=0)
    assert result.outcome == "failed"
    assert result.status in (None, 99)
    assert result.errors == {"http": "HTTP_ERROR"}


@pytest.mark.parametrize("stray", [b"\n", b"\r\n", b"\r\n\r\n", b"\n\n\n\n"])
async def test_trap_4_a_response_that_begins_with_empty_lines_is_accepted(stray: bytes, site: Site) -> None:
    site.on("/stray", stray + b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert status_of(await probe_one(site.url("/stray"))) == 200


# --- 5. The wait for a slot does not count towards the timeout ---


@pytest.mark.parametrize(
    "interim",
    [
        b"",
        b"Upgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 0\r\n",
        b"Set-Cookie: a=b\r\nLocation: /no\r\n",
    ],
)
async def test_trap_4_an_unasked_101_is_an_interim_response(interim: bytes, site: Site) -> None:
    """Chromium opens the page of the 200 that follows; curl/curl#12022."""
    head = b"HTTP/1.1 101 Switching Protocols\r\n" + interim + b"\r\n"
    site.on("/upgrade", head + b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert status_of(await probe_one(site.url("/upgrade"))) == 200


async def test_trap_5_the_wait_for_a_slot_does_not_count_towards_the_timeout(site: Site) -> None:
    urls = [site.url(f"/delay/0.05?{number}", host=f"127.0.0.{number % 5 + 1}") for number in range(25)]
    loop = asyncio.get_running_loop()
    started = loop.time()
    results = await probe_all(urls, concurrency=1, timeout=1, retries=0)
    assert loop.time() - started > 1  # the last has waited for longer than it might take
    assert {status_of(result) for result in results} == {200}
    assert max(result.timings.total for result in results) < 1000


# --- 6. DNS ---


async def test_trap_6_a_name_is_looked_up_once_for_all_ports(site: Site, names: DnsServer) -> None:
    names.a("good.test", "127.0.0.9")
    async with Site(host="0.0.0.0") as other:
        urls = [site.url("/ok", host="good.test"), other.url("/ok", host="good.test")]
        results = await probe_all(urls, ipv4=True, **asking(names))
    assert {status_of(result) for result in results} == {200}
    assert names.queries == [("good.test", "A")]


async def test_trap_6_no_lookup_outlives_its_prober(names: DnsServer) -> None:
    names.silent("slow.test")
    before, loop = asyncio.all_tasks(), asyncio.get_running_loop()
    started = loop.time()
    assert status_of(await probe_one("http://slow.test/", timeout=0.2, retries=0, **asking(names))) == "dns.timed_out"
    assert loop.time() - started < 1
    gc.collect()  # a task that is destroyed while pending would fail this test
    assert asyncio.all_tasks() - before <= names.tasks


@pytest.mark.parametrize(
    ("rule", "expected", "says"),
    [
        ("nxdomain", "dns.name_not_resolved", "no such name (NXDOMAIN from {server})"),
        ("no_data", "dns.name_not_resolved", "the name exists but has no IPv4 or IPv6 address, says {server}"),
        ("servfail", "dns.failed", "SERVFAIL from {server}: DNSSEC or the zone's servers"),
        ("refused", "dns.failed", "REFUSED by {server}: "),
    ],
)
async def test_trap_6_a_failure_of_dns_is_reported_precisely(
    rule: str, expected: str, says: str, names: DnsServer
) -> None:
    """By the names that dig gives the same answers (`status: SERVFAIL`, `SERVER: 192.0.2.1#53`)."""
    getattr(names, rule)("bad.test")
    result = await probe_one("http://bad.test/", retries=0, **asking(names))
    assert status_of(result) == expected
    assert result.error is not None
    assert result.error.message.startswith(says.format(server=names.address))


# --- 7. A missing close_notify is not waited for ---


async def test_trap_7_a_missing_close_notify_is_not_waited_for(authority: Authority) -> None:
    async def stays(x: Exchange) -> None:
        await x.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
        await x.hang()

    async with Site(tls=authority.good()) as site:
        site.on("/stays", stays)
        loop, before = asyncio.get_running_loop(), descriptors()
        started = loop.time()
        result = await probe_one(site.url("/stays", host="localhost"), cafile=str(authority.cafile))
        assert status_of(result) == 200
        assert loop.time() - started < 2
        async with asyncio.timeout(PATIENCE):  # it has seen us leave
            await site.until(lambda: site.active == 0)
            while descriptors() > before:  # noqa: ASYNC110 - c-ares ends in a thread of its own
                await asyncio.sleep(0.01)


# --- 8. Nothing escapes ---

ODD_HOSTS = [
    "http://a..b/", f"http://{'a' * 64}.test/", f"http://{'a.' * 130}test/", "http://.a/", "http://a_b.test/",
    "http://xn--a/", "http://xn--55555577.test/", "http://\u2024\u2024/", "http://\xad/", "http://%00.test/",
    "http://127.2.3:9/", "http://0x7f.1:9/", "http://256.256.256.256/", "http://[::1%25eth0]/", "http://[::ffff:127.0.0.1]:9/",
    "http://-a-.test/", "http://a.test:0/", "http://a.test:65536/", "http://0:9/", "http://255.255.255.255:9/",
]  # fmt: skip


# Without a route to one of them, this machine is at fault, which a probe waits out: hence SHORT_BACKOFF.


async def test_trap_8_no_host_name_raises(names: DnsServer) -> None:
    results = await probe_all(ODD_HOSTS, settings=SHORT_BACKOFF, timeout=2, retries=0, **asking(names))
    assert len(results) == len(ODD_HOSTS)
    for result in results:
        assert result.outcome in ("invalid", "failed"), result
        assert result.error is not None
        assert result.error.type != "unknown", result


async def test_trap_8_no_redirect_to_one_raises(site: Site, names: DnsServer) -> None:
    urls = [site.redirect_to(url) for url in ODD_HOSTS]
    results = await probe_all(urls, settings=SHORT_BACKOFF, timeout=2, retries=0, **asking(names))
    assert len(results) == len(ODD_HOSTS)
    for result in results:
        assert result.error is not None
        assert result.error.type != "unknown", result


@pytest.mark.parametrize(
    "headers",
    [{"X": "a\r\nY: b"}, {"X": "a\0"}, {"X": "\u20ac"}, {"X": "\ud800"}, {"X y": "a"}, {"": "a"}, {"Host": "b"}],
)
async def test_trap_8_bad_headers_are_refused_before_anything_is_sent(headers: dict[str, str], site: Site) -> None:
    with pytest.raises(OptionError):
        await probe_one(site.url("/ok"), headers=headers)
    assert site.connections == 0


# --- 9. Redirects ---


@pytest.mark.parametrize(
    ("location", "path"),
    [
        ("/ok?caf%E9", "/ok?caf%E9"),
        ("/ok?a%2Fb=%zz&c=[]'", "/ok?a%2Fb=%zz&c=[]%27"),
        ("/echo/a%2Fb%20c+d", "/echo/a%2Fb%20c+d"),
    ],
)
async def test_trap_9_a_location_is_followed_as_it_is_written(location: str, path: str, site: Site) -> None:
    assert status_of(await probe_one(site.redirect_to(location))) == 200
    assert site.requests[-1].path == path


async def test_trap_9_a_location_that_is_not_utf_8_is_followed_as_by_a_browser(site: Site) -> None:
    assert status_of(await probe_one(site.url("/raw-location"))) == 200
    assert site.requests[-1].path.startswith("/ok?caf%")
    assert "%20and%20spaces" in site.requests[-1].path


async def test_trap_9_every_given_header_is_dropped_when_the_origin_changes(site: Site) -> None:
    async with Site() as other:
        url = site.redirect_to(other.url("/echo"))
        await probe_one(url, headers={"Authorization": "secret", "Cookie": "a=secret", "X-Anything": "secret"})
        assert "secret" in str(site.requests)
        assert len(other.requests) == 1
        assert "secret" not in str(other.requests)


async def test_trap_9_another_port_is_another_origin(authority: Authority, site: Site) -> None:
    async with Site(tls=authority.good()) as secure:
        url = secure.redirect_to(site.url("/echo", host="localhost")).replace("127.0.0.1", "localhost")
        await probe_one(url, headers={"X-Anything": "secret"}, cafile=str(authority.cafile))
    assert "secret" in str(secure.requests)
    assert "secret" not in str(site.requests)


# --- 10. Timeouts ---


async def test_trap_10_a_timeout_of_more_than_five_seconds_is_not_rounded_up() -> None:
    async with Site(on_accept="silent") as site:
        loop = asyncio.get_running_loop()
        started = loop.time()
        end = (
            math.ceil(started + 5) + 0.05
        )  # a timer that is rounded up to the next second would be nearly a second late
        result = await probe_one(site.url("/"), method="GET", timeout=end - started, retries=0)
    assert status_of(result) == "http.timed_out"
    assert end - 0.05 < loop.time() < end + 0.9


async def test_trap_10_a_timeout_names_its_phase(names: DnsServer) -> None:
    names.silent("silent.test")
    async with Site(on_accept="full") as full, Site(on_accept="stall") as stall, Site(on_accept="silent") as silent:
        urls = ["http://silent.test/", full.url("/"), stall.url("/"), silent.url("/")]
        results = await probe_all(urls, timeout=1, retries=0, method="GET", **asking(names))
    assert [(status_of(result), result.error and result.error.phase) for result in results] == [
        ("dns.timed_out", "dns"),
        ("tcp.timed_out", "connect"),
        ("tls.timed_out", "tls"),
        ("http.timed_out", "http"),
    ]
    for result, phase in zip(results, ["dns", "connect", "ssl", "wait"], strict=True):
        assert result.timings.total > 900
        assert getattr(result.timings, phase) > result.timings.total / 2


# --- 11. The environment ---


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
async def test_trap_11_proxies_of_the_environment_are_ignored(
    name: str, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    async with Site() as proxy:
        monkeypatch.setenv(name, proxy.origin)
        assert status_of(await probe_one(site.url("/ok"))) == 200
        assert (proxy.connections, len(site.requests)) == (0, 1)


# --- DNS ---


async def test_dns_a_search_domain_makes_no_name_of_another_host(
    site: Site, names: DnsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCALDOMAIN", "elsewhere.test")
    monkeypatch.setenv("RES_OPTIONS", "ndots:5")
    names.a("*.elsewhere.test", "127.0.0.66")
    assert status_of(await probe_one(site.url("/ok", host="bad.test"), **asking(names))) == "dns.name_not_resolved"
    assert {name for name, _ in names.queries} == {"bad.test"}


async def test_dns_a_dead_name_is_given_up_when_the_time_of_its_probe_is_over(names: DnsServer) -> None:
    names.silent("dead.test")
    loop = asyncio.get_running_loop()
    started = loop.time()
    result = await probe_one("http://dead.test/", retries=0, method="GET", ipv4=True, timeout=2.5, **asking(names))
    assert status_of(result) == "dns.timed_out"
    assert 2.4 < loop.time() - started < 6
    assert 2 <= len(names.queries) < 5


async def test_dns_a_broken_answer_for_ipv6_does_not_stall_a_good_one_for_ipv4(site: Site, names: DnsServer) -> None:
    names.a("broken.test", "127.0.0.9")
    names.silent("broken.test", "AAAA")
    result = await probe_one(site.url("/ok", host="broken.test"), **asking(names))
    assert status_of(result) == 200
    assert (result.timings.dns or 0) < 700


async def test_dns_many_names_at_once_are_all_answered(site: Site, names: DnsServer) -> None:
    """As many answers as arrive together fit into the socket's buffer: the kernel drops none.

    The number of queries says nothing: on a busy machine the client rightly asks again.
    """
    names.a("*.good.test", "127.0.0.9")
    urls = [site.url("/ok", host=f"{number}.good.test") for number in range(500)]
    options = {"concurrency": 500, "per_host": 500, "ipv4": True, "timeout": 20, **asking(names)}
    probing = asyncio.ensure_future(probe_all(urls, **options))
    drops: list[int] = []
    while not probing.done():
        drops += dropped_datagrams(names.port)
        await asyncio.wait({probing}, timeout=0.02)
    assert {status_of(result) for result in probing.result()} == {200}
    assert drops
    assert not any(drops)


def dropped_datagrams(port: int) -> list[int]:
    """Return what the kernel dropped so far on each UDP socket that is connected to a port, by `/proc/net/udp`."""
    rows = [line.split() for line in Path("/proc/net/udp").read_text("ascii").splitlines()[1:]]
    return [int(row[-1]) for row in rows if row[2].endswith(f":{port:04X}")]


# --- TLS ---


def lax(directory: Path) -> tuple[ssl.SSLContext, str]:
    """A server whose chain browsers accept and VERIFY_X509_STRICT refuses: no key identifiers, no key usage."""
    key = ec.generate_private_key(ec.SECP256R1())
    day = timedelta(days=1)

    def certificate(subject: str, is_authority: bool) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Lax Authority")]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(datetime.now(UTC) - day)
            .not_valid_after(datetime.now(UTC) + 90 * day)
        )
        if is_authority:
            builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=False)
        else:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(subject)]), critical=False)
        return builder.sign(key, hashes.SHA256())

    authority = directory / "authority.pem"
    authority.write_bytes(certificate("Lax Authority", True).public_bytes(Encoding.PEM))
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    leaf = directory / "leaf.pem"
    leaf.write_bytes(secret + certificate("localhost", False).public_bytes(Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(leaf)
    return context, str(authority)


async def test_tls_a_certificate_that_browsers_accept_is_accepted_by_every_python(tmp_path: Path) -> None:
    """A client that is strict, as Python's is from 3.13 on, refuses it."""
    server, cafile = lax(tmp_path)
    strict = ssl.create_default_context(cafile=cafile)
    strict.verify_flags |= ssl.VERIFY_X509_STRICT
    async with Site(tls=server) as site:
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.open_connection("localhost", site.port, ssl=strict)
        assert status_of(await probe_one(site.url("/ok", host="localhost"), cafile=cafile)) == 200


async def hello(authority: Authority, host: str, probe: Callable[[Site], str]) -> tuple[str | None, str | None]:
    """What a probe's ClientHello names: the host (SNI), and of h2 and http/1.1 the protocol agreed on (ALPN)."""
    seen: list[tuple[str | None, ssl.SSLObject]] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["h2", "http/1.1"])

    def named(connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, _: ssl.SSLContext) -> None:
        assert isinstance(connection, ssl.SSLObject)
        connection.context = authority.good()
        seen.append((name, connection))

    context.sni_callback = named
    async with Site(tls=context) as site:
        assert status_of(await probe_one(probe(site), cafile=str(authority.cafile))) == 200
        [(name, connection)] = seen
        return name, connection.selected_alpn_protocol()


async def test_tls_a_name_is_sent_and_the_protocol_is_http_1(authority: Authority) -> None:
    assert await hello(authority, "localhost", lambda site: site.url("/ok", host="localhost")) == (
        "localhost",
        "http/1.1",
    )


async def test_tls_an_address_is_not_sent_as_a_name(authority: Authority) -> None:
    assert await hello(authority, "127.0.0.1", lambda site: site.url("/ok")) == (None, "http/1.1")


async def test_tls_plain_http_on_the_tls_port_is_reported(site: Site) -> None:
    result = await probe_one(site.url("/ok").replace("http:", "https:"), retries=0)
    assert status_of(result) == "tls.protocol.error"


async def test_tls_on_the_plain_port_is_reported(authority: Authority) -> None:
    """The answer to plain text is seven bytes of alert."""
    async with Site() as site:
        site.on("/alert", b"\x15\x03\x03\0\x02\x02\x46")
        assert status_of(await probe_one(site.url("/alert"), retries=0)) == "http.protocol.error"


# --- The system ---


async def test_os_a_closed_port_is_refused_and_nothing_else() -> None:
    result = await probe_one("http://127.0.0.1:9/", retries=0)
    assert (status_of(result), result.errors) == ("tcp.refused", {"http": "CONNECTION_ERROR"})


def test_os_few_descriptors_make_it_slower_and_no_less_correct() -> None:
    """In a process of its own, with no more than 64 for 400 hosts at once, the site's among them."""
    script = """
import asyncio, json, sys
import uvloop
import crawler
from tests.support.probing import SHORT_BACKOFF, status_of

async def main():
    urls = [f"http://127.1.{number // 200}.{number % 200 + 1}:{sys.argv[1]}/delay/0.01" for number in range(400)]
    print(json.dumps([status_of(result) async for result in crawler.probe(urls, concurrency=400, retries=0)]))

uvloop.run(main())
"""

    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

    async def served() -> bytes:
        async with Site(host="0.0.0.0") as site:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", script, str(site.port), stdout=subprocess.PIPE, preexec_fn=few
            )
            async with asyncio.timeout(30):
                output, _ = await process.communicate()
        return output

    assert json.loads(asyncio.run(served())) == [200] * 400


async def test_os_the_limit_of_descriptors_is_raised_for_the_concurrency() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        async with crawler.open_prober(crawler.Options(concurrency=1000)):
            assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= min(1000, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_os_no_local_port_stays_in_time_wait(site: Site) -> None:
    """The side that closes first keeps the port in TIME_WAIT for a minute; this machine has 28,000 ports."""
    before = connections_to(site.port)  # of an earlier test, whose server had the same port
    await probe_all(site.url(f"/te-cl?{number}") for number in range(50))
    assert site.connections == 50
    assert connections_to(site.port) <= before


def connections_to(port: int) -> set[tuple[str, str]]:
    """Return the local and remote addresses of all connections to a port, by `/proc/net/tcp`."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]]
    return {(row[1], row[2]) for row in rows if row[2].endswith(f":{port:04X}")}


async def test_os_a_million_lines_are_not_a_million_tasks(site: Site) -> None:
    most = 0

    def lines() -> "list[str]":
        return [site.url(f"/ok?{number}", host=f"127.2.0.{number % 200 + 1}") for number in range(1000)]

    async for _ in crawler.probe(iter(lines()), concurrency=20):
        most = max(most, len(asyncio.all_tasks()))
    assert most < 200  # 20 at work, and what the site does for them


@pytest.mark.parametrize("method", ["HEAD", "GET"])
async def test_os_an_end_that_arrives_with_the_last_bytes_is_noticed(method: str, site: Site) -> None:
    """They are one event then, and no other follows."""

    async def at_once(x: Exchange) -> None:
        x.keeps_open = False
        x.connection.socket.send(b"HTTP/1.1 2")
        x.connection.socket.shutdown(socket.SHUT_WR)

    site.on("/at-once", at_once)
    result = await probe_one(site.url("/at-once"), method=method, timeout=2, retries=0)
    assert status_of(result) == "tcp.closed"
    assert result.timings.total < 1000


async def test_os_a_body_that_ends_with_the_connection_is_over_at_once(site: Site) -> None:
    async def at_once(x: Exchange) -> None:
        x.keeps_open = False
        x.connection.socket.send(b"HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\n<title>here</title>" + b" " * 5000)
        x.connection.socket.shutdown(socket.SHUT_WR)

    site.on("/at-once", at_once)
    result = await probe_one(site.url("/at-once"), title=True, timeout=2, retries=0)
    assert (status_of(result), result.title) == (200, "here")
    assert result.timings.total < 1000


# --- Politeness ---


async def test_politeness_a_retry_after_is_obeyed_and_other_hosts_do_not_wait(site: Site) -> None:
    urls = [site.url("/retry-after/1", host="127.0.0.2"), *(site.url(f"/ok?{number}") for number in range(20))]
    started, ended = time.monotonic(), []
    async for result in crawler.probe(urls):
        assert status_of(result) == 200
        ended.append((time.monotonic() - started, result.seq))
    assert ended[-1][1] == 0
    assert ended[-1][0] >= 1
    assert ended[-2][0] < 0.9


async def test_politeness_a_permanent_failure_is_requested_once(site: Site) -> None:
    assert (await probe_one(site.url("/status/404"), method="GET", retries=5)).attempts == 1
    assert len(site.requests) == 1
