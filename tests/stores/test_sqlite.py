"""A registry in a file: it outlives the process, and the file can be full, damaged, old or of another program."""

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from crawler import InputError, Options, ProbeError, Task
from crawler.core.tasks import IdempotencyKey, ResultFilter, Webhook
from crawler.stores.sqlite.connection import connect, migrate
from crawler.stores.sqlite.recent_results import RecentResults
from crawler.stores.sqlite.registry import SqliteRegistry
from crawler.stores.sqlite.schema import MIGRATIONS
from tests.support.isolated_process import can_unshare, run_and_read
from tests.support.registries import make_result, pending_seqs


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "tasks.db"


def rows(path: Path) -> dict[str, int]:
    """How many rows of Tasks each table has, as another reader of the file sees it."""
    with closing(sqlite3.connect(path)) as connection, connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        tables.remove("notes")
        return {name: connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in tables}


# --- After a restart ---


async def test_a_task_is_there_again_as_it_was(path: Path) -> None:
    lines: list[str | bytes] = [
        "http://a/1",
        "http://b/",
        "http://a/2",
        "HTTP://B/",
        "nonsense \x00",
        b"\xff",
        "http://a/3",
    ]
    async with SqliteRegistry(path) as registry:
        task = await registry.submit(
            lines, Options(retries=3, headers={"X": "y"}), label="nightly", idempotency=IdempotencyKey("key", "digest")
        )
        await registry.record(task.id, [make_result(1, "http://b/"), make_result(2, "http://a/2")])
        before = [result async for result in registry.results(task.id)]
    async with SqliteRegistry(path) as registry:
        again = registry.task(task.id)
        assert again == task
        assert (again.counts.ok, again.total, again.label) == (3, 7, "nightly")
        assert [result async for result in registry.results(task.id)] == before
        assert [result.url for result in before] == ["http://b/", "http://a/2", "HTTP://B/"]
        left = [target async for target in registry.pending(task.id)]
        assert sorted(target.seq for target in left) == [0, 4, 5, 6]
        assert {target.seq: target.url.message for target in left if isinstance(target.url, ProbeError)} == {
            4: "a control character at character 10",
            5: "not UTF-8 at byte 0",
        }


async def test_tasks_are_listed_in_their_order_after_a_restart(path: Path) -> None:
    async with SqliteRegistry(path) as registry:
        ids = [(await registry.submit(["http://a/"], Options())).id for _ in range(5)]
        await registry.delete(ids.pop(2))
    async with SqliteRegistry(path) as registry:
        assert list(registry.tasks) == ids
        ids.append((await registry.submit(["http://a/"], Options())).id)
        assert list(registry.tasks) == ids


async def test_results_written_after_a_cancellation_are_counted(path: Path) -> None:
    async with SqliteRegistry(path) as registry:
        task = await registry.submit([f"http://a/{n}" for n in range(100)], Options())
        for seq in range(100):
            writing = asyncio.ensure_future(registry.record(task.id, [make_result(seq, f"http://a/{seq}")]))
            await asyncio.sleep(0)
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
    async with SqliteRegistry(path) as registry:
        kept = [result async for result in registry.results(task.id)]
        assert len(kept) == registry.task(task.id).counts.done
        assert len(kept) + len(await pending_seqs(registry, task.id)) == 100


async def test_concurrent_changes_are_all_kept(path: Path) -> None:
    async with SqliteRegistry(path) as registry:
        task = await registry.submit(["http://a/"], Options())
        await registry.record(task.id, [make_result(0, "http://a/")])
        webhook = Webhook("http://hook.example/", "secret", attempts=1, due=1.5, status="pending", last="HTTP 500")
        await asyncio.gather(
            registry.update(task.id, webhook=webhook),
            registry.finish(task.id, "ready"),
            registry.update(task.id, label="new"),
        )
        assert (task.status, task.webhook, task.label) == ("ready", webhook, "new")
    async with SqliteRegistry(path) as registry:
        assert registry.task(task.id) == task


