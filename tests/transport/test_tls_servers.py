"""Each of a hundred TLS servers gets the verdict of Chromium, from rustls and OpenSSL together and from OpenSSL alone.

Witness: Chromium 156.0.8078.108 (Debian 12), which trusted the same root, opened every URL of `tls_servers.ROWS`. It
agrees with RFC 9525, 6.3 on names and with RFC 5280, 4.2.2.1 on fetched intermediates.
"""

import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from crawler import ProbeResult
from tests.support.probing import probe_all, probe_one, status_of
from tests.support.site import Site
from tests.support.tls_servers import (
    AUTHORITY,
    CLIENT,
    DATE,
    INVALID,
    ISSUERS_ADDRESS,
    KEY_USAGE,
    MISMATCH,
    NAME,
    OK,
    PROTOCOL,
    ROWS,
    UNKNOWN_NAME,
    Certificates,
    Leaf,
    running_servers,
)

TYPES: Mapping[str, int | str] = {
    OK: 200,
    MISMATCH: "tls.version_or_cipher_mismatch",
    PROTOCOL: "tls.protocol.error",
    NAME: "tls.cert.name_invalid",
    DATE: "tls.cert.date_invalid",
    AUTHORITY: "tls.cert.authority_invalid",
    INVALID: "tls.cert.invalid",
    KEY_USAGE: "tls.cert.invalid",
    CLIENT: "tls.bad_client_auth_cert",
    UNKNOWN_NAME: "tls.unrecognized_name_alert",
}

Servers = tuple[Mapping[str, str], Certificates]


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with running_servers() as started:
        yield started


async def results_of(servers: Servers, *names: str, **options: object) -> dict[str, ProbeResult]:
    """Return the results of the servers with these names; of all without names."""
    urls, certificates = servers
    chosen = {name: urls[name] for name in names or urls}
    hosts = [f"{urlsplit(url).hostname}:{urlsplit(url).port}:127.0.0.1" for url in chosen.values()]
    results = await probe_all(
        chosen.values(),
        cafile=str(certificates.cafile),
        resolve=tuple(hosts),
        retries=0,
        concurrency=16,
        method="GET",
        **options,
    )
    return dict(zip(chosen, results, strict=True))


@pytest.mark.parametrize("tls", ["auto", "openssl"])
async def test_every_server_gets_the_verdict_of_chromium(servers: Servers, tls: str) -> None:
    results = await results_of(servers, tls=tls)
    assert {name: status_of(result) for name, result in results.items()} == {
        row.name: TYPES[row.chromium] for row in ROWS
    }
    assert not [name for name, result in results.items() if result.error is not None and result.error.transient]


async def test_both_libraries_report_the_same(servers: Servers) -> None:
    reports = [
        {name: result.tls and (result.tls.version, result.tls.cipher, result.tls.subject, result.tls.not_after)
         for name, result in (await results_of(servers, *names, tls=tls)).items()}
        for tls in ("rustls", "openssl")
        for names in [[row.name for row in ROWS if row.name.startswith("1.") and row.chromium == OK and
                       ("ECDHE-" in row.name or "TLS_" in row.name) and "-SHA" not in row.name[-5:]]]
    ]  # fmt: skip
    assert len(reports[0]) >= 7
    assert reports[0] == reports[1]


async def test_what_rustls_refuses_is_done_by_openssl(servers: Servers) -> None:
    names = ["1.2 AES128-SHA", "tls1_2 key rsa1024", "wildcard"]
    found = await results_of(servers, *names)
    assert [result.tls and result.tls.engine for result in found.values()] == ["openssl", "openssl", "rustls"]
    alone = await results_of(servers, *names, tls="rustls")
    assert [result.status for result in alone.values()] == [None, None, 200]


