"""The servers in tests/support do what they promise: sites seen by raw sockets, names by aiodns."""

import asyncio
import contextlib
import email.utils
import json
import socket
import ssl
import time
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import aiodns
import pytest

from tests.support.behaviours import BEHAVIOURS, ENDED_BY_EOF, FIXED
from tests.support.certs import Authority
from tests.support.dns_server import DnsServer
from tests.support.exchange import Exchange
from tests.support.site import OnAccept, Site

DEADLINE_SECONDS = 20.0
"""More than any answer on loopback takes."""
SILENCE_SECONDS = 0.2
"""When nothing came for so long, nothing comes."""


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with Site() as site:
        yield site


@contextlib.asynccontextmanager
async def connected(
    site: Site, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(host, site.port, ssl=tls)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def talk(
    site: Site, path: str, method: str = "GET", *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> bytes:
    """Return all bytes that one request gets, up to the end of the connection."""
    async with asyncio.timeout(DEADLINE_SECONDS), connected(site, tls, host) as (reader, writer):
        ask = f"{method} {path} HTTP/1.1\r\nHost: {host}:{site.port}\r\nConnection: close\r\n\r\n"
        writer.write(ask.encode())
        return await reader.read()


async def begin(site: Site, path: str, seconds: float = SILENCE_SECONDS, method: str = "GET") -> bytes:
    """Return what one request gets within some seconds, of an answer that has no end."""
    got = b""
    async with connected(site) as (reader, writer):
        writer.write(f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while data := await reader.read(65536):
                    got += data
    return got


def status(answer: bytes) -> bytes:
    return answer.split(b"\r\n")[0].split(b" ")[1]


def header(answer: bytes, name: str) -> str:
    lines = answer.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]
    return dict(line.split(": ", 1) for line in lines)[name]


# --- The table ---


def test_every_behaviour_is_documented() -> None:
    assert ENDED_BY_EOF <= FIXED.keys() <= BEHAVIOURS.keys()
    coroutines = BEHAVIOURS.items() - {(name, BEHAVIOURS[name]) for name in FIXED}
    for name, handler in coroutines:
        assert (handler.__doc__ or "").startswith(f"/{name}"), name


@pytest.mark.parametrize("name", FIXED)
async def test_a_fixed_answer_is_sent_as_written(site: Site, name: str) -> None:
    head, body = FIXED[name]
    assert await talk(site, f"/{name}") == head + body
    assert await talk(site, f"/{name}", "HEAD") == head


@pytest.mark.parametrize("name", sorted(FIXED.keys() - ENDED_BY_EOF))
async def test_a_fixed_answer_keeps_the_connection_open(site: Site, name: str) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS), connected(site) as (reader, writer):
        for _ in range(2):
            writer.write(f"GET /{name} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            answer = b"".join(FIXED[name])
            assert await reader.readexactly(len(answer)) == answer
    assert [request.connection for request in site.requests] == [1, 1]


@pytest.mark.parametrize("code", ["101", "204", "301", "404", "503", "099", "999"])
async def test_status(site: Site, code: str) -> None:
    answer = await talk(site, f"/status/{code}?X-More=a%20b&Location=/ok")
    assert status(answer) == code.encode()
    assert (header(answer, "X-More"), header(answer, "Location")) == ("a b", "/ok")


async def test_delay(site: Site) -> None:
    started = time.monotonic()
    assert status(await talk(site, "/delay/0.1")) == b"200"
    assert time.monotonic() - started >= 0.1


async def test_echo_count_and_title(site: Site) -> None:
    echo = json.loads((await talk(site, "/echo?a=1")).partition(b"\r\n\r\n")[2])
    assert (echo["method"], echo["path"]) == ("GET", "/echo?a=1")
    assert ["Connection", "close"] in echo["headers"]
    assert [(await talk(site, "/count"))[-1:] for _ in range(2)] == [b"1", b"2"]
    assert b"<title>a &lt;b&gt;</title>" in await talk(site, "/title/a%20%3Cb%3E")
    assert status(await talk(site, "/no-such-thing")) == b"404"


async def walk(site: Site, path: str, hops: int) -> list[str]:
    """Follow redirects; return their locations."""
    seen = []
    for _ in range(hops):
        path = header(await talk(site, path), "Location")
        seen.append(path)
    return seen


async def test_redirects(site: Site) -> None:
    assert await walk(site, "/redirect/3", 3) == ["/redirect/2", "/redirect/1", "/ok"]
    assert await walk(site, "/loop/1", 2) == ["/loop/1", "/loop/1"]
    assert await walk(site, "/loop/3", 3) == ["/loop/3/1", "/loop/3/2", "/loop/3"]
    elsewhere = site.redirect_to("http://other.test/a?b=c&d=%20+", 307).removeprefix(site.origin)
    assert await walk(site, elsewhere, 1) == ["http://other.test/a?b=c&d=%20+"]
    assert status(await talk(site, elsewhere)) == b"307"
    assert b"Location: \xff\r\n" in await talk(site, "/redirect-to?url=%FF")


async def test_cookie_wall(site: Site) -> None:
    answer = await talk(site, "/cookie-wall")
    assert header(answer, "Location") == "/cookie-wall"
    assert header(answer, "Set-Cookie") == "wall=passed; Path=/"
    async with asyncio.timeout(DEADLINE_SECONDS), connected(site) as (reader, writer):
        writer.write(b"GET /cookie-wall HTTP/1.1\r\nCookie: wall=passed\r\n\r\n")
        assert status(await reader.readuntil(b"\r\n\r\n")) == b"200"


# --- HEAD ---


async def test_head(site: Site) -> None:
    assert status(await talk(site, "/head/404", "HEAD")) == b"404"
    assert status(await talk(site, "/head-only-405", "HEAD")) == b"405"
    assert (await talk(site, "/head-body", "HEAD")).endswith(b"\r\n\r\nok")
    assert await begin(site, "/head-hang", method="HEAD") == b""
    with pytest.raises(ConnectionResetError):
        await talk(site, "/head-reset", "HEAD")
    for path in ("/head/404", "/head-only-405", "/head-body", "/head-hang", "/head-reset"):
        assert status(await talk(site, path)) == b"200"


# --- Failures that pass ---


async def test_retry_after(site: Site) -> None:
    path = "/retry-after/7?times=2&status=503"
    answers = [await talk(site, path) for _ in range(3)]
    assert [status(answer) for answer in answers] == [b"503", b"503", b"200"]
    assert header(answers[0], "Retry-After") == "7"
    date = header(await talk(site, "/retry-after-date/60"), "Retry-After")
    assert 59 <= email.utils.parsedate_to_datetime(date).timestamp() - time.time() <= 61


async def test_flaky(site: Site) -> None:
    for _ in range(2):
        with pytest.raises(ConnectionResetError):
            await talk(site, "/flaky/2/status/204")
    assert status(await talk(site, "/flaky/2/status/204")) == b"204"


# --- Failures that stay ---


async def test_reset(site: Site) -> None:
    with pytest.raises(ConnectionResetError):
        await talk(site, "/reset")


async def test_half_close(site: Site) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"
    async with asyncio.timeout(DEADLINE_SECONDS), connected(site) as (reader, writer):
        writer.write(b"GET /half-close HTTP/1.1\r\n\r\n")
        assert await reader.read() == head
        writer.write(b"still listened to")
        await writer.drain()
    assert await begin(site, "/hang") == b""


async def test_drips(site: Site) -> None:
    assert 1 <= (await begin(site, "/drip-head/0.05")).count(b"a") <= 4
    assert 1 <= (await begin(site, "/drip-body/0.05")).count(b"a") <= 4
    assert (await talk(site, "/drip-head/0.001/5")).endswith(b"X-Drip: aaaaa\r\nContent-Length: 0\r\n\r\n")
    assert (await talk(site, "/drip-body/0.001/5")).endswith(b"Content-Length: 5\r\n\r\naaaaa")


async def test_floods(site: Site) -> None:
    assert len(await begin(site, "/endless-body")) > 1 << 20
    assert (await begin(site, "/endless-1xx")).count(b"102 Processing") > 1000
    assert b"X-Long: " + b"a" * 100_000 + b"\r\n" in await talk(site, "/long-header/100000")
    assert (await talk(site, "/many-headers/10000")).count(b": a\r\n") == 10_000


async def test_a_bomb_is_small_and_whole(site: Site) -> None:
    gzip, chunks = b"", (await talk(site, "/bomb/8")).partition(b"\r\n\r\n")[2]
    while (size := int(chunks.partition(b"\r\n")[0], 16)) > 0:
        data = chunks.partition(b"\r\n")[2]
        gzip, chunks = gzip + data[:size], data[size + 2 :]
    assert len(gzip) < 16_384
    inflate = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    assert inflate.decompress(gzip) == bytes(8 << 20)
    assert inflate.eof  # and its checksum was right


@pytest.mark.parametrize(
    ("on_accept", "outcome"),
    [("reset", ConnectionError), ("close", EOFError), ("silent", TimeoutError), ("stall", TimeoutError)],
)
async def test_on_accept(on_accept: OnAccept, outcome: type[Exception]) -> None:
    async with Site(on_accept=on_accept) as site:
        with pytest.raises(outcome):
            async with asyncio.timeout(SILENCE_SECONDS), connected(site) as (reader, writer):
                writer.write(b"GET / HTTP/1.1\r\n\r\n")
                await reader.readexactly(1)
        assert (site.connections, site.requests) == (1, [])


async def test_a_full_backlog_lets_no_connection_through() -> None:
    async with Site(on_accept="full") as site:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(SILENCE_SECONDS), connected(site):
                pass


# --- What a test learns from the site ---


async def test_requests_are_recorded_in_full(site: Site) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS), connected(site) as (reader, writer):
        writer.write(b"POST /ok?q HTTP/1.1\r\nHost: Good.test\r\n")
        writer.write(b"X-A: 1\r\nx-a: 2\r\nContent-Length: 3\r\n\r\nabc")
        await reader.readuntil(b"ok")
    [request] = site.requests
    assert (request.method, request.path, request.version) == ("POST", "/ok?q", "HTTP/1.1")
    assert request.headers == [("Host", "Good.test"), ("X-A", "1"), ("x-a", "2"), ("Content-Length", "3")]
    assert (request.host, request.header("X-a"), request.body) == ("Good.test", "1", b"abc")


async def test_peaks_are_counted_for_each_host() -> None:
    async with Site(host="0.0.0.0") as site, contextlib.AsyncExitStack() as clients:
        for host in ("127.0.0.1", "127.0.0.2", "127.0.0.2"):
            _, writer = await clients.enter_async_context(connected(site, host=host))
            writer.write(f"GET /hang HTTP/1.1\r\nHost: {host}:{site.port}\r\n\r\n".encode())
        await site.until(lambda: site.active == 3)
        await clients.aclose()
        await site.until(lambda: site.active == 0)
        assert (site.peak, site.peak_of("127.0.0.1"), site.peak_of(f"127.0.0.2:{site.port}")) == (3, 1, 2)
        assert site.connections == 3


async def test_a_client_that_leaves_is_no_longer_served(site: Site) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        async with connected(site) as (_, writer):
            writer.write(b"GET /hang HTTP/1.1\r\n\r\n")
            await site.until(lambda: site.active == 1)
            writer.close()
        await site.until(lambda: site.active == 0)


async def test_own_answers(site: Site) -> None:
    async def teapot(exchange: Exchange) -> None:
        await exchange.reply(418, [("X-Hit", str(exchange.hit_number))])

    site.on("/raw", b"anything")
    site.on("/deep/path", teapot)
    assert await talk(site, "/raw?query") == b"anything"
    assert status(await talk(site, "/deep/path")) == b"418"


async def test_an_error_of_a_behaviour_fails_its_test() -> None:
    with pytest.raises(ZeroDivisionError):
        async with Site() as site:
            assert await talk(site, "/loop/0") == b""


@pytest.mark.parametrize("hello", [b"\x16\x03\x01\x02\x00", b"GET / one too many HTTP/1.1\r\n\r\n"])
async def test_what_is_no_request_gets_400(site: Site, hello: bytes) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS), connected(site) as (reader, writer):
        writer.write(hello)
        assert status(await reader.read()) == b"400"


