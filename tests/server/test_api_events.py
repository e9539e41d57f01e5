"""Events of the versioned API: the progress of a Task, and streams that continue where they broke off."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientError

from crawler import MemoryRegistry, Options, ProbeResult
from crawler.runtime.cancellation import in_background
from crawler.server.settings import ServerSettings
from tests.support.api import REGISTRIES, WAYS, Api, Event, read_events, serving_api, serving_as


@pytest.fixture(params=WAYS)
async def api(request: pytest.FixtureRequest) -> AsyncIterator[Api]:
    async with serving_as(request) as api:
        yield api


async def running(api: Api, total: int) -> str:
    """A Task without worker: the test records its results itself."""
    return (await api.registry.submit([f"http://a/{number}" for number in range(total)], Options())).id


async def record(api: Api, task_id: str, *seqs: int) -> None:
    results = [ProbeResult(seq=seq, url=f"http://a/{seq}", timestamp=1, outcome="ok", status=200) for seq in seqs]
    await api.registry.record(task_id, results)


@asynccontextmanager
async def listening(api: Api, task_id: str, query: str = "", **headers: str) -> AsyncIterator[AsyncIterator[Event]]:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    async with api.client.get(f"/api/v1/tasks/{task_id}/events{query}", headers=sent) as response:
        assert response.status == 200, await response.read()
        assert response.headers["Content-Type"] == "text/event-stream"
        assert response.headers["Cache-Control"] == "no-cache"
        async with aclosing(read_events(response)) as events:
            yield events


async def results_of(events: AsyncIterator[Event], count: int) -> list[tuple[int | None, int]]:
    """Ids and positions of the next results."""
    found: list[tuple[int | None, int]] = []
    while len(found) < count:
        event = await anext(events)
        if event.name == "result":
            found.append((event.id, event.data["seq"]))
    return found


async def test_results_are_sent_as_they_are_found_and_the_end_comes_last(api: Api) -> None:
    task_id = await running(api, 3)
    async with listening(api, task_id) as events:
        first = await anext(events)
        assert (first.name, first.id, first.data["done"], first.data["total"]) == ("progress", None, 0, 3)
        await record(api, task_id, 2)
        assert await results_of(events, 1) == [(1, 2)]
        await record(api, task_id, 0, 1)
        assert await results_of(events, 2) == [(2, 0), (3, 1)]
        await api.registry.finish(task_id, "ready")
        *_, last = [event async for event in events]
    assert (last.name, last.id) == ("end", None)
    assert last.data == await api.get(f"/tasks/{task_id}")


async def test_the_events_of_a_real_task(api: Api) -> None:
    task = await api.submit([f"no url {number}" for number in range(1000)])
    async with listening(api, task["id"]) as events:
        heard = [event async for event in events]
    assert [event.id for event in heard if event.name == "result"] == list(range(1, 1001))
    assert heard[-1].name == "end"
    assert heard[-1].data["counts"]["invalid"] == 1000


@pytest.mark.parametrize("way", ["header", "query", "both"])
async def test_a_stream_continues_after_the_last_event(way: str, api: Api) -> None:
    task_id = await running(api, 4)
    await record(api, task_id, 0, 1, 2)
    async with listening(api, task_id) as events:
        assert await results_of(events, 2) == [(1, 0), (2, 1)]
    query = {"header": "", "query": "?last_event_id=2", "both": "?last_event_id=0"}[way]
    headers = {} if way == "query" else {"Last_Event_ID": "2"}
    async with listening(api, task_id, query, **headers) as events:
        assert await results_of(events, 1) == [(3, 2)]
        await record(api, task_id, 3)
        assert await results_of(events, 1) == [(4, 3)]


async def test_a_stream_continues_after_a_restart(tmp_path: Path) -> None:
    async with serving_api(REGISTRIES["sqlite"](tmp_path)) as api:
        task = await api.ended([f"no url {number}" for number in range(3)])
    async with (
        serving_api(REGISTRIES["sqlite"](tmp_path)) as api,
        listening(api, task["id"], Last_Event_ID="2") as events,
    ):
        assert [(event.name, event.id) async for event in events] == [("result", 3), ("end", None)]


async def test_a_task_that_has_ended_says_so_at_once(api: Api) -> None:
    task = await api.ended(["x"])
    async with listening(api, task["id"], Last_Event_ID="1") as events:
        assert [event.name async for event in events] == ["end"]


async def test_progress_only(api: Api) -> None:
    task_id = await running(api, 2)
    async with listening(api, task_id, "?results=false") as events:
        assert (await anext(events)).data["done"] == 0
        await record(api, task_id, 0)
        event = await anext(events)
        assert (event.name, event.data["done"], event.data["counts"]["ok"]) == ("progress", 1, 1)
        await api.manager.cancel(api.registry.task(task_id))
        end = await anext(events)
    assert (end.name, end.data["status"], end.data["detail"]) == ("end", "error", "cancelled")


@pytest.mark.parametrize(
    "api", [way for way in WAYS if way != "redis"], indirect=True
)  # recording takes too long there
async def test_progress_comes_once_a_second_at_most(api: Api) -> None:
    loop = asyncio.get_running_loop()
    task_id = await running(api, 500)
    times: list[float] = []

    async def record_all() -> None:
        for seq in range(500):
            await record(api, task_id, seq)

    # Events are read as they come: where recording takes seconds, those that wait would seem to have come at once.
    async with listening(api, task_id, "?results=false") as events, in_background(record_all()):
        async for event in events:
            times.append(loop.time())
            if event.data["done"] == 500:
                break
    assert len(times) <= 2 + times[-1] - times[0]


@pytest.fixture(params=WAYS)
async def restless_api(request: pytest.FixtureRequest) -> AsyncIterator[Api]:
    async with serving_as(request, settings=ServerSettings(heartbeat_seconds=0.01)) as api:
        yield api


async def test_silence_is_broken_by_comments(restless_api: Api) -> None:
    task_id = await running(restless_api, 1)
    async with restless_api.client.get(f"/api/v1/tasks/{task_id}/events") as response:
        while await response.content.readline() != b":\n":
            pass
        assert await response.content.readline() == b"\n"


async def test_the_stream_of_a_deleted_task_ends_without_an_end(api: Api) -> None:
    task_id = await running(api, 2)
    async with listening(api, task_id) as events:
        await anext(events)
        await api.ask("DELETE", f"/tasks/{task_id}", 204)
        assert [event async for event in events] == []


@pytest.mark.parametrize(
    ("query", "headers", "word"),
    [
        ("", {"Last-Event-ID": "x"}, "Last-Event-ID"),
        ("", {"Last-Event-ID": "-1"}, "Last-Event-ID"),
        ("", {"Last-Event-ID": "2"}, "Last-Event-ID"),
        ("", {"Last-Event-ID": "9" * 5000}, "Last-Event-ID"),
        ("?last_event_id=2", {}, "event"),
        ("?last_event_id=-1", {}, "last_event_id"),
        ("?results=perhaps", {}, "results"),
        ("?result=false", {}, "result"),
    ],
)
async def test_a_wrong_query_is_refused(query: str, headers: dict[str, str], word: str, api: Api) -> None:
    task = await api.ended(["x"])
    await api.refuses("GET", f"/tasks/{task['id']}/events{query}", 422, word, headers=headers)


async def test_a_client_that_reads_nothing_pauses_its_own_stream(tmp_path: Path) -> None:
    read: list[int] = []

    class Counting(MemoryRegistry):
        async def page(self, task_id: str, start: int = 0, *arguments: Any, **options: Any) -> Any:
            read.append(start)
            return await super().page(task_id, start, *arguments, **options)

    async with serving_api(Counting()) as api:
        task = await api.ended([f"no url {number} {'x' * 1000}" for number in range(50_000)])  # 60 MB of events
        path = f"/api/v1/tasks/{task['id']}/events"
        reader, writer = await asyncio.open_connection(api.client.host, api.client.port, limit=1024)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await writer.drain()
        while not read:
            await api.get("/tasks")
        while True:  # until the service reads no more results for it
            before = len(read)
            for _ in range(50):
                await api.get("/tasks")
            if len(read) == before:
                break
        assert read[-1] < 40_000
        writer.transport.abort()
        with pytest.raises((ClientError, asyncio.IncompleteReadError, ConnectionError)):
            await reader.readexactly(10**9)


async def test_the_service_stops_while_a_client_listens_to_events() -> None:
    async with serving_api(MemoryRegistry()) as api:
        task_id = await running(api, 2)
        async with listening(api, task_id) as events:
            await anext(events)
            stopping = asyncio.ensure_future(api.client.server.close())
            assert [event async for event in events] == []
            await stopping
