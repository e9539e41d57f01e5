"""Names to addresses, by c-ares through aiodns."""

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

__all__ = ["Resolver", "has_servers", "in_turns"]

# c-ares' own 2 s x 3 keeps the probe of a dead name busy for too long; the second try waits twice as long.
_TRY_SECONDS: Final = 1.5
_TRIES: Final = 2
_SOCKET_BUFFER: Final = 2**21  # bytes: thousands of answers may arrive while the loop is busy
_TRIED: Final = 4  # addresses of one host, each after the one before has refused
_CACHED: Final = 20_000  # names
_LONGEST_TTL: Final = 300.0  # seconds, whatever the zone says
_FAILURE_TTL: Final = 5.0  # seconds: long enough for a dead name's other URLs, short enough for a retry to ask anew
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
        self._cache: OrderedDict[str, tuple[float, Addresses | Exception]] = OrderedDict()
        self._under_way: dict[str, asyncio.Task[Addresses]] = {}

    def known(self, host: str, port: int) -> Addresses | None:
        """Addresses for which nobody has to be asked."""
        if is_address(host):
            return [host]
        if (given := self._known.get((host, port))) is not None:
            return [given]
        return None

    async def resolve(self, host: str, port: int, deadline: float | None = None) -> Addresses:
        """Addresses of a host, in the order to try them; an address stands for itself.

        Raises:
            aiodns.error.DNSError: No address; its first argument says why.
            TimeoutError: Nobody knows until `deadline` (loop time).
        """
        if (known := self.known(host, port)) is not None:
            return known
        expires, outcome = self._cache.get(host, (0.0, None))
        if outcome is not None and expires > self._loop.time():
            self._cache.move_to_end(host)  # the one not asked for longest makes room
            if isinstance(outcome, Exception):
                raise type(outcome)(*outcome.args)  # anew, for each raise adds to an exception where it went
            return list(outcome)
        lookup = self._under_way.get(host)
        if lookup is None:
            lookup = self._under_way[host] = asyncio.ensure_future(self._look_up(host))
            lookup.add_done_callback(_seen)
        # A wait, for a probe that gives up must not take the lookup from the others that share it.
        await asyncio.wait({lookup}, timeout=None if deadline is None else deadline - self._loop.time())
        if not lookup.done():
            raise TimeoutError
        return list(lookup.result())

    async def close(self) -> None:
        """Stop every lookup and c-ares' thread."""
        lookups = list(self._under_way.values())
        for lookup in lookups:
            lookup.cancel()
        await asyncio.gather(*lookups, return_exceptions=True)
        await self._cares.close()

    async def _look_up(self, host: str) -> Addresses:
        try:
            addresses, ttl = await (self._ask_for_both(host) if self._dual else self._ask_in_turn(host))
        except Exception as error:
            if error.args[:1] != (ARES_ECONNREFUSED,):  # no server could be reached: that says nothing of the name
                self._remember(host, _FAILURE_TTL, type(error)(*error.args))
            raise
        else:
            self._remember(host, ttl, addresses)
            return addresses
        finally:
            del self._under_way[host]

    async def _ask_in_turn(self, host: str) -> tuple[Addresses, float]:
        """IPv4, and IPv6 only for a name that has no IPv4 address: half the questions, and no AAAA that stalls an A."""
        for family in self._families:
            try:
                return _read([await self._ask(host, family)])
            except aiodns.error.DNSError as error:
                # Any other failure is final; a name that does not exist has none of either.
                if error.args[0] != ARES_ENODATA or family == self._families[-1]:
                    raise
        raise AssertionError("options leave no address family")

    async def _ask_for_both(self, host: str) -> tuple[Addresses, float]:
        """Both at once, IPv6 first in the result; an IPv4 answer waits for the other one, but not long."""
        six, four = self._ask(host, socket.AF_INET6), self._ask(host, socket.AF_INET)
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
            return _read(found)
        finally:
            for lookup in (six, four):
                if not lookup.done():
                    lookup.cancel()
                elif not lookup.cancelled():
                    lookup.exception()  # looked at, so that asyncio does not report it

    def _ask(self, host: str, family: socket.AddressFamily) -> "asyncio.Future[pycares.AddrInfoResult]":
        return self._cares.getaddrinfo(host, family=family, type=socket.SOCK_STREAM)

    def _remember(self, host: str, ttl: float, outcome: Addresses | Exception) -> None:
        self._cache[host] = (self._loop.time() + ttl, outcome)
        self._cache.move_to_end(host)
        if len(self._cache) > _CACHED:
            self._cache.popitem(last=False)


def is_address(host: str) -> bool:
    """Whether a normalised host is an address: by WHATWG's rules, one that ends in a number is."""
    return ":" in host or host[host.rfind(".") + 1 :].isdigit()


def in_turns(addresses: Addresses) -> Addresses:
    """The addresses to try, families in turns, and no more than a few: a host may have any number of dead ones."""
    if len(addresses) == 1:
        return addresses
    six, four = ([a for a in addresses if (":" in a) is wanted] for wanted in (True, False))
    mixed = [address for pair in zip_longest(six, four) for address in pair if address is not None]
    return mixed[:_TRIED]


def has_servers(options: Options, system: Path = Path("/etc/resolv.conf")) -> bool:
    """Whether somebody is named who can be asked for names, by the options or by the system's file."""
    if options.dns:
        return True
    try:
        return any(line.split()[:1] == ["nameserver"] for line in system.read_text("utf-8", "replace").splitlines())
    except OSError:
        return False


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


def _read(found: "list[pycares.AddrInfoResult]") -> tuple[Addresses, float]:
    """Addresses in the order of the answers, and how many seconds they hold."""
    nodes = [node for result in found for node in result.nodes]
    return [node.addr[0].decode() for node in nodes], min(min(node.ttl for node in nodes), _LONGEST_TTL)


def _succeeded(lookup: "asyncio.Future[Any]") -> bool:
    return lookup.done() and not lookup.cancelled() and lookup.exception() is None


def _worse(*lookups: "asyncio.Future[Any]") -> BaseException:
    """Of several failures the one that says more than that there is no address of one family."""
    failures = [failure for lookup in lookups if (failure := lookup.exception()) is not None]
    return next((failure for failure in failures if failure.args[:1] != (ARES_ENODATA,)), failures[0])


def _seen(lookup: "asyncio.Future[Any]") -> None:
    """Look at the exception, so that asyncio does not report it if all who asked have given up."""
    if not lookup.cancelled():
        lookup.exception()
