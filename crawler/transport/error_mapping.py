"""Other people's exceptions, and what they mean for a target: the one table.

`explain(error, phase)` turns any exception that probing can meet into a `ProbeError`. Classes stand in `_CLASSES`, by
name: nobody pays for the import of a library that is not used. Those that say more in a number (errno, OpenSSL's
verify code, c-ares' status) have a table of their own. A test walks the exception classes of aiohttp, aiodns, ssl and
the operating system and fails when one has no row.
"""

import errno
import re
import socket
import ssl
from collections.abc import Iterator
from typing import Final

import pycares.errno as cares

from crawler.core.errors import ERROR_TYPES
from crawler.core.results import ProbeError

__all__ = ["HopFailed", "explain", "row_of"]

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
    errno.ENOBUFS: "local.memory",
    errno.ENOMEM: "local.memory",
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
    cares.ARES_ENOMEM: "local.memory",
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
    socket.EAI_MEMORY: "local.memory",
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

# OpenSSL's reasons (SSLError.reason), without the family that they begin with.
_FAMILY = re.compile(r"^(SSLV3|TLSV1|TLSV13)_")
_UNNAMED = re.compile(r"^\[SSL\] ([a-z0-9 ]+) \(_ssl\.c:[0-9]+\)$")
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
    "LEGACY_SIGALG_DISALLOWED_OR_UNSUPPORTED": "tls.version_or_cipher_mismatch",  # TLS 1.0 and 1.1, since OpenSSL 3
    "ALERT_PROTOCOL_VERSION": "tls.version_or_cipher_mismatch",
    "ALERT_HANDSHAKE_FAILURE": "tls.version_or_cipher_mismatch",
    "ALERT_CERTIFICATE_REQUIRED": "tls.failed",  # it wants a certificate of the client's
    "ALERT_INSUFFICIENT_SECURITY": "tls.version_or_cipher_mismatch",
    "CERTIFICATE_VERIFY_FAILED": "tls.cert.invalid",
    "UNEXPECTED_EOF_WHILE_READING": "tcp.closed",
}

_CLASSES: Final[dict[str, str]] = {
    # the operating system and asyncio
    "OSError": "tcp.failed",
    "BlockingIOError": "tcp.failed",
    "ChildProcessError": "unknown",
    "FileExistsError": "unknown",
    "FileNotFoundError": "unknown",
    "InterruptedError": "tcp.failed",
    "IsADirectoryError": "unknown",
    "NotADirectoryError": "unknown",
    "PermissionError": "tcp.failed",
    "ProcessLookupError": "unknown",
    "ConnectionError": "tcp.failed",
    "ConnectionRefusedError": "tcp.refused",
    "ConnectionResetError": "tcp.reset",
    "ConnectionAbortedError": "tcp.aborted",
    "BrokenPipeError": "tcp.closed",
    "TimeoutError": _BY_PHASE,
    "EOFError": "tcp.closed",
    "asyncio.exceptions.IncompleteReadError": "tcp.closed",
    "asyncio.exceptions.LimitOverrunError": "http.response.invalid",
    "concurrent.futures._base.CancelledError": "abandoned",
    "asyncio.exceptions.CancelledError": "abandoned",
    "MemoryError": "local.memory",
    "socket.gaierror": "dns.failed",
    "socket.herror": "dns.failed",
    # ssl
    "ssl.SSLError": "tls.failed",
    "ssl.SSLCertVerificationError": "tls.cert.invalid",
    "ssl.SSLEOFError": "tcp.closed",
    "ssl.SSLSyscallError": "tcp.closed",
    "ssl.SSLZeroReturnError": "tcp.closed",
    "ssl.SSLWantReadError": "tls.failed",
    "ssl.SSLWantWriteError": "tls.failed",
    # c-ares
    "aiodns.error.DNSError": "dns.failed",
    # aiohttp's client
    "aiohttp.client_exceptions.ClientError": "http.failed",
    "aiohttp.client_exceptions.ClientResponseError": _INSIDE,
    "aiohttp.client_exceptions.ContentTypeError": "http.response.invalid",
    "aiohttp.client_exceptions.WSServerHandshakeError": "http.protocol.error",
    "aiohttp.client_exceptions.ClientHttpProxyError": "http.failed",
    "aiohttp.client_exceptions.TooManyRedirects": "http.response.redirect_loop",
    "aiohttp.client_exceptions.ClientConnectionError": _INSIDE,
    "aiohttp.client_exceptions.ClientConnectionResetError": "tcp.closed",  # gone before the request
    "aiohttp.client_exceptions.ClientOSError": _INSIDE,
    "aiohttp.client_exceptions.ClientConnectorError": _INSIDE,
    "aiohttp.client_exceptions.ClientConnectorDNSError": _INSIDE,
    "aiohttp.client_exceptions.ClientProxyConnectionError": _INSIDE,
    "aiohttp.client_exceptions.UnixClientConnectorError": _INSIDE,
    "aiohttp.client_exceptions.ServerConnectionError": "tcp.closed",
    "aiohttp.client_exceptions.ServerDisconnectedError": "tcp.closed",
    "aiohttp.client_exceptions.ServerTimeoutError": _BY_PHASE,
    "aiohttp.client_exceptions.ConnectionTimeoutError": _BY_PHASE,
    "aiohttp.client_exceptions.SocketTimeoutError": _BY_PHASE,
    "aiohttp.client_exceptions.ServerFingerprintMismatch": "tls.cert.invalid",
    "aiohttp.client_exceptions.ClientPayloadError": "http.response.invalid",
    "aiohttp.client_exceptions.UploadAbortedError": "http.failed",
    "aiohttp.client_exceptions.InvalidURL": "url.invalid",
    "aiohttp.client_exceptions.InvalidUrlClientError": "url.invalid",
    "aiohttp.client_exceptions.RedirectClientError": "http.response.invalid",
    "aiohttp.client_exceptions.NonHttpUrlClientError": "url.scheme",
    "aiohttp.client_exceptions.InvalidUrlRedirectClientError": "http.response.invalid",
    "aiohttp.client_exceptions.NonHttpUrlRedirectClientError": "url.scheme",
    "aiohttp.client_exceptions.ClientSSLError": _INSIDE,
    "aiohttp.client_exceptions.ClientConnectorSSLError": _INSIDE,
    "aiohttp.client_exceptions.ClientConnectorCertificateError": _INSIDE,
    "aiohttp.client_exceptions.WSMessageTypeError": "http.protocol.error",
    "aiohttp._websocket.models.WebSocketError": "http.protocol.error",
    # aiohttp's parser
    "aiohttp.http_exceptions.HttpProcessingError": "http.response.invalid",
    "aiohttp.http_exceptions.BadHttpMessage": "http.response.invalid",
    "aiohttp.http_exceptions.HttpBadRequest": "http.response.invalid",
    "aiohttp.http_exceptions.PayloadEncodingError": "http.response.invalid",
    "aiohttp.http_exceptions.ContentEncodingError": "http.response.invalid",
    "aiohttp.http_exceptions.TransferEncodingError": "http.response.invalid",
    "aiohttp.http_exceptions.ContentLengthError": "http.response.invalid",
    "aiohttp.http_exceptions.DecompressSizeError": "http.response.invalid",
    "aiohttp.http_exceptions.LineTooLong": "http.response.invalid",
    "aiohttp.http_exceptions.InvalidHeader": "http.response.invalid",
    "aiohttp.http_exceptions.BadStatusLine": "http.protocol.error",
    "aiohttp.http_exceptions.BadHttpMethod": "http.protocol.error",
    "aiohttp.http_exceptions.InvalidURLError": "http.response.invalid",
    # names and addresses that Python's codecs refuse (IDNA: empty or long labels)
    "UnicodeError": "url.invalid",
    # our own parser
    "crawler.transport.response_head.HeadError": "http.response.invalid",
    "crawler.transport.response_head.NotHTTP": "http.protocol.error",
}


