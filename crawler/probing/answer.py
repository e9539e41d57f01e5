"""The answer to one request: the input of the rules of `Probe`, and what it means whatever the state of the probe."""

from typing import Final

import msgspec

from crawler.core.results import HopResult, ProbeError
from crawler.probing.scheduling.host_slots import Overload
from crawler.probing.statuses import SLOW_DOWN_STATUSES

__all__ = ["Answer", "asks_to_slow_down", "is_local_shortage", "is_overload_sign", "status_error"]

_PHASES_OF_OVERLOAD: Final = frozenset({"connect", "tls", "http"})
_SHORTAGES: Final = frozenset({"local.descriptors", "local.ports", "local.memory"})  # fewer requests in flight help


class Answer(msgspec.Struct, frozen=True, gc=False):
    """The input of the rules of `Probe`.

    Attributes:
        hop: What the transport returned.
        error: Its error, or that of a status that is not a final one.
        seconds: How long the request took.
        may_retry: Whether a transient failure gets a retry.
        overload: What it says about the host.
        place: The position of its hop in the probe's hops.
    """

    hop: HopResult
    error: ProbeError | None
    seconds: float
    may_retry: bool
    overload: Overload
    place: int = -1


def asks_to_slow_down(hop: HopResult) -> bool:
    """Whether the host asks for fewer requests."""
    return hop.status in SLOW_DOWN_STATUSES


def is_overload_sign(error: ProbeError) -> bool:
    """Whether a server with too many requests can cause this failure."""
    return error.transient and error.phase in _PHASES_OF_OVERLOAD and error.group not in ("LOCAL_ERROR", "PROXY_ERROR")


def is_local_shortage(error: ProbeError) -> bool:
    """Whether a request failed because this machine has too many requests in flight."""
    return error.type in _SHORTAGES


def status_error(hop: HopResult) -> ProbeError | None:
    """Return an error if the status is not a final HTTP status."""
    if hop.status is None or 200 <= hop.status <= 999:
        return None
    return ProbeError.of("http.response.invalid", f"status {hop.status} is not a final one")
