"""One TLS handshake by either library: how it starts, and what is checked when it has succeeded."""

import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeAlias, TypeVar, cast

from crawler.core.results import ProbeError
from crawler.core.urls import Url
from crawler.transport.sockets.connection import Connection, TlsSocket
from crawler.transport.timing import HopTimer
from crawler.transport.tls.certificates import KeyUsage
from crawler.transport.tls.names import matches_host, server_name
from crawler.transport.tls.refusals import wrong_name_error
from crawler.transport.tls.report import certificate_of, key_usage, subject_names
from crawler.transport.tls.rustls import RustlsSocket
from crawler.transport.tls.tls_in_tls import SocketOverTls, TlsInTls

__all__ = ["AnyTlsSocket", "Handshake", "check_certificate", "openssl_wrapper", "start_tls"]

AnyTlsSocket: TypeAlias = ssl.SSLSocket | TlsInTls | RustlsSocket

_TlsSocket = TypeVar("_TlsSocket", bound=TlsSocket)


class Handshake(NamedTuple):
    """The parameters of a handshake that do not depend on the library.

    Attributes:
        url: The URL; the certificate must be for its host.
        reopen: Opens another connection to the same address.
        deadline: Returns the time of the clock at which a handshake that starts now times out.
        timer: Gets the phases of the hop. After a refusal, it also gets what is known of the server.
    """

    url: Url
    reopen: Callable[[], Awaitable[Connection]]
    deadline: Callable[[], float]
    timer: HopTimer

    @property
    def host(self) -> str:
        """The host as TLS names it."""
        return server_name(self.url.host)


async def start_tls(
    connection: Connection, wrap: Callable[[socket.SocketType], _TlsSocket], handshake: Handshake
) -> _TlsSocket:
    """Do a handshake on a connection, which is closed if the handshake fails.

    Raises:
        OSError: The connection broke, a side refused, or the deadline passed.
    """
    handshake.timer.start("ssl")
    try:
        return await connection.start_tls(wrap, handshake.deadline())
    except BaseException:
        connection.close()
        raise


def openssl_wrapper(
    context: ssl.SSLContext, host: str, session: ssl.SSLSession | None
) -> Callable[[socket.SocketType], ssl.SSLSocket | TlsInTls]:
    """Return a function that begins OpenSSL's TLS on a socket, of the operating system or over TLS."""

    def wrap(sock: socket.SocketType | SocketOverTls) -> ssl.SSLSocket | TlsInTls:
        if isinstance(sock, SocketOverTls):
            return TlsInTls.wrap(context, sock, host, session)
        return context.wrap_socket(
            cast(socket.socket, sock),  # `wrap_socket` uses nothing that the base class lacks
            server_hostname=host,
            session=session,
            do_handshake_on_connect=False,
            suppress_ragged_eofs=False,
        )

    return wrap


def check_certificate(tls_socket: AnyTlsSocket, host: str) -> ProbeError | None:
    """Return what is wrong with a certificate whose chain is valid: its names or its key. None if nothing is."""
    if isinstance(tls_socket, RustlsSocket):  # rustls has checked the name
        der = next(iter(tls_socket.chain()), b"")
    else:
        der = tls_socket.getpeercert(binary_form=True) or b""
        if not matches_host(names := subject_names(der), host):
            return wrong_name_error(names, host)
    certificate = certificate_of(der)
    usage = key_usage(der)
    if usage is not None and not usage & (needed := _needed_usage(tls_socket)):
        purpose = "signatures" if needed is KeyUsage.DIGITAL_SIGNATURE else "encryption"
        message = f"the certificate does not allow its key for {purpose}, which this TLS connection needs (key usage)"
        return ProbeError.of("tls.cert.invalid", message)
    if certificate is not None and certificate.rejected_key is not None:
        message = f"browsers do not accept the certificate's kind of key: {certificate.rejected_key}"
        return ProbeError.of("tls.version_or_cipher_mismatch", message)
    return None


def _needed_usage(tls_socket: AnyTlsSocket) -> KeyUsage:
    """Return what the server's key was used for: a signature, or before TLS 1.3 perhaps the exchange of a secret."""
    if isinstance(tls_socket, RustlsSocket) or tls_socket.version() != "TLSv1.2":
        return KeyUsage.DIGITAL_SIGNATURE
    cipher = tls_socket.cipher()
    has_exchange = cipher is not None and not cipher[0].startswith("ECDHE")
    return KeyUsage.KEY_ENCIPHERMENT if has_exchange else KeyUsage.DIGITAL_SIGNATURE
