"""What each request takes and gives: the table of which the OpenAPI document is made."""

from collections.abc import Mapping
from typing import Annotated, Any, Final, NamedTuple

import msgspec
from msgspec import Meta

from crawler.core.results import FirstContractResult, ProbeResult
from crawler.core.task_summary import Summary
from crawler.core.tasks import Status
from crawler.server.api import examples, swagger_ui
from crawler.server.api.schemas import (
    Batch,
    Checks,
    Choices,
    EventsQuery,
    Fleet,
    Health,
    Nothing,
    ProbeQuery,
    Readiness,
    ResultPage,
    ResultsQuery,
    SubmitQuery,
    TaskPage,
    TaskQuery,
    TasksQuery,
)

__all__ = [
    "JSON",
    "OPERATIONS",
    "PROBLEM",
    "FirstBatch",
    "FirstTask",
    "Media",
    "Operation",
    "Problem",
    "Reply",
    "Unready",
]

JSON: Final = "application/json"
PROBLEM: Final = "application/problem+json"


# --- What only the first contract has, and errors ---


class FirstBatch(msgspec.Struct):
    """The body of a submit in the first version. Other members are ignored."""

    urls: Annotated[list[str], Meta(min_length=1, description="The URLs, as they are to be reported.")]


class Submitted(msgspec.Struct):
    """Which task it became."""

    task_id: str


class FirstTask(msgspec.Struct):
    """A task with its results so far, by URL."""

    status: Status
    result: dict[str, FirstContractResult]


class Problem(msgspec.Struct):
    """What is wrong, as RFC 9457 says it."""

    type: str
    title: Annotated[str, Meta(description="The status in words.")]
    status: int
    detail: Annotated[str, Meta(description="What is wrong, and where.")]


class Unready(Problem):
    """A part of the service cannot do its work."""

    ready: bool
    checks: Checks
    fleet: Fleet | msgspec.UnsetType = msgspec.UNSET


# --- The table ---


class Media(NamedTuple):
    """Content of one media type: its type, or None if no schema can tell it, and an example."""

    example: Any
    type: Any = str


class Reply(NamedTuple):
    """An answer that is no error. `headers` are names of the document's components."""

    meaning: str
    content: Mapping[str, Media] = {}
    headers: tuple[str, ...] = ()
    of_task: str = ""  # where in the body the id of a task is


class Operation(NamedTuple):
    """A request: what it takes, and what it is answered.

    Attributes:
        id: Its name for programs.
        tag: The group that it stands in.
        replies: Answers by status. An error is one if its body has more than others.
        problems: Statuses of errors, besides those that any request may be answered with.
        query: A struct.
        takes_options: Whether the query may have options as well.
        headers: Parameters that are headers, by names of the document's components.
        body: What is taken, by media type.
        needs_body: Whether it cannot be left out.
        names: What `name` in the path may be.
        is_open: Whether it is answered to who has no token.
    """

    id: str
    tag: str
    replies: Mapping[int, Reply]
    problems: frozenset[int] = frozenset()
    query: type[msgspec.Struct] = Nothing
    takes_options: bool = False
    headers: tuple[str, ...] = ()
    body: Mapping[str, Media] = {}
    needs_body: bool = False
    names: tuple[str, ...] = ()
    is_open: bool = False


_FIRST: Final = "first version"
_TASKS: Final = "tasks"
_RESULTS: Final = "results"
_SERVICE: Final = "service"

_STORED: Final = frozenset({507})
# A body may not come, be too long, or packed in another way.
_TAKEN_IN: Final = frozenset({400, 408, 413, 415, 422}) | _STORED

_BATCHES: Final = {
    JSON: Media(examples.BATCH, Batch),
    "text/plain": Media(examples.LINES),
    "application/x-ndjson": Media(examples.NDJSON),
    "text/csv": Media(examples.CSV),
}
_SUMMARY: Final = {JSON: Media(examples.SUMMARY, Summary)}
_QUOTAS: Final = ("RateLimit", "RateLimit-Policy")
_CREATED: Final = Reply("The new task.", _SUMMARY, ("Location", *_QUOTAS), "/id")
_PROBED: Final = {JSON: Media(examples.RESULT, ProbeResult)}
_FOUND: Final = {
    JSON: Media(examples.PAGE, ResultPage),
    "application/x-ndjson": Media(examples.RESULT_LINES),
    "text/csv": Media(examples.RESULT_ROWS),
}
_EVENTS: Final = (
    "Events until the task ends: `result`, with its number as id; `progress`, at most once a second; and `end`, with "
    "the task. `data` is JSON: a ProbeResult, a Progress, a Summary."
)
_GONE: Final = Reply("It is gone.")

# To requests for a part, or for what has changed, as browsers send them.
_OF_FILES: Final = {
    206: Reply("The part that was asked for."),
    304: Reply("It is as it was."),
    412: Reply("It is not as it was."),
    416: Reply("There is no such part."),
}