async def test_a_change_does_not_bring_a_deleted_task_back(path: Path) -> None:
    async with SqliteRegistry(path) as registry:
        task = await registry.submit(["http://a/"], Options())
        await asyncio.gather(registry.delete(task.id), registry.update(task.id, label="new"))
        assert not registry.tasks
    async with SqliteRegistry(path) as registry:
        assert not registry.tasks


# --- Submits that fail ---


async def test_a_list_whose_source_fails_leaves_nothing(path: Path) -> None:
    async def torn() -> AsyncIterator[str]:
        for number in range(10_000):
            yield f"http://a/{number}"
        raise InputError("stops half way")

    async with SqliteRegistry(path) as registry:
        with pytest.raises(InputError):
            await registry.submit(torn(), Options())
        assert not registry.tasks
        await registry.stored_bytes()  # which waits until all is swept
        assert {name: count for name, count in rows(path).items() if count and name != "sqlite_sequence"} == {}


async def test_lines_of_a_killed_submit_are_deleted_at_the_next_start(path: Path) -> None:
    program = f"""
import asyncio, os, signal
from pathlib import Path
from crawler import Options
from crawler.stores.sqlite.registry import SqliteRegistry

async def torn():
    for number in range(10_000):
        yield f"http://a/{{number}}"
    os.kill(os.getpid(), signal.SIGKILL)

async def main():
    async with SqliteRegistry(Path({str(path)!r})) as registry:
        await registry.submit(torn(), Options())

asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program)
    assert await process.wait() == -signal.SIGKILL
    assert rows(path)["lines"] >= 8_000
    async with SqliteRegistry(path) as registry:
        assert not registry.tasks
        await registry.stored_bytes()
        assert rows(path)["lines"] == 0


async def test_concurrent_submits_and_deletes_are_kept_as_acknowledged(path: Path) -> None:
    async def one(number: int) -> str | None:
        lines = [f"http://a/{number}/{line}" for line in range(1 + number % 7 * 500)]
        task = await registry.submit(lines, Options())
        if number % 3:
            return task.id
        await registry.delete(task.id)
        return None

    async with SqliteRegistry(path) as registry:
        kept = {task_id for task_id in await asyncio.gather(*(one(number) for number in range(60))) if task_id}
        totals = {task_id: registry.task(task_id).total for task_id in kept}
    async with SqliteRegistry(path) as registry:
        assert registry.tasks.keys() == kept
        for task_id, total in totals.items():
            assert len(await pending_seqs(registry, task_id)) == total


async def test_results_recorded_concurrently_are_each_kept_once(path: Path) -> None:
    lines = [f"http://a/{number}" for number in range(500)]
    async with SqliteRegistry(path) as registry:
        task = await registry.submit(lines, Options())
        every = [make_result(seq, line) for seq, line in enumerate(lines)]
        await asyncio.gather(*(registry.record(task.id, every[start : start + 20]) for start in range(0, 490, 10)))
        assert sorted([result.seq async for result in registry.results(task.id)]) == list(range(500))
        assert registry.task(task.id).counts.done == 500


# --- Memory ---

LONG = """
import asyncio, resource, sys
from pathlib import Path
from crawler import Options, ProbeResult
from crawler.stores.sqlite.registry import SqliteRegistry

COUNT = 200_000

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

async def main():
    async with SqliteRegistry(Path(sys.argv[1])) as registry:
        before = peak()
        lines = (f"http://host-{number % 1000}.test/a/page/of/it/{number % 190_000}" for number in range(COUNT))
        task = await registry.submit(lines, Options())
        results = []
        async for target in registry.pending(task.id):
            results.append(ProbeResult(seq=target.seq, url=target.text, timestamp=1, outcome="ok", status=200))
            if len(results) == 1000:
                await registry.record(task.id, results)
                results = []
        await registry.record(task.id, results)
        await registry.finish(task.id, "ready")
        assert len({result.seq async for result in registry.results(task.id)}) == COUNT
        print(peak() - before)

