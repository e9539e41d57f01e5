"""Tasks as the API shows them: the records that the service sends and its clients read."""

import re
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from crawler.core.tasks import Counts, Status

__all__ = ["Links", "Progress", "Summary", "WebhookState", "is_task_id"]

_TASK_ID: Final = re.compile(r"[\w-]+", re.ASCII)


def is_task_id(text: str) -> bool:
    """Whether a text can be a Task's id. One that can needs no quoting in a path, and is safe to print."""
    return _TASK_ID.fullmatch(text) is not None


class Links(msgspec.Struct):
    """The paths of a Task's resources."""

    self: str
    results: str
    events: str
    cancel: str
    recheck: str


class Progress(msgspec.Struct, kw_only=True):
    """The progress of a Task."""

    status: Status
    total: Annotated[int, Meta(description="Lines submitted.")]
    done: Annotated[int, Meta(description="Lines that have their result.")]
    counts: Annotated[Counts, Meta(description="Results by outcome.")]
    rate: Annotated[
        float | None, Meta(description="Results per second since the service began to work on it; null if unknown.")
    ]
    eta: Annotated[float | None, Meta(description="Seconds until it is done at this rate; null if unknown.")]


class WebhookState(msgspec.Struct):
    """The state of the delivery of a Task's webhook."""

    status: Literal["waiting", "pending", "delivered", "failed"]
    attempts: int
    due: Annotated[float | None, Meta(description="When the next attempt is; null for at once, or never.")]
    last: Annotated[str | None, Meta(description="How the latest attempt ended: an HTTP status, or an error type.")]


class Summary(Progress, kw_only=True):
    """A Task without its results. Times are Unix seconds."""

    id: str
    label: str | None
    detail: Annotated[str | None, Meta(description="Why its status is error.")]
    created: float
    finished: float | None
    options: Annotated[dict[str, Any], Meta(description="Options by name.")]
    webhook: WebhookState | None
    links: Links

    def __post_init__(self) -> None:
        """Check the id, which clients print and put into paths."""
        if not is_task_id(self.id):
            raise ValueError("the id is not one of a Task")

    @property
    def is_all_ok(self) -> bool:
        """Whether the Task has ended, and every line of it is ok."""
        return self.status == "ready" and self.counts.ok == self.total
