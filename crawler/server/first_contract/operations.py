"""The table of the first contract's operations."""

from collections.abc import Mapping
from typing import Final

from crawler.server.api import examples
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
from crawler.server.first_contract.records import FirstBatch, FirstTask, Submitted

__all__ = ["FIRST_OPERATIONS"]

_TAG: Final = "first version"

_BATCH: Final = {"urls": examples.URLS}
_SUBMITTED: Final = {"task_id": examples.TASK_ID}
_TASK: Final = {
    "status": "ready",
    "result": {
        result.url: {"timestamp": result.timestamp, "errors": result.errors}
        for result in (examples.OK, examples.FAILED)
    },
}

FIRST_OPERATIONS: Final[Mapping[tuple[str, str], Operation]] = {
    ("POST", "/submit"): Operation(
        "firstSubmit",
        _TAG,
        {200: Reply("The id of the new Task.", {JSON_TYPE: Media(_SUBMITTED, Submitted)}, QUOTA_HEADERS, "/task_id")},
        BODY_PROBLEMS,
        body={JSON_TYPE: Media(_BATCH, FirstBatch)},
        needs_body=True,
    ),
    ("GET", "/tasks"): Operation(
        "firstTasks",
        _TAG,
        {200: Reply("Tasks by id.", {JSON_TYPE: Media({examples.TASK_ID: _TASK}, dict[str, FirstTask])})},
    ),
    ("GET", "/tasks/{task_id}"): Operation(
        "firstTask", _TAG, {200: Reply("The Task.", {JSON_TYPE: Media(_TASK, FirstTask)})}, frozenset({404})
    ),
    ("DELETE", "/tasks/{task_id}"): Operation("firstDelete", _TAG, {204: DELETED}, STORE_PROBLEMS | {404}),
}
