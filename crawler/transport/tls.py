"""TLS: the contexts that all handshakes share, and what a handshake tells of the server."""

import ssl
import time
from functools import cached_property, lru_cache
from typing import Any, Final

from crawler.core.errors import InputError, OptionError
from crawler.core.options import Options
from crawler.core.results import TLSInfo
from crawler.transport.certificates import Certificate, CertificateError, read_certificate

__all__ = ["TlsContexts", "chain_problem", "client_context", "describe", "server_context"]

_VERIFY_X509_STRICT: Final = 0x20  # OpenSSL's X509_V_FLAG_X509_STRICT
_NO_LOCAL_ISSUER: Final = 20  # X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY


def client_context(options: Options) -> ssl.SSLContext:
    """The context for all handshakes of a process; making one costs 20 ms.

    Raises:
        OptionError: `cafile` cannot be read or has no certificate.
    """
    try:
        context = ssl.create_default_context(cafile=options.cafile)
    except (OSError, ssl.SSLError) as error:
        raise OptionError(f"{options.cafile}: {error.strerror or error}", "cafile") from None
    # Set by default since Python 3.13. It refuses certificates that browsers accept, and verdicts must not depend on
    # the Python that gives them.
    context.verify_flags &= ~_VERIFY_X509_STRICT
    return _as_client(context, blind=options.insecure)


class TlsContexts:
    """The contexts of a process, made when they are first needed: reading the system's authorities takes time.

    Raises:
        OptionError: `cafile` cannot be read or has no certificate; at once, for it was asked for.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        if options.cafile is not None:
            self.strict  # noqa: B018 - to fail early

    @cached_property
    def strict(self) -> ssl.SSLContext:
        """The one that verdicts stand on."""
        return client_context(self._options)

    @cached_property
    def blind(self) -> ssl.SSLContext:
        """One that accepts any certificate: to look at one that was refused, never for a verdict."""
        return _as_client(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), blind=True)


def describe(connection: ssl.SSLSocket | ssl.SSLObject) -> TLSInfo:
    """What a finished handshake agreed on, and the certificate, verified or not."""
    cipher = connection.cipher()
    version, cipher_name = connection.version(), cipher[0] if cipher else None
    certificate = _certificate(connection.getpeercert(binary_form=True))
    if certificate is None:
        return TLSInfo(version, cipher_name)
    return TLSInfo(
        version=version,
        cipher=cipher_name,
        issuer=certificate.issuer,
        subject=certificate.subject,
        not_after=certificate.not_after,
        days_left=int((certificate.not_after - time.time()) // 86400),
    )


def server_context(cert: str | None, key: str | None) -> ssl.SSLContext | None:
    """What a service needs to speak TLS; None if it is not to.

    Raises:
        InputError: The files cannot be read, or are not a certificate and its key.
    """
    if cert is None:
        if key is not None:
            raise InputError("--tls-key needs --tls-cert too", key)
        return None
    for path in (cert, key or cert):
        try:
            with open(path, "rb"):  # noqa: PTH123 - it is read by OpenSSL, which does not say which file it cannot find
                pass
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror}", path) from None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(cert, key, password="")  # so that nobody is asked for it
    except ssl.SSLError as error:
        reason = (error.reason or "not PEM").replace("_", " ").lower()
        raise InputError(f"is no certificate with its key: {reason}", cert) from None
    return context


def chain_problem(error: ssl.SSLCertVerificationError, connection: ssl.SSLSocket) -> str | None:
    """Tell an incomplete chain from an unknown authority, which OpenSSL calls by one name.

    Args:
        error: How the strict handshake failed.
        connection: A blind one with the same server.
    """
    if error.verify_code != _NO_LOCAL_ISSUER:
        return None
    certificate = _certificate(connection.getpeercert(binary_form=True))
    if certificate is None:
        return None
    if certificate.names_its_issuer and _sent(connection) == 1:
        return f"incomplete chain: the server does not send the certificate of its issuer {certificate.issuer}"
    return f"unknown authority: {certificate.issuer}"


def _sent(connection: ssl.SSLSocket) -> int:
    """How many certificates the server sent. Python has a public name for this since 3.13."""
    public: Any = getattr(connection, "get_unverified_chain", None)
    chain = public() if public else connection._sslobj.get_unverified_chain()  # type: ignore[attr-defined]
    return len(chain or ())


def _as_client(context: ssl.SSLContext, *, blind: bool) -> ssl.SSLContext:
    context.set_alpn_protocols(["http/1.1"])
    if blind:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


@lru_cache(maxsize=1024)  # one host's certificate is seen with each of its connections
def _certificate(der: bytes | None) -> Certificate | None:
    if der is None:
        return None
    try:
        return read_certificate(der)
    except CertificateError:
        return None
