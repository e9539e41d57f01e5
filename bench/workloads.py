"""The workloads: each is a list of URLs with the expected result of each URL."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from bench.kinds import Kind
from bench.mix import kept_urls, mixed_urls
from bench.world import LATENCY_MS, World

__all__ = ["WORKLOADS", "Need", "Workload"]

Need = Literal["https", "names", "failures"]
"""An ability a contender needs: verify with our authority, ask our DNS server, time out on dead hosts."""

_QUICK_DIVISOR: Final = 10  # a quick run has so many times fewer URLs


@dataclass(frozen=True)
class Workload:
    """A list of URLs, with the settings that all contenders get for it."""

    id: str
    title: str
    size: int
    make: Callable[[World, int], Iterator[tuple[str, Kind]]]
    concurrency: int = 256
    per_host: int = 256
    timeout: int = 10
    """Total seconds for a probe."""
    keep: bool = False
    """Whether to keep connections alive."""
    redirects: int = 0
    """How many redirects to follow."""
    graded: bool = False
    """Whether a run with wrong answers counts: the report gives the number of right ones."""
    needs: frozenset[Need] = frozenset()
    latency: float = 0.0
    """Seconds until the server answers; 0 for nginx."""
    logged: bool = False
    """Whether to report the time of the last answer to a good URL."""

    def urls(self, world: World, *, quick: bool) -> dict[str, Kind]:
        """Return the URLs in order, with their kinds."""
        return dict(self.make(world, self.size // _QUICK_DIVISOR if quick else self.size))


def _address(number: int) -> str:
    """Return one of 12.6 million addresses in 127/8, none of which ends in 0 or 255."""
    return f"127.{1 + number // 63_500 % 200}.{number // 254 % 250}.{1 + number % 254}"


def _hosts(world: World, count: int) -> Iterator[tuple[str, Kind]]:
    return ((f"http://{_address(n)}:{world.plain}/", "good") for n in range(count))


def _secure_names(world: World, count: int) -> Iterator[tuple[str, Kind]]:
    return ((f"https://n{n}.bench.internal:{world.secure}/", "good") for n in range(count))


def _names(world: World, count: int) -> Iterator[tuple[str, Kind]]:
    return ((f"http://n{n}.bench.internal:{world.plain}/", "good") for n in range(count))


def _one_host(world: World, count: int) -> Iterator[tuple[str, Kind]]:
    return ((f"http://127.0.0.1:{world.plain}/{n}", "good") for n in range(count))


def _slow_hosts(world: World, count: int) -> Iterator[tuple[str, Kind]]:
    return ((f"http://{_address(n)}:{world.slow}/", "good") for n in range(count))


def _a_third_dead(world: World, count: int) -> Iterator[tuple[str, Kind]]:
    """Yield eight good URLs, then one of each kind of dead host, and so on."""
    for n in range(0, count, 12):
        yield from ((f"http://{_address(n + more)}:{world.plain}/", "good") for more in range(8))
        yield f"http://{_address(n)}:{world.closed}/", "refused"
        yield f"http://{_address(n)}:{world.silent}/", "silent"
        yield f"http://n{n}.absent.internal:{world.plain}/", "absent"
        yield f"https://n{n}.bench.internal:{world.strange}/", "strange"


def _fast_hosts(world: World, count: int) -> Iterator[tuple[str, Kind]]:
    return ((f"http://{_address(n)}:{world.logged}/", "good") for n in range(count))


def _beside_a_stuck_one(world: World, count: int) -> Iterator[tuple[str, Kind]]:
    """Yield ten URLs of fast hosts, then one of a host that never answers, and so on."""
    for n, fast in enumerate(_fast_hosts(world, count)):
        yield fast
        if n % 10 == 9:
            yield f"http://127.0.0.1:{world.silent}/{n // 10}", "stuck"


WORKLOADS: Final = (
    Workload("W1", "20,000 hosts, HTTP, by address", 20_000, _hosts),
    Workload(
        "W2", "5,000 hosts, HTTPS, by name", 5_000, _secure_names, needs=frozenset({"https", "names"}), concurrency=128
    ),
    Workload("W3", "20,000 hosts, HTTP, by name", 20_000, _names, needs=frozenset({"names"})),
    Workload("W4", "one host, 20,000 URLs, kept connections", 20_000, _one_host, concurrency=100, keep=True),
    Workload(
        "W5", "10,000 hosts that answer after 200 ms", 10_000, _slow_hosts, concurrency=1000, latency=LATENCY_MS / 1000
    ),
    Workload(
        "W6",
        "6,000 hosts, a third of them dead",
        6_000,
        _a_third_dead,
        concurrency=500,
        timeout=2,
        needs=frozenset({"https", "names", "failures"}),
    ),
    Workload("W7a", "10,000 fast hosts alone", 10_000, _fast_hosts, per_host=100, timeout=1, logged=True),
    Workload(
        "W7b",
        "10,000 fast hosts beside 1,000 URLs of a stuck one",
        10_000,
        _beside_a_stuck_one,
        per_host=100,
        timeout=1,
        needs=frozenset({"failures"}),
        logged=True,
    ),
    Workload(
        "W8",
        "20,000 URLs of 200 hosts, HTTPS, by name, kept connections",
        20_000,
        kept_urls,
        per_host=8,
        keep=True,
        graded=True,
        needs=frozenset({"https", "names"}),
    ),
    Workload(
        "W9",
        "10,000 URLs as in real lists: HTTPS, redirects, slow and dead hosts",
        10_000,
        mixed_urls,
        per_host=8,
        keep=True,
        redirects=5,
        graded=True,
        needs=frozenset({"https", "names", "failures"}),
    ),
)
