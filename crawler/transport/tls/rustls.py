"""TLS by rustls, with the package `rtls`.

rustls does a verified handshake in half of the CPU time of OpenSSL, but it does not support old ciphers and keys.

The documented interface of `rtls` is like `ssl`, in Python. This module uses the classes below that interface, which
saves a fifth of the time. They may change, so `rustls_version` checks that they have every method used here. If one is
missing, or `rtls` is not installed, OpenSSL does all handshakes.
"""

import os
import re
import socket
import ssl
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Final

from crawler.core.options import Options
from crawler.transport.tls.certificates import is_usable_authority, parse_certificate
from crawler.transport.tls.openssl import HTTP1

__all__ = ["RustlsContext", "RustlsSocket", "describe_tls_libraries", "make_rustls_context", "rustls_version"]

# rustls copies the authorities for each connection, which takes 263 KiB with Debian's 144; OpenSSL takes 29 KiB. In
# TLS 1.2 it drops them after the handshake; then a connection takes 9 KiB.
_MAX_CONNECTIONS: Final = 512
_TLS_1_2: Final = 0x0303
_RECEIVE_BYTES: Final = 16 * 1024
_VERIFY_NONE: Final = 0
_VERIFY_REQUIRED: Final = 2
_HASHED_NAME: Final = re.compile(r"[0-9a-f]{8}\.[0-9]+")  # the files that OpenSSL reads in a directory of authorities
_PEM: Final = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_BUILDER_METHODS: Final = (
    "add_root_cert_from_der", "add_root_certs_from_pem", "build_client_connection", "set_alpn", "set_check_hostname",
    "set_client_cert_chain_pem", "set_verify_mode",
)  # fmt: skip
_CONNECTION_METHODS: Final = (
    "alpn_protocol", "is_handshaking", "negotiated_cipher_suite", "peer_certificates", "process_new_packets",
    "protocol_version", "read_plaintext", "read_tls", "wants_read", "wants_write", "write_plaintext", "write_tls",
)  # fmt: skip

_VERSIONS: Final = {_TLS_1_2: "TLSv1.2", 0x0304: "TLSv1.3"}
# OpenSSL's names of the cipher suites that rustls supports.
_CIPHERS: Final = {
    "TLS13_AES_128_GCM_SHA256": "TLS_AES_128_GCM_SHA256",
    "TLS13_AES_256_GCM_SHA384": "TLS_AES_256_GCM_SHA384",
    "TLS13_CHACHA20_POLY1305_SHA256": "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
}


