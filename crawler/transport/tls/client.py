"""Secure connections with two TLS engines: rustls first, and OpenSSL about all that rustls refuses.

rustls does a handshake in half of the time, and refuses what is old. OpenSSL gets a browser's offer, and its answer
stands. So a certificate is called bad only if two independent libraries refuse it.

    1  rustls                                   accepted by most servers
    2  OpenSSL, on a new connection             after any refusal but a timeout; from then on first for this origin
    3  OpenSSL again without the old session    if the server breaks when a session is resumed
    4  OpenSSL without any rule                 to learn why it was refused; the connection is not used
    5  OpenSSL with fetched intermediates       if the server does not send them
"""

import socket
import ssl
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Final, Literal, NamedTuple, TypeVar, cast

from crawler.core.options import Options
from crawler.core.results import ProbeError, TLSInfo
from crawler.core.urls import Url
from crawler.transport.error_mapping import HopError
from crawler.transport.sockets.connection import Connection, TlsSocket
from crawler.transport.timing import HopTimer
from crawler.transport.tls.issuers import Fetch, IssuerStore
from crawler.transport.tls.names import matches_host, server_name
from crawler.transport.tls.openssl import HTTP1, InspectedSocket, Origin, SessionCache, TlsContexts, openssl_chain
from crawler.transport.tls.over_tls import SocketOverTls, TlsOverTls
from crawler.transport.tls.refusals import (
    NEEDS_INSPECTION,
    NO_ISSUER_CODES,
    Inspection,
    explain_refusal,
    explain_refusal_after_handshake,
    wrong_name,
)
from crawler.transport.tls.report import certificate_of, describe_tls, find_path, subject_names
from crawler.transport.tls.rustls import RustlsEngine, RustlsSocket, open_rustls

__all__ = ["TlsClient"]

_MAX_ORIGINS: Final = 10_000
_MAX_FETCHED_ISSUERS: Final = 3  # for one chain

_TlsSocket = TypeVar("_TlsSocket", bound=TlsSocket)


class Handshake(NamedTuple):
    """What a TLS handshake needs besides its engine.

    Attributes:
        url: Has the host that the certificate has to be for.
        reopen: Opens another connection to the same address.
        deadline: Returns until when (loop time) a handshake that begins now may take.
        timer: Gets what is known of the connection, also if it is refused.
    """

    url: Url
    reopen: Callable[[], Awaitable[Connection]]
    deadline: Callable[[], float]
    timer: HopTimer

    @property
    def host(self) -> str:
        """The host as TLS names it."""
        return server_name(self.url.host)