asyncio.run(main())
"""


async def test_memory_does_not_grow_with_the_list(path: Path) -> None:
    """Its lines alone would be 20 MB as texts, its targets and results 400. The set that counts them is 18."""
    code, out, err = await run_and_read([sys.executable, "-c", LONG, str(path)], [])
    assert (code, err) == (0, "")
    assert out[0] < 80, "MiB"


# --- Deletions ---


async def test_a_deletion_gives_the_disk_its_space_back(path: Path) -> None:
    lines = [f"http://a/{number}/{'x' * 200}" for number in range(20_000)]
    async with SqliteRegistry(path) as registry:
        small = await registry.submit(["http://a/"], Options())
        empty = await registry.stored_bytes()
        task = await registry.submit([*lines, *lines[:100]], Options())
        await registry.record(task.id, [make_result(seq, lines[seq]) for seq in range(5_000)])
        full = await registry.stored_bytes()
        assert full > empty + 4_000_000
        await registry.delete(task.id)
        assert await registry.stored_bytes() < empty + 100_000
        assert await pending_seqs(registry, small.id) == [0]
    assert (await asyncio.to_thread(path.stat)).st_size < empty + 100_000


async def test_a_deleted_task_can_be_read_to_its_end(path: Path) -> None:
    lines = [f"http://a/{number}" for number in range(5_000)]
    async with SqliteRegistry(path) as registry:
        task = await registry.submit(lines, Options())
        await registry.record(task.id, [make_result(seq, lines[seq]) for seq in range(5_000)])
        seen = 0
        async for _ in registry.results(task.id):
            seen += 1
            if seen == 10:
                await registry.delete(task.id)
        assert seen == 5_000
        await registry.stored_bytes()
        assert rows(path)["results"] == 0


# --- Pages ---


async def test_a_page_may_be_empty_and_others_come_after_it(path: Path) -> None:
    lines = [f"http://a/{number}" for number in range(45_000)]
    async with SqliteRegistry(path) as registry:
        task = await registry.submit(lines, Options())
        await registry.record(task.id, [make_result(seq, lines[seq]) for seq in range(45_000)])
        start, calls = 0, 0
        while start < 45_000:
            page = await registry.page(task.id, start, 10, ResultFilter(outcome="failed"))
            assert not page.results
            assert page.next > start
            start, calls = page.next, calls + 1
        assert calls == 3, "nobody waits while all are looked through"


# --- Files that cannot be used ---


async def test_a_second_process_is_refused_and_told_which_process_has_the_file(path: Path) -> None:
    async with SqliteRegistry(path):
        done = crawler("--registry", f"sqlite:///{path}")
        assert done.returncode == 2
        assert done.stderr == f"crawler: {path}: is in use by another crawler, process {os.getpid()}\n"
    async with SqliteRegistry(path):
        pass


def crawler(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "crawler", "serve", "--port", "0", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no database at all" * 100, "cannot be used: file is not a database"),
        (b"SQLite format 3\x00" + b"\xff" * 5000, "cannot be used: "),
    ],
)
def test_a_file_that_is_no_database_is_left_as_it_is(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    path.write_bytes(content)
    done = crawler("--registry", f"sqlite:///{path}")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"crawler: {path}: {message}")
    assert done.stderr.count("\n") == 1
    assert path.read_bytes() == content


def test_a_place_where_no_file_can_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = crawler("--registry", f"sqlite:///{tmp_path}/file/state/tasks.db")
    assert done.returncode == 2
    assert done.stderr == f"crawler: {tmp_path}/file/state/tasks.db: cannot be used: Not a directory\n"


async def test_a_file_of_a_later_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    migrate(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    with pytest.raises(InputError, match="was written by a later version of crawler"):
        await SqliteRegistry(path).__aenter__()


async def test_a_task_with_an_option_of_an_earlier_version_goes_on(path: Path) -> None:
    async with SqliteRegistry(path) as registry:
        task = await registry.submit(["http://a/"], Options(timeout=7.0))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE tasks SET body = json_set(body, '$.options.transport', 'aiohttp')")
    async with SqliteRegistry(path) as registry:
        assert (await registry.fetch(task.id)).options.timeout == 7.0
        assert [target.seq async for target in registry.pending(task.id)] == [0]


async def test_a_task_that_cannot_be_read_stops_no_other(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with SqliteRegistry(path) as registry:
        tasks = [await registry.submit(["http://a/"], Options()) for _ in range(4)]
    with closing(sqlite3.connect(path)) as connection, connection:
        for task, body in zip(tasks, ["no JSON", '{"id": 1}', json_with(tasks[2], timeout=-1.0)], strict=False):
            connection.execute("UPDATE tasks SET body = ? WHERE id = ?", (body, task.id))
    async with SqliteRegistry(path) as registry:
        assert list(registry.tasks) == [tasks[0].id, tasks[3].id]
        assert registry.task(tasks[0].id).detail == "its record is damaged"
        assert all(task.id in caplog.text for task in tasks[:3])
        await registry.stored_bytes()
    assert rows(path)["tasks"] == 4, "they are kept for a version that can"


def json_with(task: Task, **options: object) -> str:
    shown = msgspec.to_builtins(task)
    shown["options"] |= options
    return json.dumps(shown)


VERSION_1 = """
    INSERT INTO tasks (number, id, body, ok) VALUES (1, :id, :body, 2);
    INSERT INTO lines VALUES (4294967296, 11, 12, 1, NULL, 'http://a/'), (4294967297, 21, 22, 1, NULL, 'http://a/2'),
        (4294967298, 11, 12, 1, NULL, 'HTTP://A/'), (4294967299, 31, 32, 2, '{"type": "url.invalid", "phase":
        "input", "message": "empty", "transient": false}', ''), (4294967300, 21, 22, 1, NULL, 'http://a/2#x');
    INSERT INTO turns VALUES (4294967298, 3), (4294967299, 1);
    INSERT INTO twins VALUES (4294967296, 4294967298), (4294967297, 4294967300);
    INSERT INTO records VALUES (4294967296, 'ok', 200, NULL, 'a', :first), (4294967297, 'ok', 200, NULL, 'a', :second);
