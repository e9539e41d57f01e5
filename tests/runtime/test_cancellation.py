"""What is ended has ended, though cancellations are lost, or whoever ends it is cancelled too."""

import asyncio

import pytest

from crawler.runtime.cancellation import end


class Stubborn:
    """Works on, however often it is cancelled, for so many times."""

    def __init__(self, times: int) -> None:
        self._times = times
        self.work = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self._times -= 1
                if self._times < 0:
                    raise


async def test_who_loses_a_cancellation_is_cancelled_again() -> None:
    stubborn = Stubborn(2)
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await end([stubborn.work])
    assert stubborn.work.cancelled()


async def test_who_is_cancelled_while_it_ends_others_ends_them_first() -> None:
    stubborn = Stubborn(3)
    await asyncio.sleep(0)
    ending = asyncio.ensure_future(end([stubborn.work]))
    await asyncio.sleep(0)
    ending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ending
    assert stubborn.work.cancelled()
