"""The files of a registry belong to one process, and are those that it opened, whatever happens to their names.

The cases are those of "How To Corrupt An SQLite Database File" (https://sqlite.org/howtocorrupt.html): 1.4 and 2.2.1
(logs of another file), 2.4 (files that are removed or renamed while in use), and 2.5 (several links to a file).
"""

import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from crawler import Options, StoreError
from crawler.core.errors import StoreDamaged, StoreReplaced
from crawler.stores.sqlite.registry import SqliteRegistry
from tests.support.commands import run_crawler
from tests.support.health import find_store_fault
from tests.support.process import Served
from tests.support.registries import make_result, pending_seqs

REPLACED = "was removed or replaced while in use"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "tasks.db"


async def refusal_of(path: Path) -> str:
    """What a service says that is started with this file and must not serve."""
    ended = await run_crawler("serve", "--port", "0", "--registry", f"sqlite:///{path}")
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1), ended
    return ended.err


# --- Two processes ---


def linked(path: Path) -> Path:
    link = path.with_name("link.db")
    link.symlink_to(path)
    return link


def in_linked_folder(path: Path) -> Path:
    (folder := path.parent.with_name("link")).symlink_to(path.parent)
    return folder / path.name


def hard_linked(path: Path) -> Path:
    (link := path.parent.with_name("hard.db")).hardlink_to(path)
    return link


def without_lock(path: Path) -> Path:
    path.with_name("tasks.db.lock").unlink()
    return path


@pytest.mark.parametrize("other_name", [linked, in_linked_folder, hard_linked, without_lock])
async def test_a_second_service_is_refused_whatever_it_calls_the_file(
    other_name: Callable[[Path], Path], path: Path
) -> None:
    async with SqliteRegistry(path) as registry:
        assert "is in use by another crawler" in await refusal_of(other_name(path))
        await registry.submit(["http://a/"], Options())
    async with SqliteRegistry(path) as registry:
        assert len(registry.tasks) == 1


# --- Files that lose their names while in use ---


def remove(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))


def replace(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    shutil.copy(path.with_name("elsewhere"), path)


def restore(path: Path) -> None:
    path.with_name("elsewhere").replace(path)


@pytest.mark.parametrize("harm", [remove, replace])
@pytest.mark.parametrize("name", ["tasks.db", "tasks.db-wal", "tasks.db-shm"])
async def test_nothing_is_acknowledged_that_would_be_lost(name: str, harm: Callable[[Path], None], path: Path) -> None:
    async with SqliteRegistry(path) as registry:
        task = await registry.submit(["http://a/", "http://b/"], Options())
        await registry.record(task.id, [make_result(0, "http://a/")])
        harm(path.with_name(name))
        assert await find_store_fault(registry) == REPLACED
        with pytest.raises(StoreReplaced, match=name):
            await registry.submit(["http://a/"], Options())
        with pytest.raises(StoreReplaced):
            await registry.record(task.id, [make_result(1, "http://b/")])
        with pytest.raises(StoreReplaced):
            await registry.finish(task.id, "error", "cancelled")
        assert len([result async for result in registry.results(task.id)]) == 1, "it can still be read"
        restore(path.with_name(name))
        assert await find_store_fault(registry) is None
        await registry.record(task.id, [make_result(1, "http://b/")])
    async with SqliteRegistry(path) as registry:
        assert registry.task(task.id).counts.done == 2


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from crawler import Options
from crawler.stores.sqlite.registry import SqliteRegistry
from tests.support.health import find_store_fault

async def main():
    path = Path(sys.argv[1])
    async with SqliteRegistry(path) as registry:
        await registry.submit(["http://a/"], Options())
        path.with_name("tasks.db-wal").unlink()
        if sys.argv[2] == "kill":
            await find_store_fault(registry)
            os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


@pytest.mark.parametrize(("end", "code"), [("kill", -signal.SIGKILL), ("stop", 0)])
def test_what_was_in_a_removed_log_is_not_lost(end: str, code: int, path: Path) -> None:
    assert subprocess.run([sys.executable, "-c", KILLED, str(path), end], check=False).returncode == code
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM tasks").fetchone() == (1,)


async def test_a_log_without_its_file_is_not_deleted(path: Path) -> None:
    path.parent.mkdir()
    log = path.with_name("tasks.db-wal")
    log.write_bytes(b"something")
    error = await refusal_of(path)
    assert error.endswith("is missing, but tasks.db-wal is there: restore the file, or move tasks.db-wal away\n")
    assert log.read_bytes() == b"something"


# --- Damaged rows ---


@pytest.mark.parametrize(
    "damage",
    ["UPDATE tasks SET body = 'no JSON'", "UPDATE tasks SET body = x'ff00'", "UPDATE tasks SET invalid = 'many'"],
)
async def test_a_damaged_task_is_reported_stops_no_other_and_can_be_deleted(damage: str, path: Path) -> None:
    async with SqliteRegistry(path) as registry:
        tasks = [await registry.submit(["http://a/", "http://b/"], Options()) for _ in range(2)]
        await registry.record(tasks[0].id, [make_result(0, "http://a/")])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"{damage} WHERE number = 1")
    async with SqliteRegistry(path) as registry:
        damaged = registry.task(tasks[0].id)
        assert (damaged.status, damaged.detail) == ("error", "its record is damaged")
        assert [result.seq async for result in registry.results(damaged.id)] == [0], "the results are whole"
        assert await find_store_fault(registry) == "is damaged"
        await registry.submit(["http://a/"], Options())
        await registry.delete(damaged.id)
        assert await find_store_fault(registry) is None
        await registry.stored_bytes()
        with closing(sqlite3.connect(path)) as connection:
            for table in ("lines", "pending", "results"):
                assert connection.execute(f"SELECT count(*) FROM {table} WHERE id < {2 * 2**32}").fetchone() == (0,)
    async with SqliteRegistry(path) as registry:
        assert next(iter(registry.tasks)) == tasks[1].id
        assert registry.task(tasks[1].id).status == "running"


