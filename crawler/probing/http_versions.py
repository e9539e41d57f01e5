"""When to repeat a request over HTTP/2, and which hosts decline HTTP/2."""

from collections import OrderedDict
from typing import Final

from crawler.core.options import Options
from crawler.core.results import HopResult
from crawler.probing.probe_state import ProbeState

__all__ = ["Http2Support", "is_doubtful_over_http1", "is_silent", "may_offer_http2"]

# Servers that require HTTP/2 send 426 (RFC 9110, 15.5.22), 505 (15.6.6) or 421 (RFC 9113, 9.1.2). Servers that take
# clients without HTTP/2 for robots send 403.
_STATUSES: Final = frozenset({403, 421, 426, 505})
_MAX_HOSTS: Final = 10_000
_NO_ANSWER: Final = frozenset({"tcp.closed", "tcp.reset", "http.timed_out"})
# How servers end the handshake with a client that does not offer HTTP/2, besides the alert of ALPN.
_ENDED_HANDSHAKE: Final = frozenset({"tcp.closed", "tcp.reset", "tls.version_or_cipher_mismatch", "tls.failed"})


class Http2Support:
    """Remembers hosts that chose HTTP/1.1 when HTTP/2 was offered too. They are not offered HTTP/2 again."""

    def __init__(self) -> None:
        self._hosts_without: OrderedDict[str, None] = OrderedDict()

    def learn(self, host: str, hop: HopResult) -> None:
        """Note the answer to a request that offered HTTP/2."""
        if hop.tls is not None and hop.tls.alpn != "h2":
            self._hosts_without[host] = None
            if len(self._hosts_without) > _MAX_HOSTS:
                self._hosts_without.popitem(last=False)

    def is_declined_by(self, host: str) -> bool:
        """Whether a host has chosen HTTP/1.1."""
        return host in self._hosts_without


def may_offer_http2(state: ProbeState, options: Options, *, is_declined: bool) -> bool:
    """Whether the next request may be the first one that offers HTTP/2."""
    is_open = not state.has_offered_http2 and not is_declined
    return is_open and options.http == "auto" and state.url.scheme == "https"


def is_doubtful_over_http1(hop: HopResult) -> bool:
    """Whether a bad answer over https may be due to HTTP/1.1."""
    if hop.error is None:
        return hop.status in _STATUSES
    if hop.is_protocol_refused or hop.error.type == "http.protocol.error":
        return True
    if hop.tls is None:  # nor did a handshake succeed that accepts everything
        return hop.error.phase == "tls" and hop.error.type in _ENDED_HANDSHAKE
    return hop.timings.receive is None and hop.error.type in _NO_ANSWER


def is_silent(hop: HopResult) -> bool:
    """Whether the server sent nothing after the TLS handshake, until the timeout."""
    return hop.error is not None and hop.error.type == "http.timed_out" and is_doubtful_over_http1(hop)
