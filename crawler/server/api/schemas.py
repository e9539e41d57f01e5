"""What the API takes and gives, as structs: bodies, answers and queries."""

from typing import Annotated, Any, Literal, Self

import msgspec
from msgspec import Meta

from crawler.core.errors import ERROR_TYPES
from crawler.core.results import Outcome, ProbeResult
from crawler.core.task_summary import Summary
from crawler.core.tasks import FleetStatus, Status

__all__ = [
    "Batch",
    "Choices",
    "EventsQuery",
    "Nothing",
    "ProbeQuery",
    "ResultPage",
    "ResultsQuery",
    "SubmitQuery",
    "TaskPage",
    "TaskQuery",
    "TasksQuery",
    "WebhookChoice",
]

Label = Annotated[str, Meta(min_length=1, max_length=200, description="A name for the task, to find it by.")]
Limit = Annotated[int, Meta(ge=1, le=1000, description="How many at most.")]
Cursor = Annotated[str, Meta(description="Where to go on: `next` of the page before.")]
Next = Annotated[str | None, Meta(description="Cursor of the page after this one; null if there is none.")]
LabelFilter = Annotated[str | None, Meta(description="Only tasks with this label.")]
Column = Annotated[
    str | None,
    Meta(
        description="Where the URL stands: a column of CSV, by name or by number from 1, or a key of NDJSON's objects."
    ),
]
Format = Annotated[Literal["json", "ndjson", "csv"] | None, Meta(description="Overrules the Accept header.")]


# --- Bodies ---


class WebhookChoice(msgspec.Struct, forbid_unknown_fields=True):
    """Who is told when the task has ended, by a POST signed as Standard Webhooks says."""

    url: Annotated[str, Meta(description="Where to.")]
    secret: Annotated[
        str | None,
        Meta(description="What signs it: whsec_ and 24 to 64 bytes in base64. The service may have one too."),
    ] = None


class Choices(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """How a batch is probed, and what it is called. What is left out is as the service, or the task before, has it."""

    options: Annotated[dict[str, Any], Meta(description="Options by name.")] = {}
    label: Label | None = None
    webhook: WebhookChoice | None = None


class Batch(Choices, kw_only=True):
    """The body of a submit as JSON."""

    urls: Annotated[list[str], Meta(min_length=1, description="The URLs, as they are to be reported.")]


# --- Answers ---


class TaskPage(msgspec.Struct):
    """Some tasks, newest first."""

    tasks: list[Summary]
    next: Next


class ResultPage(msgspec.Struct):
    """Some results, in the order in which they were found.

    While the task runs there is always a `next`, which gives the results that come later.
    """

    results: list[ProbeResult]
    next: Next


class Health(msgspec.Struct):
    """The service answers."""

    healthy: bool


class Checks(msgspec.Struct):
    """Each part of the service: `ok`, or what is wrong with it."""

    store: Annotated[str, Meta(description="Where tasks are kept: whether it can be written to.")]
    resolver: Annotated[str, Meta(description="Whether a DNS server is configured.")]
    loop: Annotated[str, Meta(description="Whether the event loop is in time.")]
    service: Annotated[str, Meta(description="Whether the service goes on.")]


class Fleet(msgspec.Struct):
    """Workers in other processes, and what waits for them."""

    workers: Annotated[int, Meta(description="Those that give signs of life.")]
    pending: Annotated[int, Meta(description="Chunks of tasks that wait, or that a worker has.")]
    oldest: Annotated[float, Meta(description="Seconds since the oldest of these was queued.")]
    redelivered: Annotated[int, Meta(description="Chunks that were begun again, as a worker had fallen silent.")]

    @classmethod
    def of(cls, status: FleetStatus | None) -> Self | msgspec.UnsetType:
        """What a stranger may know of it: no names."""
        if status is None:
            return msgspec.UNSET
        queues = status.queues.values()
        pending, oldest = sum(each.waiting + each.running for each in queues), max(each.oldest for each in queues)
        return cls(len(status.workers), pending, round(oldest, 3), status.redelivered)


class Readiness(msgspec.Struct):
    """All of the service works."""

    ready: bool
    checks: Checks
    fleet: Fleet | msgspec.UnsetType = msgspec.UNSET  # with a Redis that answers


# --- Queries ---


class Nothing(msgspec.Struct):
    """No parameters."""


class SubmitQuery(msgspec.Struct):
    """Besides these, options by name."""

    label: Label | None = None
    column: Column = None
    webhook: Annotated[
        str | None, Meta(description="URL that is told when the task has ended, signed with the service's secret.")
    ] = None


class TasksQuery(msgspec.Struct):
    """Which tasks."""

    status: Annotated[Status | None, Meta(description="Only tasks with this status.")] = None
    label: LabelFilter = None
    limit: Limit = 100
    cursor: Cursor | None = None


class TaskQuery(msgspec.Struct):
    """How patient."""

    wait: Annotated[float, Meta(ge=0, le=60, description="Seconds to wait for the task to end, if it runs.")] = 0.0


class ResultsQuery(msgspec.Struct):
    """Which results, how many, in which format. Without `limit` all there are."""

    limit: Limit | None = None
    cursor: Cursor | None = None
    outcome: Annotated[Outcome | None, Meta(description="Only results with this outcome.")] = None
    status: Annotated[int, Meta(ge=100, le=999, description="Only results with this HTTP status.")] | None = None
    error: Annotated[
        str | None,
        Meta(description="Only results with this error type.", extra_json_schema={"enum": list(ERROR_TYPES)}),
    ] = None
    host: Annotated[str | None, Meta(description="Only results of URLs with this host.")] = None
    format: Format = None


class EventsQuery(msgspec.Struct):
    """Which events."""

    results: Annotated[bool, Meta(description="Whether to send results, or progress only.")] = True
    last_event_id: Annotated[
        int, Meta(ge=0, description="Go on after this event, as the header Last-Event-ID does.")
    ] = 0


class ProbeQuery(msgspec.Struct):
    """Besides this, options by name."""

    url: Annotated[str, Meta(description="The URL to probe.")]
