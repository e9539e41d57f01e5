"""One connection: a non-blocking socket and, over it, TLS.

It works on the socket itself and not through asyncio's streams: every phase ends where it ends, an error keeps its
errno, and closing is at once (RST), which leaves neither a wait for the peer nor a port in TIME_WAIT.
"""

import errno
import os
import socket
import ssl
import struct
from typing import Final, cast

from crawler.core.results import TLSInfo
from crawler.transport.poller import Poller

__all__ = ["Connection"]

_ABORT: Final = struct.pack("ii", 1, 0)
_UNDER_WAY: Final = (0, errno.EINPROGRESS)
_CHUNK: Final = 16 * 1024


class Connection:
    """A connection to one address. Every method that waits raises `TimeoutError` at its deadline (loop time)."""

    __slots__ = ("_number", "_poller", "_ready", "_socket", "idle_since", "ip", "tls")

    def __init__(self, sock: socket.SocketType, ip: str, poller: Poller) -> None:
        self.ip = ip
        self.tls: TLSInfo | None = None
        self.idle_since = 0.0
        self._socket = sock
        self._poller = poller
        self._number = sock.fileno()
        self._ready = poller.watch(self._number)

    @classmethod
    async def open(cls, ip: str, port: int, poller: Poller, deadline: float) -> "Connection":
        """Connect to an address.

        Raises:
            OSError: It cannot be connected to.
        """
        family = socket.AF_INET6 if ":" in ip else socket.AF_INET
        # The type below `socket.socket`: the same in C, without the layer in Python around each call.
        sock = socket.SocketType(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
            number = sock.connect_ex((ip, port))
            if number == errno.ENETUNREACH and family == socket.AF_INET:
                number = errno.ENETDOWN  # said at once, it is by our own routes: none leads to the internet
            if number not in _UNDER_WAY:
                raise OSError(number, os.strerror(number))
            connection = cls(sock, ip, poller)
        except BaseException:
            sock.close()
            raise
        try:
            await connection._ready.until_writable(deadline)
            if connection._ready.failed and (number := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)):
                raise OSError(number, os.strerror(number))
        except BaseException:
            connection.close()
            raise
        return connection

    async def secure(
        self, context: ssl.SSLContext, name: str, deadline: float, session: ssl.SSLSession | None = None
    ) -> ssl.SSLSocket:
        """Do the TLS handshake; `name` is the host's, or its address, which the certificate has to be for.

        Raises:
            OSError: It fails; an `ssl.SSLError` says why.
        """
        secured = context.wrap_socket(
            cast(socket.socket, self._socket),  # it takes what this has
            server_hostname=name,
            session=session,
            do_handshake_on_connect=False,
            suppress_ragged_eofs=False,
        )
        self._socket = secured
        while True:
            self._ready.readable = False  # before reading: what comes from now on is a new edge
            try:
                secured.do_handshake()
            except ssl.SSLWantReadError:
                await self._ready.until_readable(deadline)
            except ssl.SSLWantWriteError:
                await self._blocked(deadline)
            else:
                return secured

    async def send(self, data: bytes, deadline: float) -> None:
        """Send all of it."""
        while data:
            try:
                data = data[self._socket.send(data) :]
            except (BlockingIOError, ssl.SSLWantWriteError):
                await self._blocked(deadline)
            except ssl.SSLWantReadError:
                self._ready.readable = False
                await self._ready.until_readable(deadline)

    async def receive(self, deadline: float) -> bytes:
        """Some bytes, as soon as there are any; none at the end of the stream."""
        if not isinstance(self._socket, ssl.SSLSocket):  # TLS may hold bytes that the socket has no more
            await self._ready.until_readable(deadline)
        while (data := self.receive_now()) is None:
            await self._ready.until_readable(deadline)
        return data

    def receive_now(self) -> bytes | None:
        """What is there without waiting; None if nothing is."""
        try:
            return self._socket.recv(_CHUNK)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            # Only now all is read. Bytes may come together with more of them, or with the end: that is one edge.
            self._ready.readable = False
            return None

    @property
    def session(self) -> ssl.SSLSession | None:
        """What can be handed to `secure` for the next connection to the same server."""
        return self._socket.session if isinstance(self._socket, ssl.SSLSocket) else None

    @property
    def is_quiet(self) -> bool:
        """Whether an idle connection is as it should be: open, and without a byte that nobody asked for."""
        try:
            return self.receive_now() is None
        except OSError:
            return False

    def close(self) -> None:
        """Abort it."""
        self._poller.forget(self._number, self._ready)
        self._socket.close()

    async def _blocked(self, deadline: float) -> None:
        self._ready.writable = False
        await self._ready.until_writable(deadline)
