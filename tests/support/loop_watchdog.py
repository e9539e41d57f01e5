"""Finds code that holds the event loop: each step of a task may take 20 ms of the loop's own CPU time.

    loop = watched_loop()           # an uvloop; the suite runs on it
    with no_hold():                 # around each test
        loop.run_until_complete(...)

Time is that of the thread (`time.thread_time`), so a busy machine, a debugger or a slow disk changes nothing. A
collection of garbage is not counted: its time depends on the heap of the test run, and not on the code of the step. Nor
is what happens once in a process: the import of a module, and loading the authorities of TLS. Nor are steps of the
tests' own coroutines, unless `counting_tests` says so. Threads that share processors are slower, so a step counts only
if a fixed piece of work, measured at once, shows that the processor is not.
"""

import asyncio
import gc
import sys
import threading
import time
import traceback
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final, NamedTuple

import uvloop

import crawler

__all__ = ["MAX_STEP_SECONDS", "Hold", "collected_holds", "counting_tests", "no_hold", "watched_loop"]

MAX_STEP_SECONDS: Final = 0.02
_SAMPLE_SECONDS: Final = 0.004
_MIN_SAMPLES: Final = 2  # of a step of our code, which gives other threads a turn every few milliseconds
_UNSEEN_FACTOR: Final = 3
_WORK_SECONDS: Final = 0.0005  # that `_do_fixed_work` takes on the slowest machine that the bound is for
_OURS: Final = str(Path(crawler.__file__).parent) + "/"
_TESTS: Final = str(Path(__file__).parents[1]) + "/"
_FIXTURES: Final = "/pytest_asyncio/"
_IMPORT: Final = "importlib._bootstrap"
_ONCE: Final = frozenset(  # functions that load authorities at their first call; the last one is redis-py's
    {"client_context", "_trust", "wrap", "create_default_context"}
)


class Hold(NamedTuple):
    """A step that took too long; `stack` is from its middle, empty if it was too short to be seen."""

    seconds: float
    what: str
    stack: str

    def __str__(self) -> str:
        return f"{self.what} held the loop for {1000 * self.seconds:.0f} ms of CPU time\n{self.stack}"


_holds: list[Hold] = []
_counts_tests = False


@contextmanager
def counting_tests() -> Iterator[None]:
    """Count the steps of the tests' own coroutines too, for tests that call what they measure."""
    global _counts_tests
    _counts_tests = True
    try:
        yield
    finally:
        _counts_tests = False


@contextmanager
def no_hold() -> Iterator[None]:
    """Raise AssertionError at the end if a watched loop was held meanwhile."""
    with collected_holds() as holds:
        yield
    assert not holds, "\n".join(map(str, holds))


@contextmanager
def collected_holds() -> Iterator[list[Hold]]:
    """Yield a list of the steps that take too long meanwhile, instead of letting the test fail."""
    global _holds
    before, _holds = _holds, []
    try:
        yield _holds
    finally:
        _holds = before