class RustlsSocket:
    """TLS over a connected, non-blocking socket, with the methods and exceptions of `ssl.SSLSocket` that we use.

    Its context verifies the server, unless the option `insecure` is set.
    """

    __slots__ = ("_accepted_bytes", "_context", "_failure", "_outgoing", "_socket", "_tls", "_undecrypted")

    def __init__(self, tls: Any, sock: socket.SocketType, context: "RustlsContext") -> None:
        self._tls = tls
        self._context: RustlsContext | None = context  # while it has authorities
        context.large_connections += 1
        self._socket = sock
        self._outgoing = b""  # encrypted, not yet sent
        self._accepted_bytes = 0  # the length of the caller's data in `_outgoing`
        self._undecrypted = b""  # received
        self._failure: ssl.SSLError | None = None

    def do_handshake(self) -> None:
        """Continue the handshake as far as the received bytes allow.

        Raises:
            ssl.SSLWantReadError: More bytes of the server are needed.
            ssl.SSLWantWriteError: The socket takes no more bytes now.
            ssl.SSLError: One side refused.
        """
        while self._tls.is_handshaking():
            if not self._undecrypted:
                self._flush()
                self._undecrypted = self._receive()
            self._decrypt()
            if self._failure is not None:
                with suppress(OSError):
                    self._flush()  # the alert that tells the server
                raise self._failure
        if self._tls.protocol_version() == _TLS_1_2:
            self._leave_context()
        # In TLS 1.3 our last message goes out with the request, in one packet. Sent before, it would cost a call, and
        # the request would wait for its acknowledgement (Nagle's algorithm, RFC 896).

    def send(self, data: bytes) -> int:
        """Send bytes; return how many. After an exception, call it again with the same bytes."""
        if not self._accepted_bytes:
            self._accepted_bytes = self._tls.write_plaintext(data)
        self._flush()
        sent, self._accepted_bytes = self._accepted_bytes, 0
        return sent

    def recv(self, max_bytes: int) -> bytes:
        """Return received bytes; empty after the server's close_notify.

        Raises:
            ssl.SSLWantReadError: There are none now.
            ssl.SSLEOFError: The stream ended without close_notify.
        """
        tls = self._tls
        while True:
            if data := tls.read_plaintext(max_bytes):
                return bytes(data)
            if self._failure is not None:  # after the valid bytes that came before it
                raise self._failure
            if not self._undecrypted:
                if not tls.wants_read():
                    return b""
                self._undecrypted = self._receive()
            self._decrypt()
            if tls.wants_write():
                self._send_tls_messages()

    def close(self) -> None:
        """Close the socket; nothing more is sent."""
        self._leave_context()
        self._socket.close()

    def version(self) -> str | None:
        """The version of TLS, as `ssl.SSLSocket.version` names it."""
        return _VERSIONS.get(self._tls.protocol_version() or 0)

    def cipher_name(self) -> str | None:
        """The cipher suite, by OpenSSL's name."""
        name = self._tls.negotiated_cipher_suite()
        return None if name is None else _CIPHERS.get(name, str(name))

    def selected_alpn_protocol(self) -> str | None:
        """The protocol that the server has chosen; None if it has chosen none."""
        protocol = self._tls.alpn_protocol()
        return None if protocol is None else bytes(protocol).decode("latin-1")

    def chain(self) -> list[bytes]:
        """The certificates that the server sent, as DER."""
        return self._tls.peer_certificates() or []

    def _leave_context(self) -> None:
        if self._context is not None:
            self._context.large_connections -= 1
            self._context = None

    def _decrypt(self) -> None:
        taken = self._tls.read_tls(self._undecrypted)
        self._undecrypted = self._undecrypted[taken:]
        try:
            self._tls.process_new_packets()
        except ssl.SSLError as error:
            self._failure = error

    def _receive(self) -> bytes:
        try:
            received = self._socket.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            raise ssl.SSLWantReadError from None
        if not received:
            raise ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "the connection ended without close_notify")
        return received

    def _flush(self) -> None:
        while self._tls.wants_write():  # it gives a record at a time; together they are one packet
            self._outgoing += self._tls.write_tls()
        while self._outgoing:
            try:
                sent = self._socket.send(self._outgoing)
            except BlockingIOError:
                raise ssl.SSLWantWriteError from None
            self._outgoing = self._outgoing[sent:]

    def _send_tls_messages(self) -> None:
        """Send messages of TLS itself, such as alerts; the caller has no data in them."""
        is_renegotiation = self._failure is None and self._tls.protocol_version() == _TLS_1_2
        with suppress(OSError):
            self._flush()
        if is_renegotiation:  # rustls answers no other message of TLS 1.2 after the handshake, and refuses this one
            self._failure = ssl.SSLError("renegotiation is not supported")