"""


async def test_a_task_of_a_file_of_version_1_goes_on(path: Path) -> None:
    """The lines' columns for sorting are gone afterwards, and nothing else."""
    options, results = Options(), [make_result(0, "http://a/"), make_result(2, "HTTP://A/")]
    task = Task(id="task-of-version-1", options=options, total=5)
    values = {
        "id": task.id,
        "body": msgspec.json.encode(task).decode(),
        "first": msgspec.json.encode(results[0]).decode(),
        "second": msgspec.json.encode(results[1]).decode(),
    }
    path.parent.mkdir()
    with closing(connect(path, create=True)) as connection:
        for statement in [*MIGRATIONS[0], "PRAGMA user_version = 1"]:
            connection.execute(statement)
        for statement in VERSION_1.strip().split(";")[:-1]:
            names = {name: value for name, value in values.items() if f":{name}" in statement}
            connection.execute(statement, names)
    async with SqliteRegistry(path) as registry:
        task = registry.task(task.id)
        assert (task.total, task.counts.done) == (5, 2)
        assert [result async for result in registry.results(task.id)] == results
        assert await pending_seqs(registry, task.id) == [3, 1]
        await registry.record(task.id, [make_result(1, "http://a/2"), make_result(3, "", "invalid")])
        assert sorted([result.seq async for result in registry.results(task.id)]) == [0, 1, 2, 3, 4]
        await registry.finish(task.id, "ready")
        await registry.delete(task.id)
        await registry.stored_bytes()
        assert not any(rows(path).values())
    with closing(connect(path)) as connection:
        assert [column[1] for column in connection.execute("PRAGMA table_info(lines)")] == ["id", "problem", "text"]


# --- Results in memory ---


async def test_results_of_small_tasks_are_in_memory_until_a_restart(path: Path) -> None:
    lines = ["http://a/", "HTTP://A/", "http://b/"]
    async with SqliteRegistry(path) as registry:
        task = await registry.submit(lines, Options())
        assert registry.results_in_memory(task.id) == []
        await registry.record(task.id, [make_result(2, lines[2])])
        await registry.record(task.id, [make_result(0, lines[0])])
        assert registry.results_in_memory(task.id) == [result async for result in registry.results(task.id)]
        big = await registry.submit([f"http://a/{number}" for number in range(1_001)], Options())
        assert registry.results_in_memory(big.id) == ()
        await registry.record(big.id, [make_result(0, "http://a/0")])
        assert registry.results_in_memory(big.id) is None
    async with SqliteRegistry(path) as registry:
        assert registry.results_in_memory(task.id) is None


