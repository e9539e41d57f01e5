"""What each exception means for a target: error types by exception class, and by the numbers that exceptions carry.

A rule is an error type of `ERROR_TYPES`, or the marker `BY_PHASE`.
"""

import asyncio
import concurrent.futures
import errno
import socket
import ssl
from typing import Final

import pycares.errno
from aiodns.error import DNSError

from crawler.transport.http.response_head import HeadError, Http1Required, Http2Refused, NotHTTP

__all__ = [
    "BY_PHASE",
    "CARES_TYPES",
    "CLASS_RULES",
    "ERRNO_TYPES",
    "GETADDRINFO_TYPES",
    "SSL_REASON_TYPES",
    "TIMEOUT_TYPES",
    "VERIFY_CODE_TYPES",
]

BY_PHASE: Final = "by phase"  # a timeout: its phase gives the type, see `TIMEOUT_TYPES`

TIMEOUT_TYPES: Final = {
    "dns": "dns.timed_out",
    "connect": "tcp.timed_out",
    "tls": "tls.timed_out",
    "http": "http.timed_out",
}

ERRNO_TYPES: Final = {
    errno.ECONNREFUSED: "tcp.refused",
    errno.ECONNRESET: "tcp.reset",
    errno.EPIPE: "tcp.closed",
    errno.ESHUTDOWN: "tcp.closed",
    errno.ENOTCONN: "tcp.closed",
    errno.ECONNABORTED: "tcp.aborted",
    errno.ETIMEDOUT: "tcp.timed_out",
    errno.ENETUNREACH: "tcp.address_unreachable",
    errno.EHOSTUNREACH: "tcp.address_unreachable",
    errno.EHOSTDOWN: "tcp.address_unreachable",
    errno.EADDRNOTAVAIL: "local.ports",
    errno.EMFILE: "local.descriptors",
    errno.ENFILE: "local.descriptors",
    errno.ENETDOWN: "local.network",
    errno.ENOBUFS: "local.memory",
    errno.ENOMEM: "local.memory",
    errno.EACCES: "tcp.failed",
    errno.EPERM: "tcp.failed",
    errno.EINVAL: "tcp.failed",
    errno.EPROTO: "tcp.failed",
}

CARES_TYPES: Final = {
    pycares.errno.ARES_ENODATA: "dns.name_not_resolved",
    pycares.errno.ARES_ENOTFOUND: "dns.name_not_resolved",
    pycares.errno.ARES_ENONAME: "dns.name_not_resolved",
    pycares.errno.ARES_ETIMEOUT: "dns.timed_out",
    pycares.errno.ARES_ECONNREFUSED: "dns.unreachable",
    pycares.errno.ARES_ESERVFAIL: "dns.failed",
    pycares.errno.ARES_EREFUSED: "dns.failed",
    pycares.errno.ARES_ENOTIMP: "dns.failed",
    pycares.errno.ARES_EFORMERR: "dns.failed",
    pycares.errno.ARES_EBADNAME: "dns.failed",
    pycares.errno.ARES_EBADQUERY: "dns.failed",
    pycares.errno.ARES_EBADRESP: "dns.failed",
    pycares.errno.ARES_EBADSTR: "dns.failed",
    pycares.errno.ARES_EBADFAMILY: "dns.failed",
    pycares.errno.ARES_EBADFLAGS: "dns.failed",
    pycares.errno.ARES_EBADHINTS: "dns.failed",
    pycares.errno.ARES_EOF: "dns.failed",
    pycares.errno.ARES_ESERVICE: "dns.failed",
    pycares.errno.ARES_ENOMEM: "local.memory",
    pycares.errno.ARES_EFILE: "local.network",
    pycares.errno.ARES_ENOTINITIALIZED: "local.network",
    pycares.errno.ARES_ELOADIPHLPAPI: "local.network",
    pycares.errno.ARES_EADDRGETNETWORKPARAMS: "local.network",
    pycares.errno.ARES_EDESTRUCTION: "abandoned",
    pycares.errno.ARES_ECANCELLED: "abandoned",
}

