"""Resolve names to addresses, with c-ares through aiodns."""

import asyncio
import socket
from collections import OrderedDict
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

import aiodns
import pycares
from aiodns.error import ARES_ECONNREFUSED, ARES_ENODATA

from crawler.core.option_syntax import parse_resolve, parse_server
from crawler.core.options import Options
from crawler.runtime.cancellation import cancel_and_wait

__all__ = ["Resolver", "has_dns_servers", "select_addresses"]

# c-ares' own values, 2 s and 3 tries, keep the probe of a dead name busy for too long. Its second try waits twice as
# long as the first.
_QUERY_TIMEOUT_SECONDS: Final = 1.5
_QUERY_TRIES: Final = 2
_SOCKET_BUFFER_BYTES: Final = 2**21  # thousands of answers may arrive while the loop is busy
_MAX_ADDRESSES_TO_TRY: Final = 4
_MAX_CACHED_NAMES: Final = 20_000
_MAX_TTL_SECONDS: Final = 300.0  # whatever the zone says
_FAILURE_TTL_SECONDS: Final = 5.0  # long enough for a dead name's other URLs, short enough for a retry to ask again
_RESOLUTION_DELAY_SECONDS: Final = 0.05  # how long an IPv4 answer waits for the IPv6 answer (RFC 8305, 3)

Addresses = list[str]


