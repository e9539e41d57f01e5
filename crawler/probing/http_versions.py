"""When HTTP/2 may have the answer that HTTP/1.1 has not."""

from typing import Final

from crawler.core.results import HopResult

__all__ = ["is_doubtful_over_http1", "is_silent"]

# Servers that want HTTP/2 send 426 (RFC 9110, 15.5.22), 505 (15.6.6) or 421 (RFC 9113, 9.1.2). 403 comes from some that
# take clients without HTTP/2 for robots.
_STATUSES: Final = frozenset({403, 421, 426, 505})
_NO_ANSWER: Final = frozenset({"tcp.closed", "tcp.reset", "http.timed_out"})


def is_doubtful_over_http1(hop: HopResult) -> bool:
    """Whether a bad answer over https may be due to HTTP/1.1."""
    if hop.error is None:
        return hop.status in _STATUSES
    if hop.is_protocol_refused or hop.error.type == "http.protocol.error":
        return True
    return hop.tls is not None and hop.timings.receive is None and hop.error.type in _NO_ANSWER


def is_silent(hop: HopResult) -> bool:
    """Whether nothing came in time after the TLS handshake."""
    return hop.error is not None and hop.error.type == "http.timed_out" and is_doubtful_over_http1(hop)
