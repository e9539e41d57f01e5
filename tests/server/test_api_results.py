"""Results of the versioned API: pages and streams, in the format that the client chooses."""

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from aiohttp import ClientError
from hypothesis import given
from hypothesis import strategies as st

from crawler import MemoryRegistry, Options, ProbeResult, StoreError
from crawler.core.results import Outcome, ProbeError
from crawler.formats.result_writers import COLUMNS
from crawler.server.api.content_negotiation import choose_media_type
from crawler.server.settings import ServerSettings
from tests.support.api import WAYS, Api, serving_api, serving_as
from tests.support.site import Site

OFFERS = {"application/json": "json", "application/x-ndjson": "ndjson", "text/csv": "csv"}


@pytest.fixture(params=WAYS)
async def api(request: pytest.FixtureRequest) -> AsyncIterator[Api]:
    async with serving_as(request) as api:
        yield api


def found(seq: int, url: str, outcome: Outcome = "ok", status: int | None = 200, error: str = "") -> ProbeResult:
    reason = ProbeError.of(error, "why") if error else None
    return ProbeResult(seq=seq, url=url, timestamp=1, outcome=outcome, status=status, error=reason)


# Results of a Task without worker, which a test records itself.
RESULTS = [
    found(0, "http://a/"),
    found(1, "http://a/2", "http_error", 404),
    found(2, "http://b.example/", "failed", None, "tcp.refused"),
    found(3, "http://xn--bcher-kva.example/", "http_error", 500),
    found(4, "http://[::1]/", "blocked", None, "address.blocked"),
]


async def recorded(api: Api, results: list[ProbeResult], more: int = 0) -> str:
    """A Task with these results; with more lines, it keeps running."""
    registry = api.registry
    lines = [result.url for result in results] + [f"http://more/{number}" for number in range(more)]
    task = await registry.submit(lines, Options())
    await registry.record(task.id, results)
    if not more:
        await registry.finish(task.id, "ready")
    return task.id


async def seqs(api: Api, task_id: str, **query: str | int) -> list[int]:
    page = await api.get(f"/tasks/{task_id}/results", **query)
    return [result["seq"] for result in page["results"]]


# --- Pages ---


@pytest.mark.parametrize("limit", [1, 2, 5, 6])
async def test_pages_have_every_result_once(limit: int, api: Api) -> None:
    task_id = await recorded(api, RESULTS)
    found: list[int] = []
    query: dict[str, str | int] = {"limit": limit}
    while True:
        answer = await api.ask("GET", f"/tasks/{task_id}/results", params=query)
        assert 1 <= len(answer.json["results"]) <= limit
        found += [result["seq"] for result in answer.json["results"]]
        if answer.json["next"] is None:
            break
        query["cursor"] = answer.json["next"]
        assert f"cursor={query['cursor']}" in answer.headers["Link"]
    assert "Link" not in answer.headers
    assert found == list(range(5))


