"""One connection: a non-blocking socket and, over it, TLS.

It uses the socket itself instead of asyncio's streams. So each phase is timed where it ends, an error keeps its errno,
and closing aborts at once (RST): no wait for the peer, and no port in TIME_WAIT.
"""

import errno
import ipaddress
import os
import socket
import ssl
import struct
from collections.abc import Callable
from typing import Final, Protocol, TypeVar, cast

from crawler.core.results import ProbeError, TLSInfo
from crawler.transport.error_mapping import HopError
from crawler.transport.sockets.poller import Poller
from crawler.transport.tls.tls_in_tls import SocketOverTls

__all__ = ["Connection", "TlsSocket"]

# Linux makes a socket non-blocking as it creates it; elsewhere that is a second call.
_SOCKET_TYPE: Final = socket.SOCK_STREAM | getattr(socket, "SOCK_NONBLOCK", 0)
_LINGER_NONE: Final = struct.pack("ii", 1, 0)  # SO_LINGER with a time of 0: close sends RST
_CONNECTING: Final = (0, errno.EINPROGRESS)
_RECEIVE_BYTES: Final = 16 * 1024


class TlsSocket(Protocol):
    """TLS over a non-blocking socket: what `ssl.SSLSocket` has, and what other libraries are given."""

    def do_handshake(self) -> None:
        """Go on with the handshake; raise `ssl.SSLWantReadError` or `ssl.SSLWantWriteError` until it is done."""

    def send(self, data: bytes, /) -> int:
        """Send bytes; return how many."""

    def recv(self, max_bytes: int, /) -> bytes:
        """Return received bytes; empty at the end."""

    def close(self) -> None:
        """Close the socket."""


_TlsSocket = TypeVar("_TlsSocket", bound=TlsSocket)


class Connection:
    """A connection to one address. A method that waits raises `TimeoutError` at its deadline (of the poller's clock).

    Attributes:
        ip: The target's address; None if only a proxy knows it.
        tls: What the TLS handshake agreed on; None without TLS.
        is_resumed: Whether the TLS handshake resumed an earlier session.
        tls_socket: TLS itself, from the begin of its handshake on; None without TLS.
        idle_since: When the pool got it (loop time).
    """

    __slots__ = (
        "_descriptor",
        "_poller",
        "_readiness",
        "_socket",
        "idle_since",
        "ip",
        "is_resumed",
        "tls",
        "tls_socket",
    )

    def __init__(self, sock: socket.SocketType, ip: str, poller: Poller) -> None:
        self.ip: str | None = ip
        self.tls: TLSInfo | None = None
        self.is_resumed = False
        self.tls_socket: TlsSocket | None = None
        self.idle_since = 0.0
        self._socket: socket.SocketType | TlsSocket = sock
        self._poller = poller
        self._descriptor = sock.fileno()
        self._readiness = poller.watch(self._descriptor)

    @classmethod
    async def open(cls, ip: str, port: int, poller: Poller, deadline: float) -> "Connection":
        """Connect to an address.

        Raises:
            OSError: The connection failed.
        """
        family = socket.AF_INET6 if ":" in ip else socket.AF_INET
        # The base class of `socket.socket`: the same in C, without a Python layer around each call.
        sock = socket.SocketType(family, _SOCKET_TYPE)
        try:
            if sock.gettimeout() != 0:
                sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)
            number = sock.connect_ex((ip, port))
            if number == errno.ENETUNREACH:  # reported at once, it comes from our own routing table
                raise _no_route(ip, family)
            if number not in _CONNECTING:
                raise OSError(number, os.strerror(number))
            connection = cls(sock, ip, poller)
        except BaseException:
            sock.close()
            raise
        try:
            await connection._readiness.until_writable(deadline)
            has_error = connection._readiness.may_have_error
            if has_error and (number := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)):
                raise OSError(number, os.strerror(number))
        except BaseException:
            connection.close()
            raise
        return connection

    async def start_tls(self, wrap: Callable[[socket.SocketType], _TlsSocket], deadline: float) -> _TlsSocket:
        """Do a TLS handshake.

        Args:
            wrap: Begins TLS on the socket, without the handshake.
            deadline: Time of the clock.

        Raises:
            OSError: The handshake failed; an `ssl.SSLError` has the reason.
        """
        # TLS with a target, through a proxy that is reached by TLS
        sock = self._socket if self.tls_socket is None else SocketOverTls(self.tls_socket)
        tls_socket = wrap(cast(socket.SocketType, sock))  # no engine needs more of it than that class has
        self._socket = self.tls_socket = tls_socket
        while True:
            self._readiness.is_readable = False  # before reading: what comes from now on is a new event
            try:
                tls_socket.do_handshake()
            except ssl.SSLWantReadError:
                await self._readiness.until_readable(deadline)
            except ssl.SSLWantWriteError:
                await self._until_writable_again(deadline)
            else:
                return tls_socket

    async def send(self, data: bytes, deadline: float) -> None:
        """Send all of it."""
        while data:
            try:
                data = data[self._socket.send(data) :]
            except (BlockingIOError, ssl.SSLWantWriteError):
                await self._until_writable_again(deadline)
            except ssl.SSLWantReadError:
                self._readiness.is_readable = False
                await self._readiness.until_readable(deadline)

    async def receive(self, deadline: float, max_bytes: int = _RECEIVE_BYTES) -> bytes:
        """Wait for bytes and return them; empty at the end of the stream."""
        if self.tls_socket is None:  # TLS may hold bytes that were read from the socket before
            await self._readiness.until_readable(deadline)
        while (data := self.receive_available(max_bytes)) is None:
            await self._readiness.until_readable(deadline)
        return data

    def receive_available(self, max_bytes: int = _RECEIVE_BYTES) -> bytes | None:
        """Return bytes that are here already; empty at the end of the stream, None if there are none yet."""
        try:
            return self._socket.recv(max_bytes)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            # Only now all is read: one event can announce several packets, or bytes and the end of the stream.
            self._readiness.is_readable = False
            return None

    @property
    def is_reusable(self) -> bool:
        """Whether an idle connection is still open and has received nothing that no request asked for."""
        try:
            return self.receive_available() is None
        except OSError:
            return False

    def close(self) -> None:
        """Abort the connection."""
        self._poller.forget(self._descriptor, self._readiness)
        self._socket.close()

    async def _until_writable_again(self, deadline: float) -> None:
        self._readiness.is_writable = False
        await self._readiness.until_writable(deadline)


def _no_route(ip: str, family: int) -> Exception:
    """Return the error for an address to which the routing table has no way."""
    if (kind := _kind_without_host(ip, family)) is not None:
        message = f"{ip} is a {kind} address, to which there are no TCP connections"
        return HopError(ProbeError("tcp.address_unreachable", "connect", message, transient=False))
    version = 4 if family == socket.AF_INET else 6
    return OSError(errno.ENETDOWN, f"this machine has no route to IPv{version} addresses")


def _kind_without_host(ip: str, family: int) -> str | None:
    """Return the kind of an address that many hosts share; None for an address of one host."""
    if ipaddress.ip_address(ip).is_multicast:
        return "multicast"
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        # Only the routing table knows the broadcast addresses of networks. It does not let UDP use one unasked.
        is_broadcast = sock.connect_ex((ip, 9)) == errno.EACCES
    return "broadcast" if is_broadcast or ip == "255.255.255.255" else None
