"""`app["TASKS"]`: the Tasks of an application as a mapping. Looking at it does no I/O."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec
from aiohttp import web

from crawler.core.errors import ResultsNotInMemory
from crawler.core.results import ProbeResult
from crawler.core.tasks import Task
from crawler.registry import Registry
from crawler.server.first_contract.records import FirstContractResult

__all__ = ["TASKS", "LiveTasks"]

_KEYS: Final = ("status", "workers", "result")

Workers = Callable[[str], list[asyncio.Future[None]]]


class LiveTasks(Mapping[str, Mapping[str, Any]]):
    """A live, read-only mapping of Tasks by id, oldest first. Each Task has `status`, `workers` and `result`.

    `status` is `running`, `ready` or `error`; `workers` are the futures that work on the Task in this process; `result`
    maps each URL with a result to `{"timestamp": ..., "errors": ...}`, as `GET /tasks/{id}` does. With a memory
    registry, `result` is always complete. With a file, it is for Tasks of up to 1,000 lines that were submitted to this
    process recently. Otherwise looking at `result` raises `ResultsNotInMemory`, and `read` reads it from the store.

    Args:
        registry: Has the Tasks.
        workers_of: Returns the workers of the Task with an id.
    """

    def __init__(self, registry: Registry, workers_of: Workers) -> None:
        self._registry = registry
        self._workers_of = workers_of

    def __getitem__(self, task_id: str) -> "Mapping[str, Any]":
        return _LiveTask(self._registry.tasks[task_id], self._registry, self._workers_of)

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._registry.tasks))

    def __len__(self) -> int:
        return len(self._registry.tasks)

    async def read(self, task_id: str) -> dict[str, Any]:
        """Read a Task with all its results so far from the registry: as `[task_id]`, for every Task.

        All results are in memory then; `registry.results(task_id)` streams them.

        Raises:
            TaskNotFound: There is no Task with this id.
            StoreError: The store cannot be read now.
        """
        task = await self._registry.fetch(task_id)
        results = [result async for result in self._registry.results(task_id)]
        return {"status": task.status, "workers": self._workers_of(task_id), "result": _shown(results)}


class _LiveTask(Mapping[str, Any]):
    """One Task; each value is looked up when it is asked for."""

    def __init__(self, task: Task, registry: Registry, workers_of: Workers) -> None:
        self._task = task
        self._registry = registry
        self._workers_of = workers_of

    def __getitem__(self, key: str) -> Any:
        if key == "status":
            return self._task.status
        if key == "workers":
            return self._workers_of(self._task.id)
        if key == "result":
            return self._result()
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return iter(_KEYS)

    def __len__(self) -> int:
        return len(_KEYS)

    def __repr__(self) -> str:
        return f"<Task {self._task.id}: {self._task.status}, {self._task.counts.done} of {self._task.total}>"

    def _result(self) -> dict[str, Any]:
        results = self._registry.results_in_memory(self._task.id)
        if results is None:
            raise ResultsNotInMemory(self._task.id)
        return _shown(results)


def _shown(results: Iterable[ProbeResult]) -> dict[str, Any]:
    return {result.url: msgspec.to_builtins(FirstContractResult.of(result)) for result in results}


TASKS: Final = web.AppKey("TASKS", LiveTasks)