async def test_while_a_task_runs_there_is_always_more(api: Api) -> None:
    task_id = await recorded(api, RESULTS, more=1)
    page = await api.get(f"/tasks/{task_id}/results", limit=1000)
    assert len(page["results"]) == 5
    empty = await api.get(f"/tasks/{task_id}/results", limit=1000, cursor=page["next"])
    assert empty == {"results": [], "next": page["next"]}
    whole = await api.get(f"/tasks/{task_id}/results")
    assert whole == page
    await api.registry.record(task_id, [found(5, "http://more/0")])
    await api.registry.finish(task_id, "ready")
    rest = await api.get(f"/tasks/{task_id}/results", limit=1000, cursor=page["next"])
    assert ([result["seq"] for result in rest["results"]], rest["next"]) == ([5], None)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"outcome": "http_error"}, [1, 3]),
        ({"status": "404"}, [1]),
        ({"error": "tcp.refused"}, [2]),
        ({"host": "a"}, [0, 1]),
        ({"host": "A."}, [0, 1]),
        ({"host": "B.Example"}, [2]),
        ({"host": "bücher.example"}, [3]),
        ({"host": "::1"}, [4]),
        ({"host": "[0:0::1]"}, [4]),
        ({"host": "a", "outcome": "ok"}, [0]),
        ({"host": "nowhere"}, []),
    ],
)
@pytest.mark.parametrize("limit", [None, 1000])
async def test_some_results_only(query: dict[str, str | int], expected: list[int], limit: int | None, api: Api) -> None:
    task_id = await recorded(api, RESULTS)
    assert await seqs(api, task_id, **query, **({} if limit is None else {"limit": limit})) == expected


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("cursor=1", "limit"),
        ("limit=1&cursor=6", "cursor"),
        ("limit=1&cursor=-1", "cursor"),
        ("limit=1&cursor=x", "cursor"),
        ("limit=1&cursor=%C2%B2", "cursor"),
        ("limit=1&cursor=" + "9" * 5000, "cursor"),
        ("outcome=bad", "outcome"),
        ("status=abc", "status"),
        ("error=tcp.refuse", "error"),
        ("host=", "host"),
        ("host=a/b", "host"),
        ("host=a%3F", "host"),
        ("host=a%23", "host"),
        ("host=u@a", "host"),
        ("host=a:80:", "host"),
        ("format=xml", "format"),
    ],
)
async def test_a_wrong_query_is_refused(query: str, word: str, api: Api) -> None:
    task_id = await recorded(api, RESULTS)
    await api.refuses("GET", f"/tasks/{task_id}/results?{query}", 422, word)


# --- Formats ---


@pytest.mark.parametrize("limit", ["", "&limit=1000"])
async def test_the_same_results_in_every_format(limit: str, api: Api) -> None:
    task_id = await recorded(api, [*RESULTS, found(5, "=cmd()", "invalid", None, "url.invalid")])
    path = f"/tasks/{task_id}/results?{limit}"
    answer = await api.ask("GET", path)
    assert answer.headers["Content-Type"].startswith("application/json")
    assert answer.headers["Vary"] == "Accept"
    results = answer.json["results"]
    answer = await api.ask("GET", path, headers={"Accept": "application/x-ndjson"})
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    assert [json.loads(line) for line in answer.body.splitlines()] == results
    answer = await api.ask("GET", path, headers={"Accept": "text/csv"})
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    header, *rows = csv.reader(io.StringIO(answer.body.decode(), newline=""))
    assert header == list(COLUMNS)
    assert [row[1] for row in rows] == [result["url"] for result in results[:-1]] + ["'=cmd()"]
    assert (await api.ask("GET", f"{path}&format=csv", headers={"Accept": "application/json"})).body == answer.body


async def test_csv_of_nothing_is_its_header(api: Api) -> None:
    task_id = await recorded(api, RESULTS)
    for limit in ("", "&limit=9"):
        answer = await api.ask("GET", f"/tasks/{task_id}/results?format=csv&host=nowhere{limit}")
        assert answer.body.decode().strip().split(",") == list(COLUMNS)


async def test_the_next_page_of_csv_is_in_the_link(api: Api) -> None:
    task_id = await recorded(api, RESULTS)
    answer = await api.ask("GET", f"/tasks/{task_id}/results?limit=2&format=csv")
    assert "cursor=2" in answer.headers["Link"]
    assert "format=csv" in answer.headers["Link"]


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", "json"),
        ("*/*", "json"),
        ("text/csv", "csv"),
        ("TEXT/CSV", "csv"),
        ("text/*", "csv"),
        ("text/html, text/*;q=0.5, */*;q=0.1", "csv"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "json"),
        ("application/json;q=0.5, text/csv;q=0.9", "csv"),
        ("application/json; q=0.5, application/*;q=0.7", "ndjson"),
        ("*/*, application/json;q=0", "ndjson"),
        ("application/x-ndjson;charset=utf-8;q=1.0", "ndjson"),
        ("text/csv;q=0", None),
        ("text/html", None),
        ("nonsense", None),
        (";;,,/", None),
    ],
)
def test_the_media_type_that_an_accept_header_prefers(accept: str, expected: str | None) -> None:
    assert choose_media_type(accept, OFFERS) == expected


