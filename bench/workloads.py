"""What is probed: each workload is a list of URLs, and what each of them has to come to."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from bench.world import LATE, World

__all__ = ["WORKLOADS", "Kind", "Workload"]

Kind = Literal["good", "refused", "silent", "absent", "strange", "stuck"]
"""What a URL is: it has to be answered with 200 if it is good, else to be reported as not answered."""

Need = Literal["https", "names", "failures"]
"""What a contender has to be able to do: verify against our authority, ask our DNS server, give up on the dead."""

_QUICK: Final = 10  # so many times fewer URLs in a quick run


@dataclass(frozen=True)
class Workload:
    """A list of URLs, and the settings that all contenders get for it."""

    id: str
    title: str
    size: int
    make: Callable[[World, int], Iterator[tuple[str, Kind]]]
    concurrency: int = 256
    per_host: int = 256
    timeout: int = 10
    """Seconds for a probe in all."""
    keep: bool = False
    """Whether connections are worth keeping."""
    needs: frozenset[Need] = frozenset()
    latency: float = 0.0
    """Seconds that each answer takes its server, if that is not nginx."""
    logged: bool = False
    """Whether the last answer of a good URL is of interest, and not only the end."""

    def urls(self, world: World, *, quick: bool) -> dict[str, Kind]:
        """The URLs, in their order."""
        return dict(self.make(world, self.size // _QUICK if quick else self.size))


def _address(number: int) -> str:
    """One of 12.6 million addresses in 127/8, none of which ends in 0 or 255."""
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
    """Eight good ones, then one of each way to be dead."""
    for n in range(0, count, 12):
        yield from ((f"http://{_address(n + more)}:{world.plain}/", "good") for more in range(8))
        yield f"http://{_address(n)}:{world.closed}/", "refused"
        yield f"http://{_address(n)}:{world.silent}/", "silent"
        yield f"http://n{n}.absent.internal:{world.plain}/", "absent"
        yield f"https://n{n}.bench.internal:{world.strange}/", "strange"


def _fast_hosts(world: World, count: int) -> Iterator[tuple[str, Kind]]:
    return ((f"http://{_address(n)}:{world.logged}/", "good") for n in range(count))


def _beside_a_stuck_one(world: World, count: int) -> Iterator[tuple[str, Kind]]:
    """Ten URLs of fast hosts, then one of the host that never answers."""
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
    Workload("W5", "10,000 hosts that answer after 200 ms", 10_000, _slow_hosts, concurrency=1000, latency=LATE / 1000),
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
)
