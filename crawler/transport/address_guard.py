"""Refuse addresses that an untrusted URL must not reach: loopback, private networks, cloud metadata (SSRF).

The guard checks the very address that is about to be dialled, after resolution. The table is our own: Python's
`is_global` calls several of these ranges global and changes between versions. It has the facts of IANA's registries
(https://www.iana.org/assignments/iana-ipv4-special-registry and iana-ipv6-special-registry, as of 2026).

The ranges that the registries call globally reachable are allowed, except those that name no host (ORCHIDv2, drone
tags) and those that lead to a server of our own network (anycast of PCP, TURN and DNS-SD). No table can know two
things: public addresses that belong to the operator, and the operator's own NAT64 prefix.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from operator import itemgetter
from typing import Final, Literal

from crawler.core.errors import OptionError
from crawler.core.results import ProbeError
from crawler.transport.error_mapping import HopError

__all__ = ["AddressGuard"]

# (network, why it is refused or None if it is allowed, source). The narrowest network that contains an address decides.
# IPv4 is allowed by default. Of IPv6 only 2000::/3 is allocated to hosts, so the rest is refused by default.
_RANGES: Final[tuple[tuple[str, str | None, str], ...]] = (
    ("0.0.0.0/0", None, "RFC 791"),
    ("0.0.0.0/8", "this network", "RFC 791"),
    ("10.0.0.0/8", "private", "RFC 1918"),
    ("100.64.0.0/10", "shared by a carrier's customers", "RFC 6598"),
    ("100.100.100.200/32", "cloud metadata", "Alibaba Cloud"),
    ("127.0.0.0/8", "loopback", "RFC 1122"),
    ("168.63.129.16/32", "cloud metadata", "Azure"),
    ("169.254.0.0/16", "link-local, cloud metadata", "RFC 3927"),
    ("172.16.0.0/12", "private", "RFC 1918"),
    ("192.0.0.0/24", "protocol assignments", "RFC 6890"),
    ("192.0.0.192/32", "cloud metadata", "Oracle Cloud"),
    ("192.0.2.0/24", "documentation", "RFC 5737"),
    ("192.31.196.0/24", None, "RFC 7535"),  # AS112
    ("192.52.193.0/24", None, "RFC 7450"),  # AMT
    ("192.88.99.0/24", "6to4 relay", "RFC 7526"),
    ("192.168.0.0/16", "private", "RFC 1918"),
    ("192.175.48.0/24", None, "RFC 7534"),  # AS112
    ("198.18.0.0/15", "benchmarks", "RFC 2544"),
    ("198.51.100.0/24", "documentation", "RFC 5737"),
    ("203.0.113.0/24", "documentation", "RFC 5737"),
    ("224.0.0.0/4", "multicast", "RFC 5771"),
    ("240.0.0.0/4", "reserved", "RFC 1112"),
    ("255.255.255.255/32", "broadcast", "RFC 919"),
    ("::/0", "not given out", "RFC 4291"),
    ("::/96", "IPv4-compatible", "RFC 4291"),
    ("::/128", "unspecified", "RFC 4291"),
    ("::1/128", "loopback", "RFC 4291"),
    ("::ffff:0:0:0/96", "IPv4-translated", "RFC 2765"),
    ("64:ff9b:1::/48", "NAT64 of the local network", "RFC 8215"),
    ("100::/64", "discarded", "RFC 6666"),
    ("100:0:0:1::/64", "dummy", "RFC 9780"),
    ("2000::/3", None, "RFC 4291"),
    ("2001::/23", "protocol assignments", "RFC 2928"),
    ("2001::/32", "Teredo", "RFC 4380"),
    ("2001:2::/48", "benchmarks", "RFC 5180"),
    ("2001:3::/32", None, "RFC 7450"),  # AMT
    ("2001:4:112::/48", None, "RFC 7535"),  # AS112
    ("2001:10::/28", "ORCHID", "RFC 4843"),
    ("2001:20::/28", "ORCHIDv2", "RFC 7343"),
    ("2001:30::/28", "drone tags", "RFC 9374"),
    ("2001:db8::/32", "documentation", "RFC 3849"),
    ("2002::/16", "6to4", "RFC 3056"),
    ("2620:4f:8000::/48", None, "RFC 7534"),  # AS112
    ("3fff::/20", "documentation", "RFC 9637"),
    ("5f00::/16", "segment routing", "RFC 9602"),
    ("fc00::/7", "unique local, cloud metadata", "RFC 4193"),
    ("fe80::/10", "link-local, cloud metadata", "RFC 4291"),
    ("fec0::/10", "site-local", "RFC 3879"),
    ("ff00::/8", "multicast", "RFC 4291"),
)

# Forms of IPv6 that embed an IPv4 address in their last 32 bits; the constants are the bits before those. A socket
# dials a mapped address as the IPv4 address, and a NAT64 gateway does it for us: both are checked as that address.
_MAPPED: Final = 0xFFFF  # ::ffff:0:0/96, RFC 4291
_NAT64: Final = 0x64FF9B << 64  # 64:ff9b::/96, RFC 6052
_ISATAP: Final = 0x5EFE  # interface identifiers 0:5efe:a.b.c.d and 200:5efe:a.b.c.d under any prefix, RFC 5214
_ISATAP_MASK: Final = 0xFDFFFFFF

_OCTETS: Final = {str(octet): octet for octet in range(256)}
_MAX_CACHED_ADDRESSES: Final = 4096

_Address = IPv4Address | IPv6Address
_Network = IPv4Network | IPv6Network


class AddressGuard:
    """Decides which addresses may be dialled.

    Args:
        policy: `any` allows every address. Every other policy refuses addresses outside the public Internet.
        allow: Networks in CIDR form to allow besides. An IPv4 network also covers the IPv4-mapped IPv6 addresses; an
            IPv6 network covers no IPv4 address.

    Raises:
        OptionError: An entry of `allow` is not a network.
    """

    def __init__(self, policy: Literal["auto", "public", "any"], allow: Sequence[str] = ()) -> None:
        self._allows_all = policy == "any"
        self._allowed = [_parse_network(text) for text in allow]

    def why_refused(self, address: str) -> str | None:
        """Return why an address must not be dialled; None if it may be. Text that is not an address is refused."""
        if self._allows_all:
            return None
        reason = _why_refused_by_table(address)
        return None if reason and self._allowed and self._is_allowed(address) else reason

    def why_host_refused(self, addresses: Iterable[str]) -> str | None:
        """Return why a host with these addresses must not be dialled; None if it may be.

        One refused address is enough: a name with public and private addresses is a mistake, or prepared for DNS
        rebinding.
        """
        for address in addresses:
            if reason := self.why_refused(address):
                return f"{address}: {reason}" if address.isprintable() else reason
        return None

    def check(self, addresses: Iterable[str]) -> None:
        """Allow a hop to dial these addresses.

        Raises:
            HopError: They must not be dialled (`address.blocked`).
        """
        if not self._allows_all and (reason := self.why_host_refused(addresses)):
            raise HopError(ProbeError.of("address.blocked", reason))

    def _is_allowed(self, address: str) -> bool:
        try:
            parsed = _parse_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._allowed)


@lru_cache(_MAX_CACHED_ADDRESSES)
def _why_refused_by_table(address: str) -> str | None:
    # IPv4 is parsed as strictly as by `ipaddress`, but several times as fast.
    try:
        if ":" in address:
            number = int(IPv6Address(address))
        else:
            a, b, c, d = address.split(".")
            number = _MAPPED << 32 | _OCTETS[a] << 24 | _OCTETS[b] << 16 | _OCTETS[c] << 8 | _OCTETS[d]
    except (ValueError, KeyError):
        return "not an IP address"
    if "%" in address:
        return "bound to a zone (RFC 4007)"
    prefix = number >> 32
    if prefix == _NAT64:
        number = _MAPPED << 32 | number & 0xFFFFFFFF
    elif prefix & _ISATAP_MASK == _ISATAP:
        return "ISATAP (RFC 5214)"
    return _REASONS[bisect_right(_STARTS, number) - 1]


def _parse_address(text: str) -> _Address:
    """Parse an address; an IPv4-mapped one becomes the IPv4 address."""
    if "%" in text:
        raise ValueError("has a zone")
    address = ip_address(text)
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def _parse_network(text: str) -> _Network:
    """Parse an entry of the allow-list; an IPv4-mapped network becomes the IPv4 network."""
    start, slash, length = text.partition("/")
    try:
        if slash and not length.isdecimal():  # `ipaddress` also takes masks, even inverted ones
            raise ValueError
        address, network = _parse_address(start), ip_network(text)
    except ValueError:
        message = f"{text!r} is not a network such as 10.0.0.0/8, or has bits set after its prefix"
        raise OptionError(message, "allow") from None
    if address.version != network.version and network.prefixlen >= 96:
        return IPv4Network((int(address), network.prefixlen - 96))
    return network


def _flatten_ranges() -> tuple[list[int], list[str | None]]:
    """Return where each interval of addresses begins, as sorted numbers, and why each interval is refused.

    The intervals cover all of IPv6; an IPv4 address has the number of its IPv4-mapped form.
    """
    rows = []
    for text, reason, source in _RANGES:
        network = ip_network(text)
        first = int(network.network_address) + (_MAPPED << 32 if network.version == 4 else 0)
        rows.append((network.num_addresses, first, first + network.num_addresses, reason and f"{reason} ({source})"))
    rows.sort(key=itemgetter(0), reverse=True)  # the narrowest last
    starts = sorted({first for _, first, _, _ in rows} | {end for _, _, end, _ in rows} - {2**128})
    return starts, [[reason for _, first, end, reason in rows if first <= start < end][-1] for start in starts]


_STARTS, _REASONS = _flatten_ranges()
