"""A Task and what belongs to it: status, counts, filters of its results, webhook; and the state of the work queues."""

import time
from collections.abc import Sequence
from typing import Final, Literal, get_args

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
    "ResultPage",
    "Status",
    "Task",
    "Webhook",
]

Status = Literal["running", "ready", "error"]


# Where a Task may go from where it is. Every registry enforces it, through `Task.change_status`.
TRANSITIONS: Final[dict[Status, frozenset[Status]]] = {
    "running": frozenset({"ready", "error"}),
    "ready": frozenset(),
    "error": frozenset(),
}


class Counts(msgspec.Struct, gc=False):
    """How many of a Task's lines came out how. Equal to its records at every moment."""

    ok: int = 0
    http_error: int = 0
    failed: int = 0
    blocked: int = 0
    invalid: int = 0

    @property
    def done(self) -> int:
        """Lines that have their record."""
        return sum(number for _, number in self.by_outcome())

    def by_outcome(self) -> list[tuple[Outcome, int]]:
        """The counts, in the order of `Outcome`."""
        return [(outcome, getattr(self, outcome)) for outcome in get_args(Outcome)]

    def add(self, outcome: Outcome, count: int = 1) -> None:
        """Count more records."""
        setattr(self, outcome, getattr(self, outcome) + count)


class ResultFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which records are wanted; None for any."""

    outcome: Outcome | None = None
    status: int | None = None
    error: str | None = None
    host: str | None = None


ANY_RESULT: Final = ResultFilter()


class ResultPage(msgspec.Struct, frozen=True):
    """Some records of a Task, in the order in which they were made; `next` is where the page after it starts."""

    results: Sequence[ProbeResult]
    next: int


class IdempotencyKey(msgspec.Struct, frozen=True):
    """What makes a repeated submit the same one: the client's key, and a digest of what came with it."""

    key: str
    digest: str


class Webhook(msgspec.Struct, frozen=True):
    """Who is to be told when a Task has ended, and what has come of it.

    Attributes:
        url: Where to.
        secret: What signs it; None for the service's.
        attempts: How many were begun.
        due: When the next one is, in unix seconds; None for at once, or never.
        status: `waiting` for the Task's end, or for the first attempt.
        last: What the latest attempt came to: a status, or an error type.
    """

    url: str
    secret: str | None = None
    attempts: int = 0
    due: float | None = None
    status: Literal["waiting", "pending", "delivered", "failed"] = "waiting"
    last: str | None = None

    def __repr__(self) -> str:
        """Neither the secret nor the URL, which may have one in it."""
        return f"Webhook(status={self.status!r}, attempts={self.attempts}, last={self.last!r})"


class Task(msgspec.Struct, kw_only=True):
    """One submitted batch. Times are unix seconds; `total` counts its lines; `owner` is the name of a token."""

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
        """Go to another status, as the table allows.

        Raises:
            TransitionError: The table has no such step, or `ready` is asked for while lines lack their record.
        """
        if status not in TRANSITIONS[self.status]:
            raise TransitionError(f"task {self.id} cannot go from {self.status} to {status}")
        if status == "ready" and self.counts.done != self.total:
            raise TransitionError(f"task {self.id} has {self.counts.done} records of {self.total}")
        self.status, self.detail, self.finished = status, detail, time.time()


class QueueStatus(msgspec.Struct, frozen=True):
    """One queue: chunks that wait, chunks that workers have, and the seconds since the oldest of all was queued."""

    waiting: int = 0
    running: int = 0
    oldest: float = 0.0


class FleetStatus(msgspec.Struct, frozen=True):
    """What there is.

    Attributes:
        queues: By name.
        workers: By name, each with when it gave its last sign of life, in unix seconds.
        redelivered: How often a chunk was begun again because a worker had fallen silent.
    """

    queues: dict[str, QueueStatus]
    workers: dict[str, float]
    redelivered: int
