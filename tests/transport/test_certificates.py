"""Certificates are parsed as by `cryptography`, refused if malformed, and reported whatever the result is."""

import asyncio
import re
import ssl
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import AuthorityInformationAccessOID, NameOID
from hypothesis import example, given, settings
from hypothesis import strategies as st

from crawler.transport.tls.certificates import Certificate, CertificateError, parse_certificate
from tests.support.certs import Authority
from tests.support.probing import probe_all, probe_one, status_of
from tests.support.site import Site

# --- DER, written by hand: no library makes certificates as odd as those of some servers ---

SEQUENCE, SET, OID, INTEGER, OCTETS, UTC_TIME, GENERAL_TIME = 0x30, 0x31, 0x06, 0x02, 0x04, 0x17, 0x18
ENCODINGS = {
    0x0C: "utf-8",  # UTF8String
    0x13: "ascii",  # PrintableString
    0x16: "ascii",  # IA5String
    0x1C: "utf-32-be",  # UniversalString
    0x1E: "utf-16-be",  # BMPString
}
COMMON_NAME, ORGANISATION, UNIT = (bytes.fromhex(f"5504{last:02x}") for last in (3, 10, 11))
ECDSA_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")
ALTERNATIVE_NAMES = bytes.fromhex("551d11")


def element(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes([tag, 0x80 | len(length)]) + length + content


def name(*attributes: tuple[bytes, int, bytes]) -> bytes:
    """Return a Name of (attribute type, string type, content)."""
    return element(
        SEQUENCE, *(element(SET, element(SEQUENCE, element(OID, k), element(tag, v))) for k, tag, v in attributes)
    )


def point(moment: datetime, *, tag: int = GENERAL_TIME) -> bytes:
    text = moment.strftime("%Y%m%d%H%M%SZ").zfill(15)
    return element(tag, (text[2:] if tag == UTC_TIME else text).encode())


@cache
def public_key() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def certificate(
    subject: bytes,
    *,
    issuer: bytes | None = None,
    begins: bytes = point(datetime(2020, 1, 1)),
    ends: bytes = point(datetime(2050, 1, 1)),
    version: int = 3,
    hosts: Sequence[str] = (),
) -> bytes:
    """Return a certificate without a valid signature."""
    alternatives = element(SEQUENCE, *(element(0x82, host.encode()) for host in hosts))
    extension = element(SEQUENCE, element(OID, ALTERNATIVE_NAMES), element(OCTETS, alternatives))
    signed = element(
        SEQUENCE,
        element(0xA0, element(INTEGER, bytes([version - 1]))) if version > 1 else b"",
        element(INTEGER, b"\x05"),
        ECDSA_SHA256,
        subject if issuer is None else issuer,
        element(SEQUENCE, begins, ends),
        subject,
        public_key(),
        element(0xA3, element(SEQUENCE, extension)) if hosts else b"",
    )
    return element(SEQUENCE, signed, ECDSA_SHA256, element(0x03, b"\0signature"))


def as_cryptography_reads_it(der: bytes) -> Certificate:
    read = x509.load_der_x509_certificate(der)
    try:
        access = read.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    except x509.ExtensionNotFound:
        has_issuer_url = False
    else:
        has_issuer_url = any(a.access_method == AuthorityInformationAccessOID.CA_ISSUERS for a in access)
    return Certificate(
        issuer=_shown(read.issuer),
        subject=_shown(read.subject),
        not_before=int(read.not_valid_before_utc.timestamp()),
        not_after=int(read.not_valid_after_utc.timestamp()),
        issuer_name=_content(read.issuer),
        subject_name=_content(read.subject),
        rejected_key=None,
        has_issuer_url=has_issuer_url,
    )


def _content(entries: x509.Name) -> bytes:
    """Return a name as DER, without the tag and the length."""
    der = entries.public_bytes()
    return der[2 + (der[1] & 0x7F if der[1] & 0x80 else 0) :]


def _shown(entries: x509.Name) -> str | None:
    for kind in (NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME):
        if (values := entries.get_attributes_for_oid(kind)) and (last := str(values[-1].value)):
            return last
    return None


# --- Accepted ---

GOOD = ["good", "intermediate", "many_names"]
REFUSED = {
    "expired": "tls.cert.date_invalid",
    "not_yet_valid": "tls.cert.date_invalid",
    "wrong_host": "tls.cert.name_invalid",
    "self_signed": "tls.cert.authority_invalid",
    "unknown_ca": "tls.cert.authority_invalid",
    "unknown_root": "tls.cert.authority_invalid",
    "missing_intermediate": "tls.cert.authority_invalid",
}


async def sent_by(site: Site) -> bytes:
    """Return the leaf that a site sends, as DER, fetched by the standard library."""
    pem = await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", site.port))
    return ssl.PEM_cert_to_DER_cert(pem)


@pytest.mark.parametrize("kind", [*GOOD, *REFUSED])
async def test_a_real_certificate_is_read_as_cryptography_reads_it(kind: str, authority: Authority) -> None:
    async with Site(tls=getattr(authority, kind)()) as site:
        der = await sent_by(site)
    assert parse_certificate(der) == as_cryptography_reads_it(der)


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=16)  # 64 bytes at most (X.520)
plain = st.text("abcXYZ019 .-'()+,/:=?", min_size=1, max_size=64)
attributes = st.tuples(
    st.sampled_from([COMMON_NAME, ORGANISATION, UNIT]),
    st.sampled_from(sorted(ENCODINGS)).flatmap(
        lambda tag: st.tuples(st.just(tag), plain if ENCODINGS[tag] == "ascii" else texts)
    ),
).map(lambda made: (made[0], made[1][0], made[1][1].encode(ENCODINGS[made[1][0]])))
any_name = st.lists(attributes, max_size=6).map(lambda made: name(*made))
points = st.datetimes(datetime(1950, 1, 1), datetime(2049, 12, 31)).map(lambda at: point(at, tag=UTC_TIME)) | (
    st.datetimes(datetime(1900, 1, 1), datetime(9999, 12, 31)).map(point)
)
any_certificate = st.builds(
    certificate,
    any_name,
    issuer=any_name | st.none(),
    begins=points,
    ends=points,
    hosts=st.integers(1, 500).map(lambda count: [f"host{number}.test" for number in range(count)]),
)


