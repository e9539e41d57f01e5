"""The table of the operations under `/api/v1`, and of those on the service itself."""

from collections.abc import Mapping
from typing import Any, Final

from crawler.core.results import ProbeResult
from crawler.core.task_summary import Summary
from crawler.server.api import examples, swagger_ui
from crawler.server.api.operation import (
    BODY_PROBLEMS,
    DELETED,
    JSON_TYPE,
    QUOTA_HEADERS,
    STORE_PROBLEMS,
    Media,
    Operation,
    Reply,
)
from crawler.server.api.schemas import (
    Batch,
    Choices,
    EventsQuery,
    Health,
    ProbeQuery,
    Readiness,
    ResultPage,
    ResultsQuery,
    SubmitQuery,
    TaskPage,
    TaskQuery,
    TasksQuery,
    Unready,
)
from crawler.server.http.problem import PROBLEM_TYPE

__all__ = ["OPERATIONS"]

_TASKS: Final = "tasks"
_RESULTS: Final = "results"
_SERVICE: Final = "service"

_SUBMIT_BODIES: Final = {
    JSON_TYPE: Media(examples.BATCH, Batch),
    "text/plain": Media(examples.LINES),
    "application/x-ndjson": Media(examples.NDJSON),
    "text/csv": Media(examples.CSV),
}
_SUMMARY: Final = {JSON_TYPE: Media(examples.SUMMARY, Summary)}
_CREATED: Final = Reply("The new Task.", _SUMMARY, ("Location", *QUOTA_HEADERS), "/id")
_RESULT: Final = {JSON_TYPE: Media(examples.RESULT, ProbeResult)}
_RESULT_PAGES: Final = {
    JSON_TYPE: Media(examples.PAGE, ResultPage),
    "application/x-ndjson": Media(examples.RESULT_LINES),
    "text/csv": Media(examples.RESULT_ROWS),
}
_EVENTS: Final = (
    "Events until the Task ends: `result`, with its number as id; `progress`, at most once a second; and `end`, with "
    "the Task. `data` is JSON: a ProbeResult, a Progress, a Summary."
)

# Replies to the conditional and range requests of browsers.
_FILE_REPLIES: Final = {
    206: Reply("The requested range."),
    304: Reply("The file has not changed."),
    412: Reply("The file has changed."),
    416: Reply("The file has no such range."),
}

OPERATIONS: Final[Mapping[tuple[str, str], Operation]] = {
    ("POST", "/api/v1/tasks"): Operation(
        "submit",
        _TASKS,
        {
            201: _CREATED,
            200: Reply(
                "The Task that an earlier request with this Idempotency-Key made.",
                _SUMMARY,
                ("Location", "Idempotency-Replayed", *QUOTA_HEADERS),
                "/id",
            ),
        },
        BODY_PROBLEMS | {409},
        query=SubmitQuery,
        takes_options=True,
        headers=("Idempotency-Key",),
        body=_SUBMIT_BODIES,
        needs_body=True,
    ),
    ("GET", "/api/v1/tasks"): Operation(
        "tasks",
        _TASKS,
        {200: Reply("A page of Tasks.", {JSON_TYPE: Media(examples.TASKS, TaskPage)}, ("Link",))},
        frozenset({422}),
        query=TasksQuery,
    ),
    ("GET", "/api/v1/tasks/{task_id}"): Operation(
        "task", _TASKS, {200: Reply("The Task.", _SUMMARY)}, frozenset({404, 422}), query=TaskQuery
    ),
    ("DELETE", "/api/v1/tasks/{task_id}"): Operation("delete", _TASKS, {204: DELETED}, STORE_PROBLEMS | {404, 422}),
    ("GET", "/api/v1/tasks/{task_id}/results"): Operation(
        "results",
        _RESULTS,
        {200: Reply("The results.", _RESULT_PAGES, ("Link", "Vary"))},
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
        "cancel", _TASKS, {200: Reply("The Task, which has ended.", _SUMMARY)}, STORE_PROBLEMS | {404, 422}
    ),
    ("POST", "/api/v1/tasks/{task_id}/recheck"): Operation(
        "recheck",
        _TASKS,
        {201: _CREATED},
        BODY_PROBLEMS | {404, 409},
        body={JSON_TYPE: Media(examples.CHOICES, Choices)},
    ),
    ("GET", "/api/v1/probe"): Operation(
        "probe",
        _RESULTS,
        {200: Reply("The result of the probe.", _RESULT)},
        frozenset({422}),
        query=ProbeQuery,
        takes_options=True,
    ),
    ("GET", "/healthz"): Operation(
        "healthz", _SERVICE, {200: Reply("The service answers.", {JSON_TYPE: Media(examples.HEALTH, Health)})}
    ),
    ("GET", "/readyz"): Operation(
        "readyz",
        _SERVICE,
        {
            200: Reply("The service is ready.", {JSON_TYPE: Media(examples.READY, Readiness)}),
            503: Reply("The service is not ready.", {PROBLEM_TYPE: Media(examples.UNREADY, Unready)}),
        },
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
        "openapi", _SERVICE, {200: Reply("The document.", {JSON_TYPE: Media(None, dict[str, Any])})}
    ),
    ("GET", "/docs"): Operation(
        "docs", _SERVICE, {200: Reply("The page.", {"text/html": Media(None)}), **_FILE_REPLIES}
    ),
    ("GET", "/docs/{name}"): Operation(
        "docsFile",
        _SERVICE,
        {200: Reply("The file.", dict.fromkeys(("text/javascript", "text/css"), Media(None))), **_FILE_REPLIES},
        frozenset({404}),
        names=tuple(swagger_ui.FILES),
    ),
}
