"""Names to addresses, by c-ares through aiodns."""

import asyncio
import socket
from collections import OrderedDict
from typing import Any, Final

import aiodns
import pycares
from aiodns.error import ARES_ENODATA

from crawler.options import Options, parse_resolve, parse_server

__all__ = ["Resolver", "one_of_each_family"]

# c-ares' own 2 s x 3 keeps the probe of a dead name busy for too long; the second try waits twice as long.
_TRY_SECONDS: Final = 1.5
_TRIES: Final = 2
_SOCKET_BUFFER: Final = 2**21  # bytes: thousands of answers may arrive while the loop is busy
_CACHED: Final = 20_000  # names
_LONGEST_TTL: Final = 300.0  # seconds, whatever the zone says
_FAILURE_TTL: Final = (
    5.0  # seconds: long enough for the other URLs of a dead name, short enough for a retry to ask anew
)
_RESOLUTION_DELAY: Final = 0.05  # seconds that an IPv4 answer waits for the IPv6 one (RFC 8305, 3)

Addresses = list[str]


class Resolver:
    """Asks the system's DNS servers, or those of `--dns`. One per process; `close` it in the end.

    Lookups of one name are shared while they run, and their outcome is kept for its TTL, failures for a few seconds.

    Args:
        options: Which servers to ask, which families to use, which names to know beforehand.
        dual: Whether both families can be reached; found out if not given.
    """

    def __init__(self, options: Options, *, dual: bool | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._families = [socket.AF_INET] * (not options.ipv6) + [socket.AF_INET6] * (not options.ipv4)
        self._dual = len(self._families) == 2 and (_has_ipv6_route() if dual is None else dual)
        self._known = dict(parse_resolve(entry) for entry in options.resolve)
        self._cares = aiodns.DNSResolver(
            # A search list would turn an unknown name into another host's, so none is used (NOSEARCH). Giving flags
            # drops c-ares' default, EDNS, so it is given again.
            flags=pycares.ARES_FLAG_NOSEARCH | pycares.ARES_FLAG_EDNS,
            timeout=_TRY_SECONDS,
            tries=_TRIES,
            rotate=True,
            socket_receive_buffer_size=_SOCKET_BUFFER,
        )
        if options.dns:
            self._cares.nameservers = [_server(server) for server in options.dns]
        self._cache: OrderedDict[str, tuple[float, asyncio.Future[Addresses]]] = OrderedDict()

    def known(self, host: str, port: int) -> Addresses | None:
        """Addresses for which nobody has to be asked."""
        if is_address(host):
            return [host]
        if (given := self._known.get((host, port))) is not None:
            return [given]
        return None

    async def resolve(self, host: str, port: int) -> Addresses:
        """Addresses of a host, in the order to try them; an address stands for itself.

        Raises:
            aiodns.error.DNSError: No address; its first argument says why.
        """
        if (known := self.known(host, port)) is not None:
            return known
        expires, lookup = self._cache.get(host, (0.0, None))
        if lookup is None or (lookup.done() and expires <= self._loop.time()):
            lookup = asyncio.ensure_future(self._look_up(host))
            lookup.add_done_callback(_seen)
            self._remember(host, float("inf"), lookup)
        else:
            self._cache.move_to_end(host)  # the one not asked for longest makes room
        # A probe that gives up must not take the lookup from the others that share it.
        return list(lookup.result() if lookup.done() else await asyncio.shield(lookup))

    async def close(self) -> None:
        """Stop every lookup and c-ares' thread."""
        lookups = [lookup for _, lookup in self._cache.values() if not lookup.done()]
        for lookup in lookups:
            lookup.cancel()
        await asyncio.gather(*lookups, return_exceptions=True)
        await self._cares.close()

    async def _look_up(self, host: str) -> Addresses:
        ttl = _FAILURE_TTL
        try:
            addresses, ttl = await (self._ask_for_both(host) if self._dual else self._ask_in_turn(host))
        finally:
            _, lookup = self._cache[host]
            self._remember(host, self._loop.time() + ttl, lookup)
        return addresses

    async def _ask_in_turn(self, host: str) -> tuple[Addresses, float]:
        """IPv4, and IPv6 only for a name that has no IPv4 address: half the questions, and no AAAA that stalls an A."""
        for family in self._families:
            try:
                return await self._ask(host, family)
            except aiodns.error.DNSError as error:
                # Any other failure is final; a name that does not exist has none of either.
                if error.args[0] != ARES_ENODATA or family == self._families[-1]:
                    raise
        raise AssertionError("options leave no address family")

    async def _ask_for_both(self, host: str) -> tuple[Addresses, float]:
        """Both at once, IPv6 first in the result; an IPv4 answer waits for the other one, but not long."""
        six, four = (asyncio.ensure_future(self._ask(host, family)) for family in (socket.AF_INET6, socket.AF_INET))
        try:
            await asyncio.wait({six, four}, return_when=asyncio.FIRST_COMPLETED)
            if not six.done() and _succeeded(four):
                await asyncio.wait({six}, timeout=_RESOLUTION_DELAY)
            elif not _succeeded(six):
                await asyncio.wait({six, four})
            elif not four.done():
                await asyncio.wait({four}, timeout=_RESOLUTION_DELAY)
            found = [lookup.result() for lookup in (six, four) if _succeeded(lookup)]
            if not found:
                raise _worse(six, four)
            return [address for addresses, _ in found for address in addresses], min(ttl for _, ttl in found)
        finally:
            for lookup in (six, four):
                lookup.cancel()
                lookup.add_done_callback(_seen)

    async def _ask(self, host: str, family: int) -> tuple[Addresses, float]:
        found = await self._cares.getaddrinfo(host, family=socket.AddressFamily(family), type=socket.SOCK_STREAM)
        ttl = min(min(node.ttl for node in found.nodes), _LONGEST_TTL)
        return [node.addr[0].decode() for node in found.nodes], ttl

    def _remember(self, host: str, expires: float, lookup: "asyncio.Future[Addresses]") -> None:
        self._cache[host] = (expires, lookup)
        self._cache.move_to_end(host)
        while len(self._cache) > _CACHED and next(iter(self._cache.values()))[1].done():
            self._cache.popitem(last=False)


def is_address(host: str) -> bool:
    """Whether a normalised host is an address: by WHATWG's rules, one that ends in a number is."""
    return ":" in host or host[host.rfind(".") + 1 :].isdigit()


def one_of_each_family(addresses: list[str]) -> list[str]:
    """More would let a host with many dead addresses cost as many connects."""
    if len(addresses) == 1:
        return addresses
    return list({":" in address: address for address in reversed(addresses)}.values())[::-1]


def _has_ipv6_route() -> bool:
    """Whether this machine could send to an IPv6 address of the internet; asking the kernel sends nothing."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("2001:db8::1", 53))
        except OSError:
            return False
    return True


def _server(text: str) -> str:
    host, port = parse_server(text)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _succeeded(lookup: "asyncio.Future[tuple[Addresses, float]]") -> bool:
    return lookup.done() and not lookup.cancelled() and lookup.exception() is None


def _worse(*lookups: "asyncio.Future[tuple[Addresses, float]]") -> BaseException:
    """Of several failures the one that says more than that there is no address of one family."""
    failures = [failure for lookup in lookups if (failure := lookup.exception()) is not None]
    return next((failure for failure in failures if failure.args[:1] != (ARES_ENODATA,)), failures[0])


def _seen(lookup: "asyncio.Future[Any]") -> None:
    """Look at the exception, so that asyncio does not report it if all who asked have given up."""
    if not lookup.cancelled():
        lookup.exception()
