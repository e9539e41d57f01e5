"""Resolve names to addresses: concurrent callers share a lookup, and its outcome is cached."""

import asyncio
import socket
from collections import OrderedDict
from pathlib import Path
from typing import Any, Final

from aiodns.error import ARES_ENODATA, ARES_ETIMEOUT, DNSError

from crawler.core.option_syntax import parse_resolve
from crawler.core.options import Options
from crawler.core.results import ProbeError
from crawler.runtime.awake_clock import AwakeClock
from crawler.runtime.cancellation import cancel_and_wait
from crawler.runtime.waiting import wait_until_done
from crawler.transport.dns.client import DnsClient
from crawler.transport.dns.failures import FINAL_STATUSES, dns_failure
from crawler.transport.dns.messages import Addresses, Question
from crawler.transport.error_mapping import HopError

__all__ = ["Resolver", "has_dns_servers", "is_address"]

_MAX_CACHED_NAMES: Final = 20_000
_MAX_TTL_SECONDS: Final = 300.0  # even if the zone allows more
_FAILURE_TTL_SECONDS: Final = 5.0  # a list often has many URLs with the same wrong name
# URLs that need the same name at about the same time share a failure. A retry starts later, and asks again.
_TRANSIENT_FAILURE_TTL_SECONDS: Final = 0.2
_RESOLUTION_DELAY_SECONDS: Final = 0.05  # how long an IPv4 answer waits for the IPv6 answer (RFC 8305, 3)
_DEFAULT_TIMEOUT_SECONDS: Final = 30.0  # of a lookup whose callers have no deadline
_FAMILY_NAMES: Final = {socket.AF_INET: "IPv4", socket.AF_INET6: "IPv6"}