@given(st.text(alphabet='*/;q=.01, textcsvjson\t"', max_size=60))
def test_any_text_may_be_an_accept_header(accept: str) -> None:
    assert choose_media_type(accept, OFFERS) in (None, *OFFERS.values())


async def test_a_format_that_is_not_offered_is_refused(api: Api) -> None:
    task_id = await recorded(api, RESULTS)
    path = f"/tasks/{task_id}/results"
    await api.refuses("GET", path, 406, "text/csv", headers={"Accept": "application/xml"})
    headers = [("Accept", "application/xml"), ("Accept", "text/csv;q=0.1")]
    assert (await api.ask("GET", path, headers=headers)).headers["Content-Type"].startswith("text/csv")


# --- Streams ---


async def many(api: Api) -> str:
    """A Task with more results than the buffers between client and service hold."""
    return await recorded(api, [found(seq, f"http://a/{seq:01000}") for seq in range(10_000)])


@pytest.mark.parametrize("format_", OFFERS.values())
async def test_the_stream_of_a_deleted_task_continues_to_its_end(format_: str, api: Api) -> None:
    task_id = await many(api)
    async with api.client.get(f"/api/v1/tasks/{task_id}/results?format={format_}") as response:
        await api.ask("DELETE", f"/tasks/{task_id}", 204)
        body = await response.read()
    if format_ == "json":
        page = json.loads(body)
        assert (len(page["results"]), page["next"]) == (10_000, None)
    else:
        assert len(body.splitlines()) == 10_000 + (format_ == "csv")


async def test_a_stream_that_fails_half_way_is_cut_off(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(MemoryRegistry):
        async def pages(self, *arguments: Any) -> AsyncIterator[Sequence[ProbeResult]]:
            async for results in super().pages(*arguments):
                if any(result.seq == 9_000 for result in results):
                    raise StoreError("the disk is gone")
                yield results

    async with serving_api(Failing()) as api:
        task_id = await many(api)
        with pytest.raises(ClientError):
            await api.ask("GET", f"/tasks/{task_id}/results")
    assert "the disk is gone" in caplog.text


async def test_a_client_that_disconnects_during_a_stream_is_no_error(
    api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    task_id = await many(api)
    async with api.client.get(f"/api/v1/tasks/{task_id}/results") as response:
        await response.content.readany()
        response.close()
    assert len(await seqs(api, task_id)) == 10_000
    assert not caplog.records


async def test_a_client_that_reads_nothing_for_too_long_is_cut_off() -> None:
    let_go = asyncio.Event()

    class Watched(MemoryRegistry):
        async def pages(self, *arguments: Any) -> AsyncIterator[Sequence[ProbeResult]]:
            try:
                async for results in super().pages(*arguments):
                    yield results
            finally:
                let_go.set()

    async with serving_api(Watched(), settings=ServerSettings(stall_seconds=0.01)) as api:
        task_id = await many(api)
        _, writer = await asyncio.open_connection(api.client.host, api.client.port, limit=1024)
        writer.write(f"GET /api/v1/tasks/{task_id}/results HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await let_go.wait()
        writer.close()


async def test_results_made_while_they_are_sent_are_sent_too(api: Api, site: Site) -> None:
    task_id = await recorded(api, RESULTS, more=1)
    results = api.registry.results(task_id)
    first = await anext(results)
    await api.registry.record(task_id, [found(5, "http://more/0")])
    assert [first.seq, *[result.seq async for result in results]] == list(range(6))
    assert await asyncio.wait_for(seqs(api, task_id), 30) == list(range(6))