@given(any_certificate)
@settings(max_examples=200, deadline=None)
@example(certificate(name()))
@example(certificate(name((ORGANISATION, 0x0C, b"no common name"))))
@example(certificate(name((UNIT, 0x0C, b"neither"))))
@example(certificate(name((COMMON_NAME, 0x0C, b"general")), issuer=name((COMMON_NAME, 0x0C, b"special"))))
@example(certificate(name((COMMON_NAME, 0x0C, b"first"), (COMMON_NAME, 0x0C, b"last"))))
def test_any_certificate_is_read_as_cryptography_reads_it(der: bytes) -> None:
    assert parse_certificate(der) == as_cryptography_reads_it(der)


@pytest.mark.parametrize(
    ("tag", "content", "shown"),
    [
        (0x0C, "z\u00fcrich \u6771\u4eac \U0001f600".encode(), "z\u00fcrich \u6771\u4eac \U0001f600"),
        (0x13, b"Plain, Inc.", "Plain, Inc."),
        (0x16, b"plain@test", "plain@test"),
        (0x1E, "z\u00fcrich \u6771\u4eac".encode("utf-16-be"), "z\u00fcrich \u6771\u4eac"),
        (0x1C, "z\u00fcrich".encode("utf-32-be"), "z\u00fcrich"),
        (0x14, b"z\xfcrich", "z\u00fcrich"),  # TeletexString: in practice Latin-1
        # Malformed: decoded as far as possible, and without what JSON cannot carry.
        (0x0C, b"bad \xff", "bad \ufffd"),
        (0x1E, b"\xd8\x00\0a", "\ufffda"),
        (0x1E, b"\0a\0", "a\ufffd"),
    ],
)
def test_names_come_in_several_encodings(tag: int, content: bytes, shown: str) -> None:
    assert parse_certificate(certificate(name((COMMON_NAME, tag, content)))).subject == shown


