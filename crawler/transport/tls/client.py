"""The TLS of probes, with two libraries: rustls first, and OpenSSL for every server that rustls refuses.

rustls does a handshake in half of the time, but it does not support old ciphers and keys. OpenSSL offers what a browser
offers, and its result is final. So a certificate is called bad only if two independent libraries refuse it.

    1  rustls                                   most servers accept it
    2  OpenSSL, on a new connection             after every failure except a timeout; from then on first for this origin
    3  OpenSSL again without the old session    if the server fails to resume a session
    4  OpenSSL, accepting everything            to learn why it refused the server; no request is sent
    5  OpenSSL with fetched intermediates       if the server does not send them, or others than the right ones
"""

import socket
import ssl
import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from typing import Final, Literal, cast

from crawler.core.options import Options
from crawler.core.results import TLSInfo
from crawler.transport.error_mapping import HopError
from crawler.transport.sockets.connection import Connection
from crawler.transport.tls.handshake import AnyTlsSocket, Handshake, check_certificate, openssl_wrapper, start_tls
from crawler.transport.tls.issuers import Fetch, IssuerStore
from crawler.transport.tls.openssl import HTTP1, InspectedSocket, Origin, SessionCache, TlsContexts, openssl_chain
from crawler.transport.tls.refusals import (
    NEEDS_INSPECTION,
    Inspection,
    explain_refusal,
    explain_refusal_after_handshake,
    is_incomplete,
    may_be_due_to_issuers,
)
from crawler.transport.tls.report import certificate_of, describe_tls, find_path, has_usable_issuers
from crawler.transport.tls.rustls import RustlsContext, RustlsSocket, make_rustls_context
from crawler.transport.tls.tls_in_tls import TlsInTls

__all__ = ["TlsClient"]

_MAX_ORIGINS: Final = 10_000
_MAX_FETCHED_ISSUERS: Final = 3  # for one chain
_MAX_CERTIFICATES_TO_COMPLETE: Final = 6  # of one chain, sent or fetched


