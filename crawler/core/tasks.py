"""A Task, the records inside it, queries of its results, and the state of the work queues on Redis."""

import time
from collections.abc import Sequence
from typing import Any, Final, Literal, get_args

import msgspec

from crawler.core.errors import TransitionError
from crawler.core.options import Options
from crawler.core.results import Outcome, ProbeResult

__all__ = [
    "ANY_RESULT",
    "TRANSITIONS",
    "Counts",
    "FleetStatus",
    "IdempotencyKey",
    "QueueStatus",
    "ResultFilter",
    "ResultSlice",
    "Status",
    "Task",
    "Webhook",
    "decode_task",
]

# Options of the whole process that older versions stored with each Task. `transport` is gone, and of a proxy older
# versions accepted other forms. A Task does not choose either.
_UNREAD_OPTIONS: Final = ("proxy", "transport")

Status = Literal["running", "ready", "error"]


# The statuses that may follow each status. `Task.change_status` enforces it for every registry.
TRANSITIONS: Final[dict[Status, frozenset[Status]]] = {
    "running": frozenset({"ready", "error"}),
    "ready": frozenset(),
    "error": frozenset(),
}


class Counts(msgspec.Struct, gc=False):
    """The number of a Task's lines by outcome; always equal to the number of its results."""

    ok: int = 0
    http_error: int = 0
    failed: int = 0
    blocked: int = 0
    invalid: int = 0

    @property
    def done(self) -> int:
        """The number of lines that have a result."""
        return sum(number for _, number in self.by_outcome())

    def by_outcome(self) -> list[tuple[Outcome, int]]:
        """Return the counts, in the order of `Outcome`."""
        return [(outcome, getattr(self, outcome)) for outcome in get_args(Outcome)]

    def add(self, outcome: Outcome, count: int = 1) -> None:
        """Count more results."""
        setattr(self, outcome, getattr(self, outcome) + count)


class ResultFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Selects results by the value of each field; None selects all."""

    outcome: Outcome | None = None
    status: int | None = None
    error: str | None = None
    host: str | None = None


ANY_RESULT: Final = ResultFilter()


class ResultSlice(msgspec.Struct, frozen=True):
    """Some results of a Task, in the order of recording; `next` is the position at which the next page starts."""

    results: Sequence[ProbeResult]
    next: int


class IdempotencyKey(msgspec.Struct, frozen=True):
    """Identifies a repeated submit: the client's Idempotency-Key and a digest of the request."""

    key: str
    digest: str


class Webhook(msgspec.Struct, frozen=True):
    """The request that reports the end of a Task, and the state of its delivery.

    Attributes:
        url: The URL to send it to.
        secret: The secret that signs it; None for the service's own.
        attempts: The number of attempts started.
        due: Time of the next attempt in Unix seconds; None for at once, or for no further attempt.
        status: `waiting` until the Task ends and the first attempt starts.
        last: The result of the last attempt: a status or an error type.
    """

    url: str
    secret: str | None = None
    attempts: int = 0
    due: float | None = None
    status: Literal["waiting", "pending", "delivered", "failed"] = "waiting"
    last: str | None = None

    def __repr__(self) -> str:
        """Show neither the secret nor the URL, which may contain a secret."""
        return f"Webhook(status={self.status!r}, attempts={self.attempts}, last={self.last!r})"


class Task(msgspec.Struct, kw_only=True):
    """One submitted list. Times are Unix seconds, `total` is the number of lines, `owner` the name of a token."""

    id: str
    options: Options
    total: int = 0
    status: Status = "running"
    counts: Counts = msgspec.field(default_factory=Counts)
    created: float = msgspec.field(default_factory=time.time)
    finished: float | None = None
    detail: str | None = None
    label: str | None = None
    idempotency: IdempotencyKey | None = None
    webhook: Webhook | None = None
    owner: str | None = None

    def change_status(self, status: Status, detail: str | None = None) -> None:
        """Change to a status that `TRANSITIONS` allows.

        Raises:
            TransitionError: The table does not allow it, or the status is `ready` and a line has no result.
        """
        if status not in TRANSITIONS[self.status]:
            raise TransitionError(f"Task {self.id} cannot change from {self.status} to {status}")
        if status == "ready" and self.counts.done != self.total:
            raise TransitionError(f"Task {self.id} has {self.counts.done} results of {self.total}")
        self.status, self.detail, self.finished = status, detail, time.time()


def decode_task(body: bytes | str) -> Task:
    """Decode the JSON of a Task that this or an older version stored.

    Raises:
        msgspec.MsgspecError: This version cannot decode it.
        InputError: The same, for an option.
    """
    fields = msgspec.json.decode(body, type=dict[str, Any])
    if isinstance(options := fields.get("options"), dict):
        for name in _UNREAD_OPTIONS:
            options.pop(name, None)
    return msgspec.convert(fields, Task)


class QueueStatus(msgspec.Struct, frozen=True):
    """A work queue: waiting chunks, chunks in progress, and seconds since the oldest of both was queued."""

    waiting: int = 0
    running: int = 0
    oldest: float = 0.0


class FleetStatus(msgspec.Struct, frozen=True):
    """The state of all work queues and worker processes.

    Attributes:
        queues: The queues by name.
        workers: The last heartbeat of each worker process, by its name, in Unix seconds.
        redelivered: How often a chunk was delivered again because its worker process sent no more heartbeats.
    """

    queues: dict[str, QueueStatus]
    workers: dict[str, float]
    redelivered: int
