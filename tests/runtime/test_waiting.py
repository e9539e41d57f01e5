"""Waiting for one future."""

import asyncio

import pytest

from crawler.runtime.waiting import wait_until_done


async def test_a_future_that_is_done_or_becomes_done_is_waited_for() -> None:
    loop = asyncio.get_running_loop()
    done, later, failing = loop.create_future(), loop.create_future(), loop.create_future()
    done.set_result(1)
    loop.call_soon(later.set_result, 2)
    loop.call_soon(failing.set_exception, ValueError("of the future"))
    assert await wait_until_done(done, 60)
    assert await wait_until_done(later, 60)
    assert await wait_until_done(failing, 60)  # as with `asyncio.wait`, its error is its reader's
    assert isinstance(failing.exception(), ValueError)


async def test_a_future_that_is_late_goes_on() -> None:
    future = asyncio.get_running_loop().create_future()
    assert not await wait_until_done(future, 0.001)
    assert not future.done()
    future.set_result(1)
    assert await wait_until_done(future, 0.001)


async def test_a_caller_that_is_cancelled_leaves_the_future_alone() -> None:
    future = asyncio.get_running_loop().create_future()
    waiting = asyncio.ensure_future(wait_until_done(future, 60))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not future.done()
