"""Measure lists of overloaded hosts, with the default options.

    python -m bench.overload
    python -m bench.overload --only rate

For each host, the report has how many URLs were ok, how many seconds the list took, how many the host itself needs at
least, and what the host has counted. Each list also has healthy hosts; `healthy s` is when the last of their URLs was
done.
"""

import argparse
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

import uvloop

import crawler
from tests.support.overloaded_host import (
    ConnectionLimit,
    DownAtFirst,
    OneAtATime,
    OverloadedHost,
    RateBucket,
    RateLimit,
    RefusesAll,
    RequestLimit,
)

_HEALTHY_HOSTS: Final = 20
_URLS_PER_HEALTHY_HOST: Final = 20

CASES: Final[dict[str, tuple[Callable[[], OverloadedHost], int]]] = {
    "resets above 4": (lambda: ConnectionLimit(4, "reset", 0.2), 60),
    "resets above 2": (lambda: ConnectionLimit(2, "reset", 0.2), 60),
    "closes above 2": (lambda: ConnectionLimit(2, "close", 0.2), 60),
    "503 above 4": (lambda: ConnectionLimit(4, "503", 0.2), 60),
    "503 for more than 2 at once": (lambda: RequestLimit(2, 503, 0.2), 60),
    "429 for more than 2 at once": (lambda: RequestLimit(2, 429, 0.2), 60),
    "503 above 10 per s, no burst": (lambda: RateBucket(10, 0, 503), 60),
    "503 above 10 per s, burst of 5": (lambda: RateBucket(10, 5, 503), 60),
    "429 above 1 per s, no burst": (lambda: RateBucket(1, 0, 429), 20),
    "one at a time, 0.5 s": (lambda: OneAtATime(0.5), 40),
    "one at a time, 4.5 s": (lambda: OneAtATime(4.5), 10),
    "rate of 10 per 1 s": (lambda: RateLimit(10, 1.0, says_when=False), 60),
    "rate of 20 per 60 s": (lambda: RateLimit(20, 60.0, says_when=False), 50),
    "rate of 30 per 10 s": (lambda: RateLimit(30, 10.0, says_when=False), 100),
    "rate of 30 per 10 s, Retry-After": (lambda: RateLimit(30, 10.0, says_when=True), 100),
    "down for 1 s": (lambda: DownAtFirst(1.0), 5000),
    "refuses all": (RefusesAll, 10_000),
}


async def measure(name: str, make: Callable[[], OverloadedHost], count: int) -> None:
    """Probe the URLs of one host and of healthy ones, and print a row."""
    host = make()
    healthy = [ConnectionLimit(1000, seconds=0.01) for _ in range(_HEALTHY_HOSTS)]
    for server in (host, *healthy):
        await server.__aenter__()
    urls = host.urls(count)
    others = [url for server in healthy for url in server.urls(_URLS_PER_HEALTHY_HOST)]
    started, cpu = time.monotonic(), time.process_time()
    outcomes, healthy_seconds, bad = Counter[str](), 0.0, 0
    async for result in crawler.probe([*urls, *others]):
        if result.seq < count:
            outcomes[result.error.type if result.error else str(result.status)] += 1
        else:
            healthy_seconds = time.monotonic() - started
            bad += result.outcome != "ok"
    seconds, least = time.monotonic() - started, host.fewest_seconds(count)
    for server in (host, *healthy):
        await server.__aexit__()
    said = ", ".join(f"{number} x {what}" for what, number in outcomes.most_common())
    print(
        f"{name:34} {seconds:7.2f} s  least {least:6.2f}  cpu {time.process_time() - cpu:5.2f}  "
        f"healthy {healthy_seconds:5.2f} s ({bad} bad)  turned away {host.refused:4}  {said}",
        flush=True,
    )


async def main(only: str) -> None:
    """Measure the cases whose name has `only` in it."""
    for name, (make, count) in CASES.items():
        if only in name:
            await measure(name, make, count)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="TEXT", help="only cases with this text in their name")
    uvloop.run(main(parser.parse_args().only))