OPERATIONS: Final[Mapping[tuple[str, str], Operation]] = {
    ("POST", "/submit"): Operation(
        "firstSubmit",
        _FIRST,
        {200: Reply("The id of the new task.", {JSON: Media(examples.SUBMITTED, Submitted)}, _QUOTAS, "/task_id")},
        _TAKEN_IN,
        body={JSON: Media(examples.FIRST_BATCH, FirstBatch)},
        needs_body=True,
    ),
    ("GET", "/tasks"): Operation(
        "firstTasks", _FIRST, {200: Reply("Tasks by id.", {JSON: Media(examples.FIRST_TASKS, dict[str, FirstTask])})}
    ),
    ("GET", "/tasks/{task_id}"): Operation(
        "firstTask",
        _FIRST,
        {200: Reply("The task.", {JSON: Media(examples.FIRST_TASK, FirstTask)})},
        frozenset({404}),
    ),
    ("DELETE", "/tasks/{task_id}"): Operation("firstDelete", _FIRST, {204: _GONE}, _STORED | {404}),
    ("POST", "/api/v1/tasks"): Operation(
        "submit",
        _TASKS,
        {
            201: _CREATED,
            200: Reply(
                "The task that an earlier request with this Idempotency-Key made.",
                _SUMMARY,
                ("Location", "Idempotency-Replayed", *_QUOTAS),
                "/id",
            ),
        },
        _TAKEN_IN | {409},
        query=SubmitQuery,
        takes_options=True,
        headers=("Idempotency-Key",),
        body=_BATCHES,
        needs_body=True,
    ),
    ("GET", "/api/v1/tasks"): Operation(
        "tasks",
        _TASKS,
        {200: Reply("A page of tasks.", {JSON: Media(examples.TASKS, TaskPage)}, ("Link",))},
        frozenset({422}),
        query=TasksQuery,
    ),
    ("GET", "/api/v1/tasks/{task_id}"): Operation(
        "task", _TASKS, {200: Reply("The task.", _SUMMARY)}, frozenset({404, 422}), query=TaskQuery
    ),
    ("DELETE", "/api/v1/tasks/{task_id}"): Operation("delete", _TASKS, {204: _GONE}, _STORED | {404, 422}),
    ("GET", "/api/v1/tasks/{task_id}/results"): Operation(
        "results",
        _RESULTS,
        {200: Reply("The results.", _FOUND, ("Link", "Vary"))},
        frozenset({404, 406, 422}),
        query=ResultsQuery,
    ),
    ("GET", "/api/v1/tasks/{task_id}/events"): Operation(
        "events",
        _RESULTS,
        {200: Reply(_EVENTS, {"text/event-stream": Media(examples.EVENTS, None)})},
        frozenset({404, 422}),
        query=EventsQuery,
        headers=("Last-Event-ID",),
    ),
    ("POST", "/api/v1/tasks/{task_id}/cancel"): Operation(
        "cancel", _TASKS, {200: Reply("The task, which has ended.", _SUMMARY)}, _STORED | {404, 422}
    ),
    ("POST", "/api/v1/tasks/{task_id}/recheck"): Operation(
        "recheck",
        _TASKS,
        {201: _CREATED},
        _TAKEN_IN | {404, 409},
        body={JSON: Media(examples.CHOICES, Choices)},
    ),
    ("GET", "/api/v1/probe"): Operation(
        "probe",
        _RESULTS,
        {200: Reply("What the probe found.", _PROBED)},
        frozenset({422}),
        query=ProbeQuery,
        takes_options=True,
    ),
    ("GET", "/healthz"): Operation(
        "healthz", _SERVICE, {200: Reply("It answers.", {JSON: Media(examples.HEALTH, Health)})}, is_open=True
    ),
    ("GET", "/readyz"): Operation(
        "readyz",
        _SERVICE,
        {
            200: Reply("It is ready.", {JSON: Media(examples.READY, Readiness)}),
            503: Reply("It is not ready.", {PROBLEM: Media(examples.UNREADY, Unready)}),
        },
        is_open=True,
    ),
    ("GET", "/metrics"): Operation(
        "metrics",
        _SERVICE,
        {
            200: Reply(
                "The metrics.", {"text/plain": Media(None), "application/openmetrics-text": Media(None)}, ("Vary",)
            )
        },
    ),
    ("GET", "/openapi.json"): Operation(
        "openapi", _SERVICE, {200: Reply("The document.", {JSON: Media(None, dict[str, Any])})}, is_open=True
    ),
    ("GET", "/docs"): Operation(
        "docs", _SERVICE, {200: Reply("The page.", {"text/html": Media(None)}), **_OF_FILES}, is_open=True
    ),
    ("GET", "/docs/{name}"): Operation(
        "docsFile",
        _SERVICE,
        {200: Reply("The file.", dict.fromkeys(("text/javascript", "text/css"), Media(None))), **_OF_FILES},
        frozenset({404}),
        names=tuple(swagger_ui.FILES),
        is_open=True,
    ),
}
