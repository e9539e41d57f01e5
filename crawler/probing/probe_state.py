"""The state of a probe: everything that moves with it when another process takes it over."""

from typing import Literal

import msgspec

from crawler.core.results import Hop, HopResult, ProbeError
from crawler.core.urls import Url
from crawler.probing.cookies import Cookie
from crawler.probing.strict_transport import StrictHost

__all__ = ["Challenge", "KnownAnswer", "ProbeState"]


class Challenge(msgspec.Struct, frozen=True, gc=False):
    """What a server wants to know of the user, and how (RFC 9110, 11.3); the fields of Digest as in RFC 7616, 3.3.

    Attributes:
        scheme: How the user name and password are sent.
        realm: What they are for.
        nonce: A text that the answer depends on.
        opaque: A text that goes back as it is.
        algorithm: How to hash, as the server writes it; empty for MD5.
        has_qop: Whether the answer may have a count and a nonce of the client's.
        is_stale: Whether only the nonce of the last answer was wrong.
        hides_user: Whether the user name is sent as a hash.
    """

    scheme: Literal["basic", "digest"]
    realm: str = ""
    nonce: str = ""
    opaque: str | None = None
    algorithm: str = ""
    has_qop: bool = False
    is_stale: bool = False
    hides_user: bool = False


class KnownAnswer(msgspec.Struct, frozen=True, gc=False):
    """An answer that a retry has to improve on.

    Attributes:
        hop: The answer.
        place: Its place in `ProbeState.hops`.
    """

    hop: HopResult
    place: int


class ProbeState(msgspec.Struct):
    """What a probe has done so far, and its next request.

    Attributes:
        seq: Position of the target in the submitted list.
        text: The target as submitted.
        start: The first URL: that of the target.
        url: The next URL to request.
        method: The method of the next request.
        attempts: The first try and the retries so far.
        hops: The requests made, oldest first.
        seconds: Time spent on requests.
        redirects: Redirects followed since the start.
        local_faults: Faults of this machine so far.
        slow_downs: Waits so far because the host asked for fewer requests; they count as no attempt.
        cookies: Cookies that redirects have set since the start.
        strict_hosts: Hosts that have required https since the start.
        challenge: What the next request answers of a server that asked for user and password.
        challenges: Challenges answered for this URL.
        signed_in: Origins that have asked for user and password, and these as in `Url.authorization`.
        known_answer: The last answer with a status, if a retry has followed it.
        http_version: What the next request over https offers; 2 lets the server choose.
        has_offered_http2: Whether a request has offered HTTP/2.
        http1_answer: The bad answer over HTTP/1.1, while its request is repeated over HTTP/2.
        has_sent_head: Whether a HEAD was sent since the start.
        is_at_first_origin: Whether no redirect has left the origin that the user named.
    """

    seq: int
    text: str
    start: Url
    url: Url
    method: str
    attempts: int
    hops: list[Hop]
    seconds: float = 0.0
    redirects: int = 0
    local_faults: int = 0
    slow_downs: int = 0
    cookies: tuple[Cookie, ...] = ()
    strict_hosts: tuple[StrictHost, ...] = ()
    challenge: Challenge | None = None
    challenges: int = 0
    signed_in: tuple[tuple[tuple[str, str, int], str], ...] = ()
    known_answer: KnownAnswer | None = None
    http_version: Literal["1", "2"] = "1"
    has_offered_http2: bool = False
    http1_answer: KnownAnswer | None = None
    has_sent_head: bool = False
    is_at_first_origin: bool = True

    def add_hop(self, answer: HopResult, error: ProbeError | None) -> None:
        """Note the answer to the request, and its error, which may be due to the status alone."""
        self.hops.append(
            Hop(
                self.url.href,
                self.method,
                answer.status,
                answer.ip,
                answer.timings,
                error.type if error else None,
                answer.http_version,
            )
        )

    def offer_http2(self) -> None:
        """Let the servers of https URLs choose HTTP/2 from now on."""
        self.http_version, self.has_offered_http2 = "2", True

    def start_again(self, method: str) -> None:
        """Begin again at the first URL, without the redirects and cookies so far."""
        self.url, self.method = self.start, method
        self.redirects, self.cookies, self.strict_hosts = 0, (), ()
        self.challenges = 0
        self.has_sent_head, self.is_at_first_origin = False, True
