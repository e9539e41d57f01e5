"""What results report about a TLS connection, in the same form for both libraries."""

import ssl
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

from crawler.core.results import TLSInfo
from crawler.transport.tls.certificates import (
    Certificate,
    CertificateError,
    KeyUsage,
    SubjectNames,
    is_usable_authority,
    parse_certificate,
    parse_key_usage,
    parse_subject_names,
)
from crawler.transport.tls.rustls import RustlsSocket

__all__ = ["certificate_of", "describe_tls", "find_path", "has_usable_issuers", "key_usage", "subject_names"]


def describe_tls(
    connection: ssl.SSLSocket | ssl.SSLObject | RustlsSocket, chain: Literal["incomplete"] | None = None
) -> TLSInfo:
    """Return what a finished handshake agreed on, and fields of the server's certificate, verified or not."""
    engine: Literal["rustls", "openssl"]
    if isinstance(connection, RustlsSocket):
        engine, cipher_name = "rustls", connection.cipher_name()
        der = next(iter(connection.chain()), None)
    else:
        engine, cipher = "openssl", connection.cipher()
        cipher_name = cipher[0] if cipher else None
        der = connection.getpeercert(binary_form=True)
    certificate = None if der is None else certificate_of(der)
    if certificate is None:
        return TLSInfo(connection.version(), cipher_name, engine=engine, alpn=connection.selected_alpn_protocol())
    return TLSInfo(
        version=connection.version(),
        cipher=cipher_name,
        issuer=certificate.issuer,
        subject=certificate.subject,
        not_after=certificate.not_after,
        days_left=int((certificate.not_after - time.time()) // 86400),
        chain=chain,
        engine=engine,
        alpn=connection.selected_alpn_protocol(),
    )


@lru_cache(maxsize=1024)  # each connection to a host shows the same certificate
def certificate_of(der: bytes) -> Certificate | None:
    """Parse a certificate; None if it cannot be parsed."""
    try:
        return parse_certificate(der)
    except CertificateError:
        return None


@lru_cache(maxsize=1024)
def subject_names(der: bytes) -> SubjectNames:
    """Return the hosts that a certificate is for."""
    return parse_subject_names(der)


@lru_cache(maxsize=1024)
def key_usage(der: bytes) -> KeyUsage | None:
    """Return what the key of a certificate may be used for; None if the certificate does not say."""
    return parse_key_usage(der)


def has_usable_issuers(chain: Sequence[bytes]) -> bool:
    """Whether each subject after the first certificate has one that an authority may use; a chain may have several."""
    unusable = [der for der in chain[1:] if not _is_usable_authority(der)]
    if not unusable:
        return True
    usable = {each.subject_name for der in chain[1:] if der not in unusable and (each := certificate_of(der))}
    return all((each := certificate_of(der)) is not None and each.subject_name in usable for der in unusable)


_is_usable_authority = lru_cache(maxsize=1024)(is_usable_authority)


def find_path(chain: Sequence[bytes]) -> list[bytes]:
    """Return the leaf of a chain, its issuer, that one's issuer and so on, as far as the chain has them."""
    path = list(chain[:1])
    rest = list(chain[1:])
    while path and rest:
        last = certificate_of(path[-1])
        issuer = next((der for der in rest if last and _is_issuer(der, last)), None)
        if issuer is None:
            break
        path.append(issuer)
        rest.remove(issuer)
    return path


def _is_issuer(der: bytes, certificate: Certificate) -> bool:
    issuer = certificate_of(der)
    return issuer is not None and issuer.subject_name == certificate.issuer_name
