"""Short words for the tests that probe."""

from collections.abc import Iterable
from typing import Any

import crawler
from crawler import ProbeResult
from tests.support.dns_server import DnsServer


async def probe_all(urls: Iterable[str | bytes], **options: Any) -> list[ProbeResult]:
    """The results of a batch, in the order of its lines."""
    results = [result async for result in crawler.probe(urls, **options)]
    return sorted(results, key=lambda result: result.seq)


async def probe_one(url: str, **options: Any) -> ProbeResult:
    """The result of one URL."""
    [result] = await probe_all([url], **options)
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
