"""TLS servers of many kinds, each an `openssl s_server`: what they offer, and what their certificates are like.

`ROWS` has them, with what Chromium makes of each. `python -m tests.support.tls_servers ca.pem` starts all of them,
writes the authority to trust and prints their URLs, to ask a browser again.
"""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, pkcs7
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

DEADLINE = 20.0
ISSUERS_ADDRESS = "127.0.0.3"
"""Where issuers' certificates can be fetched; the servers themselves are at 127.0.0.1."""

Key = Any  # a private key of `cryptography`
DAY = timedelta(days=1)

OK = "200"
MISMATCH = "ERR_SSL_VERSION_OR_CIPHER_MISMATCH"
PROTOCOL = "ERR_SSL_PROTOCOL_ERROR"
NAME = "ERR_CERT_COMMON_NAME_INVALID"
DATE = "ERR_CERT_DATE_INVALID"
AUTHORITY = "ERR_CERT_AUTHORITY_INVALID"
INVALID = "ERR_CERT_INVALID"
KEY_USAGE = "ERR_SSL_KEY_USAGE_INCOMPATIBLE"
CLIENT = "ERR_BAD_SSL_CLIENT_AUTH_CERT"
UNKNOWN_NAME = "ERR_SSL_UNRECOGNIZED_NAME_ALERT"


@dataclass(frozen=True)
class Leaf:
    """A certificate and what is sent with it. Times are days from now.

    Attributes:
        key: Its kind: rsa and bits, a curve, or ed25519.
        names: Host names and addresses.
        common_name: Of the subject.
        begins: When it becomes valid.
        ends: When it expires.
        issuer: Whose key signs it: intermediate, old (an expired intermediate), ended (a root that is trusted, but has
            expired), lax (no authority), unsigning (its key usage lacks keyCertSign), odd (a trusted root with an
            unknown critical extension), stranger, itself, below (the intermediate of new, a root that is not trusted).
        sends: Which other certificates are sent.
        fetchable: Where the issuer's certificate is: paths and whole URLs, with blanks between them.
        usage: The extended key usage: server, client or none.
        key_usage: The key usage, by OpenSSL's names; empty for none.
    """

    key: str = "p256"
    names: tuple[str, ...] = ("localhost",)
    common_name: str = "localhost"
    begins: int = -30
    ends: int = 90
    issuer: str = "intermediate"
    sends: tuple[str, ...] | None = None
    fetchable: str = ""
    usage: str = "server"
    key_usage: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """One server.

    Attributes:
        name: What it is like.
        chromium: The status or the net error of Chromium.
        leaf: Its certificate.
        arguments: Of `openssl s_server`.
        host: The host of the URL; all names of .test are at 127.0.0.1.
    """

    name: str
    chromium: str
    leaf: Leaf = field(default_factory=Leaf)
    arguments: tuple[str, ...] = ()
    host: str = "localhost"