class Resolver:
    """Asks the system's DNS servers, or those of `--dns`. Call `close` when done.

    Concurrent lookups of one name are one lookup. Its outcome is cached: addresses for their TTL, a failure for a few
    seconds.

    Args:
        options: Which servers to ask, which address families to use, which addresses are given (`--resolve`).
        is_dual_stack: Whether to ask for both address families at once; None if a route to IPv6 decides.
        max_cached_names: When one more is cached, the name that was not asked for longest is dropped.
        failure_ttl: Seconds for which a failure is cached.
    """

    def __init__(
        self,
        options: Options,
        *,
        is_dual_stack: bool | None = None,
        max_cached_names: int = _MAX_CACHED_NAMES,
        failure_ttl: float = _FAILURE_TTL_SECONDS,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._families = [socket.AF_INET] * (not options.ipv6) + [socket.AF_INET6] * (not options.ipv4)
        has_both = len(self._families) == 2
        self._is_dual_stack = has_both and (_has_ipv6_route() if is_dual_stack is None else is_dual_stack)
        self._given = dict(parse_resolve(entry) for entry in options.resolve)
        self._cares = aiodns.DNSResolver(
            # NOSEARCH, because a search list would turn an unknown name into another host's. Flags replace c-ares'
            # default, which is EDNS.
            flags=pycares.ARES_FLAG_NOSEARCH | pycares.ARES_FLAG_EDNS,
            timeout=_QUERY_TIMEOUT_SECONDS,
            tries=_QUERY_TRIES,
            rotate=True,
            socket_receive_buffer_size=_SOCKET_BUFFER_BYTES,
        )
        if options.dns:
            self._cares.nameservers = [_server_address(server) for server in options.dns]
        self._max_cached_names = max_cached_names
        self._failure_ttl = failure_ttl
        self._cache: OrderedDict[str, tuple[float, Addresses | Exception]] = OrderedDict()  # with the time of expiry
        self._lookups: dict[str, asyncio.Task[Addresses]] = {}

    def known_addresses(self, host: str, port: int) -> Addresses | None:
        """Return the addresses that need no lookup: the host itself, or what `--resolve` gives; else None."""
        if is_address(host):
            return [host]
        if (address := self._given.get((host, port))) is not None:
            return [address]
        return None

    async def resolve(self, host: str, port: int, deadline: float | None = None) -> Addresses:
        """Return the addresses of a host in the order to try them.

        Raises:
            aiodns.error.DNSError: There is no address; its first argument is c-ares' status.
            TimeoutError: There was no answer before `deadline` (loop time).
        """
        if (known := self.known_addresses(host, port)) is not None:
            return known
        expires, outcome = self._cache.get(host, (0.0, None))
        if outcome is not None and expires > self._loop.time():
            self._cache.move_to_end(host)
            if isinstance(outcome, Exception):
                raise type(outcome)(*outcome.args)  # a copy, because each raise adds to an exception's traceback
            return list(outcome)
        lookup = self._lookups.get(host)
        if lookup is None:
            lookup = self._lookups[host] = asyncio.ensure_future(self._look_up(host))
            lookup.add_done_callback(_retrieve_exception)
        # `wait` does not cancel the lookup when this caller gives up: others may share it.
        await asyncio.wait({lookup}, timeout=None if deadline is None else deadline - self._loop.time())
        if not lookup.done():
            raise TimeoutError
        return list(lookup.result())

    async def close(self) -> None:
        """Cancel all lookups and stop c-ares' thread."""
        await cancel_and_wait(*self._lookups.values())
        await self._cares.close()

    async def _look_up(self, host: str) -> Addresses:
        try:
            ask = self._ask_for_both_families if self._is_dual_stack else self._ask_for_one_family_after_the_other
            addresses, ttl = await ask(host)
        except Exception as error:
            if error.args[:1] != (ARES_ECONNREFUSED,):  # no server was reached, which says nothing about the name
                self._remember(host, self._failure_ttl, type(error)(*error.args))
            raise
        else:
            self._remember(host, ttl, addresses)
            return addresses
        finally:
            del self._lookups[host]

    async def _ask_for_one_family_after_the_other(self, host: str) -> tuple[Addresses, float]:
        """Ask for IPv6 only if there is no IPv4 address: half the queries, and no AAAA query that delays an A query."""
        for family in self._families:
            try:
                return _read_answers([await self._query(host, family)])
            except aiodns.error.DNSError as error:
                # Every other failure is final: a name that does not exist has addresses of neither family.
                if error.args[0] != ARES_ENODATA or family == self._families[-1]:
                    raise
        raise AssertionError("options leave no address family")

    async def _ask_for_both_families(self, host: str) -> tuple[Addresses, float]:
        """Ask for both at once, IPv6 first in the result. The first answer waits only shortly for the other."""
        ipv6, ipv4 = self._query(host, socket.AF_INET6), self._query(host, socket.AF_INET)
        try:
            await asyncio.wait({ipv6, ipv4}, return_when=asyncio.FIRST_COMPLETED)
            if not ipv6.done() and _has_succeeded(ipv4):
                await asyncio.wait({ipv6}, timeout=_RESOLUTION_DELAY_SECONDS)
            elif not _has_succeeded(ipv6):
                await asyncio.wait({ipv6, ipv4})
            elif not ipv4.done():
                await asyncio.wait({ipv4}, timeout=_RESOLUTION_DELAY_SECONDS)
            answers = [query.result() for query in (ipv6, ipv4) if _has_succeeded(query)]
            if not answers:
                raise _main_failure(ipv6, ipv4)
            return _read_answers(answers)
        finally:
            for query in (ipv6, ipv4):
                if not query.cancel():  # done
                    _retrieve_exception(query)

    def _query(self, host: str, family: socket.AddressFamily) -> "asyncio.Future[pycares.AddrInfoResult]":
        return self._cares.getaddrinfo(host, family=family, type=socket.SOCK_STREAM)

    def _remember(self, host: str, ttl: float, outcome: Addresses | Exception) -> None:
        self._cache[host] = (self._loop.time() + ttl, outcome)
        self._cache.move_to_end(host)
        if len(self._cache) > self._max_cached_names:
            self._cache.popitem(last=False)


def is_address(host: str) -> bool:
    """Return whether a normalised host is an address. By WHATWG's rules, a host that ends in a number is one."""
    return ":" in host or host[host.rfind(".") + 1 :].isdigit()


def select_addresses(addresses: Addresses) -> Addresses:
    """Return the first few addresses to try, alternating between families: a host may have any number of dead ones."""
    if len(addresses) == 1:
        return addresses
    ipv6, ipv4 = ([address for address in addresses if (":" in address) is is_ipv6] for is_ipv6 in (True, False))
    alternating = [address for pair in zip_longest(ipv6, ipv4) for address in pair if address is not None]
    return alternating[:_MAX_ADDRESSES_TO_TRY]


def has_dns_servers(options: Options, system_file: Path = Path("/etc/resolv.conf")) -> bool:
    """Return whether the options or the system's file name a DNS server."""
    if options.dns:
        return True
    try:
        lines = system_file.read_text("utf-8", "replace").splitlines()
    except OSError:
        return False
    return any(line.split()[:1] == ["nameserver"] for line in lines)


def _has_ipv6_route() -> bool:
    """Return whether this machine has a route to the IPv6 internet. Connecting a UDP socket sends nothing."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as udp:
            udp.connect(("2001:db8::1", 53))
    except OSError:
        return False
    return True


def _server_address(text: str) -> str:
    host, port = parse_server(text)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _read_answers(answers: "list[pycares.AddrInfoResult]") -> tuple[Addresses, float]:
    """Return the addresses in the order of the answers, and for how many seconds they are valid."""
    nodes = [node for answer in answers for node in answer.nodes]
    return [node.addr[0].decode() for node in nodes], min(min(node.ttl for node in nodes), _MAX_TTL_SECONDS)


def _has_succeeded(query: "asyncio.Future[Any]") -> bool:
    return query.done() and not query.cancelled() and query.exception() is None


def _main_failure(*queries: "asyncio.Future[Any]") -> BaseException:
    """Return the failure that says most: any other says more than that there is no address of one family."""
    failures = [failure for query in queries if (failure := query.exception()) is not None]
    return next((failure for failure in failures if failure.args[:1] != (ARES_ENODATA,)), failures[0])


def _retrieve_exception(future: "asyncio.Future[Any]") -> None:
    """Mark the exception as retrieved. Otherwise asyncio logs it if all callers have given up."""
    if not future.cancelled():
        future.exception()
