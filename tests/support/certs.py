"""Certificates, good and bad: each method makes a server's SSL context with one known fault.

    authority = Authority(tmp_path)
    async with Site(tls=authority.expired("good.test")) as site: ...

A bad certificate is correct otherwise, so that there is one possible reason to refuse it.
"""

import ssl
import warnings
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

LOOPBACK = ("localhost", "127.0.0.1", "127.0.0.2", "::1")
LONG_AGO = datetime(2001, 1, 1, tzinfo=UTC)


class Authority:
    """A certificate authority that keeps its files in `directory`.

    Each method takes the names of the certificate, LOOPBACK by default. It makes one context for the same names, so a
    whole test session can share one Authority.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._root = trustme.CA()
        self._intermediate = self._root.create_child_ca()
        self._stranger = trustme.CA()
        self._contexts: dict[tuple[str, ...], ssl.SSLContext] = {}
        self.cafile = directory / "ca.pem"
        self._root.cert_pem.write_to_path(str(self.cafile))

    def client_context(self) -> ssl.SSLContext:
        """Make a client's context that trusts this authority only."""
        context = ssl.create_default_context(cafile=str(self.cafile))
        # Set since Python 3.13; it refuses certificates that browsers accept. Off, so that all versions agree.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return context

    # --- Valid certificates ---

    def good(self, *names: str) -> ssl.SSLContext:
        return self._context("good", names, self._root.issue_cert)

    def intermediate(self, *names: str) -> ssl.SSLContext:
        """Signed by an intermediate, which the server sends too."""
        return self._context("intermediate", names, self._intermediate.issue_cert)

    def http2(self, *names: str) -> ssl.SSLContext:
        """Of a server that speaks HTTP/2 (ALPN), and HTTP/1.1 too."""
        context = self._context("http2", names, self._root.issue_cert)
        context.set_alpn_protocols(["h2", "http/1.1"])
        return context

    def many_names(self, count: int = 500) -> ssl.SSLContext:
        """LOOPBACK and `count` more names."""
        return self.good(*LOOPBACK, *(f"host{n}.many.test" for n in range(count)))

    # --- Certificates that a client refuses; the numbers are OpenSSL's verify_code ---

    def expired(self, *names: str) -> ssl.SSLContext:
        """10."""
        year = timedelta(days=365)
        issue = partial(self._root.issue_cert, not_before=LONG_AGO, not_after=LONG_AGO + year)
        return self._context("expired", names, issue)

    def not_yet_valid(self, *names: str) -> ssl.SSLContext:
        """9."""
        issue = partial(self._root.issue_cert, not_before=datetime.now(UTC) + timedelta(days=30))
        return self._context("not_yet_valid", names, issue)

    def self_signed(self, *names: str) -> ssl.SSLContext:
        """18."""
        return self._context("self_signed", names, _self_signed)

    def wrong_host(self, name: str = "wrong.test") -> ssl.SSLContext:
        """62 where the client asked for a name, 64 for an address."""
        return self.good(name)

    def unknown_ca(self, *names: str) -> ssl.SSLContext:
        """20."""
        return self._context("unknown_ca", names, self._stranger.issue_cert)

    def unknown_root(self, *names: str) -> ssl.SSLContext:
        """19: as unknown_ca, but the server sends the unknown root too."""
        root = self._stranger.cert_pem.bytes()
        return self._context("unknown_root", names, self._stranger.issue_cert, extra=root)

    def missing_intermediate(self, *names: str) -> ssl.SSLContext:
        """20: signed by an intermediate, which the server does not send."""
        return self._context("missing_intermediate", names, self._intermediate.issue_cert, leaf_only=True)

    # --- Handshakes that fail with any certificate ---

    def old_tls(self, *names: str) -> ssl.SSLContext:
        """TLS 1.0 and 1.1 only."""
        context = self._context("old_tls", names, self._root.issue_cert)
        context.set_ciphers("ALL:@SECLEVEL=0")  # OpenSSL 3 has no signature for them above level 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # deprecated versions on purpose
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        return context

    def no_shared_cipher(self, *names: str) -> ssl.SSLContext:
        """TLS 1.2 with a cipher that no default client offers."""
        context = self._context("no_shared_cipher", names, self._root.issue_cert)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("ECDHE-ECDSA-AES128-CCM")
        return context

    def wants_client_cert(self, *names: str) -> ssl.SSLContext:
        """Requires a client certificate; in TLS 1.3 the refusal comes after the handshake, in place of the response."""
        context = self._context("wants_client_cert", names, self._root.issue_cert)
        context.load_verify_locations(self.cafile)
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _context(
        self,
        kind: str,
        names: tuple[str, ...],
        issue: Callable[..., trustme.LeafCert],
        *,
        leaf_only: bool = False,
        extra: bytes = b"",
    ) -> ssl.SSLContext:
        names = names or LOOPBACK
        if (kind, *names) not in self._contexts:
            leaf = issue(*names)
            chain = leaf.cert_chain_pems[: 1 if leaf_only else None]
            path = self._directory / f"{kind}-{len(self._contexts)}.pem"
            path.write_bytes(leaf.private_key_pem.bytes() + b"".join(pem.bytes() for pem in chain) + extra)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(path)
            context.set_alpn_protocols(["http/1.1"])
            self._contexts[kind, *names] = context
        return self._contexts[kind, *names]


def _self_signed(*names: str) -> trustme.LeafCert:
    # trustme makes no self-signed leaf. The list of names is taken from a leaf that it signs.
    lender = x509.load_pem_x509_certificate(trustme.CA().issue_cert(*names).cert_chain_pems[0].bytes())
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(LONG_AGO)
        .not_valid_after(datetime.now(UTC) + timedelta(days=365))
        .add_extension(lender.extensions.get_extension_for_class(x509.SubjectAlternativeName).value, False)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return trustme.LeafCert(secret, certificate.public_bytes(Encoding.PEM), [])


def write_combined_pem(authority: trustme.CA, folder: Path) -> str:
    """Write a certificate for localhost and its key into one file; returns its path."""
    path = folder / "both.pem"
    leaf = authority.issue_cert("localhost", "127.0.0.1")
    path.write_bytes(b"".join(blob.bytes() for blob in [leaf.private_key_pem, *leaf.cert_chain_pems]))
    return str(path)