def test_the_first_version_has_no_version() -> None:
    der = certificate(name((COMMON_NAME, 0x0C, b"old")), version=1)
    assert x509.load_der_x509_certificate(der).version is x509.Version.v1
    assert parse_certificate(der) == as_cryptography_reads_it(der)


@pytest.mark.parametrize(
    ("text", "tag", "moment"),
    [
        (b"500101000000Z", UTC_TIME, datetime(1950, 1, 1, tzinfo=UTC)),
        (b"491231235959Z", UTC_TIME, datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC)),
        (b"20500101000000Z", GENERAL_TIME, datetime(2050, 1, 1, tzinfo=UTC)),
        (b"99991231235959Z", GENERAL_TIME, datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
    ],
)
def test_times_come_in_two_forms(text: bytes, tag: int, moment: datetime) -> None:
    der = certificate(name(), ends=element(tag, text))
    assert parse_certificate(der).not_after == moment.timestamp()


# --- Refused ---


@pytest.mark.parametrize(
    "text", [b"", b"Z", b"20201301000000Z", b"20200132000000Z", b"20200101250000Z", b"2020010100000", b"\xff",
             b"00000101000000Z", b"20200101000000+0100", b"-0200101000000Z", b"20200101000000z"],
)  # fmt: skip
def test_a_malformed_time_is_refused(text: bytes) -> None:
    with pytest.raises(CertificateError):
        parse_certificate(certificate(name(), ends=element(GENERAL_TIME, text)))


def accepts(der: bytes) -> bool:
    """Return whether the bytes are parsed; only a CertificateError means no."""
    try:
        parse_certificate(der)
    except CertificateError:
        return False
    return True


@given(st.binary(max_size=200))
@settings(max_examples=500, deadline=None)
@example(b"")
@example(b"\x30")
@example(b"\x30\x80")
@example(b"\x30\x84\xff\xff\xff\xff")
@example(b"\x30\xff" + b"\xff" * 127)
@example(b"\x30\x00" * 100)
def test_other_bytes_are_refused(der: bytes) -> None:
    assert not accepts(der)


async def test_a_real_certificate_cut_anywhere_is_refused(authority: Authority) -> None:
    async with Site(tls=authority.good()) as site:
        der = await sent_by(site)
    assert not any(accepts(der[:size]) for size in range(len(der)))


async def test_a_real_certificate_with_any_bit_flipped_raises_nothing_else(authority: Authority) -> None:
    async with Site(tls=authority.good()) as site:
        der = await sent_by(site)
    for place in range(len(der)):
        for bit in range(8):
            flipped = bytearray(der)
            flipped[place] ^= 1 << bit
            accepts(bytes(flipped))


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_certificate_with_replaced_parts_raises_nothing_else(data: st.DataObject) -> None:
    der = certificate(name((COMMON_NAME, 0x1E, b"\0a")), hosts=["a.test"])
    start = data.draw(st.integers(0, len(der)))
    end = data.draw(st.integers(start, min(len(der), start + 20)))
    accepts(der[:start] + data.draw(st.binary(max_size=20)) + der[end:])


# --- Reported by a probe ---


