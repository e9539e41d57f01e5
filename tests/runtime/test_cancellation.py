"""Cancelled work has ended when the call returns, though cancellations are lost or the caller is cancelled too."""

import asyncio
import logging

import pytest

from crawler.runtime.cancellation import BackgroundJob, cancel_and_wait, in_background


class Stubborn:
    """Swallows a given number of cancellations before it ends."""

    def __init__(self, times: int) -> None:
        self._times = times
        self.task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self._times -= 1
                if self._times < 0:
                    raise


async def test_a_future_that_lost_a_cancellation_is_cancelled_again() -> None:
    stubborn = Stubborn(2)
    await asyncio.sleep(0)
    await cancel_and_wait(stubborn.task, retry_seconds=0.01)
    assert stubborn.task.cancelled()


async def test_a_caller_that_is_cancelled_still_waits_for_the_futures() -> None:
    stubborn = Stubborn(3)
    await asyncio.sleep(0)
    ending = asyncio.ensure_future(cancel_and_wait(stubborn.task, retry_seconds=0.01))
    await asyncio.sleep(0)
    ending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ending
    assert stubborn.task.cancelled()


async def fail() -> None:
    raise ValueError("broken")


async def test_errors_of_the_futures_are_dropped() -> None:
    failed = asyncio.ensure_future(fail())
    await asyncio.sleep(0)
    await cancel_and_wait(failed, asyncio.ensure_future(asyncio.Event().wait()))
    assert isinstance(failed.exception(), ValueError)


async def test_work_in_the_background_ends_with_the_body() -> None:
    async with in_background(asyncio.sleep(0, "result")) as done, in_background(asyncio.Event().wait()) as endless:
        assert await done == "result"
    assert endless.cancelled()


class Job(BackgroundJob):
    def __init__(self, error: Exception | None = None) -> None:
        self.running = 0
        self._error = error

    async def _run(self) -> None:
        if self._error is not None:
            raise self._error
        self.running += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.running -= 1


async def test_a_job_runs_while_its_context_lasts() -> None:
    async with Job() as job:
        await asyncio.sleep(0)
        assert job.running == 1
    assert job.running == 0


async def test_an_error_of_a_job_is_logged_when_it_happens(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        async with Job(ValueError("broken")):
            for _ in range(3):
                await asyncio.sleep(0)
            assert [record.getMessage() for record in caplog.records] == ["background job Job failed"]
