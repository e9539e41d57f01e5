"""The lists with many URLs of one host: W8, and W9 with its mix of kinds. Both are drawn by a seed.

In W9 the sizes of the hosts follow a power law: a host with `n` URLs is `n ** 2` times rarer than one with a single
URL. So three hosts of five have one URL, and a few have hundreds.
"""

from collections.abc import Iterator
from random import Random
from typing import Final

from bench.kinds import Kind
from bench.world import World

__all__ = ["SHARES", "kept_urls", "mixed_urls"]

SHARES: Final[dict[Kind, float]] = {
    "secure": 0.70,
    "moved": 0.10,
    "plain": 0.10,
    "slow": 0.05,
    "refused": 0.01,
    "absent": 0.01,
    "reset": 0.01,
    "expired": 0.01,
    "missing": 0.01,
}
"""The part of each kind in the URLs of W9."""

_SEED: Final = 9
_KEPT_HOSTS: Final = 200
_SIZE_EXPONENT: Final = 2
_LARGEST_PART: Final = 20  # no host has more than a twentieth of the URLs of its kind


def kept_urls(world: World, count: int, seed: int = _SEED) -> Iterator[tuple[str, Kind]]:
    """Yield HTTPS URLs of 200 hosts in random order, equally many for each host."""
    numbers = list(range(count))
    Random(seed).shuffle(numbers)
    for number in numbers:
        yield _url("secure", world, number % _KEPT_HOSTS, number // _KEPT_HOSTS), "secure"


def mixed_urls(world: World, count: int, seed: int = _SEED) -> Iterator[tuple[str, Kind]]:
    """Yield the URLs of W9 in random order, with their kinds."""
    random = Random(seed)
    mixed = [
        (_url(kind, world, host, page), kind)
        for kind, share in SHARES.items()
        for host, size in enumerate(_host_sizes(round(count * share), random))
        for page in range(size)
    ]
    random.shuffle(mixed)
    yield from mixed


def _host_sizes(count: int, random: Random) -> Iterator[int]:
    """Yield the number of URLs for each host until there are `count` of them."""
    sizes = range(1, max(count // _LARGEST_PART, 1) + 1)
    weights = [size**-_SIZE_EXPONENT for size in sizes]
    while count:
        size = min(random.choices(sizes, weights)[0], count)
        yield size
        count -= size


def _url(kind: Kind, world: World, host: int, page: int) -> str:
    """Return the URL of a page on a host that has pages of this kind only."""
    name = f"{kind}{host}.bench.internal"
    match kind:
        case "moved":
            return f"http://{name}:{world.plain}/moved/{page}"
        case "plain":
            return f"http://{name}:{world.plain}/{page}"
        case "slow":
            return f"http://{name}:{world.seconds[host % len(world.seconds)]}/{page}"
        case "missing":
            return f"https://{name}:{world.tickets}/missing/{page}"
        case "refused":
            return f"https://{name}:{world.closed}/{page}"
        case "absent":
            return f"https://absent{host}.absent.internal:{world.tickets}/{page}"
        case "reset":
            return f"https://{name}:{world.resets}/{page}"
        case "expired":
            return f"https://{name}:{world.expired}/{page}"
        case _:
            return f"https://{name}:{world.tickets}/{page}"