def _rows() -> Iterator[Row]:
    rsa_leaf = Leaf("rsa2048")

    def cipher(names: str) -> tuple[str, ...]:
        return ("-cipher", f"{names}:@SECLEVEL=0")

    # Cipher suites of TLS 1.3
    for suite in ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"):
        yield Row(f"1.3 {suite}", OK, rsa_leaf, ("-tls1_3", "-ciphersuites", suite))
    for suite in ("TLS_AES_128_CCM_SHA256", "TLS_AES_128_CCM_8_SHA256"):
        yield Row(f"1.3 {suite}", MISMATCH, rsa_leaf, ("-tls1_3", "-ciphersuites", suite))
    # Cipher suites of TLS 1.2
    for names, expected in {
        "ECDHE-RSA-AES128-GCM-SHA256 ECDHE-RSA-AES256-GCM-SHA384 ECDHE-RSA-CHACHA20-POLY1305 ECDHE-RSA-AES128-SHA "
        "ECDHE-RSA-AES256-SHA AES128-GCM-SHA256 AES256-GCM-SHA384 AES128-SHA AES256-SHA": OK,
        "ECDHE-RSA-AES128-SHA256 ECDHE-RSA-AES256-SHA384 AES128-SHA256 AES256-SHA256 DHE-RSA-AES128-GCM-SHA256 "
        "DHE-RSA-AES256-SHA ECDHE-RSA-CAMELLIA128-SHA256 CAMELLIA128-SHA ADH-AES128-SHA AECDH-AES128-SHA NULL-SHA256 "
        "AES128-CCM": MISMATCH,
    }.items():
        for suite in names.split():
            yield Row(f"1.2 {suite}", expected, rsa_leaf, ("-tls1_2", *cipher(suite)))
    for names, expected in {
        "ECDHE-ECDSA-AES128-GCM-SHA256 ECDHE-ECDSA-CHACHA20-POLY1305": OK,
        "ECDHE-ECDSA-AES128-SHA ECDHE-ECDSA-AES256-SHA ECDHE-ECDSA-AES128-SHA256 ECDHE-ECDSA-AES128-CCM": MISMATCH,
    }.items():
        for suite in names.split():
            yield Row(f"1.2 {suite}", expected, Leaf(), ("-tls1_2", *cipher(suite)))
    for first in ("DHE-RSA-AES128-SHA", "AES128-SHA"):
        order = ("-tls1_2", "-serverpref", *cipher(f"{first}:ECDHE-RSA-AES128-SHA"))
        yield Row(f"1.2 prefers {first}, and has ECDHE", OK, rsa_leaf, order)
    # Versions
    yield Row("1.0", MISMATCH, rsa_leaf, ("-tls1", *cipher("ALL")))
    yield Row("1.1", MISMATCH, rsa_leaf, ("-tls1_1", *cipher("ALL")))
    yield Row("1.0 to 1.2", OK, rsa_leaf, ("-no_tls1_3", *cipher("ALL")))
    # Groups. Python's OpenSSL offers more of them than Chromium, which refuses P-521, X448 and ffdhe2048 alone.
    for group in ("X25519", "P-256", "P-384"):
        yield Row(f"1.3 group {group}", OK, rsa_leaf, ("-tls1_3", "-groups", group))
    for group in ("P-256", "P-384", "P-521", "X448"):
        yield Row(f"1.2 group {group}", OK, rsa_leaf, ("-tls1_2", "-groups", group))
    # Keys and signatures
    for key, expected in {"rsa1024": OK, "rsa3072": OK, "p256": OK, "p384": OK, "p521": MISMATCH}.items():
        for version in ("-tls1_2", "-tls1_3"):
            yield Row(f"{version[1:]} key {key}", expected, Leaf(key), (version, *cipher("ALL")))
    yield Row("key ed25519", MISMATCH, Leaf("ed25519"))
    yield Row("1.2 signs with SHA-1", MISMATCH, rsa_leaf,
              ("-tls1_2", "-sigalgs", "RSA+SHA1", *cipher("ECDHE-RSA-AES128-GCM-SHA256")))  # fmt: skip
    for algorithm in ("RSA+SHA256", "RSA-PSS+SHA256", "RSA+SHA512", "RSA-PSS+SHA512"):
        yield Row(f"1.2 signs with {algorithm}", OK, rsa_leaf, ("-tls1_2", "-sigalgs", algorithm))
    # Behaviours
    yield Row("no tickets", OK, arguments=("-no_ticket",))
    yield Row("ALPN http/1.1", OK, arguments=("-alpn", "http/1.1"))
    yield Row("ALPN of another protocol", PROTOCOL, arguments=("-alpn", "xyz"))
    yield Row("small records", OK, arguments=("-split_send_frag", "512"))
    for version in ("-tls1_2", "-tls1_3"):
        yield Row(f"{version[1:]} asks for a client certificate", OK, arguments=(version, "-verify", "1"))
        yield Row(f"{version[1:]} wants a client certificate", CLIENT, arguments=(version, "-Verify", "1"))
    other = ("-servername", "other.test", "-servername_fatal", "-cert2", "{cert}", "-key2", "{key}")
    yield Row("knows another name only", UNKNOWN_NAME, arguments=other)
    # A warning in TLS 1.2, nothing in TLS 1.3 (RFC 6066, 3); haskell-tls/hs-tls#53, yasserg/crawler4j#73
    warns = tuple(argument for argument in other if argument != "-servername_fatal")
    yield Row("tls1_2 knows another name, and goes on", OK, arguments=("-tls1_2", *warns))
    yield Row("tls1_3 knows another name, and goes on", OK, arguments=("-tls1_3", *warns))
    yield from _certificate_rows()