async def test_urls() -> None:
    async with Site(host="::1") as six, Site(on_accept="stall") as stalled:
        assert six.origin == f"http://[::1]:{six.port}"
        assert six.url("/a", host="good.test") == f"http://good.test:{six.port}/a"
        assert stalled.url() == f"https://127.0.0.1:{stalled.port}/"
        assert status(await talk(six, "/ok", host="::1")) == b"200"


async def test_a_stop_cuts_every_connection(authority: Authority) -> None:
    async with contextlib.AsyncExitStack() as clients:
        async with Site() as site, Site(tls=authority.good()) as tls, DnsServer() as names:
            _, writer = await clients.enter_async_context(connected(site))
            writer.write(b"GET /endless-body HTTP/1.1\r\n\r\n")
            await clients.enter_async_context(connected(tls))  # says no ClientHello
            tcp = socket.create_connection((names.host, names.port))
            clients.callback(tcp.close)
            await site.until(lambda: site.active == 1)
            await tls.until(lambda: tls.connections == 1)
        assert site.active == 0


# --- Certificates ---


@pytest.mark.parametrize("kind", ["good", "intermediate", "many_names"])
async def test_a_good_certificate_is_accepted(authority: Authority, kind: str) -> None:
    async with Site(tls=getattr(authority, kind)()) as site:
        assert site.origin.startswith("https://")
        assert status(await talk(site, "/ok", tls=authority.client_context())) == b"200"
        # Resets and half-closes go through TLS too.
        with pytest.raises(ConnectionResetError):
            await talk(site, "/reset", tls=authority.client_context())
        assert b"Content-Length: 100" in await talk(site, "/half-close", tls=authority.client_context())


