"""The request that follows one without an answer, made while that one may still be answered."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from crawler.core.results import HopResult
from crawler.probing.probe_state import ProbeState
from crawler.runtime.cancellation import cancel_and_wait

__all__ = ["SecondRequest"]


class SecondRequest:
    """Runs in the background from its construction on.

    Args:
        state: The state of a probe whose next request this is.
        answer: Sends it.
        started: The time.
        is_decisive: Whether its failure counts more than what the first request may bring: a GET's after HEAD.

    Attributes:
        started: The time.
        is_answered: Done when the first request is needless.
    """

    def __init__(
        self, state: ProbeState, answer: Coroutine[Any, Any, HopResult], started: float, *, is_decisive: bool
    ) -> None:
        self._state = state
        self._is_decisive = is_decisive
        self.started = started
        self.is_answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._answer = asyncio.ensure_future(answer)
        self._answer.add_done_callback(self._note_end)

    def is_next_of(self, state: ProbeState) -> bool:
        """Whether this is what a probe in this state sends now."""
        return (state.method, state.url.href) == (self._state.method, self._state.url.href)

    async def answer_for(self, state: ProbeState) -> HopResult:
        """Return the answer to the next request of a probe in this state."""
        if self._state.http_version == "2":
            state.offer_http2()
        return await self._answer

    async def cancel(self) -> None:
        """End it: the probe has no use for it."""
        await cancel_and_wait(self._answer)

    def _note_end(self, answer: "asyncio.Future[HopResult]") -> None:
        if not answer.cancelled() and (self._is_decisive or answer.exception() or answer.result().status is not None):
            self.is_answered.set_result(None)