def _certificate_rows() -> Iterator[Row]:
    def named(host: str, *names: str, common_name: str = "localhost") -> dict[str, Any]:
        return {"host": host, "leaf": Leaf(names=names, common_name=common_name)}

    # Names (RFC 9525, 6.3)
    yield Row("wildcard", OK, **named("a.w.test", "*.w.test"))
    yield Row("wildcard and underscore", OK, **named("a_b.w.test", "*.w.test"))
    yield Row("name with underscore", OK, **named("a_b.w.test", "a_b.w.test"))
    yield Row("wildcard for two labels", NAME, **named("a.b.w.test", "*.w.test"))
    yield Row("wildcard for no label", NAME, **named("w.test", "*.w.test"))
    yield Row("two wildcards", NAME, **named("a.b.w.test", "*.*.w.test"))
    yield Row("wildcard in the second label", NAME, **named("a.b.w.test", "a.*.w.test"))
    yield Row("wildcard below the top", NAME, **named("w.test", "*.test"))
    yield Row("name in capitals", OK, **named("a.w.test", "A.W.TEST"))
    yield Row("absolute name", OK, **named("a.w.test.", "a.w.test"))
    yield Row("IP address", OK, **named("127.0.0.1", "127.0.0.1"))
    yield Row("IP address as a DNS name", NAME, **named("127.0.0.1", "DNS:127.0.0.1"))
    yield Row("another name", NAME, **named("localhost", "other.test"))
    yield Row("common name alone", NAME, leaf=Leaf(names=()))
    yield Row("the last of many names", OK, **named("h299.w.test", *(f"h{number}.w.test" for number in range(300))))
    # Dates
    yield Row("expired", DATE, Leaf(ends=-1))
    yield Row("not valid yet", DATE, Leaf(begins=1))
    yield Row("expired, and for another name", NAME, Leaf(ends=-1, names=("other.test",)))
    yield Row("expired intermediate", DATE, Leaf(issuer="old"))
    # Authorities
    yield Row("root sent too", OK, Leaf(sends=("intermediate", "root")))
    yield Row("chain with a certificate that does not belong", OK, Leaf(sends=("stranger", "intermediate")))
    yield Row("chain in reverse", OK, Leaf(sends=("root", "intermediate")))
    # As in May 2020 (AddTrust) and September 2021 (DST Root CA X3); testssl/testssl.sh#1683
    yield Row("expired cross-certificate of the root", OK, Leaf(sends=("intermediate", "cross")))
    yield Row("expired cross-certificate of the root, and its root", OK, Leaf(sends=("intermediate", "cross", "ended")))
    yield Row("unknown authority", AUTHORITY, Leaf(issuer="stranger"))
    yield Row("unknown authority, and expired", AUTHORITY, Leaf(issuer="stranger", ends=-1))
    yield Row("unknown authority, and for another name", AUTHORITY, Leaf(issuer="stranger", names=("other.test",)))
    yield Row("self-signed", AUTHORITY, Leaf(issuer="itself"))
    yield Row("issuer that is no authority", INVALID, Leaf(issuer="lax"))
    yield Row("issuer that may not sign", INVALID, Leaf(issuer="unsigning"))
    yield Row("chain with an authority that may not sign", OK, Leaf(sends=("unsigning", "intermediate")))
    yield Row("authority with an unknown critical extension", INVALID, Leaf(issuer="odd", sends=()))
    # What the key may be used for (RFC 5280, 4.2.1.3)
    signs, encrypts = ("digitalSignature",), ("keyEncipherment",)
    for key in ("p256", "rsa2048"):
        yield Row(f"{key} for signatures", OK, Leaf(key, key_usage=signs))
        yield Row(f"{key} for signatures and encryption", OK, Leaf(key, key_usage=(*signs, *encrypts)))
        yield Row(f"{key} for encryption", KEY_USAGE, Leaf(key, key_usage=encrypts))
    exchange = ("-tls1_2", "-cipher", "AES128-SHA:@SECLEVEL=0")
    yield Row("1.2 RSA for encryption, and used for it", OK, Leaf("rsa2048", key_usage=encrypts), exchange)
    yield Row("1.2 RSA for signatures, and used to encrypt", KEY_USAGE, Leaf("rsa2048", key_usage=signs), exchange)
    yield Row("for clients only", INVALID, Leaf(usage="client"))
    yield Row("without usage", OK, Leaf(usage="none"))
    yield Row("authority that is trusted, but has expired", DATE, Leaf(issuer="ended", sends=()))
    # Size: 70 KiB, more than rustls reads and Python keeps as a session; Chromium reads 100 KiB
    long_names = (f"{number}.{'x' * 60}.test" for number in range(1000))
    yield Row("certificate of 70 KiB", OK, **named("localhost", "localhost", *long_names))
    # Intermediates that are not sent
    yield Row("no intermediate", AUTHORITY, Leaf(sends=()))
    for form in ("der", "pem", "p7c"):
        yield Row(f"no intermediate, but fetchable as {form}", OK, Leaf(sends=(), fetchable=f"/intermediate.{form}"))
    yield Row("no intermediate, another one fetchable", AUTHORITY, Leaf(sends=(), fetchable="/stranger.der"))
    yield Row("no intermediate, nothing at the URL", AUTHORITY, Leaf(sends=(), fetchable="/nothing"))
    yield Row("no intermediate, the third URL is the one", OK,
              Leaf(sends=(), fetchable="ldap://127.0.0.1/cn=I /nothing /intermediate.der"))  # fmt: skip
    yield Row("no intermediate, but a redirect to it", OK, Leaf(sends=(), fetchable="/moved"))
    yield Row("no intermediate, but fetchable as PEM with text", OK, Leaf(sends=(), fetchable="/text"))
    # Intermediates that are not the right ones, which can be fetched
    yield Row("expired intermediate, a newer one fetchable", OK, Leaf(issuer="old", fetchable="/renewed.der"))
    yield Row("expired intermediate, the same fetchable", DATE, Leaf(issuer="old", fetchable="/old.der"))
    yield Row(
        "expired, and a newer intermediate fetchable", DATE, Leaf(ends=-1, issuer="old", fetchable="/renewed.der")
    )
    yield Row("intermediate with another key, the right one fetchable", OK,
              Leaf(sends=("impostor",), fetchable="/intermediate.der"))  # fmt: skip
    yield Row("root that is not trusted, its cross-certificate fetchable", OK,
              Leaf(issuer="below", sends=("below", "new")))  # fmt: skip
    # A policy that an authority requires (RFC 5280, 4.2.1.11)
    yield Row("authority that requires a policy, which is missing", INVALID, Leaf(issuer="policy"))
    # Names that an authority may sign (RFC 5280, 4.2.1.10)
    for names, expected in {"w.test": OK, ".w.test": OK, "W.Test": OK, "other.test": INVALID}.items():
        yield Row(
            f"authority for {names} only", expected, Leaf(names=("a.w.test",), issuer=f"for {names}"), (), "a.w.test"
        )
    yield Row("unknown authority that can be fetched", AUTHORITY, Leaf(issuer="stranger", fetchable="/stranger.der"))


