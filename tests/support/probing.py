"""Short words for the tests that probe."""

from collections.abc import Iterable
from typing import Any

import crawler
from crawler import Options, ProbeResult
from crawler.core.urls import read_targets
from crawler.probing.factory import open_http_prober
from crawler.probing.settings import ProberSettings, RetryPolicy
from tests.support.dns_server import DnsServer

SHORT_BACKOFF = ProberSettings(retry=RetryPolicy(backoff_seconds=0.01, max_wait_seconds=0.01))
"""Settings of a prober that hardly waits before retries."""


async def probe_all(
    urls: Iterable[str | bytes], *, settings: ProberSettings | None = None, **options: Any
) -> list[ProbeResult]:
    """Return the results of a batch, in the order of its lines.

    `settings` needs a prober of its own: without `crawler.probe`, so that equal lines are not deduplicated.
    """
    if settings is None:
        results = [result async for result in crawler.probe(urls, **options)]
    else:
        async with open_http_prober(Options.of(options).with_guard("any"), settings) as prober:
            results = [result async for result in prober.probe_many(read_targets(urls))]
    return sorted(results, key=lambda result: result.seq)


async def probe_one(url: str, *, settings: ProberSettings | None = None, **options: Any) -> ProbeResult:
    """Return the result of one URL."""
    [result] = await probe_all([url], settings=settings, **options)
    return result


def verdict(result: ProbeResult) -> int | str:
    """What a result comes down to: a status, or why there is none that counts."""
    if result.error is not None:
        return result.error.type
    assert result.status is not None
    return result.status


def asking(names: DnsServer) -> dict[str, Any]:
    """Options that make a prober ask this DNS server."""
    return {"dns": [names.address]}
