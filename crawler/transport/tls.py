"""TLS: the contexts that all handshakes share, cached sessions, and what a handshake tells about the server."""

import ssl
import time
from collections import OrderedDict
from functools import cached_property, lru_cache
from typing import Any, Final

from crawler.core.errors import InputError, OptionError
from crawler.core.options import Options
from crawler.core.results import TLSInfo
from crawler.transport.certificates import Certificate, CertificateError, parse_certificate

__all__ = ["SessionCache", "TlsContexts", "chain_problem", "client_context", "describe_tls", "server_context"]

_VERIFY_X509_STRICT: Final = 0x20  # OpenSSL's X509_V_FLAG_X509_STRICT
_NO_LOCAL_ISSUER: Final = 20  # X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY
_MAX_SESSIONS: Final = 1_000

Origin = tuple[str, str, int]  # scheme, host, port


def client_context(options: Options) -> ssl.SSLContext:
    """Make the context for the handshakes of a transport; this takes 20 ms.

    Raises:
        OptionError: `cafile` cannot be read or has no certificate.
    """
    try:
        context = ssl.create_default_context(cafile=options.cafile)
    except (OSError, ssl.SSLError) as error:
        raise OptionError(f"{options.cafile}: {error.strerror or error}", "cafile") from None
    # Python sets this flag since 3.13. It refuses certificates that browsers accept, and a result must not depend on
    # the version of Python.
    context.verify_flags &= ~_VERIFY_X509_STRICT
    return _configure_client(context, verify=not options.insecure)


class TlsContexts:
    """The contexts of a transport. Each is made on first use, because reading the system's authorities takes time.

    Raises:
        OptionError: `cafile` cannot be read or has no certificate. It is read at once.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        if options.cafile is not None:
            self.verifying  # noqa: B018 - to fail early

    @cached_property
    def verifying(self) -> ssl.SSLContext:
        """The context of every probe; with the option `insecure` it verifies nothing."""
        return client_context(self._options)

    @cached_property
    def unverified(self) -> ssl.SSLContext:
        """A context that accepts any certificate: only to read one that was refused."""
        return _configure_client(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), verify=False)


class SessionCache:
    """Keeps the last TLS session of each origin, which saves most of the work of the next handshake."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[Origin, ssl.SSLSession] = OrderedDict()

    def get(self, origin: Origin) -> ssl.SSLSession | None:
        """Return the session to resume with this origin, if there is one."""
        return self._sessions.get(origin)

    def put(self, origin: Origin, session: ssl.SSLSession | None) -> None:
        """Keep a session if it can be resumed."""
        if session is not None and session.has_ticket:
            self._sessions[origin] = session
            self._sessions.move_to_end(origin)
            if len(self._sessions) > _MAX_SESSIONS:
                self._sessions.popitem(last=False)


def describe_tls(connection: ssl.SSLSocket | ssl.SSLObject) -> TLSInfo:
    """Return what a finished handshake agreed on, and the server's certificate, verified or not."""
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
    """Make the context of a service that speaks TLS; None without a certificate.

    Raises:
        InputError: The files cannot be read, or are not a certificate and its key.
    """
    if cert is None:
        if key is not None:
            raise InputError("--tls-key needs --tls-cert too", key)
        return None
    for path in (cert, key or cert):
        try:
            with open(path, "rb"):  # noqa: PTH123 - OpenSSL does not say which file it cannot find
                pass
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror}", path) from None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(cert, key, password="")  # without it, OpenSSL asks for one on the terminal
    except ssl.SSLError as error:
        reason = (error.reason or "not PEM").replace("_", " ").lower()
        raise InputError(f"is not a certificate with its key: {reason}", cert) from None
    return context


def chain_problem(error: ssl.SSLCertVerificationError, connection: ssl.SSLSocket) -> str | None:
    """Tell an incomplete chain from an unknown authority; OpenSSL has one error for both.

    Args:
        error: The error of the verifying handshake.
        connection: An unverified one with the same server.

    Returns:
        A message; None if the error is a different one.
    """
    if error.verify_code != _NO_LOCAL_ISSUER:
        return None
    certificate = _certificate(connection.getpeercert(binary_form=True))
    if certificate is None:
        return None
    if certificate.has_issuer_url and _chain_length(connection) == 1:
        return f"incomplete chain: the server does not send the certificate of its issuer {certificate.issuer}"
    return f"unknown authority: {certificate.issuer}"


def _chain_length(connection: ssl.SSLSocket) -> int:
    """Return how many certificates the server sent. Python has a public method for this since 3.13."""
    get_chain: Any = getattr(connection, "get_unverified_chain", None)
    chain = get_chain() if get_chain else connection._sslobj.get_unverified_chain()  # type: ignore[attr-defined]
    return len(chain or ())


def _configure_client(context: ssl.SSLContext, *, verify: bool) -> ssl.SSLContext:
    context.set_alpn_protocols(["http/1.1"])
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


@lru_cache(maxsize=1024)  # each connection to a host shows the same certificate
def _certificate(der: bytes | None) -> Certificate | None:
    if der is None:
        return None
    try:
        return parse_certificate(der)
    except CertificateError:
        return None
