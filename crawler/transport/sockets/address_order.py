"""The order in which the addresses of a host are tried. Those that have failed lately come last (RFC 8305, 4 and 5)."""

import asyncio
from collections import OrderedDict
from itertools import zip_longest
from typing import Final

__all__ = ["AddressOrder"]

_MAX_ADDRESSES_TO_TRY: Final = 4
_MEMORY_SECONDS: Final = 60.0
_MAX_REMEMBERED: Final = 10_000


class AddressOrder:
    """Remembers which addresses did not answer, for a minute.

    Args:
        memory_seconds: How long.
    """

    def __init__(self, memory_seconds: float = _MEMORY_SECONDS) -> None:
        self._memory_seconds = memory_seconds
        self._loop = asyncio.get_running_loop()
        self._failures: OrderedDict[tuple[str, int], float] = OrderedDict()  # loop times, the oldest first

    def select(self, addresses: list[str], port: int) -> list[str]:
        """Return the first few addresses to try: a host may have any number of dead ones.

        Families alternate. Addresses that have failed follow the others, the oldest failure first, so that each further
        attempt at a host gets to know new addresses.
        """
        if len(addresses) == 1:
            return addresses
        alternating = _alternate(addresses)
        if self._failures:
            forgotten = self._loop.time() - self._memory_seconds
            failed_at = {address: self._failures.get((address, port), 0.0) for address in alternating}
            alternating.sort(key=lambda address: max(failed_at[address], forgotten))
        return alternating[:_MAX_ADDRESSES_TO_TRY]

    def failed(self, address: str, port: int) -> None:
        """Note that a connection to the address failed, or that another address was faster by the attempt delay."""
        self._failures[address, port] = self._loop.time()
        self._failures.move_to_end((address, port))
        if len(self._failures) > _MAX_REMEMBERED:
            self._failures.popitem(last=False)

    def connected(self, address: str, port: int) -> None:
        """Note that the address answers."""
        if self._failures:
            self._failures.pop((address, port), None)


def _alternate(addresses: list[str]) -> list[str]:
    """Alternate between the families. IPv6 begins."""
    ipv6, ipv4 = ([address for address in addresses if (":" in address) is is_ipv6] for is_ipv6 in (True, False))
    return [address for pair in zip_longest(ipv6, ipv4) for address in pair if address is not None]
