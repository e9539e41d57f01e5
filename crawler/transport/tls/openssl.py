"""TLS by OpenSSL: contexts, which all handshakes share, and cached sessions."""

import ssl
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any, Final

from crawler.core.errors import InputError, OptionError
from crawler.core.options import Options

__all__ = [
    "HTTP1",
    "HTTP2_OR_HTTP1",
    "InspectedSocket",
    "SessionCache",
    "TlsContexts",
    "client_context",
    "openssl_chain",
    "server_context",
]

# The protocols that a handshake offers by ALPN (RFC 7301).
HTTP1: Final = ("http/1.1",)
HTTP2_OR_HTTP1: Final = ("h2", "http/1.1")

_VERIFY_X509_STRICT: Final = 0x20  # OpenSSL's X509_V_FLAG_X509_STRICT
_VERIFY_PARTIAL_CHAIN: Final = 0x80000
_VERIFY_POLICY_CHECK: Final = 0x80  # so that an authority can require a policy (RFC 5280, 4.2.1.11)
_LEGACY_SERVER_CONNECT: Final = 0x4  # SSL_OP_LEGACY_SERVER_CONNECT; Python has a name for it since 3.12
# What Chromium offers for TLS 1.2, in its order; level 1 allows RSA keys of 1,024 bits, as it does.
_CIPHERS: Final = (
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"
    "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:"
    "ECDHE-RSA-AES128-SHA:ECDHE-RSA-AES256-SHA:AES128-GCM-SHA256:AES256-GCM-SHA384:AES128-SHA:AES256-SHA:@SECLEVEL=1"
)
_ANY_CIPHERS: Final = "ALL:@SECLEVEL=0"
_MAX_SESSIONS: Final = 1_000
_HANDSHAKE: Final = 22  # the record type
_CERTIFICATE_REQUEST: Final = 13  # the message type

Origin = tuple[str, str, int]  # scheme, host, port


def client_context(options: Options, protocols: Sequence[str] = HTTP1) -> ssl.SSLContext:
    """Make a context that offers what a browser offers. This takes 20 ms.

    Raises:
        OptionError: `cafile`, `cert` or `key` cannot be read, or is not a certificate or its key.
    """
    try:
        context = ssl.create_default_context(cafile=options.cafile)
    except (OSError, ssl.SSLError) as error:
        raise OptionError(f"{options.cafile}: {error.strerror or error}", "cafile") from None
    # Python sets both flags since 3.13. The first one refuses certificates that browsers accept. With the second one,
    # an intermediate in `cafile` is trusted by itself. A result must not depend on the version of Python.
    context.verify_flags = context.verify_flags & ~_VERIFY_X509_STRICT | _VERIFY_PARTIAL_CHAIN | _VERIFY_POLICY_CHECK
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.options |= _LEGACY_SERVER_CONNECT
    _load_client_certificate(context, options)
    return _configure_client(context, protocols, verify=not options.insecure)


class TlsContexts:
    """The contexts of a transport. Each is made on first use, because reading the system's authorities takes time.

    None of them compares the certificate's names with the host: see `names`.

    Raises:
        OptionError: A file of the options cannot be used. These files are read at once.
    """

    def __init__(self, options: Options, protocols: Sequence[str]) -> None:
        self._options = options
        self._protocols = protocols
        if options.cafile is not None or options.cert is not None:
            self.verifying  # noqa: B018 - to fail early

    @cached_property
    def verifying(self) -> ssl.SSLContext:
        """The context of every probe; with the option `insecure` it verifies nothing."""
        context = client_context(self._options, self._protocols)
        context.check_hostname = False
        return context

    @cached_property
    def completing(self) -> ssl.SSLContext:
        """Like `verifying`, but a chain must end at a root, because fetched intermediates are added to this context."""
        context = client_context(self._options, self._protocols)
        context.check_hostname = False
        context.verify_flags &= ~_VERIFY_PARTIAL_CHAIN
        return context

    @cached_property
    def inspecting(self) -> ssl.SSLContext:
        """A context that accepts any server, to learn why one was refused. Its sockets are `InspectedSocket`s."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.set_ciphers(_ANY_CIPHERS)
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        context.options |= _LEGACY_SERVER_CONNECT
        context.sslsocket_class = InspectedSocket
        with suppress(AttributeError):  # not documented, but in all versions of Python that we support
            context._msg_callback = _note_certificate_request  # type: ignore[attr-defined]
        return _configure_client(context, self._protocols, verify=False)


class InspectedSocket(ssl.SSLSocket):
    """A socket that notes whether the server asks for a client certificate.

    Attributes:
        wants_certificate: Whether the server has asked for a client certificate.
    """

    wants_certificate = False


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

    def drop(self, origin: Origin) -> None:
        """Forget a session that the server may fail to resume."""
        self._sessions.pop(origin, None)


def openssl_chain(connection: ssl.SSLSocket | ssl.SSLObject) -> list[bytes]:
    """Return the certificates that the server sent, as DER, verified or not. Python has a method for it since 3.13."""
    get_chain: Any = getattr(connection, "get_unverified_chain", None)
    if get_chain is not None:
        return list(get_chain())
    chain = connection._sslobj.get_unverified_chain() or ()  # type: ignore[union-attr]
    return [ssl.PEM_cert_to_DER_cert(each.public_bytes()) for each in chain]


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


def _load_client_certificate(context: ssl.SSLContext, options: Options) -> None:
    """Load the certificate of the options `cert` and `key`, if there is one.

    Raises:
        OptionError: The files cannot be read, or are not a certificate and its key.
    """
    if options.cert is None:
        return
    for place, path in (("cert", options.cert), ("key", options.key)):
        try:
            if path is not None:
                with open(path, "rb"):  # noqa: PTH123 - OpenSSL does not say which file it cannot find
                    pass
        except OSError as error:
            raise OptionError(f"{path}: {error.strerror}", place) from None
    try:
        context.load_cert_chain(options.cert, options.key, password="")  # or OpenSSL asks for one on the terminal
    except ssl.SSLError as error:
        reason = (error.reason or "not PEM").replace("_", " ").lower()
        raise OptionError(f"{options.cert}: is not a certificate with its key: {reason}", "cert") from None


def _configure_client(context: ssl.SSLContext, protocols: Sequence[str], *, verify: bool) -> ssl.SSLContext:
    context.set_alpn_protocols(list(protocols))
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _note_certificate_request(
    connection: ssl.SSLSocket, direction: str, version: int, record_type: int, message_type: int, data: bytes
) -> None:
    if direction == "read" and record_type == _HANDSHAKE and message_type == _CERTIFICATE_REQUEST:
        connection.wants_certificate = True  # type: ignore[attr-defined]
