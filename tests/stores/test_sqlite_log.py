"""A log that a crash has left is used with its own file, and with no other.

Witness: https://sqlite.org/howtocorrupt.html, 1.4: a copy of a database that is restored beside the log of another one
is damaged. Without the check, such a file is opened: it is malformed, or without its last Tasks.
"""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from crawler.core.errors import InputError
from crawler.stores.sqlite.registry import SqliteRegistry
from tests.support.commands import run_crawler

# Submits Tasks, copies the file while it is in use, submits more, and is killed.
KILLED = """
import asyncio, os, shutil, signal, sys
from pathlib import Path
from crawler import Options
from crawler.stores.sqlite.registry import SqliteRegistry

async def main():
    path, tasks = Path(sys.argv[1]), int(sys.argv[2])
    async with SqliteRegistry(path) as registry:
        for half in range(2):
            for task in range(tasks // 2):
                await registry.submit([f"http://a/{task}/{line}/" + "x" * 300 for line in range(100)], Options())
            if not half:
                shutil.copy(path, path.with_name("live.db"))
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


def kill_after(path: Path, tasks: int) -> None:
    ended = subprocess.run([sys.executable, "-c", KILLED, str(path), str(tasks)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert path.with_name("tasks.db-wal").stat().st_size > 0


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """A file with a log after a crash; beside it copies of it, from when it was closed and from when it was open."""
    path = tmp_path / "tasks.db"
    async with SqliteRegistry(path):
        pass
    shutil.copy(path, tmp_path / "closed.db")
    kill_after(path, 8)
    return path


def shell(command: str) -> Callable[[Path], object]:
    return lambda path: subprocess.run(command, shell=True, check=True, cwd=path.parent)


def age_log(path: Path) -> None:
    """As if the crash was two minutes ago."""
    for name in ("tasks.db", "tasks.db-wal"):
        status = path.with_name(name).stat()
        os.utime(path.with_name(name), (status.st_atime - 120, status.st_mtime - 120))


OTHER_FILES = [
    "cp closed.db tasks.db",
    "cp -p closed.db tasks.db",
    "mv closed.db tasks.db",
    "cp live.db tasks.db",
    "mv live.db tasks.db",
    "rm tasks.db && cp -p live.db tasks.db",
    "ln -f live.db tasks.db",
    "cp tasks.db-wal other && mv other tasks.db-wal",
]


@pytest.mark.parametrize("command", OTHER_FILES)
async def test_a_log_beside_another_file_is_refused(command: str, path: Path) -> None:
    age_log(path)
    shell(command)(path)
    before = {name: path.with_name(name).read_bytes() for name in ("tasks.db", "tasks.db-wal")}
    ended = await run_crawler("serve", "--port", "0", "--registry", f"sqlite:///{path}")
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1), ended
    assert "is not the file that tasks.db-wal belongs to: move tasks.db-wal away to use" in ended.err
    assert {name: path.with_name(name).read_bytes() for name in before} == before
    path.with_name("tasks.db-wal").rename(path.with_name("away"))
    if not command.startswith(("cp tasks", "cp live", "mv live", "rm", "ln")):  # a copy of a file in use can be damaged
        async with SqliteRegistry(path) as registry:
            assert len(registry.tasks) == 0


@pytest.mark.parametrize(
    "command",
    [
        "true",
        "mkdir new && mv tasks.db* new && mv new/* .",
        "mkdir new && cp -a tasks.db* new && mv new/* .",
        "cp -a tasks.db a && cp -a tasks.db-wal b && mv a tasks.db && mv b tasks.db-wal",
        "rm tasks.db.lock",
        "rm -f tasks.db-shm",
        "touch tasks.db*",
    ],
)
@pytest.mark.parametrize("tasks", [2, 60])
async def test_a_log_is_used_with_its_own_file(command: str, tasks: int, tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    for crash in range(1, 4):
        kill_after(path, tasks)
        shell(command)(path)
        async with SqliteRegistry(path) as registry:
            assert len(registry.tasks) == crash * tasks
        shutil.rmtree(tmp_path / "new", ignore_errors=True)


async def test_files_that_belong_together_can_be_used_without_the_lock_file(path: Path) -> None:
    age_log(path)
    shell("cp tasks.db same && mv same tasks.db")(path)
    with pytest.raises(InputError, match=r"If they do belong together, remove tasks\.db\.lock"):
        await SqliteRegistry(path).__aenter__()
    path.with_name("tasks.db.lock").unlink()
    async with SqliteRegistry(path) as registry:
        assert len(registry.tasks) == 8


async def test_an_old_log_beside_a_file_of_an_earlier_version_is_refused(path: Path) -> None:
    with closing(sqlite3.connect(path.with_name("closed.db"))) as connection, connection:
        connection.execute("DROP TABLE notes")
        connection.execute("PRAGMA user_version = 2")
    shell("cp closed.db tasks.db")(path)
    with pytest.raises(InputError, match="is not the file"):
        await SqliteRegistry(path).__aenter__()