class TlsClient:
    """Does the handshakes of one transport.

    Args:
        options: Which certificates are acceptable.
        fetch: Fetches a certificate by http; see `IssuerStore`.
        protocols: What the handshakes offer by ALPN.

    Raises:
        OptionError: A file of the options cannot be used.
    """

    def __init__(self, options: Options, fetch: Fetch, protocols: Sequence[str] = HTTP1) -> None:
        self._options = options
        self._protocols = protocols
        self._contexts = TlsContexts(options, protocols)
        self._sessions = SessionCache()
        self._issuers = IssuerStore(fetch)
        self._loaded_issuers: set[bytes] = set()  # in the context that completes chains
        self._fetched_issuers: set[bytes] = set()  # the same by their names
        self._openssl_first: OrderedDict[Origin, None] = OrderedDict()
        self._incomplete: OrderedDict[Origin, None] = OrderedDict()

    async def secure(self, connection: Connection, handshake: Handshake) -> Connection:
        """Do the handshake; return this connection or another one, with TLS. After a failure all are closed.

        Raises:
            HopError: The server or its certificate was refused.
            OSError: A connection broke, or the deadline passed.
        """
        origin, rustls = handshake.url.origin, self._rustls
        if rustls is None or not rustls.has_room or origin in self._openssl_first:
            return await self._secure_by_openssl(connection, handshake)
        try:
            tls_socket = await _start(connection, lambda sock: rustls.wrap(sock, handshake.host), handshake)
            return self._accept(connection, tls_socket, handshake)
        except TimeoutError:
            _remember(self._openssl_first, origin)  # a retry asks OpenSSL; this attempt has no time left
            raise
        except OSError:
            if self._options.tls == "rustls":
                raise
        secured = await self._secure_by_openssl(await handshake.reopen(), handshake)
        _remember(self._openssl_first, origin)
        return secured

    def keep_session(self, connection: Connection, origin: Origin) -> None:
        """Keep the session of a connection that has received bytes; in TLS 1.3 it comes with the response."""
        tls_socket = connection.tls_socket
        # A session can be resumed with the same context only.
        if isinstance(tls_socket, (ssl.SSLSocket, TlsOverTls)) and tls_socket.context is self._context_for(origin):
            with suppress(ValueError):  # Python cannot copy a session whose certificates have more than about 64 KiB
                self._sessions.put(origin, tls_socket.session)

    def may_ask_again(self, connection: Connection, origin: Origin, error: Exception) -> bool:
        """Return whether a request that failed before its response may succeed on a new connection.

        It may if the failure is one of TLS that rustls has met, and if the server broke after it resumed a session.
        """
        tls_socket = connection.tls_socket
        if isinstance(tls_socket, RustlsSocket):
            is_refusal = isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError)
            if is_refusal and self._options.tls != "rustls":
                _remember(self._openssl_first, origin)
                return True
        elif connection.is_resumed:
            self._sessions.drop(origin)
            return isinstance(error, (ssl.SSLError, ConnectionError, EOFError))
        return False

    def explain(self, error: Exception) -> Exception:
        """Return the error that tells why TLS ended after the handshake; another error is returned as it is."""
        problem = explain_refusal_after_handshake(error, has_certificate=self._options.cert is not None)
        return error if problem is None else HopError(problem)

    @cached_property
    def _rustls(self) -> RustlsEngine | None:
        return open_rustls(self._options, self._protocols)

    def _context_for(self, origin: Origin) -> ssl.SSLContext:
        return self._contexts.completing if origin in self._incomplete else self._contexts.verifying

    async def _secure_by_openssl(self, connection: Connection, handshake: Handshake) -> Connection:
        origin = handshake.url.origin
        is_known_incomplete = origin in self._incomplete
        session = self._sessions.get(origin)
        wrap = _wrapper(self._context_for(origin), handshake.host, session)
        try:
            tls_socket = await _start(connection, wrap, handshake)
        except TimeoutError:
            raise
        except OSError as error:
            if session is not None or is_known_incomplete:
                self._sessions.drop(origin)
                self._incomplete.pop(origin, None)
                return await self._secure_by_openssl(await handshake.reopen(), handshake)
            return await self._reconsider(error, handshake)
        return self._accept(connection, tls_socket, handshake)

    def _accept(
        self, connection: Connection, tls_socket: ssl.SSLSocket | TlsOverTls | RustlsSocket, handshake: Handshake
    ) -> Connection:
        """Check what the engines do not check, and let the connection be used.

        Raises:
            HopError: The server's certificate is refused.
        """
        try:
            info = handshake.timer.tls = describe_tls(tls_socket, self._chain_state(tls_socket, handshake.url.origin))
            if not self._options.insecure and (problem := _check_leaf(tls_socket, handshake.host)) is not None:
                raise HopError(problem)
        except BaseException:
            connection.close()
            raise
        connection.tls = info
        connection.is_resumed = not isinstance(tls_socket, RustlsSocket) and bool(tls_socket.session_reused)
        return connection

    def _chain_state(
        self, tls_socket: ssl.SSLSocket | TlsOverTls | RustlsSocket, origin: Origin
    ) -> Literal["incomplete"] | None:
        if isinstance(tls_socket, RustlsSocket) or origin not in self._incomplete:
            return None
        path = find_path(openssl_chain(tls_socket))  # empty after a resumed session
        last = certificate_of(path[-1]) if path else None
        return "incomplete" if last is None or last.issuer_name in self._fetched_issuers else None

    async def _reconsider(self, error: OSError, handshake: Handshake) -> Connection:
        """Find out why OpenSSL refused; complete the chain if that is what is missing.

        Raises:
            HopError: The server or its certificate stays refused.
            OSError: It was no refusal.
        """
        reason = getattr(error, "reason", None) or ""
        if not isinstance(error, ssl.SSLCertVerificationError) and not reason.endswith(NEEDS_INSPECTION):
            raise error
        found = await self._inspect(handshake)
        if isinstance(error, ssl.SSLCertVerificationError) and error.verify_code in NO_ISSUER_CODES and found.path:
            completed = await self._complete(error, found.path, handshake)
            if isinstance(completed, Connection):
                return completed
            error = completed
        handshake.timer.tls = found.info
        problem = explain_refusal(
            error, found, handshake.host, has_certificate=self._options.cert is not None, now=time.time()
        )
        raise HopError(problem) from error

    async def _inspect(self, handshake: Handshake) -> Inspection:
        """Do a handshake that accepts everything, to see what the server is like. No request is sent on it."""
        made: list[InspectedSocket] = []

        def wrap(sock: socket.SocketType) -> InspectedSocket:
            made.append(cast(InspectedSocket, _wrapper(self._contexts.inspecting, handshake.host, None)(sock)))
            return made[0]

        info: TLSInfo | None = None
        path: list[bytes] = []
        try:
            connection = await handshake.reopen()
            tls_socket = await _start(connection, wrap, handshake)
            info, path = describe_tls(tls_socket), find_path(openssl_chain(tls_socket))
            connection.close()
        except (OSError, HopError):
            pass  # the first error stays as it is
        return Inspection(info, path, bool(made and made[0].wants_certificate))

    async def _complete(
        self, error: ssl.SSLCertVerificationError, path: list[bytes], handshake: Handshake
    ) -> Connection | ssl.SSLCertVerificationError:
        """Fetch the intermediates that a server does not send; return a connection, or why it is still refused."""
        path = list(path)
        origin = handshake.url.origin
        for _ in range(_MAX_FETCHED_ISSUERS):
            issuer = await self._issuers.issuer_of(path[-1], handshake.deadline())
            if issuer is None:
                break
            path.append(issuer)
            if (certificate := certificate_of(issuer)) and issuer not in self._loaded_issuers:
                self._loaded_issuers.add(issuer)
                self._fetched_issuers.add(certificate.subject_name)
                self._contexts.completing.load_verify_locations(cadata=issuer)
            try:
                connection = await handshake.reopen()
                wrap = _wrapper(self._contexts.completing, handshake.host, None)
                tls_socket = await _start(connection, wrap, handshake)
            except ssl.SSLCertVerificationError as refusal:
                error = refusal
            else:
                _remember(self._incomplete, origin)
                self._sessions.drop(origin)
                return self._accept(connection, tls_socket, handshake)
        return error


