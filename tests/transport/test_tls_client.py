"""The two TLS libraries together: what each is asked, what is asked again, and what both do alike.

Outside witnesses are named in the tests; which servers are accepted at all is in `test_tls_servers`.
"""

import asyncio
import socket
import ssl
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import trustme

import crawler
from crawler import OptionError, Options
from crawler.transport.tls import rustls as tls_rustls
from crawler.transport.tls.certificates import is_self_issued, parse_certificate
from crawler.transport.tls.openssl import client_context
from crawler.transport.tls.refusals import explain_refusal_after_handshake
from tests.support.certs import Authority
from tests.support.exchange import Exchange
from tests.support.probing import probe_all, probe_one, status_of
from tests.support.site import Site
from tests.support.tls_servers import Certificates, Leaf, Row, running_servers
from tests.transport.test_certificates import COMMON_NAME, ORGANISATION, certificate, name

ENGINES = ["auto", "openssl"]


# --- Asked again ---


@pytest.mark.parametrize("ends", ["reset", "close"])
async def test_a_server_that_breaks_resumed_sessions_is_asked_once_without(authority: Authority, ends: str) -> None:
    """A full handshake is what a browser's first visit does."""
    resumed: list[bool] = []

    async def broken(x: Exchange) -> None:
        resumed.append(x.connection.is_resumed)
        if x.connection.is_resumed:
            x.reset() if ends == "reset" else x.connection.socket.shutdown(socket.SHUT_RDWR)
            return
        x.keeps_open = False
        await x.reply()

    async with Site(tls=authority.good()) as site:
        site.on("/broken", broken)
        urls = [site.url(f"/broken?{number}", host="localhost") for number in range(3)]
        results = await probe_all(
            urls, cafile=str(authority.cafile), tls="openssl", per_host=1, retries=0, method="GET"
        )
    assert [status_of(result) for result in results] == [200, 200, 200]
    assert resumed.count(True) in (1, 2)
    assert resumed.count(False) == 3


async def test_the_end_of_the_handshake_and_the_request_come_in_one_packet(authority: Authority) -> None:
    """Two small packets would take two round trips where the first one is acknowledged late (RFC 896, RFC 9293)."""
    requests: list[bytes] = []
    context = authority.good()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_side=True)
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                writer.write(outgoing.read())
                incoming.write(await reader.read(65536))
        with suppress(ssl.SSLWantReadError):
            requests.append(tls.read(65536))  # of the bytes that ended the handshake
        tls.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.write(outgoing.read())
        await writer.drain()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        await probe_one(
            f"https://localhost:{port}/", cafile=str(authority.cafile), tls="rustls", retries=0, method="GET"
        )
    assert [request[:5] for request in requests] == [b"GET /"]


