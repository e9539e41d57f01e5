"""Places: how many clients may use a scarce thing at once, and how many of them may belong to one token."""

import asyncio
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from crawler.core.errors import Overloaded, QuotaExceeded

__all__ = ["Places"]

_RETRY_SECONDS = 5


class _Waiter(NamedTuple):
    owner: str | None
    is_admitted: asyncio.Future[None]


class Places:
    """A number of places. An owner may take one while fewer are taken by it than are free.

    So one owner can have half of the places, two a third each, and some are free for the next owner: the dynamic
    threshold of Choudhury and Hahne (IEEE/ACM Transactions on Networking 6 (2), 1998). Without tokens all clients are
    one owner, which can have all places.

    Args:
        what: What a place is for, in the plural, for messages.
        limit: How many places there are.

    Attributes:
        limit: How many places there are.
        refused: How many clients got none.
    """

    def __init__(self, what: str, limit: int) -> None:
        self.limit = limit
        self.refused = 0
        self._what = what
        self._taken: Counter[str | None] = Counter()
        self._waiting: deque[_Waiter] = deque()

    @property
    def in_use(self) -> int:
        """How many places are taken."""
        return self._taken.total()

    @contextmanager
    def place(self, owner: str | None) -> Iterator[None]:
        """Take a place while the context lasts.

        Raises:
            Overloaded: All places are taken.
            QuotaExceeded: The owner has its share.
        """
        if not self._has_place_for(owner):
            self._refuse(owner)
        self._taken[owner] += 1
        try:
            yield
        finally:
            self.release(owner)

    async def take(self, owner: str | None, seconds: float) -> None:
        """Take a place, and wait for it if need be; `release` gives it back.

        Raises:
            Overloaded: All places were taken for `seconds`.
            QuotaExceeded: The owner has had its share for `seconds`.
        """
        if not self._has_place_for(owner):
            waiter = _Waiter(owner, asyncio.get_running_loop().create_future())
            self._waiting.append(waiter)
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._admitted(waiter)
                    return
            self._refuse(owner)
        self._taken[owner] += 1

    def release(self, owner: str | None) -> None:
        """Give a place back. The client that has waited longest, and whose owner may have it, gets it."""
        self._taken[owner] -= 1
        if not self._taken[owner]:
            del self._taken[owner]
        for waiter in list(self._waiting):
            if self._has_place_for(waiter.owner):
                self._waiting.remove(waiter)
                self._taken[waiter.owner] += 1
                waiter.is_admitted.set_result(None)

    async def _admitted(self, waiter: _Waiter) -> None:
        try:
            await asyncio.shield(waiter.is_admitted)
        except asyncio.CancelledError:
            if waiter.is_admitted.done():  # in the same moment
                self.release(waiter.owner)
            else:
                self._waiting.remove(waiter)
            raise

    def _has_place_for(self, owner: str | None) -> bool:
        free = self.limit - self.in_use
        return free > 0 and (owner is None or self._taken[owner] < free)

    def _refuse(self, owner: str | None) -> None:
        self.refused += 1
        if self.in_use < self.limit:
            raise QuotaExceeded(f"{self._what} of a token", self._taken[owner], _RETRY_SECONDS)
        raise Overloaded(f"{self.limit} {self._what} are in progress; try again")
