"""Bodies and responses of the first contract."""

from typing import Annotated, Self

import msgspec
from msgspec import Meta

from crawler.core.results import ProbeResult
from crawler.core.tasks import Status

__all__ = ["FirstBatch", "FirstContractResult", "FirstTask", "Submitted"]


class FirstContractResult(msgspec.Struct, frozen=True):
    """When a URL was probed, in Unix seconds, and `http`: the status of an HTTP error, or why there was no response."""

    timestamp: int
    errors: dict[str, int | str]

    @classmethod
    def of(cls, result: ProbeResult) -> Self:
        """Return the part of a result that the first contract has."""
        return cls(result.timestamp, result.errors)


class FirstBatch(msgspec.Struct):
    """A submitted list in the first version. Other members are ignored."""

    urls: Annotated[list[str], Meta(min_length=1, description="The URLs. Results report them as they are here.")]


class Submitted(msgspec.Struct):
    """The id of the new Task."""

    task_id: str


class FirstTask(msgspec.Struct):
    """A Task with its results so far, by URL."""

    status: Status
    result: dict[str, FirstContractResult]