async def test_a_retry_after_a_timeout_asks_openssl(authority: Authority) -> None:
    """Some middleboxes drop a ClientHello of more than one packet (https://tldr.fail); OpenSSL's is smaller."""
    sizes: list[int] = []
    held: list[asyncio.StreamWriter] = []
    context = authority.good()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hello = await reader.read(65536)
        sizes.append(len(hello))
        if len(hello) > 1_000:
            held.append(writer)
            return
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_side=True)
        incoming.write(hello)
        for step in (tls.do_handshake, lambda: tls.read(65536)):
            while True:
                try:
                    step()
                    break
                except ssl.SSLWantReadError:
                    writer.write(outgoing.read())
                    incoming.write(await reader.read(65536))
        tls.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.write(outgoing.read())
        held.append(writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    result = await probe_one(f"https://127.0.0.1:{port}/", cafile=str(authority.cafile), connect_timeout=0.5, retries=1)
    for writer in held:
        writer.close()
    server.close()
    assert (status_of(result), result.attempts) == (200, 2)
    assert result.tls is not None
    assert result.tls.engine == "openssl"
    assert [size > 1_000 for size in sizes] == [True, False]


async def test_an_origin_that_rustls_refused_goes_to_openssl_at_once() -> None:
    with running_servers((Row("old", "200", Leaf("rsa2048"), ("-tls1_2", "-cipher", "AES128-SHA")),)) as (urls, made):
        [url] = urls.values()
        async with crawler.open_prober(Options(cafile=str(made.cafile), method="GET")) as prober:
            results = [await prober.probe(crawler.Target.of(seq, f"{url}?{seq}")) for seq in range(2)]
    assert [(result.status, result.tls and result.tls.engine) for result in results] == [(200, "openssl")] * 2
    first, second = (result.timings.ssl or 0.0 for result in results)
    assert results[1].timings.connect is not None
    assert first > 0 < second


# --- What both libraries do alike ---


@pytest.mark.parametrize("tls", ENGINES)
async def test_a_body_that_ends_without_close_notify_is_read(authority: Authority, tls: str) -> None:
    """Browsers ignore a missing close_notify: https://issues.chromium.org/issues/41157600."""

    async def ragged(x: Exchange) -> None:
        await x.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<title>whole</title>" + b" " * 100_000)
        x.connection.socket.shutdown(socket.SHUT_WR)
        await x.hang()

    async with Site(tls=authority.good()) as site:
        site.on("/ragged", ragged)
        result = await probe_one(
            site.url("/ragged", host="localhost"), cafile=str(authority.cafile), tls=tls, title=True
        )
    assert (status_of(result), result.title) == (200, "whole")


@pytest.mark.parametrize("tls", ENGINES)
@pytest.mark.parametrize("size", [1, 16_384, 16_385, 300_000])
async def test_long_bodies_arrive_whole(authority: Authority, tls: str, size: int) -> None:
    async def long(x: Exchange) -> None:
        await x.reply(200, [("Content-Type", "text/html")], b" " * size + b"<title>end</title>")

    async with Site(tls=authority.good()) as site:
        site.on("/long", long)
        urls = [site.url(f"/long?{number}", host="localhost") for number in range(3)]
        results = await probe_all(urls, cafile=str(authority.cafile), tls=tls, title=True)
    assert [(result.status, result.title) for result in results] == [(200, "end")] * 3


@pytest.mark.parametrize("tls", ENGINES)
async def test_an_authority_file_with_an_intermediate_alone(tmp_path: Path, tls: str) -> None:
    """As `curl --cacert` since 7.68, which sets X509_V_FLAG_PARTIAL_CHAIN, and Python since 3.13."""
    intermediate = trustme.CA().create_child_ca()
    cafile = tmp_path / "intermediate.pem"
    intermediate.cert_pem.write_to_path(str(cafile))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    intermediate.issue_cert("localhost").configure_cert(context)
    async with Site(tls=context) as site:
        result = await probe_one(site.url("/ok", host="localhost"), cafile=str(cafile), tls=tls)
    assert status_of(result) == 200


@pytest.mark.parametrize("tls", ["auto", "openssl", "rustls"])
async def test_a_client_certificate_is_sent(tmp_path: Path, authority: Authority, tls: str) -> None:
    """As `curl --cert`, with the key in the same file or in another."""
    client = trustme.CA()
    leaf = client.issue_cert("client@test")
    both, cert, key = tmp_path / "both.pem", tmp_path / "cert.pem", tmp_path / "key.pem"
    leaf.private_key_and_cert_chain_pem.write_to_path(str(both))
    leaf.cert_chain_pems[0].write_to_path(str(cert))
    leaf.private_key_pem.write_to_path(str(key))
    context = authority.good("localhost", "client.test")
    client.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    async with Site(tls=context) as site:
        url = site.url("/ok", host="localhost")
        for files in ({"cert": str(both)}, {"cert": str(cert), "key": str(key)}):
            assert status_of(await probe_one(url, cafile=str(authority.cafile), tls=tls, **files)) == 200


async def test_a_refused_client_certificate_is_told(tmp_path: Path, authority: Authority) -> None:
    stranger = tmp_path / "stranger.pem"
    trustme.CA().issue_cert("client@test").private_key_and_cert_chain_pem.write_to_path(str(stranger))
    async with Site(tls=authority.wants_client_cert()) as site:
        result = await probe_one(
            site.url("/ok", host="localhost"), cafile=str(authority.cafile), cert=str(stranger), retries=2
        )
    assert result.error is not None
    assert (result.error.type, result.error.transient, result.attempts) == ("tls.bad_client_auth_cert", False, 1)
    assert "refused the client certificate" in result.error.message


@pytest.mark.parametrize(
    ("options", "place"),
    [
        ({"cert": "/nowhere.pem"}, "cert"),
        ({"cert": __file__}, "cert"),
        ({"cert": __file__, "key": "/nowhere.pem"}, "key"),
        ({"key": __file__}, "key"),
    ],
)
async def test_a_wrong_client_certificate_is_reported_at_once(options: dict[str, str], place: str) -> None:
    with pytest.raises(OptionError) as caught:
        await probe_one("https://localhost:1/", **options)
    assert caught.value.place == place


# --- What the libraries are ---


async def test_without_rtls_openssl_does_everything(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    with _without_rtls(monkeypatch):
        assert tls_rustls.describe_tls_libraries().startswith("OpenSSL ")
        assert "alone" in tls_rustls.describe_tls_libraries()
        async with Site(tls=authority.good()) as site:
            result = await probe_one(site.url("/ok", host="localhost"), cafile=str(authority.cafile))
    assert result.tls is not None
    assert (status_of(result), result.tls.engine) == (200, "openssl")


@contextmanager
def _without_rtls(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "rtls._rustls", None)
    tls_rustls.rustls_version.cache_clear()
    yield
    tls_rustls.rustls_version.cache_clear()


def test_both_libraries_trust_the_authorities_of_the_system() -> None:
    rustls = tls_rustls.RustlsContext(Options())
    context = client_context(Options())
    trusted = [parse_certificate(der) for der in context.get_ca_certs(binary_form=True)]
    by_openssl = {each.subject_name for each in trusted if each.not_after > time.time()}  # of an expired one it says so
    by_rustls = {parse_certificate(bytes(der)).subject_name for der in rustls._builder.get_root_certs_der()}
    assert by_openssl <= by_rustls  # OpenSSL reads those in a directory only when it needs them


def test_rustls_has_room_for_a_number_of_connections() -> None:
    engine = tls_rustls.RustlsContext(Options())
    sockets = []
    while engine.has_room:
        sockets.append(engine.wrap(socket.socket(), "localhost"))
    assert 100 <= len(sockets) <= 1_000
    for each in sockets:
        each.close()
        each.close()
    assert (engine.has_room, engine.large_connections) == (True, 0)


@pytest.mark.parametrize(("version", "large"), [(ssl.TLSVersion.TLSv1_2, 0), (ssl.TLSVersion.TLSv1_3, 1)])
def test_only_connections_with_a_copy_of_the_authorities_are_counted(
    version: ssl.TLSVersion, large: int, authority: Authority
) -> None:
    """Measured with 144 authorities: 263 KiB for a connection of TLS 1.3, 9 KiB for one of TLS 1.2."""
    server_context = authority.good("localhost")
    server_context.maximum_version = version
    engine = tls_rustls.RustlsContext(Options(cafile=str(authority.cafile)))
    ours, theirs = socket.socketpair()
    with theirs, ThreadPoolExecutor() as threads:
        accepted = threads.submit(server_context.wrap_socket, theirs, server_side=True)
        connection = engine.wrap(ours, "localhost")
        assert engine.large_connections == 1
        connection.do_handshake()
        if version is ssl.TLSVersion.TLSv1_3:
            connection.send(b"x")  # the handshake's last message goes out with it
        accepted.result().close()
        assert engine.large_connections == large
        connection.close()
        assert engine.large_connections == 0


def test_servers_without_secure_renegotiation_are_accepted() -> None:
    """RFC 5746, 4.1; Chromium opens them. `openssl s_server` cannot be one."""
    assert client_context(Options()).options & 0x4  # SSL_OP_LEGACY_SERVER_CONNECT


# --- Names that may be the same ---


@pytest.mark.parametrize(
    ("issuer", "expected"),
    [
        (name((COMMON_NAME, 0x0C, b"The Root")), True),
        (name((COMMON_NAME, 0x13, b"The Root")), True),
        (name((COMMON_NAME, 0x0C, b" THE  root ")), True),
        (name((COMMON_NAME, 0x1E, "The Root".encode("utf-16-be"))), True),
        (name((ORGANISATION, 0x0C, b"The Root")), True),
        (name((COMMON_NAME, 0x0C, b"The Other Root")), False),
        (name((COMMON_NAME, 0x0C, b"The Root"), (ORGANISATION, 0x0C, b"Other")), False),
    ],
)
def test_a_certificate_that_may_have_issued_itself(issuer: bytes, expected: bool) -> None:
    """RFC 5280, 7.1: case and spaces do not count. OpenSSL trusts a self-issued certificate in its store."""
    subject = name((COMMON_NAME, 0x0C, b"The Root"))
    assert is_self_issued(parse_certificate(certificate(subject, issuer=issuer))) is expected


# --- Renegotiation ---


@pytest.mark.parametrize("tls", ENGINES)
async def test_a_server_that_renegotiates_after_the_request_is_answered(tmp_path: Path, tls: str) -> None:
    """Chromium renegotiates for HTTP/1.1; rustls does not, so OpenSSL is asked. "R" makes s_server begin it."""
    made = Certificates(tmp_path)
    cert, key, chain = made.files(Leaf("rsa2048"), 0)
    server = await asyncio.create_subprocess_exec(
        *("openssl", "s_server", "-accept", "127.0.0.1:0", "-tls1_2", "-crlf"),
        *("-cert", str(cert), "-key", str(key), "-cert_chain", str(chain)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert server.stdin is not None
    assert server.stdout is not None
    await server.stdout.readuntil(b"ACCEPT 127.0.0.1:")
    url = f"https://localhost:{int(await server.stdout.readline())}/"

    async def renegotiate(stdin: asyncio.StreamWriter, stdout: asyncio.StreamReader) -> None:
        if tls == "auto":  # as Apache does, it answers only after the renegotiation
            await stdout.readuntil(b"User-Agent")
            stdin.write(b"R\n")
        await stdout.readuntil(b"User-Agent")
        stdin.write(b"R\n")
        await stdout.readuntil(b"SSL_do_handshake ->")  # a line that it reads together with the "R" would be lost
        stdin.write(b"HTTP/1.1 200 OK\nContent-Length: 0\n\n")
        while await stdout.read(65536):
            pass

    renegotiating = asyncio.ensure_future(renegotiate(server.stdin, server.stdout))
    result = await probe_one(url, cafile=str(made.cafile), tls=tls, method="GET", retries=0, timeout=10)
    server.kill()
    await server.wait()
    await renegotiating
    made.server.server_close()
    assert status_of(result) == 200
    assert result.tls is not None
    assert (result.tls.engine, result.attempts) == ("openssl", 1)


@pytest.mark.parametrize(
    ("has_certificate", "words"), [(False, "wants a client certificate"), (True, "refused the client certificate")]
)
def test_an_alert_in_place_of_the_response_is_about_the_client_certificate(has_certificate: bool, words: str) -> None:
    """Chromium: ERR_BAD_SSL_CLIENT_AUTH_CERT. In TLS 1.2 a server asks for it by a renegotiation, after the request."""
    error = ssl.SSLError(1, "[SSL: SSLV3_ALERT_HANDSHAKE_FAILURE] sslv3 alert handshake failure (_ssl.c:2580)")
    error.reason = "SSLV3_ALERT_HANDSHAKE_FAILURE"
    problem = explain_refusal_after_handshake(error, has_certificate=has_certificate)
    assert problem is not None
    assert (problem.type, problem.transient) == ("tls.bad_client_auth_cert", False)
    assert words in problem.message
    assert explain_refusal_after_handshake(ConnectionResetError(), has_certificate=has_certificate) is None
