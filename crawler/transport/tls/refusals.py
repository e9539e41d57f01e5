"""Why a server or its certificate was refused: from OpenSSL's error, and from a look at the server."""

import ssl
from typing import Final, NamedTuple

from crawler.core.results import ProbeError, TLSInfo
from crawler.transport.error_mapping import explain, ssl_reason
from crawler.transport.tls.certificates import SubjectNames
from crawler.transport.tls.messages import VERIFY_CODE_MESSAGES, date_message, issuer_message
from crawler.transport.tls.names import describe_names, matches_host
from crawler.transport.tls.report import certificate_of, subject_names

__all__ = [
    "NEEDS_INSPECTION",
    "NO_ISSUER_CODES",
    "Inspection",
    "explain_refusal",
    "explain_refusal_after_handshake",
    "wrong_name",
]

NO_ISSUER_CODES: Final = (20, 21)  # X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY, ..._VERIFY_LEAF_SIGNATURE
_DATE_TYPE: Final = "tls.cert.date_invalid"
_AUTHORITY_TYPE: Final = "tls.cert.authority_invalid"
_CLIENT_CERTIFICATE_TYPE: Final = "tls.bad_client_auth_cert"

# The ends of OpenSSL's reasons that have several causes.
NEEDS_INSPECTION: Final = (
    "ALERT_HANDSHAKE_FAILURE",
    "ALERT_INSUFFICIENT_SECURITY",
    "ALERT_PROTOCOL_VERSION",
    "ALERT_BAD_CERTIFICATE",
    "ALERT_INTERNAL_ERROR",
    "UNSUPPORTED_PROTOCOL",
    "WRONG_SSL_VERSION",
)
# Alerts that come after the handshake if the server refuses the client, in TLS 1.2 after a renegotiation.
_AFTER_HANDSHAKE: Final = ("ALERT_HANDSHAKE_FAILURE", "ALERT_BAD_CERTIFICATE", "ALERT_CERTIFICATE_REQUIRED")


class Inspection(NamedTuple):
    """What a handshake without any rule has shown.

    Attributes:
        info: What it agreed on; None if it failed too.
        path: The leaf and the issuers of each, as far as the server sent them, as DER.
        wants_certificate: Whether the server asked for a client certificate.
    """

    info: TLSInfo | None
    path: list[bytes]
    wants_certificate: bool


def explain_refusal(error: OSError, found: Inspection, host: str, *, has_certificate: bool, now: float) -> ProbeError:
    """Return why OpenSSL refused a server.

    Args:
        error: OpenSSL's error.
        found: A look at the server.
        host: The host of the URL.
        has_certificate: Whether there is a client certificate to send.
        now: Unix time in seconds.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        return _explain_certificate(error, found, host, now)
    problem = explain(error, "tls")
    if found.wants_certificate:
        return _client_certificate(has_certificate=has_certificate)
    if found.info is not None and found.info.version in ("TLSv1", "TLSv1.1"):
        name = {"TLSv1": "TLS 1.0"}.get(found.info.version, "TLS 1.1")
        message = f"the server speaks only {name} or older, which browsers refuse"
        return ProbeError.of("tls.version_or_cipher_mismatch", message)
    if found.info is not None and problem.type == "tls.version_or_cipher_mismatch":
        message = f"the server accepts only ciphers and keys that browsers refuse, such as {found.info.cipher}"
        return ProbeError.of(problem.type, message)
    return problem


def explain_refusal_after_handshake(error: Exception, *, has_certificate: bool) -> ProbeError | None:
    """Return why a server ended TLS instead of a response; None if it is not because of the client's certificate."""
    if isinstance(error, ssl.SSLError) and ssl_reason(error).endswith(_AFTER_HANDSHAKE):
        return _client_certificate(has_certificate=has_certificate)
    return None


def wrong_name(names: SubjectNames, host: str) -> ProbeError:
    """Return the error for a certificate that is for other hosts."""
    return ProbeError.of("tls.cert.name_invalid", f"the certificate is for {describe_names(names)}, not for {host}")


def _explain_certificate(error: ssl.SSLCertVerificationError, found: Inspection, host: str, now: float) -> ProbeError:
    problem = explain(error, "tls")
    certificates = [each for der in found.path if (each := certificate_of(der)) is not None]
    if not certificates:
        return problem
    # Of several faults, the one that browsers report: the authority before the name, the name before the date.
    if problem.type != _AUTHORITY_TYPE and not matches_host(names := subject_names(found.path[0]), host):
        return wrong_name(names, host)
    message: str | None = None
    if problem.type == _DATE_TYPE:
        message = date_message(certificates, now)
    elif error.verify_code in NO_ISSUER_CODES:
        message = issuer_message(certificates)
    return ProbeError.of(problem.type, message or VERIFY_CODE_MESSAGES.get(error.verify_code, problem.message))


def _client_certificate(*, has_certificate: bool) -> ProbeError:
    message = "refused the client certificate" if has_certificate else "wants a client certificate (option cert)"
    return ProbeError.of(_CLIENT_CERTIFICATE_TYPE, f"the server {message}")