class RustlsContext:
    """The counterpart of `ssl.SSLContext`: begins TLS on sockets.

    Attributes:
        large_connections: How many of its connections hold a copy of the authorities.

    Raises:
        ValueError: rustls cannot use the client certificate.
    """

    def __init__(self, options: Options, protocols: Sequence[str] = HTTP1) -> None:
        self.large_connections = 0
        self._builder = _classes()[0]()
        self._builder.set_alpn([protocol.encode() for protocol in protocols])
        self._builder.set_verify_mode(_VERIFY_NONE if options.insecure else _VERIFY_REQUIRED)
        self._builder.set_check_hostname(not options.insecure)
        if not options.insecure:
            self._trust(options.cafile)
        if options.cert is not None:
            try:
                key = Path(options.key or options.cert).read_bytes()
                self._builder.set_client_cert_chain_pem(Path(options.cert).read_bytes(), key)
            except (OSError, ssl.SSLError) as error:
                raise ValueError("the client certificate cannot be used") from error

    @property
    def has_room(self) -> bool:
        """Whether one more connection fits into the memory that rustls may take."""
        return self.large_connections < _MAX_CONNECTIONS

    def wrap(self, sock: socket.SocketType, host: str) -> RustlsSocket:
        """Begin TLS on a connected socket.

        Raises:
            ssl.SSLError: rustls does not accept the host name.
        """
        return RustlsSocket(self._builder.build_client_connection(host), sock, self)

    def _trust(self, cafile: str | None) -> None:
        """Trust the authorities that OpenSSL trusts: those of the same files."""
        paths = [Path(cafile)] if cafile is not None else _system_files()
        found = (match for path in paths for match in _PEM.findall(path.read_bytes()))
        distinct = dict.fromkeys(match.replace(b"\r", b"") for match in found)
        certificates = [each for each in distinct if _is_usable(each)]  # rustls does not check this
        self._builder.add_root_certs_from_pem(b"\n".join(certificates))
        if cafile is None and not distinct:  # on Windows the authorities are not in files
            for der in ssl.create_default_context().get_ca_certs(binary_form=True):
                with suppress(ValueError):
                    self._builder.add_root_cert_from_der(der)


def make_rustls_context(options: Options, protocols: Sequence[str]) -> RustlsContext | None:
    """Return a context; None if OpenSSL has to do all handshakes."""
    if options.tls == "openssl" or rustls_version() is None:
        return None
    try:
        return RustlsContext(options, protocols)
    except (OSError, ValueError):
        return None


@cache
def rustls_version() -> str | None:
    """Return the version of rustls; None if it cannot be used."""
    try:
        builder, connection = _classes()
        from rtls._rustls import rustls_version as version
    except ImportError:
        return None
    is_complete = all(hasattr(builder, name) for name in _BUILDER_METHODS) and all(
        hasattr(connection, name) for name in _CONNECTION_METHODS
    )
    return str(version()) if is_complete else None


def describe_tls_libraries() -> str:
    """Return which libraries do TLS, with their versions, the preferred one first."""
    openssl = " ".join(ssl.OPENSSL_VERSION.split()[:2])
    version = rustls_version()
    return (
        f"{openssl} alone, because rtls is not installed or unusable"
        if version is None
        else f"rustls {version}, {openssl}"
    )


def _is_usable(pem: bytes) -> bool:
    """Whether an authority may be trusted. OpenSSL, which is asked next, says what is wrong with another one."""
    try:
        der = ssl.PEM_cert_to_DER_cert(pem.decode("latin-1"))
        return parse_certificate(der).not_after >= time.time() and is_usable_authority(der)
    except ValueError:
        return True  # rustls decides what it can use


def _classes() -> tuple[Any, Any]:
    from rtls._rustls import RustlsClientConnection, RustlsConfigBuilder  # takes 30 ms, and only https needs it

    return RustlsConfigBuilder, RustlsClientConnection


def _system_files() -> list[Path]:
    """Return the files that OpenSSL's default authorities are in."""
    paths = ssl.get_default_verify_paths()
    files = [Path(paths.cafile)] if paths.cafile else []
    if paths.capath:
        with suppress(OSError):
            hashed = (Path(entry) for entry in os.scandir(paths.capath) if _HASHED_NAME.fullmatch(entry.name))
            files += [path for path in hashed if path.is_file()]
    known = {file.resolve(): file for file in files}
    return list(known)