@pytest.mark.parametrize(
    ("damage", "token", "status"),
    [
        ("UPDATE tasks SET invalid = 'many'", "a", 204),
        ("UPDATE tasks SET invalid = 'many'", "b", 404),
        ("UPDATE tasks SET body = 'no JSON'", "a", 404),
        ("UPDATE tasks SET body = 'no JSON'", None, 204),
    ],
)
async def test_a_client_deletes_its_damaged_task(damage: str, token: str | None, status: int, path: Path) -> None:
    """Without a readable owner it is nobody's: with tokens, `--share-tasks` lets them delete it (RFC 9110, 15.5.5)."""
    async with SqliteRegistry(path) as registry:
        task = await registry.submit(["http://a/"], Options(), owner="a" if token else None)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(damage)
    tokens = () if token is None else ("a:secret-of-a", "b:secret-of-b")
    flags = [flag for each in tokens for flag in ("--token", each)]
    headers: dict[str, Any] = {} if token is None else {"Authorization": f"Bearer secret-of-{token}"}
    async with Served("--registry", f"sqlite:///{path}", *flags) as service:
        deleted = await service.ask("DELETE", f"/api/v1/tasks/{task.id}", **headers)
    assert deleted.status == status


@pytest.mark.parametrize(
    "damage", ["UPDATE results SET body = 'no JSON'", 'UPDATE results SET body = \'{"seq": "zero"}\'']
)
async def test_a_damaged_result_is_reported_until_its_task_is_deleted(damage: str, path: Path) -> None:
    async with SqliteRegistry(path) as registry:
        task, other = [await registry.submit(["http://a/"], Options()) for _ in range(2)]
        for each in (task, other):
            await registry.record(each.id, [make_result(0, "http://a/")])
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(f"{damage} WHERE id < {2 * 2**32}")
        with pytest.raises(StoreDamaged):
            [result async for result in registry.results(task.id)]
        assert await find_store_fault(registry) == "is damaged"
        assert len([result async for result in registry.results(other.id)]) == 1
        await registry.delete(task.id)
        assert await find_store_fault(registry) is None


async def test_a_damaged_line_is_reported(path: Path) -> None:
    async with SqliteRegistry(path) as registry:
        task = await registry.submit(["no URL"], Options())
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("UPDATE lines SET problem = 'no JSON'")
        with pytest.raises(StoreError):
            await pending_seqs(registry, task.id)
        assert await find_store_fault(registry) == "is damaged"