class HopFailed(Exception):
    """A hop that ends by our own decision, with its reason."""

    def __init__(self, problem: ProbeError) -> None:
        super().__init__(problem.message)
        self.problem = problem


def explain(error: BaseException, phase: str) -> ProbeError:
    """Say what an exception means for the target.

    Args:
        error: Any exception; one that no row knows becomes `unknown`.
        phase: The phase that it ended: dns, connect, tls or http.
    """
    if isinstance(error, HopFailed):
        return error.problem
    inner = _innermost(error)
    type_ = _type(inner, phase)
    if type_ == "tcp.closed" and phase == "connect":
        type_ = "tcp.aborted"
    return ProbeError.of(type_, _message(inner) or ERROR_TYPES[type_].meaning, phase=phase)


def row_of(kind: type[BaseException]) -> str | None:
    """The row of an exception class itself, not of a base class of its."""
    return _CLASSES.get(
        kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    )


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
    return next((row for base in type(error).__mro__ if (row := row_of(base)) is not None), "unknown")


def _type(error: BaseException, phase: str) -> str:
    row = _by_number(error) or _row(error)
    if row == _BY_PHASE:
        return _TIMED_OUT[phase]
    if row == _INSIDE:  # a wrapper with nothing inside
        return "tcp.failed" if isinstance(error, OSError) else "http.failed"
    return row


def _by_number(error: BaseException) -> str | None:
    """What the number says that an exception carries, where there is one and we know it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _VERIFY.get(getattr(error, "verify_code", 0))
    if isinstance(error, ssl.SSLError):
        return _SSL_REASON.get(_FAMILY.sub("", _reason(error)))
    if type(error).__qualname__ == "DNSError" and error.args:
        return _CARES.get(error.args[0])
    if isinstance(error, socket.gaierror):
        return _GETADDRINFO.get(error.errno or 0)
    if isinstance(error, TimeoutError):
        return _BY_PHASE
    if isinstance(error, OSError):  # on uvloop errno can be None; then the class has to do
        return _ERRNO.get(error.errno or 0)
    return None


def _reason(error: ssl.SSLError) -> str:
    """OpenSSL's reason. One that is younger than this Python has no name there, but stands in the text."""
    if reason := getattr(error, "reason", None):
        return str(reason)
    found = _UNNAMED.match(str(error))
    return found[1].upper().replace(" ", "_") if found else ""


def _message(error: BaseException) -> str:
    """One line for a person, if the exception has one."""
    return " ".join(_words(error).split())[:300]


def _words(error: BaseException) -> str:
    # An error of ssl's that OpenSSL did not make lacks the attributes. Its file and line numbers tell a person nothing.
    if said := getattr(error, "verify_message", None):
        return str(said)
    if isinstance(error, ssl.SSLError) and (reason := _reason(error)):
        return reason.replace("_", " ").lower()
    if type(error).__qualname__ == "DNSError" and len(error.args) > 1:
        return str(error.args[1])
    if isinstance(error, OSError) and error.strerror:
        return str(error.strerror)
    if type(error).__qualname__ == "ServerDisconnectedError":
        return ""  # its text is the half of a response that was parsed
    return str(getattr(error, "message", error))
