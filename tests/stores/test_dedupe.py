"""The deduplicator of a stream: an equal line gets the same result, in memory or from the file, without a request."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import closing

from hypothesis import given
from hypothesis import strategies as st

from crawler import Hop, Options, ProbeResult, Target, Timings
from crawler.compose import open_prober
from crawler.stores.dedupe import Deduplicator, SeenResults
from crawler.stores.ordering import LineKey, line_key
from tests.support.site import Site


def small() -> SeenResults:
    return SeenResults(max_in_memory=20, per_move=7)


def found(number: int) -> ProbeResult:
    hop = Hop("http://a/\ud7ff", "HEAD", 200, "127.0.0.1", Timings(dns=1.5, total=2.5))
    return ProbeResult(seq=number, url=f"http://a/{number}", timestamp=1, outcome="ok", status=200, hops=[hop])


def key(number: int) -> LineKey:
    return line_key(Target.of(number, f"http://a/{number}"))


@given(st.lists(st.integers(0, 100), unique=True, min_size=40), st.lists(st.integers(0, 100), min_size=40))
def test_all_that_was_added_is_there_and_nothing_else(added: list[int], wanted: list[int]) -> None:
    with closing(small()) as seen:
        for number in added:
            seen.add(key(number), found(number))
        for number in wanted:
            assert seen.get(key(number)) == (found(number) if number in added else None)


async def test_a_line_long_after_its_equal_gets_the_same_result_and_no_request(site: Site) -> None:
    urls = [site.url(f"/count?{number}") for number in range(200)]
    results: list[ProbeResult] = []
    all_probed = asyncio.Event()

    async def lines() -> AsyncIterator[str]:
        for url in urls:
            yield url
        await all_probed.wait()
        for url in urls:
            yield f"{url}#again"

    async with open_prober(Options()) as prober:
        with closing(Deduplicator(small())) as deduplicator:
            async for result in prober.probe_many(deduplicator.unique_targets(lines())):
                results.append(result)
                assert not deduplicator.take_duplicates(result)
                if len(results) == len(urls):
                    all_probed.set()
    results.sort(key=lambda result: result.seq)
    assert [result.url for result in results] == [*urls, *(f"{url}#again" for url in urls)]
    assert {result.status for result in results} == {200}
    assert [result.final_url for result in results[200:]] == urls
    assert len(site.requests) == 200


async def test_equal_lines_wait_for_the_result_of_the_first() -> None:
    with closing(Deduplicator()) as deduplicator:
        lines = ["http://a/", "http://b/", "HTTP://A", "http://user:x@a/", "http://a/#x"]
        assert [target.seq async for target in deduplicator.unique_targets(lines)] == [0, 1, 3]
        assert [target.seq for target in deduplicator.take_duplicates(found(0))] == [2, 4]
        assert deduplicator.take_duplicates(found(1)) == []
