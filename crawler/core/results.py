"""What a probe found: one `ProbeResult` for each line of a Task, and the records inside it.

The records are `msgspec` structs. Their JSON is the output of `msgspec.json.encode`, keys in the order of the fields.
"""

import email.utils
import time
from typing import Final, Literal, Self

import msgspec

from crawler.core.errors import ERROR_TYPES

__all__ = [
    "REPORTED_HEADERS",
    "FirstContractResult",
    "Hop",
    "HopResult",
    "Outcome",
    "ProbeError",
    "ProbeResult",
    "TLSInfo",
    "Timings",
    "first_contract_errors",
]

Outcome = Literal["ok", "http_error", "failed", "blocked", "invalid"]


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

    def copy_for_line(self, seq: int, url: str) -> "ProbeResult":
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
