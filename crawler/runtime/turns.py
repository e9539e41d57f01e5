"""Share the event loop: long work runs in steps, and all long work of a loop takes turns.

A step is a few milliseconds. Between two steps everything else that is ready runs, and only one step of all long work:
a hundred long bodies at once hold the loop no longer than one. Work in a thread would share the interpreter's lock
instead, which the loop loses for 5 ms at each of its system calls.
"""

import asyncio
from collections.abc import Generator, Iterator
from time import monotonic
from typing import Final, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

__all__ = ["STEP_SECONDS", "Steps", "Turns", "complete", "complete_in_turns", "cut"]

T = TypeVar("T")
Steps: TypeAlias = Generator[None, None, T]  # yields after each step of well under a millisecond, returns the outcome

STEP_SECONDS: Final = 0.004

_locks: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()


class Turns:
    """The turns of one piece of long work, which begins with the first.

    Ask `is_over` after each part of the work that takes less than a millisecond or two, and `await next()` if so.
    """

    def __init__(self) -> None:
        self._end = monotonic() + STEP_SECONDS

    @property
    def is_over(self) -> bool:
        """Whether this turn has lasted for as long as it may."""
        return monotonic() >= self._end

    async def next(self) -> None:
        """Let everything else run, and return when it is this work's turn again."""
        loop = asyncio.get_running_loop()
        if (lock := _locks.get(loop)) is None:
            lock = _locks[loop] = asyncio.Lock()
        async with lock:  # first come, first served
            await asyncio.sleep(0)
        self._end = monotonic() + STEP_SECONDS


def complete(steps: Steps[T]) -> T:
    """Do all steps at once, where no loop waits; return their outcome."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]  # typeshed has Any


async def complete_in_turns(steps: Steps[T]) -> T:
    """Do all steps, in turns; return their outcome."""
    turns = Turns()
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]  # typeshed has Any
        if turns.is_over:
            await turns.next()


def cut(data: bytes, size: int) -> Iterator[bytes]:
    """Yield data in pieces of at most `size` bytes."""
    if len(data) <= size:
        yield data
        return
    for start in range(0, len(data), size):
        yield data[start : start + size]
