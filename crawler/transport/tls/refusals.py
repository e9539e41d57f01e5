"""Find the error for a server that OpenSSL refused, from OpenSSL's exception and an inspection of the server."""

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
    "Inspection",
    "explain_refusal",
    "explain_refusal_after_handshake",
    "is_incomplete",
    "may_be_due_to_issuers",
    "wrong_name_error",
]

_NO_ISSUER_CODES: Final = (20, 21)  # X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY, ..._VERIFY_LEAF_SIGNATURE
_EXPIRED_CODE: Final = 10  # X509_V_ERR_CERT_HAS_EXPIRED: any certificate of the chain
# X509_V_ERR_CERT_SIGNATURE_FAILURE, ..._SELF_SIGNED_CERT_IN_CHAIN, ..._INVALID_CA
_WRONG_ISSUER_CODES: Final = (7, 19, 24)
_DATE_TYPE: Final = "tls.cert.date_invalid"
_AUTHORITY_TYPE: Final = "tls.cert.authority_invalid"
_CLIENT_CERTIFICATE_TYPE: Final = "tls.bad_client_auth_cert"

# Reasons of OpenSSL that have several causes, without their prefix: an inspection finds the cause.
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
    """What a handshake that accepts everything has shown.

    Attributes:
        info: The version, the cipher and the certificate; None if this handshake failed too.
        path: The server's certificate, its issuer, that one's issuer and so on, as far as the server sent them, as DER.
        wants_certificate: Whether the server asked for a client certificate.
    """

    info: TLSInfo | None
    path: list[bytes]
    wants_certificate: bool


def is_incomplete(error: Exception) -> bool:
    """Whether OpenSSL refused a certificate because the issuer of one in its chain is missing."""
    return isinstance(error, ssl.SSLCertVerificationError) and error.verify_code in _NO_ISSUER_CODES


def may_be_due_to_issuers(error: Exception, inspection: Inspection, now: float) -> bool:
    """Whether other intermediates than those that the server sent may make its certificate acceptable.

    Args:
        error: OpenSSL's exception.
        inspection: What the server is like.
        now: Unix time in seconds.
    """
    leaf = certificate_of(inspection.path[0]) if inspection.path else None
    if leaf is None or not isinstance(error, ssl.SSLCertVerificationError):
        return False
    code = error.verify_code
    is_leaf_valid = code != _EXPIRED_CODE or leaf.not_after > now
    return is_leaf_valid and code in (*_NO_ISSUER_CODES, *_WRONG_ISSUER_CODES, _EXPIRED_CODE)


def explain_refusal(
    error: OSError, inspection: Inspection, host: str, *, has_certificate: bool, now: float
) -> ProbeError:
    """Return why OpenSSL refused a server.

    Args:
        error: OpenSSL's exception.
        inspection: What the server is like.
        host: The host of the URL.
        has_certificate: Whether there is a client certificate to send.
        now: Unix time in seconds.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        return _explain_certificate(error, inspection, host, now)
    problem, info = explain(error, "tls"), inspection.info
    if inspection.wants_certificate:
        return _client_certificate_error(has_certificate=has_certificate)
    if info is not None and info.version in ("TLSv1", "TLSv1.1"):
        name = {"TLSv1": "TLS 1.0"}.get(info.version, "TLS 1.1")
        message = f"the server speaks only {name} or older, which browsers refuse"
        return ProbeError.of("tls.version_or_cipher_mismatch", message)
    if info is not None and problem.type == "tls.version_or_cipher_mismatch":
        message = f"the server accepts only ciphers and keys that browsers refuse, such as {info.cipher}"
        return ProbeError.of(problem.type, message)
    return problem


def explain_refusal_after_handshake(error: Exception, *, has_certificate: bool) -> ProbeError | None:
    """Return the error of a server that ended TLS for lack of a client certificate; None if it had another reason."""
    if isinstance(error, ssl.SSLError) and ssl_reason(error).endswith(_AFTER_HANDSHAKE):
        return _client_certificate_error(has_certificate=has_certificate)
    return None


def wrong_name_error(names: SubjectNames, host: str) -> ProbeError:
    """Return the error for a certificate that is for other hosts."""
    return ProbeError.of("tls.cert.name_invalid", f"the certificate is for {describe_names(names)}, not for {host}")


def _explain_certificate(
    error: ssl.SSLCertVerificationError, inspection: Inspection, host: str, now: float
) -> ProbeError:
    problem = explain(error, "tls")
    certificates = [each for der in inspection.path if (each := certificate_of(der)) is not None]
    if not certificates:
        return problem
    # Report one of several faults as browsers do: the authority before the name, the name before the date.
    if problem.type != _AUTHORITY_TYPE and not matches_host(names := subject_names(inspection.path[0]), host):
        return wrong_name_error(names, host)
    message: str | None = None
    if problem.type == _DATE_TYPE:
        message = date_message(certificates, now)
    elif error.verify_code in _NO_ISSUER_CODES:
        message = issuer_message(certificates)
    return ProbeError.of(problem.type, message or VERIFY_CODE_MESSAGES.get(error.verify_code, problem.message))


def _client_certificate_error(*, has_certificate: bool) -> ProbeError:
    message = "refused the client certificate" if has_certificate else "wants a client certificate (option cert)"
    return ProbeError.of(_CLIENT_CERTIFICATE_TYPE, f"the server {message}")
