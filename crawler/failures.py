"""Other people's exceptions, and what they mean for a target: the one table.

`explain(error, phase)` turns any exception that probing can meet into a `ProbeError`. Classes stand in `_CLASSES`,
and those that say more in a number (errno, OpenSSL's verify code, c-ares' status) have a table of their own.
A test walks the exception classes of aiohttp, aiodns, ssl and the operating system and fails when one has no row.
"""

import asyncio
import errno
import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import CancelledError
from typing import Final

import aiohttp.client_exceptions as client
import aiohttp.http_exceptions as http
from aiodns import error as cares
from aiohttp import WebSocketError

from crawler.errors import ERROR_TYPES
from crawler.models import ProbeError

__all__ = ["explain"]

_BY_PHASE: Final = "by phase"  # the class says only "too late" or "gone"; the phase says which type that is
_INSIDE: Final = "inside"  # a wrapper: what it wraps decides, and failing that its base class

_TIMED_OUT: Final = {
    "dns": "dns.timed_out",
    "connect": "tcp.timed_out",
    "tls": "tls.timed_out",
    "http": "http.timed_out",
}

_ERRNO: Final = {
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
    errno.ENOBUFS: "local.network",
    errno.ENOMEM: "local.network",
    errno.EACCES: "tcp.failed",
    errno.EPERM: "tcp.failed",
    errno.EINVAL: "tcp.failed",
    errno.EPROTO: "tcp.failed",
}

_CARES: Final = {
    cares.ARES_ENODATA: "dns.name_not_resolved",
    cares.ARES_ENOTFOUND: "dns.name_not_resolved",
    cares.ARES_ENONAME: "dns.name_not_resolved",
    cares.ARES_ETIMEOUT: "dns.timed_out",
    cares.ARES_ECONNREFUSED: "dns.unreachable",
    cares.ARES_ESERVFAIL: "dns.failed",
    cares.ARES_EREFUSED: "dns.failed",
    cares.ARES_ENOTIMP: "dns.failed",
    cares.ARES_EFORMERR: "dns.failed",
    cares.ARES_EBADNAME: "dns.failed",
    cares.ARES_EBADQUERY: "dns.failed",
    cares.ARES_EBADRESP: "dns.failed",
    cares.ARES_EBADSTR: "dns.failed",
    cares.ARES_EBADFAMILY: "dns.failed",
    cares.ARES_EBADFLAGS: "dns.failed",
    cares.ARES_EBADHINTS: "dns.failed",
    cares.ARES_EOF: "dns.failed",
    cares.ARES_ESERVICE: "dns.failed",
    cares.ARES_ENOMEM: "local.network",
    cares.ARES_EFILE: "local.network",
    cares.ARES_ENOTINITIALIZED: "local.network",
    cares.ARES_ELOADIPHLPAPI: "local.network",
    cares.ARES_EADDRGETNETWORKPARAMS: "local.network",
    cares.ARES_EDESTRUCTION: "abandoned",
    cares.ARES_ECANCELLED: "abandoned",
}

_GETADDRINFO: Final = {
    socket.EAI_NONAME: "dns.name_not_resolved",
    socket.EAI_NODATA: "dns.name_not_resolved",
    socket.EAI_AGAIN: "dns.unreachable",
    socket.EAI_MEMORY: "local.network",
    socket.EAI_SYSTEM: "local.network",
}

# X509_V_ERR_* of OpenSSL, as `SSLCertVerificationError.verify_code`.
_VERIFY: Final = {
    9: "tls.cert.date_invalid",  # not yet valid
    10: "tls.cert.date_invalid",  # expired
    18: "tls.cert.authority_invalid",  # self-signed
    19: "tls.cert.authority_invalid",  # self-signed in the chain
    20: "tls.cert.authority_invalid",  # unknown authority, or an intermediate was not sent
    21: "tls.cert.authority_invalid",  # only the leaf was sent
    24: "tls.cert.authority_invalid",  # an authority that may not be one
    27: "tls.cert.authority_invalid",  # not trusted for this
    62: "tls.cert.name_invalid",  # another host name
    64: "tls.cert.name_invalid",  # another address
}