def test_the_task_whose_results_were_used_least_recently_leaves_memory() -> None:
    recent = RecentResults(max_lines_per_task=2, max_lines=4)
    for number in (1, 2):
        recent.add_task(number, 2)
    recent.add_task(3, 3)
    assert recent.read(3) is None, "too many lines"
    assert recent.read(1) == []
    recent.add_task(4, 1)
    assert [number for number in (1, 2, 4) if number in recent] == [1, 4]
    recent.delete_task(1)
    recent.add_task(5, 2)
    assert [number for number in (4, 5) if number in recent] == [4, 5]


@pytest.mark.parametrize("version", range(len(MIGRATIONS) + 1))
async def test_a_file_of_any_earlier_version_is_upgraded(version: int, tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    connection = connect(path, create=True)
    for script in MIGRATIONS[:version]:
        for statement in script:
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {version}")
    connection.close()
    async with SqliteRegistry(path) as registry:
        task = await registry.submit(["http://a/"], Options())
        assert await pending_seqs(registry, task.id) == [0]


# --- A disk that fails ---

FULL = """
import asyncio, logging, os, sys, uvloop
from pathlib import Path
from crawler import Options, StoreError, create_app
from crawler.server.app_keys import TASK_MANAGER
from crawler.stores.sqlite.registry import SqliteRegistry
from tests.support.site import Site

async def main():
    folder, failed = Path(sys.argv[1]), asyncio.Event()
    logging.getLogger("crawler.worker").addFilter(lambda _: failed.set())
    registry = SqliteRegistry(folder / "tasks.db")
    async with Site() as site:
        app = create_app(Options(guard="any"), registry=registry)
        app.freeze()
        await app.startup()
        urls = [site.url(f"/ok?{number}" + "x" * 500) for number in range(300)]
        hold = asyncio.Event()
        site.on("/ok", lambda x: wait(hold, x))
        task = await app[TASK_MANAGER].submit(urls)
        await site.until(lambda: site.active >= 8)
        with open(folder / "ballast", "wb", buffering=0) as ballast:
            try:
                while True:
                    ballast.write(bytes(4096))
            except OSError:
                pass
        hold.set()
        await failed.wait()
        assert task.status == "running", task
        assert task.counts.done < 300
        (folder / "ballast").unlink()
        while task.status == "running":
            await registry.wait_for_change(task.id)
        assert (task.status, task.counts.ok) == ("ready", 300), task
        assert len([result async for result in registry.results(task.id)]) == 300
        assert len(site.requests) == 300, "nothing was probed again"
        try:
            await registry.submit((f"http://a/{number}/" + "x" * 1000 for number in range(20_000)), Options())
            raise AssertionError("there was room")
        except StoreError as error:
            assert "full" in str(error), error
        assert list(registry.tasks) == [task.id]
        await registry.stored_bytes()
        await app.shutdown()
        await app.cleanup()
    print('"as it should be"')

async def wait(hold, x):
    await hold.wait()
    await x.reply()

uvloop.run(main())
"""


@pytest.mark.skipif(not can_unshare(), reason="needs `unshare --mount`")
async def test_on_a_full_disk_nothing_is_half_written_and_all_goes_on_when_there_is_room(tmp_path: Path) -> None:
    script = 'mount -t tmpfs -o size=4m none "$1" && exec "$2" -c "$3" "$1"'
    code, out, err = await run_and_read(
        ["unshare", "-rm", "sh", "-c", script, "sh", str(tmp_path), sys.executable, FULL], []
    )
    assert (code, out) == (0, ["as it should be"]), err


@pytest.mark.skipif(not can_unshare(), reason="needs `unshare --mount`")
async def test_a_disk_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    migrate(tmp_path / "tasks.db")
    script = 'mount -t tmpfs -o ro none "$1" && exec "$2" -m crawler serve --port 0 --registry "sqlite:///$1/tasks.db"'
    code, _, err = await run_and_read(["unshare", "-rm", "sh", "-c", script, "sh", str(tmp_path), sys.executable], [])
    assert (code, err) == (2, f"crawler: {tmp_path}/tasks.db: cannot be used: Read-only file system\n")
