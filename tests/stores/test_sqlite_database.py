"""SQLite on its thread: durable writes that wait together share one sync, and nothing else."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from crawler import StoreError
from crawler.runtime.counters import CallCounters
from crawler.stores.sqlite import database
from crawler.stores.sqlite.connection import connect, transaction
from crawler.stores.sqlite.database import Database

Work = Callable[[sqlite3.Connection], Any]


def keep(number: int) -> Work:
    return lambda connection: connection.execute("INSERT INTO some VALUES (?)", (number,)).rowcount


def keep_and_fail(number: int) -> Work:
    def work(connection: sqlite3.Connection) -> None:
        keep(number)(connection)
        connection.execute("INSERT INTO nowhere VALUES (1)")

    return work


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Database]:
    connection = connect(tmp_path / "some.db", create=True)
    connection.execute("CREATE TABLE some (number INTEGER PRIMARY KEY)")
    connection.close()
    async with aclosing(Database(tmp_path / "some.db", asyncio.Lock(), CallCounters())) as store:
        yield store


@pytest.fixture
def syncs(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Has one entry for each durable transaction."""
    made: list[bool] = []

    def counted(connection: sqlite3.Connection, *, durable: bool = False) -> Any:
        made.extend([durable] * durable)
        return transaction(connection, durable=durable)

    monkeypatch.setattr(database, "transaction", counted)
    return made


async def kept(store: Database) -> list[int]:
    return await store.call(lambda connection: [row[0] for row in connection.execute("SELECT number FROM some")])


async def test_writes_that_come_during_a_sync_share_the_next_one(store: Database, syncs: list[bool]) -> None:
    assert await asyncio.gather(*(store.write(keep(number), durable=True) for number in range(100))) == [1] * 100
    assert await kept(store) == list(range(100))
    assert len(syncs) <= 2
    await store.write(keep(100), durable=True)
    assert await kept(store) == list(range(101))


async def test_a_write_that_fails_does_not_undo_the_others(store: Database, syncs: list[bool]) -> None:
    works = [keep(1), keep_and_fail(2), keep(3), keep(3), keep(4)]
    found = await asyncio.gather(*(store.write(work, durable=True) for work in works), return_exceptions=True)
    assert [type(each) for each in found] == [int, StoreError, int, StoreError, int]
    assert "nowhere" in str(found[1])
    assert "UNIQUE" in str(found[3])
    assert await kept(store) == [1, 3, 4]
    assert len(syncs) == 1


async def test_if_sqlite_rolls_everything_back_every_write_fails(store: Database) -> None:
    def undo(connection: sqlite3.Connection) -> None:
        connection.execute("ROLLBACK")  # as SQLite does by itself if the disk is full
        raise sqlite3.OperationalError("disk is full")

    works = [keep(1), undo, keep(2)]
    found = await asyncio.gather(*(store.write(work, durable=True) for work in works), return_exceptions=True)
    assert [str(each).endswith("disk is full") for each in found] == [True] * 3
    assert await kept(store) == []
    await store.write(keep(1), durable=True)
    assert await kept(store) == [1]


async def test_a_write_that_is_cancelled_before_it_runs_changes_nothing(store: Database) -> None:
    writes = [asyncio.ensure_future(store.write(keep(number), durable=True)) for number in range(3)]
    await asyncio.sleep(0)
    writes[1].cancel()
    await asyncio.wait(writes)
    assert writes[1].cancelled()
    assert await kept(store) == [0, 2]
