"""Results of small Tasks in memory, for readers that cannot wait for a disk."""

from collections import OrderedDict
from typing import Final

import msgspec

from crawler.core.results import ProbeResult

__all__ = ["RecentResults"]

_MAX_LINES_PER_TASK: Final = 1_000
_MAX_LINES: Final = 20_000  # of all Tasks; a result takes about 0.6 kB
_MAX_CHARACTERS_PER_TASK: Final = 2**21
_MAX_CHARACTERS: Final = 2**24  # of all Tasks

_results: Final = msgspec.json.Decoder(list[ProbeResult])


class RecentResults:
    """All results so far of some Tasks, as JSON. If there are too many, the least recently used Task is dropped.

    Args:
        max_lines_per_task: A Task of more lines is not kept.
        max_lines: Lines of all Tasks that are kept.
    """

    def __init__(self, max_lines_per_task: int = _MAX_LINES_PER_TASK, max_lines: int = _MAX_LINES) -> None:
        self._max_lines_per_task = max_lines_per_task
        self._max_lines = max_lines
        self._lines = self._characters = 0
        self._tasks: OrderedDict[int, _Kept] = OrderedDict()  # by number

    def __contains__(self, number: int) -> bool:
        return number in self._tasks

    def add_task(self, number: int, lines: int) -> None:
        """Keep the results of a new Task, unless it has too many lines."""
        lines = max(lines, 1)
        if lines > self._max_lines_per_task:
            return
        self._tasks[number] = _Kept(lines)
        self._lines += lines
        self._evict()

    def add(self, number: int, bodies: str | None) -> None:
        """Keep more results of a Task, as JSON separated by commas; do nothing if the Task is not kept.

        A Task whose results are too long, or None, is not kept any more.
        """
        if (kept := self._tasks.get(number)) is None:
            return
        if bodies is None or kept.characters + len(bodies) > _MAX_CHARACTERS_PER_TASK:
            self.delete_task(number)
            return
        kept.bodies.append(bodies)
        kept.characters += len(bodies)
        self._characters += len(bodies)
        self._tasks.move_to_end(number)
        self._evict()

    def read(self, number: int) -> list[ProbeResult] | None:
        """Return all results of a Task so far; None if the Task is not kept."""
        if (kept := self._tasks.get(number)) is None:
            return None
        self._tasks.move_to_end(number)
        return _results.decode(f"[{','.join(kept.bodies)}]")

    def delete_task(self, number: int) -> None:
        """Forget a Task."""
        if (kept := self._tasks.pop(number, None)) is not None:
            self._lines -= kept.lines
            self._characters -= kept.characters

    def _evict(self) -> None:
        while self._lines > self._max_lines or self._characters > _MAX_CHARACTERS:
            self.delete_task(next(iter(self._tasks)))


class _Kept:
    """What is kept of a Task: the number of its lines, and its results."""

    __slots__ = ("bodies", "characters", "lines")

    def __init__(self, lines: int) -> None:
        self.lines = lines
        self.characters = 0
        self.bodies: list[str] = []