class LoopWatchdog:
    """Measures the steps of the tasks of one loop, which runs in this thread.

    Args:
        max_seconds: Thread time that a step may take.
    """

    def __init__(self, max_seconds: float) -> None:
        self._max_seconds = max_seconds
        self._began: float | None = None  # thread time of the step that runs
        self._stack: list[str] = []
        self._samples = 0  # of this step, after its first quarter
        self._is_import = False
        self._collected = 0.0  # seconds of this step that were garbage collection
        self._collection_began = 0.0
        self._thread = threading.get_ident()
        self._clock = time.pthread_getcpuclockid(self._thread)
        self._is_closed = threading.Event()
        self._sampler = threading.Thread(target=self._sample, name="loop-watchdog", daemon=True)
        gc.callbacks.append(self._count_collection)
        self._sampler.start()

    def close(self) -> None:
        """Stop watching."""
        self._is_closed.set()
        self._sampler.join()
        gc.callbacks.remove(self._count_collection)

    def step(self, call: Callable[..., Any], arguments: tuple[Any, ...], coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run one step of a task, and measure it."""
        if self._began is not None or threading.get_ident() != self._thread:  # a loop in a loop, or in another thread
            return call(*arguments)
        self._collected, self._stack, self._samples, self._is_import = 0.0, [], 0, False
        self._began = began = time.thread_time()
        try:
            return call(*arguments)
        finally:
            self._began = None
            seconds = time.thread_time() - began - self._collected
            is_counted = not self._is_import and (_counts_tests or not _is_of_tests(coroutine))
            if seconds > self._max_seconds and is_counted and self._is_real(seconds, coroutine):
                name = getattr(coroutine, "__qualname__", repr(coroutine))
                _holds.append(Hold(seconds, name, "".join(self._stack)))

    def _is_real(self, seconds: float, coroutine: Coroutine[Any, Any, Any]) -> bool:
        slowdown = max(1.0, min(_do_fixed_work() for _ in range(3)) / _WORK_SECONDS)
        is_ours = any(_OURS in each for each in self._stack) if self._stack else _file_of(coroutine).startswith(_OURS)
        # A step with fewer samples is one call into C, or a stall of the machine such as a storm of page faults. Tests
        # of what may be slow ask for the plain bound; for all others such a step must be much longer.
        is_seen = self._samples >= _MIN_SAMPLES or _counts_tests
        return is_ours and seconds > self._max_seconds * slowdown * (1 if is_seen else _UNSEEN_FACTOR)

    def _sample(self) -> None:
        while not self._is_closed.wait(_SAMPLE_SECONDS):
            began = self._began
            if began is None or self._is_import:
                continue
            seconds = time.clock_gettime(self._clock) - began
            frame = sys._current_frames().get(self._thread)
            if frame is not None and self._began == began:
                self._is_import = _is_importing(frame)
                self._samples += seconds > self._max_seconds / 4
                if not self._stack and seconds > self._max_seconds / 2:
                    self._stack = traceback.format_stack(frame)

    def _count_collection(self, phase: str, _: dict[str, int]) -> None:
        if threading.get_ident() == self._thread and self._began is not None:
            if phase == "start":
                self._collection_began = time.thread_time()
            else:
                self._collected += time.thread_time() - self._collection_began


class _Watched(Coroutine[Any, Any, Any]):
    """A coroutine whose steps are measured."""

    def __init__(self, watchdog: LoopWatchdog, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._watchdog = watchdog
        self._coroutine = coroutine

    def send(self, value: Any) -> Any:
        return self._watchdog.step(self._coroutine.send, (value,), self._coroutine)

    def throw(self, *error: Any) -> Any:
        return self._watchdog.step(self._coroutine.throw, error, self._coroutine)

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._coroutine.__await__()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._coroutine, name)


class WatchedLoop(uvloop.Loop):
    """An uvloop with a watchdog for its tasks."""

    watchdog: LoopWatchdog

    def close(self) -> None:
        if not self.is_closed():
            self.watchdog.close()
        super().close()


def watched_loop(max_seconds: float = MAX_STEP_SECONDS) -> asyncio.AbstractEventLoop:
    """Return a new loop, for this thread."""
    loop = WatchedLoop()
    watchdog = loop.watchdog = LoopWatchdog(max_seconds)

    def make_task(
        loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **arguments: Any
    ) -> asyncio.Task[Any]:
        return asyncio.Task(_Watched(watchdog, coroutine), loop=loop, **arguments)

    loop.set_task_factory(make_task)  # type: ignore[arg-type]
    return loop


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if _IMPORT in frame.f_code.co_filename or frame.f_code.co_name in _ONCE:
            return True
        frame = frame.f_back
    return False


def _file_of(coroutine: Coroutine[Any, Any, Any]) -> str:
    code = getattr(coroutine, "cr_code", None)
    return "" if code is None else str(code.co_filename)


def _is_of_tests(coroutine: Coroutine[Any, Any, Any]) -> bool:
    return _file_of(coroutine).startswith(_TESTS) or _FIXTURES in _file_of(coroutine)


def _do_fixed_work() -> float:
    began = time.thread_time()
    text = b"a,b\n" * 2_000
    sum(len(line) for line in text.split(b"\n"))
    sorted(str(number) for number in range(1_000))
    return time.thread_time() - began
