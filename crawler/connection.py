"""One connection: a non-blocking socket and, over it, TLS.

It works on the socket itself and not through asyncio's streams: every phase ends where it ends, an error keeps its
errno, and closing is at once (RST), which leaves neither a wait for the peer nor a port in TIME_WAIT.
"""

import asyncio
import os
import socket
import ssl
import struct
from typing import Final

from crawler.models import TLSInfo

__all__ = ["Connection"]

_ABORT: Final = struct.pack("ii", 1, 0)
_CHUNK: Final = 16 * 1024


class Connection:
    """A connection to one address. Every method that waits raises `TimeoutError` at its deadline (loop time)."""

    __slots__ = ("_loop", "_number", "_socket", "_surprised", "_waiter", "_watched", "idle_since", "ip", "tls")

    def __init__(self, sock: socket.socket, ip: str) -> None:
        self.ip = ip
        self.tls: TLSInfo | None = None
        self.idle_since = 0.0
        self._socket = sock
        self._number = sock.fileno()
        self._watched = False
        self._surprised = False
        self._waiter: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()

    @classmethod
    async def open(cls, ip: str, port: int, deadline: float) -> "Connection":
        """Connect to an address.

        Raises:
            OSError: It cannot be connected to.
        """
        family = socket.AF_INET6 if ":" in ip else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        connection = cls(sock, ip)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
            try:
                sock.connect((ip, port))
            except BlockingIOError:
                await connection._writable(deadline)
                if number := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    raise OSError(number, os.strerror(number)) from None
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
            self._socket,
            server_hostname=name,
            session=session,
            do_handshake_on_connect=False,
            suppress_ragged_eofs=False,
        )
        self._socket = secured
        while True:
            try:
                secured.do_handshake()
            except ssl.SSLWantReadError:
                await self._readable(deadline)
            except ssl.SSLWantWriteError:
                await self._writable(deadline)
            else:
                return secured

    async def send(self, data: bytes, deadline: float) -> None:
        """Send all of it."""
        while data:
            try:
                data = data[self._socket.send(data) :]
            except (BlockingIOError, ssl.SSLWantWriteError):
                await self._writable(deadline)
            except ssl.SSLWantReadError:
                await self._readable(deadline)

    async def receive(self, deadline: float) -> bytes:
        """Some bytes, as soon as there are any; none at the end of the stream."""
        if not isinstance(self._socket, ssl.SSLSocket):  # TLS may hold bytes that the socket has no more
            await self._readable(deadline)
        while (data := self.receive_now()) is None:
            await self._readable(deadline)
        return data

    def receive_now(self) -> bytes | None:
        """What is there without waiting; None if nothing is."""
        try:
            return self._socket.recv(_CHUNK)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None

    @property
    def is_quiet(self) -> bool:
        """Whether an idle connection is as it should be: open, and without a byte that nobody asked for."""
        return not self._surprised

    def close(self) -> None:
        """Abort it."""
        self._unwatch()
        self._socket.close()

    async def _readable(self, deadline: float) -> None:
        # The reader stays until the connection is closed: to add and remove one for each wait costs more than the wait.
        if not self._watched:
            self._watched = True
            self._loop.add_reader(self._number, self._wake)
        await self._wait(deadline)

    async def _writable(self, deadline: float) -> None:
        self._loop.add_writer(self._number, self._wake)
        try:
            await self._wait(deadline)
        finally:
            self._loop.remove_writer(self._number)

    async def _wait(self, deadline: float) -> None:
        waiter = self._waiter = self._loop.create_future()
        timer = self._loop.call_at(deadline, _expire, waiter)
        try:
            await waiter
        finally:
            self._waiter = None
            timer.cancel()

    def _wake(self) -> None:
        if self._waiter is None:  # bytes, or the end, that nobody waits for: an event left unread would come for ever
            self._unwatch()
            self._surprised = True
        elif not self._waiter.done():
            self._waiter.set_result(None)

    def _unwatch(self) -> None:
        if self._watched:
            self._watched = False
            self._loop.remove_reader(self._number)


def _expire(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_exception(TimeoutError())
