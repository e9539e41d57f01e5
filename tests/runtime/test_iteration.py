"""Iteration over plain and asynchronous iterables."""

from crawler.runtime.iteration import iterate


async def test_both_kinds_of_iterable_give_their_items() -> None:
    assert [item async for item in iterate(iterate(["a", "b"]))] == ["a", "b"]