# OpenSSL's reasons (SSLError.reason); a suffix stands for the family.
_SSL_REASON: Final = {
    "WRONG_VERSION_NUMBER": "tls.protocol.error",  # plain HTTP on a TLS port
    "HTTP_REQUEST": "tls.protocol.error",
    "PACKET_LENGTH_TOO_LONG": "tls.protocol.error",
    "RECORD_LAYER_FAILURE": "tls.protocol.error",
    "RECORD_TOO_SMALL": "tls.protocol.error",
    "UNEXPECTED_MESSAGE": "tls.protocol.error",
    "BAD_RECORD_TYPE": "tls.protocol.error",
    "INVALID_ALERT": "tls.protocol.error",
    "DECODE_ERROR": "tls.protocol.error",
    "UNSUPPORTED_PROTOCOL": "tls.version_or_cipher_mismatch",
    "NO_PROTOCOLS_AVAILABLE": "tls.version_or_cipher_mismatch",
    "NO_SHARED_CIPHER": "tls.version_or_cipher_mismatch",
    "NO_CIPHERS_AVAILABLE": "tls.version_or_cipher_mismatch",
    "WRONG_SSL_VERSION": "tls.version_or_cipher_mismatch",
    "DH_KEY_TOO_SMALL": "tls.version_or_cipher_mismatch",
    "UNSAFE_LEGACY_RENEGOTIATION_DISABLED": "tls.version_or_cipher_mismatch",
    "ALERT_PROTOCOL_VERSION": "tls.version_or_cipher_mismatch",
    "ALERT_HANDSHAKE_FAILURE": "tls.version_or_cipher_mismatch",
    "ALERT_INSUFFICIENT_SECURITY": "tls.version_or_cipher_mismatch",
    "CERTIFICATE_VERIFY_FAILED": "tls.cert.invalid",
    "UNEXPECTED_EOF_WHILE_READING": "tcp.closed",
}

_CLASSES: Final[dict[type[BaseException], str]] = {
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
    TimeoutError: _BY_PHASE,
    EOFError: "tcp.closed",
    asyncio.IncompleteReadError: "tcp.closed",
    asyncio.LimitOverrunError: "http.response.invalid",
    CancelledError: "abandoned",
    asyncio.CancelledError: "abandoned",
    MemoryError: "local.network",
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
    cares.DNSError: "dns.failed",
    # aiohttp's client
    client.ClientError: "http.failed",
    client.ClientResponseError: _INSIDE,
    client.ContentTypeError: "http.response.invalid",
    client.WSServerHandshakeError: "http.protocol.error",
    client.ClientHttpProxyError: "http.failed",
    client.TooManyRedirects: "http.response.redirect_loop",
    client.ClientConnectionError: _INSIDE,
    client.ClientConnectionResetError: "tcp.closed",  # "cannot write": it was gone before the request
    client.ClientOSError: _INSIDE,
    client.ClientConnectorError: _INSIDE,
    client.ClientConnectorDNSError: _INSIDE,
    client.ClientProxyConnectionError: _INSIDE,
    client.UnixClientConnectorError: _INSIDE,
    client.ServerConnectionError: "tcp.closed",
    client.ServerDisconnectedError: "tcp.closed",
    client.ServerTimeoutError: _BY_PHASE,
    client.ConnectionTimeoutError: _BY_PHASE,
    client.SocketTimeoutError: _BY_PHASE,
    client.ServerFingerprintMismatch: "tls.cert.invalid",
    client.ClientPayloadError: "http.response.invalid",
    client.UploadAbortedError: "http.failed",
    client.InvalidURL: "url.invalid",
    client.InvalidUrlClientError: "url.invalid",
    client.RedirectClientError: "http.response.invalid",
    client.NonHttpUrlClientError: "url.scheme",
    client.InvalidUrlRedirectClientError: "http.response.invalid",
    client.NonHttpUrlRedirectClientError: "url.scheme",
    client.ClientSSLError: _INSIDE,
    client.ClientConnectorSSLError: _INSIDE,
    client.ClientConnectorCertificateError: _INSIDE,
    client.WSMessageTypeError: "http.protocol.error",
    WebSocketError: "http.protocol.error",
    # aiohttp's parser
    http.HttpProcessingError: "http.response.invalid",
    http.BadHttpMessage: "http.response.invalid",
    http.HttpBadRequest: "http.response.invalid",
    http.PayloadEncodingError: "http.response.invalid",
    http.ContentEncodingError: "http.response.invalid",
    http.TransferEncodingError: "http.response.invalid",
    http.ContentLengthError: "http.response.invalid",
    http.DecompressSizeError: "http.response.invalid",
    http.LineTooLong: "http.response.invalid",
    http.InvalidHeader: "http.response.invalid",
    http.BadStatusLine: "http.protocol.error",
    http.BadHttpMethod: "http.protocol.error",
    http.InvalidURLError: "http.response.invalid",
    # names and addresses that Python's codecs refuse (IDNA: empty or long labels)
    UnicodeError: "url.invalid",
}