GETADDRINFO_TYPES: Final = {
    socket.EAI_NONAME: "dns.name_not_resolved",
    getattr(socket, "EAI_NODATA", socket.EAI_NONAME): "dns.name_not_resolved",  # some systems lack it
    socket.EAI_AGAIN: "dns.unreachable",
    socket.EAI_MEMORY: "local.memory",
    socket.EAI_SYSTEM: "local.network",
}

# X509_V_ERR_* of OpenSSL, as `SSLCertVerificationError.verify_code`.
VERIFY_CODE_TYPES: Final = {
    9: "tls.cert.date_invalid",  # not yet valid
    10: "tls.cert.date_invalid",  # expired
    18: "tls.cert.authority_invalid",  # self-signed
    19: "tls.cert.authority_invalid",  # self-signed in the chain
    20: "tls.cert.authority_invalid",  # unknown authority, or an intermediate was not sent
    21: "tls.cert.authority_invalid",  # only the leaf was sent
    24: "tls.cert.invalid",  # the issuer may not issue certificates
    27: "tls.cert.authority_invalid",  # not trusted for this purpose
    62: "tls.cert.name_invalid",  # another host name
    64: "tls.cert.name_invalid",  # another address
}

# OpenSSL's reasons (`SSLError.reason`), without the prefix SSLV3_, TLSV1_ or TLSV13_. A reason without a row, such as
# an alert about an internal error, may pass: it becomes `tls.failed`, which is transient.
SSL_REASON_TYPES: Final = {
    "WRONG_VERSION_NUMBER": "tls.protocol.error",  # plain HTTP on a TLS port
    "HTTP_REQUEST": "tls.protocol.error",
    "PACKET_LENGTH_TOO_LONG": "tls.protocol.error",
    "RECORD_LAYER_FAILURE": "tls.protocol.error",
    "RECORD_TOO_SMALL": "tls.protocol.error",
    "UNKNOWN_PROTOCOL": "tls.protocol.error",
    "UNEXPECTED_MESSAGE": "tls.protocol.error",
    "UNEXPECTED_RECORD": "tls.protocol.error",
    "BAD_RECORD_TYPE": "tls.protocol.error",
    "INVALID_ALERT": "tls.protocol.error",
    "DECODE_ERROR": "tls.protocol.error",
    "LENGTH_MISMATCH": "tls.protocol.error",
    "LENGTH_TOO_SHORT": "tls.protocol.error",
    "BAD_EXTENSION": "tls.protocol.error",
    "INVALID_SESSION_ID": "tls.protocol.error",
    "EXCESSIVE_MESSAGE_SIZE": "tls.protocol.error",
    "BAD_SIGNATURE": "tls.protocol.error",
    "WRONG_CIPHER_RETURNED": "tls.protocol.error",
    "ALERT_NO_APPLICATION_PROTOCOL": "tls.protocol.error",
    "ALERT_DECODE_ERROR": "tls.protocol.error",
    "ALERT_ILLEGAL_PARAMETER": "tls.protocol.error",
    "ALERT_UNEXPECTED_MESSAGE": "tls.protocol.error",
    "UNSUPPORTED_PROTOCOL": "tls.version_or_cipher_mismatch",
    "NO_PROTOCOLS_AVAILABLE": "tls.version_or_cipher_mismatch",
    "NO_SHARED_CIPHER": "tls.version_or_cipher_mismatch",
    "NO_CIPHERS_AVAILABLE": "tls.version_or_cipher_mismatch",
    "WRONG_SSL_VERSION": "tls.version_or_cipher_mismatch",
    "WRONG_SIGNATURE_TYPE": "tls.version_or_cipher_mismatch",
    "WRONG_CURVE": "tls.version_or_cipher_mismatch",
    "DH_KEY_TOO_SMALL": "tls.version_or_cipher_mismatch",
    "UNSAFE_LEGACY_RENEGOTIATION_DISABLED": "tls.version_or_cipher_mismatch",
    "LEGACY_SIGALG_DISALLOWED_OR_UNSUPPORTED": "tls.version_or_cipher_mismatch",  # TLS 1.0 and 1.1, since OpenSSL 3
    "ALERT_PROTOCOL_VERSION": "tls.version_or_cipher_mismatch",
    "ALERT_HANDSHAKE_FAILURE": "tls.version_or_cipher_mismatch",
    "ALERT_INSUFFICIENT_SECURITY": "tls.version_or_cipher_mismatch",
    # The server wants a client certificate, or refuses the one it got.
    "ALERT_CERTIFICATE_REQUIRED": "tls.bad_client_auth_cert",
    "ALERT_BAD_CERTIFICATE": "tls.bad_client_auth_cert",
    "ALERT_UNSUPPORTED_CERTIFICATE": "tls.bad_client_auth_cert",
    "ALERT_CERTIFICATE_REVOKED": "tls.bad_client_auth_cert",
    "ALERT_CERTIFICATE_EXPIRED": "tls.bad_client_auth_cert",
    "ALERT_CERTIFICATE_UNKNOWN": "tls.bad_client_auth_cert",
    "ALERT_UNKNOWN_CA": "tls.bad_client_auth_cert",
    "ALERT_ACCESS_DENIED": "tls.bad_client_auth_cert",
    "UNRECOGNIZED_NAME": "tls.unrecognized_name_alert",
    "ALERT_UNRECOGNIZED_NAME": "tls.unrecognized_name_alert",
    "CERTIFICATE_VERIFY_FAILED": "tls.cert.invalid",
    "UNEXPECTED_EOF_WHILE_READING": "tcp.closed",
}