async def test_old_versions_are_said_by_name(servers: Servers) -> None:
    for name, result in (await results_of(servers, "1.0", "1.1")).items():
        assert result.error is not None
        assert result.error.message == f"the server speaks only TLS {name} or older, which browsers refuse"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("expired", "the certificate expired on "),
        ("not valid yet", "the certificate is not valid before "),
        ("expired intermediate", "the certificate of the authority Old Intermediate expired on "),
        ("another name", "the certificate is for other.test, not for localhost"),
        ("common name alone", "the certificate is for no name, not for localhost"),
        ("wildcard for two labels", "the certificate is for *.w.test, not for a.b.w.test"),
        ("unknown authority", "unknown authority: Stranger"),
        ("self-signed", "self-signed certificate"),
        ("issuer that is no authority", "it cannot issue others"),
        ("for clients only", "not for a web server"),
        ("no intermediate, nothing at the URL", "incomplete chain: the server does not send the certificate of its"),
        ("tls1_2 wants a client certificate", "the server wants a client certificate (option cert)"),
        ("tls1_3 wants a client certificate", "the server wants a client certificate (option cert)"),
        ("knows another name only", "the server does not know this host name"),
        ("ALPN of another protocol", "accepts no HTTP version"),
        ("1.2 DHE-RSA-AES256-SHA", "ciphers and keys that browsers refuse, such as DHE-RSA-AES256-SHA"),
        ("key ed25519", "browsers do not accept the certificate's kind of key: Ed25519"),
    ],
)
async def test_a_refusal_is_told_in_words(servers: Servers, name: str, words: str) -> None:
    [result] = (await results_of(servers, name)).values()
    assert result.error is not None
    assert words in result.error.message
    assert (result.error.phase, result.error.transient) == ("tls", False)


@pytest.mark.parametrize("form", ["der", "pem", "p7c"])
async def test_an_intermediate_that_is_not_sent_is_fetched_once(servers: Servers, form: str) -> None:
    name = f"no intermediate, but fetchable as {form}"
    fetched = servers[1].fetched.count(f"/intermediate.{form}")
    urls = [f"{servers[0][name]}?{number}" for number in range(3)]
    results = await probe_all(urls, cafile=str(servers[1].cafile), per_host=1, method="GET")
    assert [(result.status, result.tls and result.tls.chain) for result in results] == [(200, "incomplete")] * 3
    assert servers[1].fetched.count(f"/intermediate.{form}") == fetched + 1


async def test_a_chain_with_a_wrong_intermediate_is_called_incomplete(servers: Servers) -> None:
    """Reports: matteocorti/check_ssl_cert#496, ebourg/jsign#339, wjdp/htmltest#130 and rust-lang/rustup#4233."""
    names = (
        "expired intermediate, a newer one fetchable",
        "intermediate with another key, the right one fetchable",
        "root that is not trusted, its cross-certificate fetchable",
    )
    found = await results_of(servers, *names, "wildcard", tls="openssl")
    assert [result.tls and result.tls.chain for result in found.values()] == ["incomplete"] * 3 + [None]


async def test_a_blocked_address_gives_no_intermediate(servers: Servers) -> None:
    """The address guard applies to these requests too: they go where a certificate says."""
    name = "no intermediate, but fetchable as der"
    fetched = len(servers[1].fetched)
    allow = ["127.0.0.1/32", "::1/128"]
    [blocked] = (await results_of(servers, name, guard="public", allow=tuple(allow))).values()
    assert (status_of(blocked), len(servers[1].fetched)) == ("tls.cert.authority_invalid", fetched)
    allow.append(f"{ISSUERS_ADDRESS}/32")
    [allowed] = (await results_of(servers, name, guard="public", allow=tuple(allow))).values()
    assert (status_of(allowed), len(servers[1].fetched)) == (200, fetched + 1)


async def test_a_fetched_certificate_is_never_trusted_by_itself(servers: Servers) -> None:
    """An attacker chooses the URL, so a root from there must not count."""
    [result] = (await results_of(servers, "unknown authority that can be fetched")).values()
    assert status_of(result) == "tls.cert.authority_invalid"
    assert "/stranger.der" in servers[1].fetched


async def test_insecure_accepts_all_certificates(servers: Servers) -> None:
    rows = [row.name for row in ROWS if row.chromium in (NAME, DATE, AUTHORITY, INVALID)]
    for tls in ("auto", "openssl"):
        results = await results_of(servers, *rows, insecure=True, tls=tls)
        assert {name: status_of(result) for name, result in results.items()} == dict.fromkeys(rows, 200)


@pytest.mark.parametrize("tls", ["auto", "openssl"])
async def test_a_self_signed_certificate_can_be_trusted_by_itself(tls: str, tmp_path: Path) -> None:
    """With `CA:FALSE`: curl --cacert, and Chromium 156 with the certificate as a trusted server's (`certutil -t P`)."""
    certificates = Certificates(tmp_path)
    certificates.server.server_close()
    certificate, key, _ = certificates.files(Leaf(issuer="itself"), 0)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    async with Site(tls=context) as site:
        url = site.url("/ok", host="localhost")
        host = f"localhost:{urlsplit(url).port}:127.0.0.1"
        result = await probe_one(url, cafile=str(certificate), resolve=(host,), tls=tls)
        assert status_of(result) == 200
        assert status_of(await probe_one(url, resolve=(host,), tls=tls)) == "tls.cert.authority_invalid"
