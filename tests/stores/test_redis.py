"""A registry in Redis while answers get lost, connections break, and other processes change the same Tasks."""

import asyncio
from typing import Any

import pytest

from crawler import Options, Registry, ServiceOptions, StoreError, Task, TaskNotFound, TransitionError
from crawler.core.results import ProbeResult
from crawler.core.tasks import IdempotencyKey
from crawler.server.background.retention import Retention
from crawler.stores.redis.chunk import Chunk, ChunkLine, ChunkPosition
from crawler.stores.redis.registry import RedisRegistry
from crawler.stores.redis.settings import FleetSettings
from tests.support.redis_proxy import proxy_to
from tests.support.redis_server import RedisServer
from tests.support.registries import make_result, pending_seqs

# Parts of commands, by which the proxy recognizes a script: a key that no other command of the test has.
ADMIT = b"crawler:number"
COMPLETE = b":suspects"
START = b":starts"

STALE_AT_ONCE = FleetSettings(unadmitted_batch_seconds=-60.0)
LINES = ["http://a/1", "http://b/1", "http://a/2"]


async def test_a_task_whose_acknowledgement_is_lost_is_stored_once_and_complete(redis_server: RedisServer) -> None:
    async with proxy_to(redis_server.url) as proxy, RedisRegistry(proxy.url) as registry:
        before = await registry.submit(LINES, Options())  # loads the scripts into Redis
        proxy.drop_answers(ADMIT)
        task = await registry.submit(LINES, Options(), idempotency=IdempotencyKey("key", "digest"))
        assert proxy.dropped == 1
        assert await pending_seqs(registry, task.id) == [0, 1, 2]
        assert list(registry.tasks) == [before.id, task.id]


async def test_a_batch_whose_submission_fails_is_not_stored(redis_server: RedisServer) -> None:
    async with proxy_to(redis_server.url) as proxy, RedisRegistry(proxy.url) as registry:
        proxy.drop_answers(ADMIT, times=100)
        with pytest.raises(StoreError):
            await registry.submit(LINES, Options())
        with redis_server.client() as client:
            assert client.keys("crawler:task:*") == []


async def test_an_end_that_is_sent_twice_drops_the_chunks(redis_server: RedisServer) -> None:
    async with proxy_to(redis_server.url) as proxy, RedisRegistry(proxy.url) as registry:
        before, task = [await registry.submit(LINES, Options()) for _ in range(2)]
        await registry.finish(before.id, "error")  # loads the script into Redis
        proxy.drop_answers(b'"error"')
        with pytest.raises(TransitionError):
            await registry.finish(task.id, "error")
        assert (await registry.fetch(task.id)).status == "error"
        assert await registry.chunks.next_chunks(task.id) == []


async def test_chunks_that_an_end_leaves_behind_are_dropped_later(redis_server: RedisServer) -> None:
    async with proxy_to(redis_server.url) as proxy, RedisRegistry(proxy.url) as registry:
        task = await registry.submit(LINES, Options())
        proxy.drop_answers(b'"error"', times=100)  # as if the process died before it dropped the chunks
        with pytest.raises(StoreError):
            await registry.finish(task.id, "error")
        async with RedisRegistry(redis_server.url, STALE_AT_ONCE) as other:
            assert await other.chunks.next_chunks(task.id) != []
            await other.chunks.drop_stale_batches()
            assert await other.chunks.next_chunks(task.id) == []