def explain(error: BaseException, phase: str) -> ProbeError:
    """Say what an exception means for the target.

    Args:
        error: Any exception; one that no row knows becomes `unknown`.
        phase: The phase that it ended: dns, connect, tls or http.
    """
    inner = _innermost(error)
    type_ = _type(inner, phase)
    if type_ == "tcp.closed" and phase == "connect":
        type_ = "tcp.aborted"
    return ProbeError.of(type_, _message(inner) or ERROR_TYPES[type_].meaning, phase=phase)


def _innermost(error: BaseException) -> BaseException:
    """Unwrap wrappers, as far as there is something inside."""
    while _row(error) == _INSIDE:
        inner = next((cause for cause in _causes(error) if cause is not None), None)
        if inner is None:
            break
        error = inner
    return error


def _causes(error: BaseException) -> Iterator[BaseException | None]:
    yield getattr(error, "certificate_error", None)
    yield getattr(error, "os_error", None)
    yield error.__cause__


def _row(error: BaseException) -> str:
    return next((_CLASSES[base] for base in type(error).__mro__ if base in _CLASSES), "unknown")


def _type(error: BaseException, phase: str) -> str:
    by_number: str | None = None
    if isinstance(error, ssl.SSLCertVerificationError):
        by_number = _VERIFY.get(getattr(error, "verify_code", 0))
    elif isinstance(error, ssl.SSLError):
        by_number = _SSL_REASON.get((error.reason or "").removeprefix("SSLV3_").removeprefix("TLSV1_"))
    elif isinstance(error, cares.DNSError):
        by_number = _CARES.get(error.args[0] if error.args else None)
    elif isinstance(error, socket.gaierror):
        by_number = _GETADDRINFO.get(error.errno or 0)
    elif isinstance(error, TimeoutError):
        by_number = _TIMED_OUT[phase]
    elif isinstance(error, OSError):
        # On uvloop errno can be None; then the class has to do.
        by_number = _ERRNO.get(error.errno or 0)
    if by_number is not None:
        return by_number
    row = _row(error)
    if row == _BY_PHASE:
        return _TIMED_OUT[phase]
    if row == _INSIDE:  # a wrapper with nothing inside
        return "tcp.failed" if isinstance(error, OSError) else "http.failed"
    return row


def _message(error: BaseException) -> str:
    """One line for a person, if the exception has one. OpenSSL's file and line numbers say nothing to one."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return str(error.verify_message)
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    if isinstance(error, cares.DNSError) and len(error.args) > 1:
        return str(error.args[1])
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, client.ServerDisconnectedError):
        return ""  # its text is the half of a response that was parsed
    text = error.message if isinstance(error, client.ClientResponseError) else str(error)
    return " ".join(text.split())[:300]