@pytest.mark.parametrize("kind", [*GOOD, *REFUSED])
@pytest.mark.parametrize("insecure", [False, True])
async def test_every_certificate_is_reported_whatever_the_result_is(
    kind: str, insecure: bool, authority: Authority
) -> None:
    async with Site(tls=getattr(authority, kind)()) as site:
        expected = as_cryptography_reads_it(await sent_by(site))
        url = site.url("/ok", host="localhost")
        result = await probe_one(url, cafile=str(authority.cafile), insecure=insecure)
    assert status_of(result) == (200 if insecure else REFUSED.get(kind, 200))
    assert result.tls is not None
    assert result.tls.version == "TLSv1.3"
    assert (result.tls.issuer, result.tls.subject) == (expected.issuer, expected.subject)
    assert result.tls.not_after == expected.not_after
    assert result.tls.days_left == int((expected.not_after - time.time()) // 86400)
    if kind == "expired":
        assert result.tls.days_left < -8000


async def test_the_connections_after_a_refused_certificate_send_no_request(authority: Authority) -> None:
    """One for each library, and one to read the certificate."""
    async with Site(tls=authority.expired()) as site:
        result = await probe_one(site.url("/ok", host="localhost"), cafile=str(authority.cafile), retries=3)
    assert status_of(result) == "tls.cert.date_invalid"
    assert (site.requests, site.connections, len(result.hops)) == ([], 3, 1)


async def test_a_kept_connection_reports_the_same_certificate(authority: Authority) -> None:
    async with Site(tls=authority.good()) as site:
        urls = [site.url(f"/ok?{number}", host="localhost") for number in range(5)]
        results = await probe_all(urls, cafile=str(authority.cafile), per_host=1)
    assert site.connections == 1
    assert len({str(result.tls) for result in results}) == 1
    assert results[0].tls is not None


class Chain:
    """A root, an intermediate, and a leaf for localhost with the URL of its issuer's certificate."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        self._root = _issue("The Root", root_key, "The Root", root_key)
        self._intermediate = _issue("The Intermediate", key, "The Root", root_key)
        self._leaf_key = ec.generate_private_key(ec.SECP256R1())
        self._leaf = _issue("localhost", self._leaf_key, "The Intermediate", key)
        self.cafile = str(self._write("root.pem", self._root))

    def sending(self, *, intermediate: bool) -> ssl.SSLContext:
        secret = self._leaf_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        sent = [self._leaf, self._intermediate] if intermediate else [self._leaf]
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._write("leaf.pem", *sent, secret=secret))
        return context

    def _write(self, file: str, *certificates: x509.Certificate, secret: bytes = b"") -> Path:
        path = self._directory / file
        path.write_bytes(secret + b"".join(each.public_bytes(Encoding.PEM) for each in certificates))
        return path


def _issue(
    subject: str, key: ec.EllipticCurvePrivateKey, issuer: str, signer: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    is_leaf = subject == "localhost"
    where = x509.UniformResourceIdentifier("http://ca.test/issuer.crt")
    access = x509.AuthorityInformationAccess([x509.AccessDescription(AuthorityInformationAccessOID.CA_ISSUERS, where)])
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(days=1))
        .not_valid_after(datetime.now(UTC) + timedelta(days=90))
        .add_extension(x509.BasicConstraints(ca=not is_leaf, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(access, critical=False)
        .sign(signer, hashes.SHA256())
    )


async def message_of(site: Site, cafile: object) -> str:
    result = await probe_one(site.url("/ok", host="localhost"), cafile=str(cafile))
    assert status_of(result) == "tls.cert.authority_invalid"
    assert result.error is not None
    return result.error.message


async def test_a_complete_chain_is_accepted(tmp_path: Path) -> None:
    chain = Chain(tmp_path)
    async with Site(tls=chain.sending(intermediate=True)) as site:
        assert status_of(await probe_one(site.url("/ok", host="localhost"), cafile=chain.cafile)) == 200


async def test_an_incomplete_chain_is_called_incomplete(tmp_path: Path) -> None:
    chain = Chain(tmp_path)
    async with Site(tls=chain.sending(intermediate=False)) as site:
        message = await message_of(site, chain.cafile)
    assert re.match("incomplete chain: .* The Intermediate$", message)


async def test_an_untrusted_authority_is_called_unknown(tmp_path: Path, authority: Authority) -> None:
    async with Site(tls=Chain(tmp_path).sending(intermediate=True)) as site:
        assert await message_of(site, authority.cafile) == "unknown authority: The Root"


@pytest.mark.parametrize("kind", ["unknown_ca", "missing_intermediate"])
async def test_a_private_authority_is_called_unknown(kind: str, authority: Authority) -> None:
    """Certificates of a company's own authority have no URL of their issuer's certificate."""
    async with Site(tls=getattr(authority, kind)()) as site:
        issuer = as_cryptography_reads_it(await sent_by(site)).issuer
        assert await message_of(site, authority.cafile) == f"unknown authority: {issuer}"


@pytest.mark.parametrize("kind", ["self_signed", "unknown_root"])
async def test_openssl_names_the_other_reasons(kind: str, authority: Authority) -> None:
    async with Site(tls=getattr(authority, kind)()) as site:
        assert "self-signed certificate" in await message_of(site, authority.cafile)