async def _start(
    connection: Connection, wrap: Callable[[socket.SocketType], _TlsSocket], handshake: Handshake
) -> _TlsSocket:
    handshake.timer.start("ssl")
    try:
        return await connection.start_tls(wrap, handshake.deadline())
    except BaseException:
        connection.close()
        raise


def _wrapper(
    context: ssl.SSLContext, host: str, session: ssl.SSLSession | None
) -> Callable[[socket.SocketType], ssl.SSLSocket | TlsOverTls]:
    def wrap(sock: socket.SocketType | SocketOverTls) -> ssl.SSLSocket | TlsOverTls:
        if isinstance(sock, SocketOverTls):
            return TlsOverTls.wrap(context, sock, host, session)
        return context.wrap_socket(
            cast(socket.socket, sock),  # it needs no more than the base class has
            server_hostname=host,
            session=session,
            do_handshake_on_connect=False,
            suppress_ragged_eofs=False,
        )

    return wrap


def _check_leaf(tls_socket: ssl.SSLSocket | TlsOverTls | RustlsSocket, host: str) -> ProbeError | None:
    """Return what is wrong with a certificate whose chain is right."""
    if isinstance(tls_socket, RustlsSocket):  # it has checked the name
        der = next(iter(tls_socket.chain()), b"")
    else:
        der = tls_socket.getpeercert(binary_form=True) or b""
        if not matches_host(names := subject_names(der), host):
            return wrong_name(names, host)
    certificate = certificate_of(der)
    if certificate is not None and certificate.unusual_key is not None:
        message = f"the certificate's key is of a kind that browsers do not accept: {certificate.unusual_key}"
        return ProbeError.of("tls.version_or_cipher_mismatch", message)
    return None


def _remember(origins: OrderedDict[Origin, None], origin: Origin) -> None:
    origins[origin] = None
    if len(origins) > _MAX_ORIGINS:
        origins.popitem(last=False)