@pytest.mark.parametrize(
    ("kind", "verify_code"),
    [
        ("expired", 10),
        ("not_yet_valid", 9),
        ("self_signed", 18),
        ("wrong_host", 64),
        ("unknown_ca", 20),
        ("unknown_root", 19),
        ("missing_intermediate", 20),
    ],
)
async def test_a_bad_certificate_is_refused_for_its_one_fault(
    authority: Authority, kind: str, verify_code: int
) -> None:
    async with Site(tls=getattr(authority, kind)()) as site:
        with pytest.raises(ssl.SSLCertVerificationError) as caught:
            await talk(site, "/ok", tls=authority.client_context())
    assert caught.value.verify_code == verify_code


@pytest.mark.parametrize("kind", ["old_tls", "no_shared_cipher", "wants_client_cert"])
async def test_a_handshake_fails(authority: Authority, kind: str) -> None:
    async with Site(tls=getattr(authority, kind)()) as site:
        with pytest.raises(ssl.SSLError) as caught:
            await talk(site, "/ok", tls=authority.client_context())
    assert not isinstance(caught.value, ssl.SSLCertVerificationError)


async def test_http_and_https_on_the_wrong_port(authority: Authority, site: Site) -> None:
    with pytest.raises(ssl.SSLError, match="WRONG_VERSION_NUMBER"):
        await talk(site, "/ok", tls=authority.client_context())
    async with Site(tls=authority.good()) as tls:
        with contextlib.suppress(ConnectionResetError):
            assert b"HTTP" not in await talk(tls, "/ok")


