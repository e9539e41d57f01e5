"""Results of small Tasks in memory, for readers that cannot wait for a disk."""

from collections import OrderedDict
from typing import Final

import msgspec

from crawler.core.results import ProbeResult

__all__ = ["RecentResults"]

_MAX_LINES_PER_TASK: Final = 1_000
_MAX_LINES: Final = 20_000  # of all Tasks; a result takes about 0.6 kB

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
        self._lines = 0
        self._tasks: OrderedDict[int, tuple[int, list[str]]] = OrderedDict()  # number: lines, results

    def __contains__(self, number: int) -> bool:
        return number in self._tasks

    def add_task(self, number: int, lines: int) -> None:
        """Keep the results of a new Task, unless it has too many lines."""
        lines = max(lines, 1)
        if lines > self._max_lines_per_task:
            return
        self._tasks[number] = (lines, [])
        self._lines += lines
        while self._lines > self._max_lines:
            _, (evicted_lines, _) = self._tasks.popitem(last=False)
            self._lines -= evicted_lines

    def add(self, number: int, bodies: str) -> None:
        """Keep more results of a Task, as JSON separated by commas; do nothing if the Task is not kept."""
        if (entry := self._tasks.get(number)) is not None:
            entry[1].append(bodies)
            self._tasks.move_to_end(number)

    def read(self, number: int) -> list[ProbeResult] | None:
        """Return all results of a Task so far; None if the Task is not kept."""
        if (entry := self._tasks.get(number)) is None:
            return None
        self._tasks.move_to_end(number)
        return _results.decode(f"[{','.join(entry[1])}]")

    def delete_task(self, number: int) -> None:
        """Forget a Task."""
        if (entry := self._tasks.pop(number, None)) is not None:
            self._lines -= entry[0]
