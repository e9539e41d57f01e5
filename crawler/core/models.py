"""The records that travel between the parts, and the table of task states.

The public ones are `msgspec` structs: their JSON is what `msgspec.json.encode` makes of them, in this order of keys.
"""

import email.utils
import time
from collections.abc import Sequence
from typing import Final, Literal, Self, get_args

import msgspec

from crawler.core.errors import ERROR_TYPES, TransitionError
from crawler.core.options import Options

__all__ = [
    "ANY_RESULT",
    "REPORTED_HEADERS",
    "TRANSITIONS",
    "Counts",
    "FirstContractResult",
    "Hop",
    "HopResult",
    "IdempotencyKey",
    "Outcome",
    "ProbeError",
    "ProbeResult",
    "ResultFilter",
    "ResultPage",
    "Status",
    "TLSInfo",
    "Task",
    "Timings",
    "Webhook",
    "first_contract_errors",
]

Outcome = Literal["ok", "http_error", "failed", "blocked", "invalid"]
Status = Literal["running", "ready", "error"]

# Where a Task may go from where it is. Every registry enforces it, through `Task.become`.
TRANSITIONS: Final[dict[Status, frozenset[Status]]] = {
    "running": frozenset({"ready", "error"}),
    "ready": frozenset(),
    "error": frozenset(),
}

# The response headers that a result reports; the others are read and dropped.
REPORTED_HEADERS: Final = frozenset(
    {"content-type", "content-length", "server", "etag", "last-modified", "retry-after", "location"}
)


class Timings(msgspec.Struct, gc=False):
    """How long each phase took, in milliseconds, under HAR's names; None where there was no such phase.

    Unlike in HAR, `connect` is the TCP connection alone: the phases add up to `total`.
    """

    dns: float | None = None
    connect: float | None = None
    ssl: float | None = None
    send: float | None = None
    wait: float | None = None
    receive: float | None = None
    total: float = 0.0


class ProbeError(msgspec.Struct, frozen=True, gc=False):
    """Why there is no answer. `type` is a key of `crawler.core.errors.ERROR_TYPES`."""

    type: str
    phase: str
    message: str
    transient: bool

    @classmethod
    def of(cls, type_: str, message: str, *, phase: str | None = None) -> Self:
        """Fill in what the table says of `type_`; `phase` where this time it happened elsewhere."""
        kind = ERROR_TYPES[type_]
        return cls(type_, phase or kind.phase, message, kind.transient)

    @property
    def group(self) -> str:
        """The word of the first contract, such as `SSL_ERROR`."""
        return ERROR_TYPES[self.type].group


class TLSInfo(msgspec.Struct, frozen=True, gc=False):
    """What the TLS handshake agreed on and whom the certificate names. `not_after` is in unix seconds."""

    version: str | None = None
    cipher: str | None = None
    issuer: str | None = None
    subject: str | None = None
    not_after: int | None = None
    days_left: int | None = None


class Hop(msgspec.Struct):
    """One request to one address, in the order sent. `error` is an error type."""

    url: str
    method: str
    status: int | None
    ip: str | None
    timings: Timings
    error: str | None = None


class HopResult(msgspec.Struct):
    """What a transport found in one hop: a response head, or `error`.

    `headers` has lower-case names and every value sent under them, in the order received; `body` is there if asked for.
    """

    timings: Timings
    status: int | None = None
    ip: str | None = None
    headers: list[tuple[str, str]] = []
    tls: TLSInfo | None = None
    error: ProbeError | None = None
    body: str | None = None

    @property
    def is_good(self) -> bool:
        """Whether it is an answer below 400."""
        return self.error is None and self.status is not None and self.status < 400

    def header(self, name: str) -> str | None:
        """The first value of a header, by its lower-case name."""
        return next((value for key, value in self.headers if key == name), None)

    @property
    def retry_after(self) -> float | None:
        """Seconds that a Retry-After asks for, in either of its forms (RFC 9110, 10.2.3)."""
        value = self.header("retry-after") or ""
        if value.isascii() and value.isdigit():
            return float(value)
        try:
            return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
        except (ValueError, OverflowError):
            return None


class ProbeResult(msgspec.Struct, kw_only=True):
    """What the probe of one target found. `status` is that of the last hop; a failure is `error`, never raised.

    `timings` add up those of the hops; `attempts` counts the first try and the retries; `method` is the one that gave
    the verdict; `title` and `matched` are there if asked for.
    """

    seq: int
    url: str
    timestamp: int
    outcome: Outcome
    status: int | None = None
    method: str | None = None
    attempts: int = 0
    error: ProbeError | None = None
    errors: dict[str, int | str] = {}
    final_url: str | None = None
    hops: list[Hop] = []
    timings: Timings = msgspec.field(default_factory=Timings)
    ip: str | None = None
    tls: TLSInfo | None = None
    headers: dict[str, str] = {}
    title: str | None = None
    matched: bool | None = None

    def restamp(self, seq: int, url: str) -> "ProbeResult":
        """The same finding, as the record of another line that asks for the same target."""
        return msgspec.structs.replace(self, seq=seq, url=url)


def first_contract_errors(status: int | None, error: ProbeError | None) -> dict[str, int | str]:
    """The `errors` of the first contract: empty below 400, else `http` with the status or a word."""
    if error is not None:
        return {"http": error.group}
    return {"http": status} if status is not None and status >= 400 else {}


class FirstContractResult(msgspec.Struct, frozen=True):
    """What the first contract shows of a result."""

    timestamp: int
    errors: dict[str, int | str]

    @classmethod
    def of(cls, result: ProbeResult) -> Self:
        """The part of a result that the first contract knows."""
        return cls(result.timestamp, result.errors)


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

    def become(self, status: Status, detail: str | None = None) -> None:
        """Go to another status, as the table allows.

        Raises:
            TransitionError: The table has no such step, or `ready` is asked for while lines lack their record.
        """
        if status not in TRANSITIONS[self.status]:
            raise TransitionError(f"task {self.id} cannot go from {self.status} to {status}")
        if status == "ready" and self.counts.done != self.total:
            raise TransitionError(f"task {self.id} has {self.counts.done} records of {self.total}")
        self.status, self.detail, self.finished = status, detail, time.time()
