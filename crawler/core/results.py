"""The result of a probe: one `ProbeResult` for each line of a Task, and the records inside it.

The records are `msgspec` structs. Their JSON is the output of `msgspec.json.encode`, keys in the order of the fields.
"""

import email.utils
import time
from typing import Final, Literal, Self

import msgspec

from crawler.core.error_types import ERROR_TYPES

__all__ = [
    "REPORTED_HEADERS",
    "Body",
    "Hop",
    "HopResult",
    "HttpVersion",
    "Outcome",
    "ProbeError",
    "ProbeResult",
    "TLSInfo",
    "Timings",
    "first_contract_errors",
]

Outcome = Literal["ok", "http_error", "failed", "blocked", "invalid"]
HttpVersion = Literal["1.0", "1.1", "2"]

_RECORD_BYTES: Final = 400  # of a result without its texts
_HOP_BYTES: Final = 200


# Results report these response headers and drop the others.
REPORTED_HEADERS: Final = frozenset(
    {"alt-svc", "content-type", "content-length", "server", "etag", "last-modified", "retry-after", "location"}
)


class Timings(msgspec.Struct, gc=False):
    """The duration of each phase in milliseconds, under HAR's names; None for a phase that did not happen.

    Unlike in HAR, `connect` does not include `ssl`: the phases add up to `total`.
    """

    dns: float | None = None
    connect: float | None = None
    ssl: float | None = None
    send: float | None = None
    wait: float | None = None
    receive: float | None = None
    total: float = 0.0


class ProbeError(msgspec.Struct, frozen=True, gc=False):
    """Why a probe got no answer. `type` is a key of `crawler.core.error_types.ERROR_TYPES`."""

    type: str
    phase: str
    message: str
    transient: bool

    @classmethod
    def of(cls, type_: str, message: str, *, phase: str | None = None) -> Self:
        """Make an error with `phase` and `transient` of its type; a given `phase` replaces that of the type."""
        row = ERROR_TYPES[type_]
        return cls(type_, phase or row.phase, message, row.transient)

    @property
    def group(self) -> str:
        """The word for this error in the first contract, for example `SSL_ERROR`."""
        return ERROR_TYPES[self.type].group


class TLSInfo(msgspec.Struct, frozen=True, gc=False):
    """The negotiated parameters of a TLS connection and its certificate.

    Attributes:
        version: For example `TLSv1.3`.
        cipher: The cipher suite, by OpenSSL's name.
        issuer: The common name of the certificate's issuer; without one, its organisation.
        subject: The same of the certificate's owner.
        not_after: When the certificate expires, in Unix seconds.
        days_left: Whole days until then.
        chain: `incomplete` if the server does not send an intermediate certificate, which was fetched instead.
        engine: The library that did the handshake: `rustls` or `openssl`.
        alpn: The protocol that the server has chosen by ALPN (RFC 7301): `http/1.1` or `h2`; None if it chose none.
    """

    version: str | None = None
    cipher: str | None = None
    issuer: str | None = None
    subject: str | None = None
    not_after: int | None = None
    days_left: int | None = None
    chain: Literal["incomplete"] | None = None
    engine: Literal["rustls", "openssl"] | None = None
    alpn: str | None = None


class Hop(msgspec.Struct):
    """One request to one address, as results report it.

    `error` is an error type. `http_version` is that of the response.
    """

    url: str
    method: str
    status: int | None
    ip: str | None
    timings: Timings
    error: str | None = None
    http_version: HttpVersion | None = None


class Body(msgspec.Struct, frozen=True, gc=False):
    """The body of a response, as far as it was read.

    Attributes:
        data: Its bytes, decompressed.
        codec: How they become text: a codec of Python, or what `crawler.transport.http.text_encoding` knows besides.
        is_cut: Whether more follows: it was longer than wanted, or its end did not come.
    """

    data: bytes
    codec: str
    is_cut: bool


class HopResult(msgspec.Struct):
    """The result of one exchange of a transport: a response head or `error`.

    `headers` are pairs of lower-case name and value, in the order received, with repeated names. `body` is None unless
    the request asked for it. `is_protocol_refused` tells that the server accepts no protocol that TLS offered (ALPN).
    """

    timings: Timings
    status: int | None = None
    ip: str | None = None
    headers: list[tuple[str, str]] = []
    tls: TLSInfo | None = None
    error: ProbeError | None = None
    body: Body | None = None
    http_version: HttpVersion | None = None
    is_protocol_refused: bool = False

    @property
    def is_good(self) -> bool:
        """Whether there is a status, and it is below 400."""
        return self.error is None and self.status is not None and self.status < 400

    def header(self, name: str) -> str | None:
        """Return the first value of a header, found by its lower-case name."""
        return next((value for key, value in self.headers if key == name), None)

    @property
    def retry_after(self) -> float | None:
        """Seconds in the Retry-After header, in either of its forms (RFC 9110, 10.2.3); None without a valid one."""
        value = self.header("retry-after") or ""
        if value.isascii() and value.isdigit():
            return float(value)
        try:
            return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
        except (ValueError, OverflowError):
            return None


class ProbeResult(msgspec.Struct, kw_only=True):
    """The result of the probe of one target. A failure is in `error`, never raised.

    `status` is that of the last hop and `method` the method of its request. `timings` are the sums over the hops.
    `attempts` counts the first try and the retries. `title` and `matched` are None unless the options ask for them;
    `matched` also if the body was cut before a match. `cut` is there only if a text was too long for a record: it names
    the fields that are not whole (`crawler.probing.result_bounds`).
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
    cut: list[str] | msgspec.UnsetType = msgspec.UNSET

    @property
    def size(self) -> int:
        """About how many bytes its JSON takes."""
        texts = len(self.url) + len(self.final_url or "") + sum(map(len, self.headers.values()))
        return _RECORD_BYTES + texts + sum(_HOP_BYTES + len(hop.url) for hop in self.hops)

    def copy_for_line(self, seq: int, url: str) -> "ProbeResult":
        """Return the same result for a duplicate line."""
        return msgspec.structs.replace(self, seq=seq, url=url)


def first_contract_errors(status: int | None, error: ProbeError | None) -> dict[str, int | str]:
    """Return the `errors` of the first contract: empty for a status below 400, else `http` with a status or word."""
    if error is not None:
        return {"http": error.group}
    return {"http": status} if status is not None and status >= 400 else {}