class TlsClient:
    """Does the handshakes of one transport.

    Args:
        options: Which certificates are acceptable.
        fetch: Fetches a certificate by http; see `IssuerStore`.
        protocols: The protocols that handshakes offer by ALPN, the preferred one first.

    Raises:
        OptionError: A file of the options cannot be used.
    """

    def __init__(self, options: Options, fetch: Fetch, protocols: Sequence[str] = HTTP1) -> None:
        self._options = options
        self._protocols = protocols
        self._contexts = TlsContexts(options, protocols)
        self._sessions = SessionCache()
        self._issuers = IssuerStore(fetch)
        # The fetched certificates in `TlsContexts.completing`, by their subjects, all as DER.
        self._loaded_issuers: dict[bytes, set[bytes]] = {}
        self._openssl_first: OrderedDict[Origin, None] = OrderedDict()
        self._incomplete: OrderedDict[Origin, None] = OrderedDict()

    async def secure(self, connection: Connection, handshake: Handshake) -> Connection:
        """Do the handshake; return this connection or a new one, with TLS. After a failure all are closed.

        Raises:
            HopError: The server or its certificate was refused.
            OSError: A connection broke, or the deadline passed.
        """
        origin, rustls = handshake.url.origin, self._rustls
        if rustls is None or not rustls.has_room or origin in self._openssl_first:
            return await self._secure_by_openssl(connection, handshake)
        try:
            tls_socket = await start_tls(connection, lambda sock: rustls.wrap(sock, handshake.host), handshake)
            if self._options.tls == "rustls" or self._options.insecure or has_usable_issuers(tls_socket.chain()):
                return self._accept(connection, tls_socket, handshake)
            connection.close()  # rustls does not check what an authority may do
        except TimeoutError:
            _remember(self._openssl_first, origin)  # for a retry; this attempt has no time left
            raise
        except OSError:
            if self._options.tls == "rustls":
                raise
        secured = await self._secure_by_openssl(await handshake.reopen(), handshake)
        _remember(self._openssl_first, origin)
        return secured

    def keep_session(self, connection: Connection, origin: Origin) -> None:
        """Keep the session of a connection that has received bytes: in TLS 1.3 the session comes with the response."""
        tls_socket = connection.tls_socket
        # A session can be resumed with the same context only.
        if isinstance(tls_socket, (ssl.SSLSocket, TlsInTls)) and tls_socket.context is self._context_for(origin):
            with suppress(ValueError):  # Python cannot copy a session whose certificates have more than about 64 KiB
                self._sessions.put(origin, tls_socket.session)

    def learn_from_failure(self, connection: Connection, origin: Origin, error: Exception) -> bool:
        """Learn from a request that failed before its response; return whether a new connection may help.

        It may help after a TLS failure with rustls, because OpenSSL is used next, and after any failure of a resumed
        session, because the next handshake is a full one.
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
        """Return the error of a server that refused the client after the handshake; other errors stay as they are."""
        problem = explain_refusal_after_handshake(error, has_certificate=self._options.cert is not None)
        return error if problem is None else HopError(problem)

    @cached_property
    def _rustls(self) -> RustlsContext | None:
        return make_rustls_context(self._options, self._protocols)

    def _context_for(self, origin: Origin) -> ssl.SSLContext:
        return self._contexts.completing if origin in self._incomplete else self._contexts.verifying

    async def _secure_by_openssl(self, connection: Connection, handshake: Handshake) -> Connection:
        origin = handshake.url.origin
        is_known_incomplete = origin in self._incomplete
        session = self._sessions.get(origin)
        wrap = openssl_wrapper(self._context_for(origin), handshake.host, session)
        try:
            tls_socket = await start_tls(connection, wrap, handshake)
        except TimeoutError:
            raise
        except OSError as error:
            if session is not None or is_known_incomplete:
                self._sessions.drop(origin)
                self._incomplete.pop(origin, None)
                return await self._secure_by_openssl(await handshake.reopen(), handshake)
            return await self._handle_refusal(error, handshake)
        return self._accept(connection, tls_socket, handshake)

    def _accept(self, connection: Connection, tls_socket: AnyTlsSocket, handshake: Handshake) -> Connection:
        """Check what the libraries do not check, and note the result in the connection and the timer.

        Raises:
            HopError: The server's certificate is refused.
        """
        try:
            info = handshake.timer.tls = describe_tls(tls_socket, self._chain_state(tls_socket, handshake.url.origin))
            if not self._options.insecure and (problem := check_certificate(tls_socket, handshake.host)) is not None:
                raise HopError(problem)
        except BaseException:
            connection.close()
            raise
        connection.tls = info
        connection.is_resumed = not isinstance(tls_socket, RustlsSocket) and bool(tls_socket.session_reused)
        return connection

    def _chain_state(self, tls_socket: AnyTlsSocket, origin: Origin) -> Literal["incomplete"] | None:
        if isinstance(tls_socket, RustlsSocket) or origin not in self._incomplete:
            return None
        chain = openssl_chain(tls_socket)  # empty after a resumed session
        issuer_names = [each.issuer_name for der in chain if (each := certificate_of(der)) is not None]
        fetched = [self._loaded_issuers.get(name) for name in issuer_names]
        lacks_issuer = any(issuers is not None and issuers.isdisjoint(chain) for issuers in fetched)
        return "incomplete" if lacks_issuer or not chain else None

    async def _handle_refusal(self, error: OSError, handshake: Handshake) -> Connection:
        """Find out why OpenSSL refused. If it may be due to the intermediates, fetch them and return a new connection.

        Raises:
            HopError: The server or its certificate stays refused.
            OSError: The failure was not a refusal.
        """
        reason = getattr(error, "reason", None) or ""
        if not isinstance(error, ssl.SSLCertVerificationError) and not reason.endswith(NEEDS_INSPECTION):
            raise error
        inspection = await self._inspect(handshake)
        if may_be_due_to_issuers(error, inspection, time.time()):
            completed = await self._complete_chain(error, inspection.path, handshake)
            if isinstance(completed, Connection):
                return completed
            error = completed
        handshake.timer.tls = inspection.info
        problem = explain_refusal(
            error, inspection, handshake.host, has_certificate=self._options.cert is not None, now=time.time()
        )
        raise HopError(problem) from error

    async def _inspect(self, handshake: Handshake) -> Inspection:
        """Do a handshake that accepts everything, to learn which version, cipher and certificates the server has."""
        inspected: InspectedSocket | None = None

        def wrap(sock: socket.SocketType) -> InspectedSocket:
            nonlocal inspected
            inspected = cast(InspectedSocket, openssl_wrapper(self._contexts.inspecting, handshake.host, None)(sock))
            return inspected

        info: TLSInfo | None = None
        path: list[bytes] = []
        try:
            connection = await handshake.reopen()
            tls_socket = await start_tls(connection, wrap, handshake)
            info, path = describe_tls(tls_socket), find_path(openssl_chain(tls_socket))
            connection.close()
        except (OSError, HopError):
            pass  # the first error is the one to report
        return Inspection(info, path, inspected is not None and inspected.wants_certificate)

    async def _complete_chain(self, error: OSError, path: list[bytes], handshake: Handshake) -> Connection | OSError:
        """Fetch the intermediates of a chain; return a connection, or the error if it is still refused.

        The last certificate may lack its issuer. An earlier one may have been sent with a wrong issuer: one that has
        expired, or has another key, or leads to a root that is not trusted.
        """
        origin = handshake.url.origin
        pending, known, fetched = list(path), set(path), 0
        for _ in range(_MAX_CERTIFICATES_TO_COMPLETE):
            if not pending or fetched == _MAX_FETCHED_ISSUERS:
                break
            issuer = await self._issuers.fetch_issuer_of(pending.pop(), handshake.deadline())
            if issuer is None or issuer in known:
                continue
            pending.append(issuer)
            known.add(issuer)
            fetched += 1
            certificate = certificate_of(issuer)
            assert certificate is not None  # the store returns no other
            loaded = self._loaded_issuers.setdefault(certificate.subject_name, set())
            if issuer not in loaded:
                loaded.add(issuer)
                self._contexts.completing.load_verify_locations(cadata=issuer)
            try:
                connection = await handshake.reopen()
                wrap = openssl_wrapper(self._contexts.completing, handshake.host, None)
                tls_socket = await start_tls(connection, wrap, handshake)
            except ssl.SSLCertVerificationError as refusal:
                error = refusal if is_incomplete(error) else error
            else:
                _remember(self._incomplete, origin)
                self._sessions.drop(origin)
                return self._accept(connection, tls_socket, handshake)
        return error


def _remember(origins: OrderedDict[Origin, None], origin: Origin) -> None:
    origins[origin] = None
    if len(origins) > _MAX_ORIGINS:
        origins.popitem(last=False)
