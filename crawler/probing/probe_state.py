"""The state of a probe: everything that moves with it when another process takes it over."""

from collections.abc import Mapping
from typing import Final

import msgspec

from crawler.core.results import Hop
from crawler.core.urls import Url

__all__ = ["NO_COOKIES", "ProbeState"]

NO_COOKIES: Final[Mapping[tuple[str, str], str]] = {}  # most probes get no cookie: sharing one mapping saves memory


class ProbeState(msgspec.Struct):
    """What a probe has done so far and what it asks for next.

    Attributes:
        seq: Position of the target in the submitted list.
        text: The target as submitted.
        url: The next URL to request.
        method: The method of the next request.
        cookies: Values by host and name. Some redirects only end once their cookie comes back.
        attempts: The first try and the retries so far.
        hops: The requests made, oldest first.
        seconds: Time spent on requests.
        redirects: Redirects followed.
        local_faults: Faults of this machine met on the way.
        visited: URLs that redirected, each with the Cookie header sent.
        is_at_first_origin: Whether no redirect has left the origin that the user named.
    """

    seq: int
    text: str
    url: Url
    method: str
    cookies: Mapping[tuple[str, str], str]
    attempts: int
    hops: list[Hop]
    seconds: float = 0.0
    redirects: int = 0
    local_faults: int = 0
    visited: frozenset[tuple[str, str | None]] = frozenset()
    is_at_first_origin: bool = True