CLASS_RULES: Final[dict[type[BaseException], str]] = {
    # the operating system and asyncio
    OSError: "tcp.failed",
    BlockingIOError: "tcp.failed",
    ChildProcessError: "unknown",
    FileExistsError: "unknown",
    FileNotFoundError: "unknown",
    InterruptedError: "tcp.failed",
    IsADirectoryError: "unknown",
    NotADirectoryError: "unknown",
    PermissionError: "tcp.failed",
    ProcessLookupError: "unknown",
    ConnectionError: "tcp.failed",
    ConnectionRefusedError: "tcp.refused",
    ConnectionResetError: "tcp.reset",
    ConnectionAbortedError: "tcp.aborted",
    BrokenPipeError: "tcp.closed",
    TimeoutError: BY_PHASE,
    EOFError: "tcp.closed",
    asyncio.IncompleteReadError: "tcp.closed",
    asyncio.LimitOverrunError: "http.response.invalid",
    concurrent.futures.CancelledError: "abandoned",
    asyncio.CancelledError: "abandoned",
    MemoryError: "local.memory",
    socket.gaierror: "dns.failed",
    socket.herror: "dns.failed",
    # ssl
    ssl.SSLError: "tls.failed",
    ssl.SSLCertVerificationError: "tls.cert.invalid",
    ssl.SSLEOFError: "tcp.closed",
    ssl.SSLSyscallError: "tcp.closed",
    ssl.SSLZeroReturnError: "tcp.closed",
    ssl.SSLWantReadError: "tls.failed",
    ssl.SSLWantWriteError: "tls.failed",
    # c-ares
    DNSError: "dns.failed",
    # names and addresses that Python's codecs refuse (IDNA: empty or long labels)
    UnicodeError: "url.invalid",
    # our own parser
    HeadError: "http.response.invalid",
    NotHTTP: "http.protocol.error",
    Http2Refused: "http.failed",
    Http1Required: "http.failed",
}
