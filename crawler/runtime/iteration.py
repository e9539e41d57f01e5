"""Iterate over plain and asynchronous iterables alike."""

from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import TypeVar

__all__ = ["iterate"]

T = TypeVar("T")


def iterate(items: Iterable[T] | AsyncIterable[T]) -> AsyncIterator[T]:
    """Return an asynchronous iterator over either kind of iterable."""
    return aiter(items) if isinstance(items, AsyncIterable) else _iterate(items)


async def _iterate(items: Iterable[T]) -> AsyncIterator[T]:
    for item in items:
        yield item
