"""Ask DNS servers: through c-ares (aiodns), and with the fallback client if c-ares has no answer in time."""

import asyncio
import socket
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Final

import aiodns
import pycares
from aiodns.error import ARES_ETIMEOUT, DNSError

from crawler.core.option_syntax import parse_server
from crawler.runtime.cancellation import cancel_and_wait
from crawler.runtime.waiting import wait_until_done
from crawler.transport.dns.fallback_client import FallbackClient
from crawler.transport.dns.messages import Addresses, Question

__all__ = ["DnsClient"]

# The timeout until a server has answered three times; then c-ares takes five times its average latency, or 250 ms.
_QUERY_TIMEOUT_SECONDS: Final = 1.5
_QUERY_TRIES: Final = 2
_FALLBACK_DELAY_SECONDS: Final = 1.0  # after which the fallback client starts, even if c-ares still waits
_SOCKET_BUFFER_BYTES: Final = 2**21  # thousands of answers may arrive while the loop is busy


class DnsClient:
    """Asks the hosts file, then DNS servers. Call `close` when done.

    Args:
        servers: The servers of `--dns`; empty for the system's.
        now: The clock of the deadlines.
    """

    def __init__(self, servers: Sequence[str], now: Callable[[], float] = monotonic) -> None:
        self._now = now
        self._cares = aiodns.DNSResolver(
            # NOSEARCH, because a search list can turn an unknown name into the name of another host. The flags replace
            # c-ares' default, EDNS: some servers and firewalls drop queries with it, and nothing here needs it.
            flags=pycares.ARES_FLAG_NOSEARCH,
            timeout=_QUERY_TIMEOUT_SECONDS,
            tries=_QUERY_TRIES,
            rotate=True,
            socket_receive_buffer_size=_SOCKET_BUFFER_BYTES,
        )
        if servers:
            self._servers = [parse_server(server) for server in servers]
            self._cares.nameservers = [_with_port(*server) for server in self._servers]
        else:
            self._servers = [(_without_brackets(server), 53) for server in self._cares.nameservers]
        self.server_names = [host if port == 53 else _with_port(host, port) for host, port in self._servers]
        self._fallback: FallbackClient | None = None

    async def ask(self, question: Question, deadline: Callable[[], float]) -> Addresses:
        """Return the addresses of a name in one family.

        Args:
            question: What to ask.
            deadline: Returns until when to wait; it may move while this waits.

        Raises:
            DNSError: There is no address, or there was no answer; the first argument is c-ares' status.
        """
        query = self._cares.getaddrinfo(question.host, family=question.family, type=socket.SOCK_STREAM)
        try:
            if await wait_until_done(query, _FALLBACK_DELAY_SECONDS) and not _has_timed_out(query):
                return _read(query.result())
            return await self._ask_with_fallback(question, deadline, query)
        finally:
            query.cancel()

    async def _ask_with_fallback(
        self, question: Question, deadline: Callable[[], float], query: "asyncio.Future[pycares.AddrInfoResult]"
    ) -> Addresses:
        """Ask with the fallback client too. The first outcome counts, except a timeout of c-ares."""
        fallback = asyncio.ensure_future(self._fallback_client().ask(question, deadline))
        try:
            if not query.done():
                await asyncio.wait((query, fallback), return_when=asyncio.FIRST_COMPLETED)
                if query.done() and not _has_timed_out(query):
                    return _read(query.result())
            return await fallback
        finally:
            await cancel_and_wait(fallback)

    async def close(self) -> None:
        """Stop c-ares' thread and close all sockets. No `ask` may run."""
        if self._fallback is not None:
            await self._fallback.close()
        await self._cares.close()

    def _fallback_client(self) -> FallbackClient:
        if self._fallback is None:
            self._fallback = FallbackClient(self._servers, _SOCKET_BUFFER_BYTES, self._now)
        return self._fallback


def _has_timed_out(query: "asyncio.Future[pycares.AddrInfoResult]") -> bool:
    error = query.exception()
    return isinstance(error, DNSError) and error.args[0] == ARES_ETIMEOUT


def _read(result: pycares.AddrInfoResult) -> Addresses:
    return Addresses([node.addr[0].decode() for node in result.nodes], min(node.ttl for node in result.nodes))


def _with_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _without_brackets(server: str) -> str:
    return server.removeprefix("[").removesuffix("]")
