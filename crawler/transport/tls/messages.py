"""The messages for TLS failures: by OpenSSL's reason, and by its code for what is wrong with a certificate.

The reason is `SSLError.reason`; it also names an alert that the server sent. The code is
`SSLCertVerificationError.verify_code`. `error_tables` has the error types for both.
"""

from datetime import UTC, datetime
from typing import Final

from crawler.transport.tls.certificates import Certificate

__all__ = ["SSL_REASON_MESSAGES", "VERIFY_CODE_MESSAGES", "date_message", "issuer_message"]

_NO_TLS: Final = "the server does not speak TLS on this port"
_NOTHING_IN_COMMON: Final = "the server refused every TLS version and cipher that browsers offer"
_OLD_TLS: Final = "the server speaks only TLS 1.1 or older, which browsers refuse"
_WANTS_CERTIFICATE: Final = "the server wants a client certificate (option cert)"
_BAD_CLIENT_CERTIFICATE: Final = "the server refused the client certificate"
_BROKEN: Final = "the server broke the rules of TLS"

# By OpenSSL's reason, without the prefix SSLV3_, TLSV1_ or TLSV13_.
SSL_REASON_MESSAGES: Final = {
    "WRONG_VERSION_NUMBER": f"{_NO_TLS}; perhaps it speaks plain HTTP",
    "HTTP_REQUEST": f"{_NO_TLS}; perhaps it speaks plain HTTP",
    "PACKET_LENGTH_TOO_LONG": _NO_TLS,
    "RECORD_LAYER_FAILURE": _NO_TLS,
    "RECORD_TOO_SMALL": _NO_TLS,
    "UNKNOWN_PROTOCOL": _NO_TLS,
    "BAD_RECORD_TYPE": _NO_TLS,
    "UNEXPECTED_MESSAGE": f"{_BROKEN}: it sent a message out of order",
    "UNEXPECTED_RECORD": f"{_BROKEN}: it sent a message out of order",
    "INVALID_ALERT": f"{_BROKEN}: it sent an unknown alert",
    "DECODE_ERROR": f"{_BROKEN}: it sent a malformed message",
    "LENGTH_MISMATCH": f"{_BROKEN}: it sent a malformed message",
    "LENGTH_TOO_SHORT": f"{_BROKEN}: it sent a malformed message",
    "BAD_EXTENSION": f"{_BROKEN}: it sent a malformed message",
    "EXCESSIVE_MESSAGE_SIZE": f"{_BROKEN}: it sent a message that is too large, perhaps too many certificates",
    "DECRYPTION_FAILED_OR_BAD_RECORD_MAC": f"{_BROKEN}: what it sent cannot be decrypted",
    "BAD_SIGNATURE": f"{_BROKEN}: its signature is wrong",
    "DIGEST_CHECK_FAILED": f"{_BROKEN}: its checksum is wrong",
    "INVALID_SESSION_ID": f"{_BROKEN}: it sent a malformed message",
    "UNSUPPORTED_PROTOCOL": _OLD_TLS,
    "WRONG_SSL_VERSION": _OLD_TLS,
    "ALERT_PROTOCOL_VERSION": _OLD_TLS,
    "LEGACY_SIGALG_DISALLOWED_OR_UNSUPPORTED": _OLD_TLS,
    "NO_PROTOCOLS_AVAILABLE": _NOTHING_IN_COMMON,
    "NO_SHARED_CIPHER": _NOTHING_IN_COMMON,
    "NO_CIPHERS_AVAILABLE": _NOTHING_IN_COMMON,
    "ALERT_HANDSHAKE_FAILURE": _NOTHING_IN_COMMON,
    "ALERT_INSUFFICIENT_SECURITY": _NOTHING_IN_COMMON,
    "WRONG_CIPHER_RETURNED": f"{_BROKEN}: it chose a cipher that was not offered",
    "WRONG_SIGNATURE_TYPE": "the server signs in a way that browsers no longer accept",
    "WRONG_CURVE": "the server uses an elliptic curve that was not offered",
    "UNSAFE_LEGACY_RENEGOTIATION_DISABLED": "the server does not support secure renegotiation",
    "DH_KEY_TOO_SMALL": "the server's Diffie-Hellman key is too small",
    "ALERT_CERTIFICATE_REQUIRED": _WANTS_CERTIFICATE,
    "ALERT_BAD_CERTIFICATE": _BAD_CLIENT_CERTIFICATE,
    "ALERT_UNSUPPORTED_CERTIFICATE": _BAD_CLIENT_CERTIFICATE,
    "ALERT_CERTIFICATE_REVOKED": f"{_BAD_CLIENT_CERTIFICATE}: it is revoked",
    "ALERT_CERTIFICATE_EXPIRED": f"{_BAD_CLIENT_CERTIFICATE}: it has expired",
    "ALERT_CERTIFICATE_UNKNOWN": _BAD_CLIENT_CERTIFICATE,
    "ALERT_UNKNOWN_CA": f"{_BAD_CLIENT_CERTIFICATE}: the authority is unknown to the server",
    "ALERT_ACCESS_DENIED": f"{_BAD_CLIENT_CERTIFICATE}: access denied",
    "UNRECOGNIZED_NAME": "the server does not know this host name",
    "ALERT_UNRECOGNIZED_NAME": "the server does not know this host name",
    "ALERT_NO_APPLICATION_PROTOCOL": "the server accepts no HTTP version that was offered to it (ALPN)",
    "ALERT_INTERNAL_ERROR": "the server reported an internal error in the TLS handshake",
    "ALERT_DECODE_ERROR": "the server could not decode a message of the TLS handshake",
    "ALERT_DECRYPT_ERROR": "the server could not verify the TLS handshake",
    "ALERT_ILLEGAL_PARAMETER": "the server refused a parameter of the TLS handshake",
    "ALERT_UNEXPECTED_MESSAGE": "the server received a message that it did not expect in the TLS handshake",
    "ALERT_BAD_RECORD_MAC": "the server could not decrypt what it received",
    "ALERT_USER_CANCELLED": "the server cancelled the TLS handshake",
    "UNEXPECTED_EOF_WHILE_READING": "the server closed the connection during TLS",
    "CERTIFICATE_VERIFY_FAILED": "the certificate is not valid",
}  # fmt: skip