ROWS = tuple(_rows())


class Certificates:
    """Makes the certificates of `ROWS` in a directory, and serves those that can be fetched."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._served: dict[str, bytes] = {}
        self._fetched: list[str] = []
        self.server = ThreadingHTTPServer((ISSUERS_ADDRESS, 0), self._handler())
        root = self._authority("Root", None, "root")
        self._authorities = {"root": root, "stranger": self._authority("Stranger", None, "stranger")}
        self._authorities["intermediate"] = self._authority("Intermediate", root, "intermediate")
        self._authorities["old"] = self._authority("Old Intermediate", root, "old", ends=-1)
        self._authorities["lax"] = self._authority("No Authority", root, "lax", is_authority=False)
        unsigning = _key_usage("digitalSignature")
        self._authorities["unsigning"] = self._authority("Unsigning", root, "unsigning", extension=unsigning)
        unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4.5"), b"\x05\x00")
        self._authorities["odd"] = self._authority("Odd Root", None, "odd", extension=unknown)
        self._authorities["impostor"] = self._authority("Intermediate", root, "impostor")
        old_key = self._authorities["old"][1]
        self._authorities["renewed"] = self._authority("Old Intermediate", root, "renewed", key=old_key)
        new = self._authorities["new"] = self._authority("New Root", None, "new")
        self._authorities["crossed"] = self._authority("New Root", root, "crossed", key=new[1])
        self._authorities["below"] = self._authority("Below", new, "below", fetchable="/crossed.der")
        policy = x509.PolicyConstraints(require_explicit_policy=0, inhibit_policy_mapping=None)
        self._authorities["policy"] = self._authority("Policy", root, "policy", extension=policy)
        for names in ("w.test", ".w.test", "W.Test", "other.test"):
            constraint = x509.NameConstraints([x509.DNSName(names)], None)
            self._authorities[f"for {names}"] = self._authority(f"For {names}", root, names, extension=constraint)
        self._served["/text"] = b"Bag Attributes\n    friendlyName: I\n" + self._served["/intermediate.pem"]
        self._authorities["ended"] = self._authority("Ended Root", None, "ended", ends=-1)
        ended = self._authorities["ended"]
        self._authorities["cross"] = self._authority("Root", ended, "cross", ends=-1, key=root[1])
        self.cafile = self._write("root.pem", *(self._authorities[name][0] for name in ("root", "ended", "odd")))

    @property
    def fetched(self) -> list[str]:
        """The paths of the certificates that were fetched."""
        return list(self._fetched)

    def files(self, leaf: Leaf, number: int) -> tuple[Path, Path, Path | None]:
        """Return the files with a leaf, with its key, and with the other certificates that are sent."""
        key = _private_key(leaf.key)
        issuer = ("", key) if leaf.issuer == "itself" else self._authorities[leaf.issuer]
        certificate = self._leaf(leaf, key, issuer)
        key_file = self._directory / f"{number}.key"
        key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        sends = leaf.sends
        if sends is None:
            sends = () if leaf.issuer in ("itself", "stranger") else (leaf.issuer,)
        chain = [self._authorities[name][0] for name in sends]
        chain_file = self._write(f"{number}-chain.pem", *chain) if chain else None
        return self._write(f"{number}.pem", certificate), key_file, chain_file

    def _authority(
        self,
        name: str,
        issuer: tuple[Any, Key] | None,
        path: str,
        *,
        ends: int = 400,
        is_authority: bool = True,
        extension: x509.ExtensionType | None = None,
        key: Key = None,
        fetchable: str = "",
    ) -> tuple[Any, Key]:
        key = key or ec.generate_private_key(ec.SECP256R1())
        issuer_name = issuer[0].subject if issuer else _name(name)
        builder = _builder(_name(name), issuer_name, key, -400, ends)
        builder = builder.add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        if extension is not None:
            builder = builder.add_extension(extension, critical=True)
        if fetchable:
            builder = builder.add_extension(self._issuers_at(fetchable), critical=False)
        certificate = builder.sign(issuer[1] if issuer else key, hashes.SHA256())
        der = certificate.public_bytes(Encoding.DER)
        self._served[f"/{path}.der"] = der
        self._served[f"/{path}.pem"] = certificate.public_bytes(Encoding.PEM)
        self._served[f"/{path}.p7c"] = pkcs7.serialize_certificates([certificate], Encoding.DER)
        return certificate, key

    def _leaf(self, leaf: Leaf, key: Key, issuer: tuple[Any, Key]) -> x509.Certificate:
        name = _name(leaf.common_name)
        builder = _builder(name, issuer[0].subject if issuer[0] else name, key, leaf.begins, leaf.ends)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        if leaf.names:
            builder = builder.add_extension(x509.SubjectAlternativeName([_general(each) for each in leaf.names]), False)
        if leaf.usage != "none":
            usage = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "client": ExtendedKeyUsageOID.CLIENT_AUTH}[leaf.usage]
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if leaf.key_usage:
            builder = builder.add_extension(_key_usage(*leaf.key_usage), critical=True)
        if leaf.fetchable:
            builder = builder.add_extension(self._issuers_at(leaf.fetchable), critical=False)
        return builder.sign(issuer[1], hashes.SHA256())

    def _issuers_at(self, places: str) -> x509.AuthorityInformationAccess:
        site = f"http://{ISSUERS_ADDRESS}:{self.server.server_port}"
        urls = [f"{site}{place}" if place.startswith("/") else place for place in places.split()]
        return x509.AuthorityInformationAccess(
            x509.AccessDescription(AuthorityInformationAccessOID.CA_ISSUERS, x509.UniformResourceIdentifier(url))
            for url in urls
        )

    def _write(self, file: str, *certificates: x509.Certificate) -> Path:
        path = self._directory / file
        path.write_bytes(b"".join(each.public_bytes(Encoding.PEM) for each in certificates))
        return path

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        served, fetched = self._served, self._fetched

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                fetched.append(self.path)
                body = served.get(self.path, b"")
                self.send_response(200 if body else 301 if self.path == "/moved" else 404)
                self.send_header("Location", "/intermediate.der")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


@contextmanager
def running_servers(rows: tuple[Row, ...] = ROWS) -> Iterator[tuple[Mapping[str, str], Certificates]]:
    """Start a server for each row; yields their URLs by the row's name, and the certificates."""
    with TemporaryDirectory() as directory:
        certificates = Certificates(Path(directory))
        threading.Thread(target=certificates.server.serve_forever, daemon=True).start()
        started: list[tuple[Row, subprocess.Popen[bytes], Path]] = []
        try:
            for number, row in enumerate(rows):
                log = Path(directory) / f"{number}.log"
                started.append((row, _start(row, certificates.files(row.leaf, number), log), log))
            yield (
                {row.name: f"https://{row.host}:{_port(process, log)}/" for row, process, log in started},
                certificates,
            )
        finally:
            for _, process, _ in started:
                process.kill()
            for _, process, _ in started:
                process.wait()
            certificates.server.shutdown()
            certificates.server.server_close()


