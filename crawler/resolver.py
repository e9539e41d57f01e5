"""Names to addresses, by c-ares through aiodns."""

import asyncio
import ipaddress
import socket
from collections import OrderedDict
from typing import Final

import aiodns
import pycares

from crawler.options import Options, parse_server

__all__ = ["Resolver"]

# c-ares' own 2 s x 3 keeps the probe of a dead name busy for too long; the second try waits twice as long.
_TRY_SECONDS: Final = 1.5
_TRIES: Final = 2
_SOCKET_BUFFER: Final = 2**21  # bytes: thousands of answers may arrive while the loop is busy
_CACHED: Final = 20_000  # names
_LONGEST_TTL: Final = 300.0  # seconds, whatever the zone says
_FAILURE_TTL: Final = (
    5.0  # seconds: long enough for the other URLs of a dead name, short enough for a retry to ask anew
)

Addresses = list[str]


class Resolver:
    """Asks the system's DNS servers, or those of `--dns`. One per process; `close` it in the end.

    Lookups of one name are shared while they run, and their outcome is kept for its TTL, failures for a few seconds.
    """

    def __init__(self, options: Options) -> None:
        self._loop = asyncio.get_running_loop()
        self._families = [socket.AF_INET] * (not options.ipv6) + [socket.AF_INET6] * (not options.ipv4)
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

    async def resolve(self, host: str) -> Addresses:
        """Addresses of a host, in the order to try them; an address stands for itself.

        Raises:
            aiodns.error.DNSError: No address; its first argument says why.
        """
        if _is_address(host):
            return [host]
        expires, lookup = self._cache.get(host, (0.0, None))
        if lookup is None or (lookup.done() and expires <= self._loop.time()):
            lookup = asyncio.ensure_future(self._look_up(host))
            lookup.add_done_callback(_seen)
            self._remember(host, float("inf"), lookup)
        # A probe that gives up must not take the lookup from the others that share it.
        return list(await asyncio.shield(lookup))

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
            for family in self._families:
                try:
                    found = await self._cares.getaddrinfo(host, family=family, type=socket.SOCK_STREAM)
                except aiodns.error.DNSError as error:
                    # A name without an address of this family may have one of the next; any other failure is final,
                    # and a name that does not exist has none of either.
                    if error.args[0] != aiodns.error.ARES_ENODATA or family == self._families[-1]:
                        raise
                else:
                    ttl = min(min(node.ttl for node in found.nodes), _LONGEST_TTL)
                    return [node.addr[0].decode() for node in found.nodes]
            raise AssertionError("options leave no address family")
        finally:
            _, lookup = self._cache[host]
            self._remember(host, self._loop.time() + ttl, lookup)

    def _remember(self, host: str, expires: float, lookup: "asyncio.Future[Addresses]") -> None:
        self._cache[host] = (expires, lookup)
        self._cache.move_to_end(host)
        if len(self._cache) > _CACHED:
            oldest, (_, old) = next(iter(self._cache.items()))
            if old.done():
                del self._cache[oldest]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _server(text: str) -> str:
    host, port = parse_server(text)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _seen(lookup: "asyncio.Future[Addresses]") -> None:
    """Look at the exception, so that asyncio does not report it if the only one who asked has given up."""
    if not lookup.cancelled():
        lookup.exception()