VERIFY_CODE_MESSAGES: Final = {
    7: "the signature of the certificate is wrong",
    9: "the certificate is not valid yet",
    10: "the certificate has expired",
    18: "the certificate is a self-signed certificate: no authority has issued it",
    19: "the certificate's authority is not trusted (self-signed certificate in the chain)",
    20: "the certificate's authority is not trusted, or the server does not send all of the chain",
    21: "the certificate's authority is not trusted, or the server does not send all of the chain",
    22: "the chain of certificates is too long",
    23: "the certificate is revoked",
    24: "a certificate of the chain belongs to no authority, so it cannot issue others",
    25: "an authority of the chain may not have authorities below it",
    26: "the certificate is not for a web server",
    27: "the certificate's authority is not trusted for web servers",
    47: "the certificate's authority may not issue certificates for this name",
    48: "the certificate's authority may not issue certificates for this name",
    79: "a certificate of the chain belongs to no authority, so it cannot issue others",
    62: "the certificate is for another host name",
    64: "the certificate is for another address",
    66: "the certificate's key is too short",
    67: "the key of the certificate's authority is too short",
    68: "the certificate is signed with an algorithm that is no longer safe, such as SHA-1",
}


def date_message(path: list[Certificate], now: float) -> str | None:
    """Return which certificate of a path is not valid now, as a message; None if all are valid.

    Args:
        path: The leaf, and then the issuer of each.
        now: Unix time in seconds.
    """
    for place, certificate in enumerate(path):
        name = "the certificate" if place == 0 else f"the certificate of the authority {certificate.subject}"
        if certificate.not_after < now:
            return f"{name} expired on {_format_date(certificate.not_after)}"
        if certificate.not_before > now:
            return f"{name} is not valid before {_format_date(certificate.not_before)}"
    return None


def issuer_message(path: list[Certificate]) -> str:
    """Return which authority is unknown, or which certificate the server does not send, as a message."""
    last = path[-1]
    if last.has_issuer_url and len(path) == 1:
        return f"incomplete chain: the server does not send the certificate of its issuer {last.issuer}"
    return f"unknown authority: {last.issuer}"


def _format_date(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()
