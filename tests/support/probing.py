"""Probe from a test, and give the result as one word."""

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


async def probe_all(urls: Iterable[str | bytes], **options: Any) -> list[ProbeResult]:
    """Return the results of a list of URLs, in the order of its lines.

    `settings`, a `ProberSettings`, may stand among the options: then a prober with these settings takes the list, which
    does not deduplicate it.
    """
    settings: ProberSettings | None = options.pop("settings", None)
    if settings is None:
        results = [result async for result in crawler.probe(urls, **options)]
    else:
        async with open_http_prober(Options.of(options).with_guard("any"), settings) as prober:
            results = [result async for result in prober.probe_many(read_targets(urls))]
    return sorted(results, key=lambda result: result.seq)


async def probe_one(url: str, **options: Any) -> ProbeResult:
    """Return the result of one URL; see `probe_all`."""
    [result] = await probe_all([url], **options)
    return result


def status_of(result: ProbeResult) -> int | str:
    """Return the HTTP status of a result, or its error type."""
    if result.error is not None:
        return result.error.type
    assert result.status is not None
    return result.status


def asking(names: DnsServer) -> dict[str, Any]:
    """Return options that make a prober ask this DNS server."""
    return {"dns": [names.address]}
