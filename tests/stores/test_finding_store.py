"""What is found is found again, whether it is in memory still or in the file."""

import asyncio
import hashlib
from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import crawler
from crawler import Hop, ProbeResult, Timings
from crawler.stores.finding_store import SeenResults
from tests.support.site import Site


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crawler.stores.finding_store._IN_MEMORY", 20)
    monkeypatch.setattr("crawler.stores.finding_store._LOT", 7)


def found(number: int) -> ProbeResult:
    hop = Hop("http://a/\ud7ff", "HEAD", 200, "127.0.0.1", Timings(dns=1.5, total=2.5))
    return ProbeResult(seq=number, url=f"http://a/{number}", timestamp=1, outcome="ok", status=200, hops=[hop])


def key(number: int) -> bytes:
    return hashlib.blake2b(str(number).encode(), digest_size=16).digest()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 100), unique=True, min_size=40), st.lists(st.integers(0, 100), min_size=40))
def test_all_that_was_added_is_there_and_nothing_else(added: list[int], wanted: list[int]) -> None:
    findings = SeenResults()
    for number in added:
        findings.add(key(number), found(number))
    for number in wanted:
        assert findings.get(key(number)) == (found(number) if number in added else None)
    findings.close()


async def test_a_line_far_behind_its_equal_gets_the_same_result_and_no_request(site: Site) -> None:
    urls = [site.url(f"/count?{number}") for number in range(200)]
    seen: list[ProbeResult] = []
    all_seen = asyncio.Event()

    async def lines() -> AsyncIterator[str]:
        for url in urls:
            yield url
        await all_seen.wait()
        for url in urls:
            yield f"{url}#again"

    async for result in crawler.probe(lines()):
        seen.append(result)
        if len(seen) == len(urls):
            all_seen.set()
    results = sorted(seen, key=lambda result: result.seq)
    assert [result.url for result in results] == [*urls, *(f"{url}#again" for url in urls)]
    assert {result.status for result in results} == {200}
    assert [result.final_url for result in results[200:]] == urls
    assert len(site.requests) == 200
