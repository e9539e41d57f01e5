"""The API's request bodies, responses and queries, as records."""

from typing import Annotated, Any, Literal, Self

import msgspec
from msgspec import Meta

from crawler.core.error_types import ERROR_TYPES
from crawler.core.results import Outcome, ProbeResult
from crawler.core.task_summary import Summary
from crawler.core.tasks import FleetStatus, Status
from crawler.server.http.problem import Problem

__all__ = [
    "Batch",
    "Checks",
    "Choices",
    "EventsQuery",
    "Fleet",
    "Health",
    "Nothing",
    "ProbeQuery",
    "Readiness",
    "ResultPage",
    "ResultsQuery",
    "SubmitQuery",
    "TaskPage",
    "TaskQuery",
    "TasksQuery",
    "Unready",
    "WebhookChoice",
]

Label = Annotated[str, Meta(min_length=1, max_length=200, description="A name for the Task, by which it can be found.")]
# As long as a URL may be for sitemaps.org. One of 60 KB would take 200 KB of memory for as long as the Task is kept.
WebhookUrl = Annotated[str, Meta(max_length=2048, description="The URL of the receiver.")]
Limit = Annotated[int, Meta(ge=1, le=1000, description="Maximum number of items to return.")]
Cursor = Annotated[str, Meta(description="Where to continue: `next` of the previous page.")]
Next = Annotated[str | None, Meta(description="Cursor of the next page; null if there is none.")]
LabelFilter = Annotated[str | None, Meta(description="Only Tasks with this label.")]
Column = Annotated[
    str | None,
    Meta(description="Where the URL is: a column of CSV, by name or by number from 1, or a key of NDJSON objects."),
]
ApiFormat = Literal["json", "ndjson", "csv"]  # of results; the formats of the command are in `formats`


# --- Bodies ---


class WebhookChoice(msgspec.Struct, forbid_unknown_fields=True):
    """A URL that gets a signed POST when the Task has ended (Standard Webhooks)."""

    url: WebhookUrl
    secret: Annotated[
        str | None,
        Meta(description="Signs the POST, instead of the service's secret: whsec_ and 24 to 64 bytes in base64."),
    ] = None


class Choices(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """How a list is probed, and its name. What is left out is taken from the service, or from the earlier Task."""

    options: Annotated[dict[str, Any], Meta(description="Options by name.")] = {}
    label: Label | None = None
    webhook: WebhookChoice | None = None


class Batch(Choices, kw_only=True):
    """A submitted list as JSON."""

    urls: Annotated[list[str], Meta(min_length=1, description="The URLs. Results report them as they are here.")]


# --- Responses ---


class TaskPage(msgspec.Struct):
    """A page of Tasks, newest first."""

    tasks: list[Summary]
    next: Next


class ResultPage(msgspec.Struct):
    """A page of results, in the order in which they were found.

    While the Task runs there is always a `next`, for the results to come.
    """

    results: list[ProbeResult]
    next: Next


class Health(msgspec.Struct):
    """The service answers."""

    healthy: bool


class Checks(msgspec.Struct):
    """The parts of the service: `ok`, or what is wrong."""

    store: Annotated[str, Meta(description="Whether the store of Tasks can be written to.")]
    resolver: Annotated[str, Meta(description="Whether a DNS server is configured.")]
    loop: Annotated[str, Meta(description="Whether the event loop runs without delay.")]
    prober: Annotated[str, Meta(description="Whether all child processes answer.")]
    service: Annotated[str, Meta(description="Whether the service is not stopping.")]


class Fleet(msgspec.Struct):
    """Worker processes, and the work that waits for them."""

    workers: Annotated[int, Meta(description="Worker processes that send heartbeats.")]
    pending: Annotated[int, Meta(description="Chunks of Tasks that wait, or that a worker process has.")]
    oldest: Annotated[float, Meta(description="Seconds since the oldest of these was queued.")]
    redelivered: Annotated[int, Meta(description="Chunks that were started again after a worker process fell silent.")]

    @classmethod
    def of(cls, status: FleetStatus | None) -> Self | msgspec.UnsetType:
        """Return the numbers. The names of worker processes are left out, because clients without a token see this."""
        if status is None:
            return msgspec.UNSET
        queues = status.queues.values()
        pending, oldest = sum(each.waiting + each.running for each in queues), max(each.oldest for each in queues)
        return cls(len(status.workers), pending, round(oldest, 3), status.redelivered)


class Readiness(msgspec.Struct):
    """All parts of the service work."""

    ready: bool
    checks: Checks
    fleet: Fleet | msgspec.UnsetType = msgspec.UNSET  # set if Redis is used and answers


class Unready(Problem):
    """A part of the service cannot do its work."""

    ready: bool
    checks: Checks
    fleet: Fleet | msgspec.UnsetType = msgspec.UNSET


# --- Queries ---


class Nothing(msgspec.Struct):
    """No parameters."""


class SubmitQuery(msgspec.Struct):
    """Besides these, options by name."""

    label: Label | None = None
    column: Column = None
    webhook: Annotated[
        WebhookUrl | None,
        Meta(description="URL that gets a POST when the Task has ended, signed with the service's secret."),
    ] = None


class TasksQuery(msgspec.Struct):
    """Filters of Tasks."""

    status: Annotated[Status | None, Meta(description="Only Tasks with this status.")] = None
    label: LabelFilter = None
    limit: Limit = 100
    cursor: Cursor | None = None


class TaskQuery(msgspec.Struct):
    """Whether to wait."""

    wait: Annotated[float, Meta(ge=0, le=60, description="Seconds to wait for the Task to end, if it runs.")] = 0.0


class ResultsQuery(msgspec.Struct):
    """Filters of results, and their format. Without `limit`, all results are sent."""

    limit: Limit | None = None
    cursor: Cursor | None = None
    outcome: Annotated[Outcome | None, Meta(description="Only results with this outcome.")] = None
    status: Annotated[int, Meta(ge=100, le=999, description="Only results with this HTTP status.")] | None = None
    error: Annotated[
        str | None,
        Meta(description="Only results with this error type.", extra_json_schema={"enum": list(ERROR_TYPES)}),
    ] = None
    host: Annotated[str | None, Meta(description="Only results of URLs with this host.")] = None
    format: Annotated[ApiFormat | None, Meta(description="Overrules the Accept header.")] = None


class EventsQuery(msgspec.Struct):
    """The events to send."""

    results: Annotated[bool, Meta(description="Whether to send results, or only progress.")] = True
    last_event_id: Annotated[
        int, Meta(ge=0, description="Continue after this event, as with the header Last-Event-ID.")
    ] = 0


class ProbeQuery(msgspec.Struct):
    """Besides this, options by name."""

    url: Annotated[str, Meta(description="The URL to probe.")]
