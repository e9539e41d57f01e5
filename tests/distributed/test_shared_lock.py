"""The readers-writer lock under which chunks are probed."""

import asyncio
from contextlib import AbstractAsyncContextManager

from crawler.distributed.shared_lock import SharedLock
from crawler.runtime.cancellation import cancel_and_wait


class Holder:
    """Holds the lock, shared or exclusively, until told to release it."""

    def __init__(self, lock: SharedLock, *, is_exclusive: bool = False) -> None:
        self.is_holding = False
        self.may_release = asyncio.Event()
        self.task = asyncio.ensure_future(self._hold(lock.exclusive() if is_exclusive else lock.shared()))

    async def _hold(self, context: AbstractAsyncContextManager[None]) -> None:
        async with context:
            self.is_holding = True
            await self.may_release.wait()
        self.is_holding = False


async def settle() -> None:
    """Let all coroutines run until they wait."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_many_share_it() -> None:
    lock = SharedLock()
    holders = [Holder(lock) for _ in range(3)]
    await settle()
    assert all(holder.is_holding for holder in holders)
    await cancel_and_wait(*(holder.task for holder in holders))


async def test_an_exclusive_holder_waits_for_those_before_it_and_keeps_those_after_it_out() -> None:
    lock = SharedLock()
    before, alone, after = Holder(lock), Holder(lock, is_exclusive=True), Holder(lock)
    await settle()
    assert [before.is_holding, alone.is_holding, after.is_holding] == [True, False, False]
    before.may_release.set()
    await settle()
    assert [alone.is_holding, after.is_holding] == [True, False]
    alone.may_release.set()
    await settle()
    assert after.is_holding
    await cancel_and_wait(after.task)


async def test_two_exclusive_holders_follow_one_another() -> None:
    lock = SharedLock()
    one, other = Holder(lock, is_exclusive=True), Holder(lock, is_exclusive=True)
    await settle()
    assert [one.is_holding, other.is_holding] == [True, False]
    one.may_release.set()
    await settle()
    assert other.is_holding
    await cancel_and_wait(other.task)


async def test_a_cancelled_request_for_exclusive_use_lets_others_in() -> None:
    lock = SharedLock()
    before, cancelled, after = Holder(lock), Holder(lock, is_exclusive=True), Holder(lock)
    await settle()
    await cancel_and_wait(cancelled.task)
    await settle()
    assert [before.is_holding, after.is_holding] == [True, True]
    await cancel_and_wait(before.task, after.task)
