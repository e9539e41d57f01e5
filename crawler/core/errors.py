"""The exceptions of the package. They report a fault of the service or of its client.

A target that fails is an ordinary result, so it is never raised: see `crawler.core.error_types`.

    CrawlerError
    ├── AccessDenied            a request has no token, or one that does not allow it
    ├── ChildError              the child processes cannot be started
    ├── IdempotencyKeyTaken     another request with the same idempotency key came first
    ├── InputError              the input cannot be used; `place` says where the fault is
    │   └── OptionError         an option has a wrong value
    ├── LoopDetected            a service has caused the request, which would cause further requests
    ├── Overloaded              too many single probes are in progress
    ├── QuotaExceeded           a quota is used up for now
    ├── ResultsNotInMemory      the results of a Task are only in its store
    ├── ServiceStopping         the service is stopping and starts nothing more
    ├── StoreError              the store cannot read or write now
    │   ├── QueueLost           queued work was deleted
    │   ├── QueueStalled        queued work waits, though worker processes are there
    │   ├── StoreDamaged        the stored data is damaged
    │   │   └── TaskDamaged     the stored data of one Task is damaged
    │   ├── StoreFull           the store has no space left
    │   ├── StoreReadOnly       the store accepts no writes now
    │   └── StoreReplaced       the store's files were removed or replaced
    ├── TaskNotFound            no Task has this id
    ├── TaskTooLarge            a Task has more URLs than it may have
    └── TransitionError         a Task cannot change to the requested status
"""

from typing import Final, Literal

import msgspec

__all__ = [
    "TASK_RETRY_SECONDS",
    "AccessDenied",
    "ChildError",
    "CrawlerError",
    "IdempotencyKeyTaken",
    "InputError",
    "LoopDetected",
    "OptionError",
    "Overloaded",
    "QueueLost",
    "QueueStalled",
    "QuotaExceeded",
    "ResultsNotInMemory",
    "ServiceStopping",
    "StoreDamaged",
    "StoreError",
    "StoreFull",
    "StoreReadOnly",
    "StoreReplaced",
    "TaskDamaged",
    "TaskNotFound",
    "TaskTooLarge",
    "TransitionError",
    "read_validation_error",
]


class CrawlerError(Exception):
    """Base class of every exception that this package defines."""


class AccessDenied(CrawlerError):
    """A request has no token, or one that does not allow what the request asks for.

    Args:
        message: What is wrong.
        reason: The error code of RFC 6750, 3.1; empty if the request has no token.
    """

    def __init__(
        self, message: str, reason: Literal["", "invalid_request", "invalid_token", "insufficient_scope"]
    ) -> None:
        super().__init__(message)
        self.reason = reason


class ChildError(CrawlerError):
    """The child processes cannot be started."""


class InputError(CrawlerError):
    """Input that cannot be used.

    Args:
        message: What is wrong, for people.
        place: Where the fault is: a JSON path (`$.urls[3]`), a line (`line 7`) or the name of an option.
    """

    def __init__(self, message: str, place: str = "") -> None:
        super().__init__(f"{place}: {message}" if place else message)
        self.message = message
        self.place = place


class OptionError(InputError):
    """An option has a wrong value; `place` is its name."""


class IdempotencyKeyTaken(CrawlerError):
    """Another request with the same idempotency key came first."""


class LoopDetected(CrawlerError):
    """A request that would cause further requests was itself sent by a service: it could go round for ever."""


class Overloaded(CrawlerError):
    """Too many single probes are in progress; the same request can succeed soon."""


TASK_RETRY_SECONDS: Final = 30
"""When to submit again after a refusal because of running Tasks: their end cannot be predicted."""


class QuotaExceeded(CrawlerError):
    """A quota is used up for now.

    Args:
        policy: The quota's name.
        limit: How much of it there may be at once.
        retry_seconds: When the same request can succeed.
    """

    def __init__(self, policy: str, limit: int, retry_seconds: int) -> None:
        super().__init__(f"{policy}: at most {limit} at once; try again later")
        self.policy = policy
        self.limit = limit
        self.retry_seconds = retry_seconds


class ServiceStopping(CrawlerError):
    """The service is stopping and starts nothing more."""


class ResultsNotInMemory(CrawlerError):
    """A Task's results are in its store, not in this process's memory. Reading them needs `await`.

    Args:
        task_id: The Task's id.
    """

    def __init__(self, task_id: str) -> None:
        super().__init__(
            f"results of Task {task_id} are not in memory; `await app[crawler.TASKS].read(task_id)` reads them, "
            "and `registry.results(task_id)` streams them"
        )


class StoreError(CrawlerError):
    """The store cannot read or write now. Nothing has changed."""


class StoreDamaged(StoreError):
    """The stored data is damaged."""


class TaskDamaged(StoreDamaged):
    """The stored data of one Task is damaged. It cannot go on; others can."""


class StoreFull(StoreError):
    """The store has no space left."""


class StoreReadOnly(StoreError):
    """The store accepts no writes now: it is a copy of another one."""


class QueueLost(StoreError):
    """Queued work was deleted; it is queued again."""


class QueueStalled(StoreError):
    """Queued work waits, though worker processes are there."""


class StoreReplaced(StoreError):
    """The store's files were removed or replaced while they were in use. What is written now would be lost."""


class TaskNotFound(CrawlerError):
    """No Task has this id, or the Task was deleted."""

    def __init__(self, task_id: str) -> None:
        super().__init__(f"no Task {task_id!r}")
        self.task_id = task_id


class TaskTooLarge(CrawlerError):
    """A Task has more URLs than it may have."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"more than {limit} URLs, the most that a Task may have")
        self.limit = limit


class TransitionError(CrawlerError):
    """A Task cannot change to the requested status."""


def read_validation_error(error: msgspec.ValidationError) -> tuple[str, str]:
    """Split an error of msgspec into its message and the JSON path (`$.urls[3]`); the path is empty for the root."""
    message, _, place = str(error).partition(" - at ")
    return message, place.strip("`")