def test_contexts_are_made_once(authority: Authority, tmp_path: Path) -> None:
    assert authority.good("a.test") is authority.good("a.test")
    assert Authority(tmp_path).cafile == tmp_path / "ca.pem"


# --- Names ---


@contextlib.asynccontextmanager
async def resolver(names: DnsServer) -> AsyncIterator[aiodns.DNSResolver]:
    async with aiodns.DNSResolver(nameservers=[names.address], timeout=0.1, tries=2) as resolver:
        yield resolver


async def look_up(names: DnsServer, name: str, kind: str = "A") -> list[str]:
    async with resolver(names) as client:
        answer = (await client.query_dns(name, kind)).answer
    return [record.data.addr for record in answer if hasattr(record.data, "addr")]


async def test_addresses(names: DnsServer) -> None:
    names.a("good.test", "127.0.0.1", "127.0.0.2")
    names.aaaa("good.test", "::1")
    names.a("*.zone.test", "127.0.0.3")
    names.cname("alias.test", "x.zone.test")
    assert await look_up(names, "good.test") == ["127.0.0.1", "127.0.0.2"]
    assert await look_up(names, "GOOD.test", "AAAA") == ["::1"]
    assert await look_up(names, "a.b.zone.test") == ["127.0.0.3"]
    assert await look_up(names, "alias.test") == ["127.0.0.3"]
    assert names.queries[:2] == [("good.test", "A"), ("good.test", "AAAA")]


async def test_rotating_addresses(names: DnsServer) -> None:
    names.rotating("rebind.test", ["127.0.0.1", "10.0.0.1"])
    answers = [await look_up(names, "rebind.test") for _ in range(3)]
    assert answers == [["127.0.0.1"], ["10.0.0.1"], ["127.0.0.1"]]


@pytest.mark.parametrize(
    ("rule", "code"),
    [("nxdomain", 4), ("no_data", 1), ("servfail", 3), ("refused", 6), ("silent", 12), ("forged", 12)],
)
async def test_failures(names: DnsServer, rule: str, code: int) -> None:
    names.a("bad.test", "127.0.0.1")
    getattr(names, rule)("bad.test")
    with pytest.raises(aiodns.error.DNSError) as caught:
        await look_up(names, "bad.test")
    assert caught.value.args[0] == code


async def test_an_answer_with_a_wrong_id_is_not_believed(names: DnsServer) -> None:
    names.forged("forged.test", "id")
    with pytest.raises(aiodns.error.DNSError):
        await look_up(names, "forged.test")


async def test_silent_aaaa_delay_and_truncation(names: DnsServer) -> None:
    names.a("good.test", "127.0.0.1")
    names.silent("good.test", "AAAA")
    with pytest.raises(aiodns.error.DNSError):
        await look_up(names, "good.test", "AAAA")
    assert await look_up(names, "good.test") == ["127.0.0.1"]
    started = time.monotonic()
    names.delay("good.test", 0.05)
    names.truncated("good.test")
    asked = len(names.queries)
    assert await look_up(names, "good.test") == ["127.0.0.1"]
    assert time.monotonic() - started >= 0.1  # the delay over UDP, and again over TCP
    assert names.queries[asked:] == [("good.test", "A")] * 2