def _start(row: Row, files: tuple[Path, Path, Path | None], log: Path) -> subprocess.Popen[bytes]:
    cert, key, chain = files
    command = ["openssl", "s_server", "-accept", "127.0.0.1:0", "-www", "-cert", str(cert), "-key", str(key)]
    command += ["-cert_chain", str(chain)] if chain else []
    command += [argument.format(cert=cert, key=key) for argument in row.arguments]
    with log.open("wb") as output:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    """Wait until a server listens; return its port."""
    began = time.monotonic()
    while (line := log.read_bytes().partition(b"ACCEPT ")[2]).find(b"\n") < 0:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() - began < DEADLINE, log.read_text()
        time.sleep(0.005)
    return int(line.split(b"\n")[0].rpartition(b":")[2])


@cache
def _private_key(kind: str) -> Key:
    if kind.startswith("rsa"):
        return rsa.generate_private_key(65537, int(kind.removeprefix("rsa")))
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return ec.generate_private_key({"p256": ec.SECP256R1(), "p384": ec.SECP384R1(), "p521": ec.SECP521R1()}[kind])


def _key_usage(*names: str) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature="digitalSignature" in names,
        key_encipherment="keyEncipherment" in names,
        content_commitment=False, data_encipherment=False, key_agreement=False, key_cert_sign=False, crl_sign=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general(name: str) -> x509.GeneralName:
    if name.startswith("DNS:"):
        return x509.DNSName(name.removeprefix("DNS:"))
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _builder(subject: x509.Name, issuer: x509.Name, key: Key, begins: int, ends: int) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    first, last = now + begins * DAY, now + ends * DAY
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(first, last - DAY))
        .not_valid_after(last)
    )


if __name__ == "__main__":
    with running_servers() as (urls, made):
        Path(sys.argv[1]).write_bytes(made.cafile.read_bytes())
        for name, url in urls.items():
            print(f"{url}\t{name}", flush=True)
        sys.stdin.read()