class Resolver:
    """Asks the system's DNS servers, or those of `--dns`. Call `close` when done.

    Concurrent lookups of one name are one lookup. Its outcome is cached: addresses for their TTL, a final failure for
    5 seconds, and a transient failure (a server fails or does not answer) for 0.2 seconds.

    Args:
        options: Which servers to ask, which address families to use, which addresses are given (`--resolve`).
        is_dual_stack: Whether to ask for both address families at once; None if a route to IPv6 decides.
        max_cached_names: The least recently used name is dropped when there are more.
        failure_ttl: Seconds for which a final failure is cached.
        transient_failure_ttl: Seconds for which a transient failure is cached.
    """

    def __init__(
        self,
        options: Options,
        clock: AwakeClock,
        *,
        is_dual_stack: bool | None = None,
        max_cached_names: int = _MAX_CACHED_NAMES,
        failure_ttl: float = _FAILURE_TTL_SECONDS,
        transient_failure_ttl: float = _TRANSIENT_FAILURE_TTL_SECONDS,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._clock = clock
        self._families = [socket.AF_INET] * (not options.ipv6) + [socket.AF_INET6] * (not options.ipv4)
        has_both = len(self._families) == 2
        self._is_dual_stack = has_both and (_has_ipv6_route() if is_dual_stack is None else is_dual_stack)
        self._given = dict(parse_resolve(entry) for entry in options.resolve)
        self._client = DnsClient(options.dns, clock.now)
        self._max_cached_names = max_cached_names
        self._failure_ttl = failure_ttl
        self._transient_failure_ttl = transient_failure_ttl
        self._cache: OrderedDict[str, tuple[float, list[str] | DNSError]] = OrderedDict()  # with the time of expiry
        self._lookups: dict[str, _Lookup] = {}

    def known_addresses(self, host: str, port: int) -> list[str] | None:
        """Return the addresses that need no lookup: the host itself, or what `--resolve` gives; else None.

        Raises:
            HopError: The options exclude the address (`dns.name_not_resolved`, as for a name without other addresses).
        """
        address = host if is_address(host) else self._given.get((host, port))
        if address is None:
            return None
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        if family not in self._families:
            wanted = _FAMILY_NAMES[self._families[0]]
            reason = f"{address} is an {_FAMILY_NAMES[family]} address, and the options allow {wanted} only"
            raise HopError(ProbeError.of("dns.name_not_resolved", reason))
        return [address]

    async def resolve(self, host: str, port: int, deadline: float | None = None) -> list[str]:
        """Return the addresses of a host.

        Args:
            host: Normalised, as in a URL.
            port: For `--resolve`.
            deadline: Until when to wait for an answer, by the clock. By default the lookup has 30 seconds.

        Raises:
            aiodns.error.DNSError: There is no address; the arguments are c-ares' status and a message.
        """
        if (known := self.known_addresses(host, port)) is not None:
            return known
        now = self._loop.time()
        expires, outcome = self._cache.get(host, (0.0, None))
        if outcome is not None and expires > now:
            self._cache.move_to_end(host)
            if isinstance(outcome, DNSError):
                raise DNSError(*outcome.args)  # a copy, because each raise adds to an exception's traceback
            return list(outcome)
        if deadline is None:
            deadline = self._clock.now() + _DEFAULT_TIMEOUT_SECONDS
        lookup = self._lookups.get(host)
        if lookup is None:
            lookup = self._lookups[host] = _Lookup(host, deadline)
            lookup.task = asyncio.ensure_future(self._look_up(lookup))
            lookup.task.add_done_callback(_retrieve_exception)
        elif deadline > lookup.deadline:
            lookup.deadline = deadline
        # When this caller gives up, the lookup goes on: others may share it.
        while not lookup.task.done() and (left := deadline - self._clock.now()) > 0:
            await wait_until_done(lookup.task, left)
        if not lookup.task.done():
            raise self._failure(DNSError(ARES_ETIMEOUT))
        return list(lookup.task.result())

    async def close(self) -> None:
        """Cancel all lookups and stop c-ares' thread."""
        await cancel_and_wait(*(lookup.task for lookup in self._lookups.values()))
        await self._client.close()

    async def _look_up(self, lookup: "_Lookup") -> list[str]:
        try:
            ask = self._ask_for_both_families if self._is_dual_stack else self._ask_for_one_family_after_the_other
            addresses, ttl = await ask(lookup)
        except DNSError as error:
            failure = self._failure(error)
            is_final = failure.args[0] in FINAL_STATUSES
            self._remember(lookup.host, self._failure_ttl if is_final else self._transient_failure_ttl, failure)
            raise failure from error
        else:
            self._remember(lookup.host, min(ttl, _MAX_TTL_SECONDS), addresses)
            return addresses
        finally:
            del self._lookups[lookup.host]

    def _failure(self, error: DNSError) -> DNSError:
        return dns_failure(error, self._client.server_names, [_FAMILY_NAMES[family] for family in self._families])

    async def _ask_for_one_family_after_the_other(self, lookup: "_Lookup") -> Addresses:
        """Ask for IPv6 only if there is no IPv4 address. This halves the queries."""
        for family in self._families:
            try:
                return await self._client.ask(Question(lookup.host, family), lookup.get_deadline)
            except DNSError as error:
                # Every other failure is final: a name that does not exist has addresses of neither family.
                if error.args[0] != ARES_ENODATA or family == self._families[-1]:
                    raise
        raise AssertionError("options leave no address family")

    async def _ask_for_both_families(self, lookup: "_Lookup") -> Addresses:
        """Ask for both families at once. The first answer waits 50 ms for the other; IPv6 is first in the result."""
        ipv6, ipv4 = (
            asyncio.ensure_future(self._client.ask(Question(lookup.host, family), lookup.get_deadline))
            for family in (socket.AF_INET6, socket.AF_INET)
        )
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
            addresses = [address for answer in answers for address in answer.addresses]
            return Addresses(addresses, min(answer.ttl for answer in answers))
        finally:
            await cancel_and_wait(ipv6, ipv4)

    def _remember(self, host: str, ttl: float, outcome: list[str] | DNSError) -> None:
        self._cache[host] = (self._loop.time() + ttl, outcome)
        self._cache.move_to_end(host)
        if len(self._cache) > self._max_cached_names:
            self._cache.popitem(last=False)


class _Lookup:
    """A lookup in progress. It ends at the latest deadline of its callers."""

    __slots__ = ("deadline", "host", "task")

    task: asyncio.Task[list[str]]

    def __init__(self, host: str, deadline: float) -> None:
        self.host = host
        self.deadline = deadline

    def get_deadline(self) -> float:
        return self.deadline


def is_address(host: str) -> bool:
    """Return whether a normalised host is an address. In the URL standard, a host that ends in a number is one."""
    return ":" in host or host[host.rfind(".") + 1 :].isdigit()


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


def _has_succeeded(query: "asyncio.Future[Any]") -> bool:
    return query.done() and not query.cancelled() and query.exception() is None


def _main_failure(*queries: "asyncio.Future[Any]") -> BaseException:
    """Return the failure to report: one other than ENODATA if there is one, because ENODATA is about one family."""
    failures = [failure for query in queries if (failure := query.exception()) is not None]
    return next((failure for failure in failures if failure.args[:1] != (ARES_ENODATA,)), failures[0])


def _retrieve_exception(future: "asyncio.Future[Any]") -> None:
    """Mark the exception as retrieved. Otherwise asyncio logs it if all callers have given up."""
    if not future.cancelled():
        future.exception()
