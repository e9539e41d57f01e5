"""One connection: a non-blocking socket and, over it, TLS.

It works on the socket itself and not through asyncio's streams: every phase ends where it ends, an error keeps its
errno, and closing is at once (RST), which leaves neither a wait for the peer nor a port in TIME_WAIT.
"""

import asyncio
import os
import socket
import ssl
import struct
from collections.abc import Callable
from typing import Any, Final

from crawler.models import TLSInfo

__all__ = ["Connection"]

_ABORT: Final = struct.pack("ii", 1, 0)
_CHUNK: Final = 64 * 1024


class Connection:
    """A connection to one address. Every method that waits raises `TimeoutError` at its deadline (loop time)."""

    __slots__ = ("_loop", "_socket", "idle_since", "ip", "tls")

    def __init__(self, sock: socket.socket, ip: str) -> None:
        self.ip = ip
        self.tls: TLSInfo | None = None
        self.idle_since = 0.0
        self._socket = sock
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
        try:
            return self.receive_now() is None
        except OSError:
            return False

    def close(self) -> None:
        """Abort it."""
        self._socket.close()

    async def _readable(self, deadline: float) -> None:
        await self._wait(self._loop.add_reader, self._loop.remove_reader, deadline)

    async def _writable(self, deadline: float) -> None:
        await self._wait(self._loop.add_writer, self._loop.remove_writer, deadline)

    async def _wait(self, add: Callable[..., Any], remove: Callable[[int], Any], deadline: float) -> None:
        waiter = self._loop.create_future()
        number = self._socket.fileno()
        timer = self._loop.call_at(deadline, _expire, waiter)
        add(number, _wake, waiter)
        try:
            await waiter
        finally:
            remove(number)
            timer.cancel()


def _wake(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)


def _expire(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_exception(TimeoutError())
