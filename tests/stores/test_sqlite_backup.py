"""Copies of a file in use, by `crawler backup`, and what `crawler verify` finds.

Witness: https://sqlite.org/backup.html; `PRAGMA integrity_check` of the interpreter's own sqlite3 on each copy.
"""

import asyncio
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from crawler import Options
from crawler.core.errors import InputError
from crawler.stores.sqlite.registry import SqliteRegistry
from tests.support.commands import Ended, run_crawler
from tests.support.process import Served, registry_flags, submit_to
from tests.support.registries import make_result


async def backup(source: Path, target: Path) -> Ended:
    return await run_crawler("backup", str(target), "--registry", f"sqlite:///{source}")


async def verify(path: Path) -> Ended:
    return await run_crawler("verify", str(path))


def sizes(folder: Path) -> dict[str, int]:
    """The files in a folder, without those that SQLite needs to read another."""
    return {file.name: file.stat().st_size for file in folder.iterdir() if not file.name.endswith(("-wal", "-shm"))}


def damage_page(path: Path, number: int) -> None:
    with path.open("r+b") as file:
        file.seek(number * 4096)
        file.write(bytes(range(256)) * 16)


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """A file with one Task, of two lines and one result."""
    path = tmp_path / "tasks.db"
    async with SqliteRegistry(path) as registry:
        task = await registry.submit(["http://a/", "http://b/"], Options())
        await registry.record(task.id, [make_result(0, "http://a/")])
    return path


async def test_a_copy_of_a_file_in_use_is_whole(tmp_path: Path) -> None:
    """Tasks that were acknowledged before the copy began are in it, while others are submitted."""
    path = tmp_path / "tasks.db"
    async with Served(*registry_flags(tmp_path)) as service:
        known: list[str] = []

        async def submit() -> None:
            while True:
                known.append(await submit_to(service, *(f"::{len(known)}/{line}" for line in range(50))))

        submitting = asyncio.ensure_future(submit())
        for number in range(3):
            before, target = len(known), tmp_path / f"copy-{number}.db"
            assert (await backup(path, target)).code == 0
            assert (await verify(target)).code == 0
            with closing(sqlite3.connect(target)) as connection:
                assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            async with SqliteRegistry(target) as registry:
                assert set(known[:before]) <= set(registry.tasks)
        submitting.cancel()
        assert before > 0
        assert (await verify(path)).code == 0
    assert not [name for name in sizes(tmp_path) if name.startswith(".")]


async def test_a_copy_beside_the_log_of_its_original_is_refused(path: Path, tmp_path: Path) -> None:
    async with SqliteRegistry(path) as registry:
        await registry.submit(["http://c/"], Options())
        assert (await backup(path, tmp_path / "copy.db")).code == 0
        crashed = tmp_path / "crashed"
        crashed.mkdir()
        for name in ("tasks.db-wal", "tasks.db.lock"):
            shutil.copy(tmp_path / name, crashed)
    shutil.copy(tmp_path / "copy.db", crashed / "tasks.db")
    with pytest.raises(InputError, match=r"is not the file that tasks.db-wal belongs to"):
        await SqliteRegistry(crashed / "tasks.db").__aenter__()


async def test_no_file_is_overwritten(path: Path, tmp_path: Path) -> None:
    (target := tmp_path / "copy.db").write_text("mine")
    (link := tmp_path / "link.db").symlink_to("nowhere")
    for taken in (target, path, link):
        ended = await backup(path, taken)
        assert (ended.code, ended.out) == (2, "")
        assert ended.err == f"crawler: {taken}: exists already, and is not overwritten\n"
    assert target.read_text() == "mine"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("backup", "{}/new.db", "--registry", "sqlite:///{}/none.db"), "none.db: is not there"),
        (("backup", "{}/none/new.db", "--registry", "sqlite:///{}/tasks.db"), "cannot be created: No such file"),
        (("backup", "{}/new.db", "--registry", "memory"), "--registry: memory has no file to copy"),
        (("backup", "{}/new.db", "--registry", "sqlite:///{}/text.db"), "cannot be read: file is not a database"),
        (("backup", "{}/new.db", "--registry", "sqlite:///{}/other.db"), "is not a file of Tasks"),
        (("verify", "{}/none.db"), "is not there"),
        (("verify", "{}/text.db"), "file is not a database"),
        (("verify", "{}/other.db"), "is not a file of Tasks"),
    ],
)
async def test_what_cannot_be_done_is_one_line_and_code_2(
    command: tuple[str, ...], message: str, path: Path, tmp_path: Path
) -> None:
    (tmp_path / "text.db").write_text("text " * 1000)
    with closing(sqlite3.connect(tmp_path / "other.db")) as connection, connection:
        connection.execute("CREATE TABLE t (x)")
    before = sizes(tmp_path)
    ended = await run_crawler(*(part.format(tmp_path) for part in command))
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1), ended
    assert message in ended.err
    assert sizes(tmp_path) == before


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE tasks SET body = 'no JSON'",
        "UPDATE tasks SET invalid = 'many'",
        "UPDATE results SET body = 'no JSON'",
        "UPDATE results SET body = x'ff'",
        "page",
    ],
)
async def test_damage_is_found_and_not_copied(damage: str, path: Path, tmp_path: Path) -> None:
    if damage == "page":
        damage_page(path, 2)
    else:
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(damage)
    ended = await verify(path)
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith(f"crawler: {path}: ")
    ended = await backup(path, tmp_path / "copy.db")
    assert ended.code == 1
    assert "is damaged" in ended.err or "malformed" in ended.err
    assert not [name for name in sizes(tmp_path) if "copy" in name]
