"""Which lines are equal, and the probing order: the same in Python and in SQL."""

import sqlite3
from contextlib import closing
from operator import itemgetter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawler import Target
from crawler.stores.ordering import SQL_FIRST_EQUAL, SQL_RANK_IN_HOST, interleave, line_key, prepare_line


def key_of(line: str | bytes) -> tuple[int, int]:
    return line_key(Target.of(0, line))


@pytest.mark.parametrize("other", ["HTTP://A/x", " http://a:80/x#y", b"http://a/x"])
def test_lines_that_ask_for_the_same_are_equal(other: str | bytes) -> None:
    assert key_of("http://a/x") == key_of(other) == prepare_line(other).key


@pytest.mark.parametrize(
    "other",
    ["https://a/x", "http://user:secret@a/x", "http://a/X", "http://a/x?", "http://a./x", "nonsense", b"\xff"],
)
def test_lines_that_ask_for_something_else_are_not_equal(other: str | bytes) -> None:
    assert key_of("http://a/x") != key_of(other) == prepare_line(other).key


def test_hosts_take_turns_and_a_host_keeps_its_order() -> None:
    items = ["a1", "a2", "a3", "b1", "c1", "b2"]
    assert interleave(items, itemgetter(0)) == ["a1", "b1", "c1", "a2", "b2", "a3"]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3))))
def test_sql_finds_the_same_first_lines_and_the_same_order(lines: list[tuple[int, int]]) -> None:
    """`lines` has the key and the host of each."""
    firsts: dict[int, int] = {}
    in_python = [firsts.setdefault(key, seq) for seq, (key, _) in enumerate(lines)]
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE line_keys (id INTEGER PRIMARY KEY, key, key2, host)")
        rows = [(seq, key, -key, host) for seq, (key, host) in enumerate(lines)]
        connection.executemany("INSERT INTO line_keys VALUES (?, ?, ?, ?)", rows)
        in_sql = connection.execute(f"SELECT {SQL_FIRST_EQUAL} FROM line_keys ORDER BY id").fetchall()
        order = connection.execute(
            f"SELECT id FROM (SELECT id, {SQL_RANK_IN_HOST} AS rank FROM line_keys) ORDER BY rank, id"
        ).fetchall()
    assert [first for (first,) in in_sql] == in_python
    assert [seq for (seq,) in order] == interleave(range(len(lines)), lambda seq: lines[seq][1])


def test_a_blank_makes_a_line_of_text_ambiguous_and_no_other_text() -> None:
    assert prepare_line("http://a/b c").problem is None
    problem = prepare_line(b"http://a/b c").problem
    assert problem is not None
    assert "white space" in problem