async def test_a_batch_that_is_never_admitted_is_dropped_later(redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        async with RedisRegistry(redis_server.url) as registry:
            client.zadd("crawler:coming", {"gone": 1.0})
            client.hset("crawler:task:gone:chains", mapping={"0": "0/1", "70": "0/1"})
            client.hset("crawler:task:gone:chunks:1", "70.0", b"x")
            await registry.chunks.drop_stale_batches()
            assert client.keys("crawler:task:gone*") == []
        async with RedisRegistry(redis_server.url) as registry, RedisRegistry(redis_server.url, STALE_AT_ONCE) as other:
            kept = 0
            for _ in range(50):
                submitting = asyncio.ensure_future(registry.submit(LINES, Options()))
                while not submitting.done():  # dropped at any moment, it is a Task with all lines or none
                    await other.chunks.drop_stale_batches()
                if submitting.exception() is None:
                    kept += 1
                    task = await other.fetch((await submitting).id)
                    assert await pending_seqs(other, task.id) == [0, 1, 2]
            assert len(client.keys("crawler:task:*")) == 3 * kept  # its fields, chains and chunks


async def test_chunks_of_a_dropped_batch_are_not_stored(redis_server: RedisServer) -> None:
    """Otherwise it would become a Task without its first lines, or stay for ever."""
    async with RedisRegistry(redis_server.url) as registry:
        chunks = registry.chunks
        await chunks.announce("id")
        await chunks.add("id", [Chunk(ChunkPosition(0, 0), [ChunkLine(0, "http://a/")])])
        await chunks.drop("id")
        await chunks.add("id", [Chunk(ChunkPosition(1, 0), [ChunkLine(1, "http://b/")])])
        with redis_server.client() as client:
            assert client.keys("*id*") == []
            assert client.zscore("crawler:coming", "id") is None


async def test_a_late_answer_does_not_undo_a_later_one(redis_server: RedisServer) -> None:
    """Otherwise a Task that has ended would run for ever in this process."""
    async with proxy_to(redis_server.url) as proxy, RedisRegistry(proxy.url) as registry:
        task = await registry.submit(LINES, Options())
        proxy.hold_answer(b"HGETALL")
        looking = asyncio.ensure_future(registry.fetch(task.id))
        await proxy.is_holding.wait()
        async with RedisRegistry(redis_server.url) as other:
            await other.finish(task.id, "error")
        while task.status == "running":
            await registry.wait_for_change(task.id)
        proxy.release_answer()
        await looking
        assert task.status == "error"


@pytest.mark.parametrize("words", [b"ZRANGE", b"HGETALL"])
async def test_a_task_that_is_submitted_during_a_refresh_is_known(words: bytes, redis_server: RedisServer) -> None:
    """Otherwise its events would end, and a worker would regard it as deleted."""
    async with proxy_to(redis_server.url) as proxy, RedisRegistry(proxy.url) as registry:
        before = await registry.submit(LINES, Options())
        proxy.hold_answer(words)
        looking = asyncio.ensure_future(registry.refresh())
        await proxy.is_holding.wait()
        task = await registry.submit(LINES, Options())
        proxy.release_answer()
        await looking
        assert list(registry.tasks) == [before.id, task.id]


async def test_more_calls_than_connections_are_all_answered(redis_server: RedisServer) -> None:
    async with RedisRegistry(redis_server.url) as registry:
        task = await registry.submit(LINES, Options())
        answers = await asyncio.gather(*(registry.fetch(task.id) for _ in range(200)))
        assert all(each is task for each in answers)


async def test_completing_a_chunk_twice_does_no_harm(redis_server: RedisServer) -> None:
    async with proxy_to(redis_server.url) as proxy, RedisRegistry(proxy.url) as registry:
        task = await registry.submit([f"http://a/{number}" for number in range(450)], Options())
        await registry.chunks.complete(task.id, ChunkPosition(1, 0))  # no such chunk; loads the script into Redis
        proxy.drop_answers(COMPLETE)
        assert await registry.chunks.complete(task.id, ChunkPosition(0, 0)) == ChunkPosition(0, 1)
        assert proxy.dropped == 1
        assert await registry.chunks.complete(task.id, ChunkPosition(0, 0)) == ChunkPosition(0, 1)
        assert await registry.chunks.complete(task.id, ChunkPosition(0, 1)) == ChunkPosition(0, 2)
        assert await registry.chunks.complete(task.id, ChunkPosition(0, 0)) == ChunkPosition(
            0, 2
        )  # from a process that is late
        assert await registry.chunks.complete(task.id, ChunkPosition(0, 2)) is None
        assert await registry.chunks.complete(task.id, ChunkPosition(0, 1)) is None


async def test_a_start_of_a_chunk_that_is_sent_again_counts_once(redis_server: RedisServer) -> None:
    async with proxy_to(redis_server.url) as proxy, RedisRegistry(proxy.url) as registry:
        before, task = [await registry.submit(LINES, Options()) for _ in range(2)]
        await registry.chunks.start(before.id, ChunkPosition(0, 0), "before")  # loads the script into Redis
        proxy.drop_answers(START, times=3)
        assert (await registry.chunks.start(task.id, ChunkPosition(0, 0), "one"))[1] == 0
        assert proxy.dropped == 3
        assert await registry.chunks.redeliveries() == 0
        assert [(await registry.chunks.start(task.id, ChunkPosition(0, 0), name))[1] for name in "abb"] == [1, 2, 2]
        assert await registry.chunks.redeliveries() == 2


async def test_releasing_a_chunk_forgets_its_crashes(redis_server: RedisServer) -> None:
    async with RedisRegistry(redis_server.url) as registry:
        task = await registry.submit(LINES, Options())
        await registry.chunks.start(task.id, ChunkPosition(0, 0), "one")
        await registry.chunks.isolate(task.id, ChunkPosition(0, 0), [1])
        assert await registry.chunks.isolated(task.id, ChunkPosition(0, 0)) == {1}
        await registry.chunks.release(task.id, ChunkPosition(0, 0))
        assert await registry.chunks.isolated(task.id, ChunkPosition(0, 0)) == set()
        assert (await registry.chunks.start(task.id, ChunkPosition(0, 0), "other"))[1] == 0
        await registry.delete(task.id)
        await registry.chunks.isolate(task.id, ChunkPosition(0, 0), [1])  # from a process that is late
        assert await registry.chunks.isolated(task.id, ChunkPosition(0, 0)) == set()


@pytest.mark.parametrize("more", [[], ["http://a/"] * 2_000], ids=["small", "big"])
async def test_chunks_of_lines_that_are_not_urls_can_be_probed_at_the_same_time(
    more: list[str], redis_server: RedisServer
) -> None:
    async with RedisRegistry(redis_server.url) as registry:
        task = await registry.submit([*(f"nonsense {number}" for number in range(450)), *more], Options())
        positions = await registry.chunks.next_chunks(task.id)
        assert [len((await registry.chunks.start(task.id, position, "one"))[0]) for position in positions[:3]] == [
            200,
            200,
            50,
        ]
        assert {position.index for position in positions} == {0}


async def test_what_changed_while_the_connection_was_lost_is_known_soon(redis_server: RedisServer) -> None:
    async with proxy_to(redis_server.url) as proxy, RedisRegistry(proxy.url) as registry:
        task = await registry.submit(["http://a/"], Options())
        await proxy.cut()
        with redis_server.client() as client:  # without an await: the registry cannot connect again meanwhile
            client.hset(f"crawler:task:{task.id}", mapping={"status": '"error"', "finished": "1.0"})
            client.publish("crawler:changes", task.id)
        async with asyncio.timeout(10):
            while task.status == "running":
                await registry.wait_for_change(task.id)


async def test_other_processes_are_notified_of_recorded_results(redis_server: RedisServer) -> None:
    async with RedisRegistry(redis_server.url) as registry, RedisRegistry(redis_server.url) as other:
        task = await registry.submit(LINES, Options())
        known = await other.fetch(task.id)
        await registry.record(task.id, [ProbeResult(seq=0, url=LINES[0], timestamp=0, outcome="ok")])
        async with asyncio.timeout(10):
            while known.counts.ok == 0:
                await other.wait_for_change(task.id)


async def test_results_of_a_task_that_has_ended_elsewhere_are_not_stored(redis_server: RedisServer) -> None:
    async with RedisRegistry(redis_server.url) as registry, RedisRegistry(redis_server.url) as late:
        task = await registry.submit(LINES, Options())
        known = await late.fetch(task.id)
        await late.chunks.start(task.id, ChunkPosition(0, 0), "late")
        await registry.finish(task.id, "error")
        while known.status == "running":
            await late.wait_for_change(task.id)
        known.status = "running"  # as if the message had not arrived yet
        await late.record(task.id, [ProbeResult(seq=0, url=LINES[0], timestamp=0, outcome="ok")])
        assert (await registry.fetch(task.id)).counts.done == 0
        assert (await registry.page(task.id)).results == []


async def until_logged(caplog: pytest.LogCaptureFixture, message: str) -> None:
    while message not in caplog.text:  # noqa: ASYNC110 - there is no event for a log record
        await asyncio.sleep(0.01)


async def test_an_unreadable_task_does_not_stop_the_updates_of_others(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with RedisRegistry(redis_server.url) as registry, RedisRegistry(redis_server.url) as other:
        broken, task = [await registry.submit(["http://a/"], Options()) for _ in range(2)]
        await other.refresh()
        with redis_server.client() as client:
            client.hset(f"crawler:task:{broken.id}", "ok", "x")
            client.publish("crawler:changes", broken.id)
        await registry.finish(task.id, "error")
        await other.refresh()  # reads both at once
        assert other.tasks[task.id].status == "error"
        await until_logged(caplog, f"Task {broken.id} cannot be read")


async def test_a_task_with_an_option_of_an_earlier_version_goes_on(redis_server: RedisServer) -> None:
    async with RedisRegistry(redis_server.url) as registry:
        task = await registry.submit(["http://a/"], Options())
        with redis_server.client() as client:
            client.hset(f"crawler:task:{task.id}", "options", '{"timeout":7.0,"transport":"aiohttp"}')
    async with RedisRegistry(redis_server.url) as registry:
        assert (await registry.fetch(task.id)).options.timeout == 7.0


@pytest.mark.parametrize("words", [b"\xff", b'%s{"unheard_of":1}'])
async def test_an_unreadable_message_does_not_stop_the_updates(
    words: bytes, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with RedisRegistry(redis_server.url) as registry, RedisRegistry(redis_server.url) as other:
        task = await registry.submit(["http://a/"], Options())
        await other.fetch(task.id)
        with redis_server.client() as client:
            client.publish("crawler:changes", words.replace(b"%s", task.id.encode()))
        async with asyncio.timeout(10):
            await until_logged(caplog, "could not be decoded")
            await registry.finish(task.id, "error")
            while other.tasks[task.id].status == "running":
                await other.wait_for_change(task.id)


async def test_the_final_counts_are_those_in_redis_even_if_smaller(redis_server: RedisServer) -> None:
    async with RedisRegistry(redis_server.url) as registry:
        task = await registry.submit(["http://a/", "http://b/"], Options())
        await registry.record(task.id, [make_result(0, "http://a/")])
        key = f"crawler:task:{task.id}"
        with redis_server.client() as client:  # as if it had lost its last second
            client.hset(key, mapping={"ok": 0, "failed": 2, "done": 2})
            async with RedisRegistry(redis_server.url) as other:
                await other.finish(task.id, "ready")
        ended = await registry.fetch(task.id)
        assert (ended.counts.ok, ended.counts.failed) == (0, 2)


async def test_a_deleted_task_leaves_only_keys_that_expire(redis_server: RedisServer) -> None:
    async with RedisRegistry(redis_server.url) as registry:
        task = await registry.submit(LINES, Options())
        await registry.chunks.start(task.id, ChunkPosition(0, 0), "one")
        await registry.delete(task.id)
        with pytest.raises(TaskNotFound):
            await registry.chunks.start(task.id, ChunkPosition(0, 0), "other")
        with redis_server.client() as client:
            kept: Any = client.keys("crawler:task:*")
            assert all(client.ttl(key) > 0 for key in kept)


async def test_retention_deletes_old_tasks_until_the_rest_fits(redis_server: RedisServer) -> None:
    async with RedisRegistry(redis_server.url) as registry:
        tasks = [await _finished(registry) for _ in range(3)]
        each = await registry.stored_bytes() // 3
        assert each > 5_000
        service = ServiceOptions(keep_bytes=int(2.5 * each))
        await Retention(registry, service, lambda task: registry.delete(task.id)).delete_expired()
        assert list(registry.tasks) == [task.id for task in tasks[1:]], "at once, though the keys expire later"
        assert await registry.stored_bytes() == 2 * each


async def _finished(registry: Registry) -> Task:
    task = await registry.submit([f"http://a/{number}" for number in range(1000)], Options())
    await registry.record(task.id, [make_result(number, f"http://a/{number}") for number in range(1000)])
    await registry.finish(task.id, "ready")
    return task
