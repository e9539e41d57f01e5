"""TLS inside of TLS: the connection to an https target through an https proxy.

`SocketOverTls` gives the outer TLS the methods of a socket. rustls needs no more. OpenSSL's sockets need a socket of
the operating system, so `TlsInTls` does OpenSSL's inner TLS in memory and moves the bytes itself.
"""

import ssl
from contextlib import suppress
from typing import Final, Protocol, cast

__all__ = ["SocketOverTls", "TlsInTls"]

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
        """Return received bytes; empty at the end, even without close_notify: the inner TLS detects a cut stream."""
        try:
            return self._outer.recv(max_bytes)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None
        except ssl.SSLEOFError:
            return b""

    def close(self) -> None:
        """Close the connection; nothing more is sent."""
        self._outer.close()


class TlsInTls(ssl.SSLObject):
    """OpenSSL over a `SocketOverTls`, with the methods and exceptions of a non-blocking `ssl.SSLSocket`.

    Attributes:
        wants_certificate: As in `InspectedSocket`.
    """

    wants_certificate = False
    _incoming: ssl.MemoryBIO
    _outgoing: ssl.MemoryBIO
    _sock: SocketOverTls
    _unsent: bytes  # encrypted
    _accepted_bytes: int  # the length of the caller's data in `_unsent`

    @classmethod
    def wrap(
        cls, context: ssl.SSLContext, sock: SocketOverTls, host: str, session: ssl.SSLSession | None
    ) -> "TlsInTls":
        """Begin TLS, as `SSLContext.wrap_socket` does."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context.sslobject_class = cls
        inner = cast(TlsInTls, context.wrap_bio(incoming, outgoing, server_hostname=host, session=session))
        inner._incoming, inner._outgoing, inner._sock = incoming, outgoing, sock
        inner._unsent, inner._accepted_bytes = b"", 0
        return inner

    def do_handshake(self) -> None:
        """Continue the handshake; raise `ssl.SSLWantReadError` or `ssl.SSLWantWriteError` until it is done."""
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
