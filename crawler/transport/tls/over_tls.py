"""TLS on a connection that has TLS already: with a target, through a proxy that is reached by TLS.

`SocketOverTls` is the outer TLS with the methods of a socket, which is all that rustls needs. OpenSSL's sockets need
one of the operating system, so `TlsOverTls` does OpenSSL's inner TLS in memory and moves the bytes itself.
"""

import ssl
from contextlib import suppress
from typing import Final, Protocol, cast

__all__ = ["SocketOverTls", "TlsOverTls"]

_RECEIVE_BYTES: Final = 16 * 1024


class _Outer(Protocol):
    def send(self, data: bytes, /) -> int: ...
    def recv(self, max_bytes: int, /) -> bytes: ...
    def close(self) -> None: ...


class SocketOverTls:
    """A finished TLS connection with the methods and exceptions of a non-blocking socket."""

    __slots__ = ("_outer",)

    def __init__(self, outer: _Outer) -> None:
        self._outer = outer

    def send(self, data: bytes) -> int:
        """Send bytes; return how many. After `BlockingIOError`, call it again with the same bytes."""
        try:
            return self._outer.send(data)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None

    def recv(self, max_bytes: int) -> bytes:
        """Return received bytes; empty at the end, announced or not: the inner TLS tells whether it is complete."""
        try:
            return self._outer.recv(max_bytes)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None
        except ssl.SSLEOFError:
            return b""

    def close(self) -> None:
        """Close the connection; nothing more is sent."""
        self._outer.close()


class TlsOverTls(ssl.SSLObject):
    """OpenSSL over a `SocketOverTls`, with the methods and exceptions of a non-blocking `ssl.SSLSocket`.

    Attributes:
        wants_certificate: As `InspectedSocket` has it.
    """

    wants_certificate = False
    _incoming: ssl.MemoryBIO
    _outgoing: ssl.MemoryBIO
    _sock: SocketOverTls
    _unsent: bytes  # encrypted
    _accepted_bytes: int  # how much of the caller's data that is

    @classmethod
    def wrap(
        cls, context: ssl.SSLContext, sock: SocketOverTls, host: str, session: ssl.SSLSession | None
    ) -> "TlsOverTls":
        """Begin TLS, as `SSLContext.wrap_socket` does."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context.sslobject_class = cls
        made = cast(TlsOverTls, context.wrap_bio(incoming, outgoing, server_hostname=host, session=session))
        made._incoming, made._outgoing, made._sock = incoming, outgoing, sock
        made._unsent, made._accepted_bytes = b"", 0
        return made

    def do_handshake(self) -> None:
        """Go on with the handshake; raise `ssl.SSLWantReadError` or `ssl.SSLWantWriteError` until it is done."""
        while True:
            try:
                super().do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                self._fill()
            except ssl.SSLError:
                with suppress(OSError):
                    self._flush()  # the alert that tells the server
                raise
            else:
                self._flush()
                return

    def send(self, data: bytes) -> int:
        """Send bytes; return how many. After an exception, call it again with the same bytes."""
        if not self._accepted_bytes:
            self._accepted_bytes = self.write(data)
        self._flush()
        sent, self._accepted_bytes = self._accepted_bytes, 0
        return sent

    def recv(self, max_bytes: int) -> bytes:
        """Return received bytes; empty after the server's close_notify."""
        while True:
            try:
                return self.read(max_bytes)
            except ssl.SSLWantReadError:
                self._flush()
                self._fill()

    def close(self) -> None:
        """Close the connection; nothing more is sent."""
        self._sock.close()

    def _flush(self) -> None:
        while self._unsent or self._outgoing.pending:
            if not self._unsent:
                self._unsent = self._outgoing.read()
            try:
                sent = self._sock.send(self._unsent)
            except BlockingIOError:
                raise ssl.SSLWantWriteError from None
            self._unsent = self._unsent[sent:]

    def _fill(self) -> None:
        try:
            received = self._sock.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            raise ssl.SSLWantReadError from None
        if received:
            self._incoming.write(received)
        else:
            self._incoming.write_eof()
