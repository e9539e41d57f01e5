"""The table of the ways in which a probe can fail. A failure is in the result of its target, and never raised.

`error_advice` says what a user can try after each.
"""

from typing import Final, NamedTuple

__all__ = ["ERROR_TYPES", "ErrorType"]


class ErrorType(NamedTuple):
    """One row of the table of failures.

    Attributes:
        group: The word in `errors.http` of the first contract.
        phase: The phase of the probe in which it usually happens: url, dns, connect, tls or http.
        transient: Whether a retry may have another result.
        meaning: What it means, in a line for the user's documentation.
    """

    group: str
    phase: str
    transient: bool
    meaning: str


# Names are those of W3C Network Error Logging (https://www.w3.org/TR/network-error-logging/#predefined-network-error-types)
# where it has one; `tls.unrecognized_name_alert` is Chromium's addition. `dns.timed_out`, `tls.timed_out`,
# `http.timed_out` and the groups `url.`, `proxy.`, `address.`, `robots.` and `local.` are ours: NEL does not
# distinguish these failures.
ERROR_TYPES: Final[dict[str, ErrorType]] = {
    "dns.name_not_resolved": ErrorType("DNS_ERROR", "dns", False, "the name does not exist, or has no address"),
    # A local fault, unlike the other failures of DNS: the name may be fine.
    "dns.unreachable": ErrorType("LOCAL_ERROR", "dns", True, "no DNS server could be reached"),
    "dns.failed": ErrorType(
        "DNS_ERROR", "dns", True, "the DNS server failed or refused (SERVFAIL, REFUSED, bad answer)"
    ),
    "dns.timed_out": ErrorType("TIMEOUT", "dns", True, "no DNS answer in time"),
    "tcp.timed_out": ErrorType("TIMEOUT", "connect", True, "no TCP connection in time"),
    "tls.timed_out": ErrorType("TIMEOUT", "tls", True, "the TLS handshake took too long"),
    "http.timed_out": ErrorType("TIMEOUT", "http", True, "connected, but no complete response head in time"),
    "tcp.refused": ErrorType("CONNECTION_ERROR", "connect", True, "no server listens on the port"),
    "tcp.reset": ErrorType("CONNECTION_ERROR", "http", True, "the server reset the connection"),
    "tcp.closed": ErrorType("CONNECTION_ERROR", "http", True, "the server closed the connection without an answer"),
    "tcp.aborted": ErrorType("CONNECTION_ERROR", "connect", True, "the connection was aborted while it was opened"),
    "tcp.address_unreachable": ErrorType("CONNECTION_ERROR", "connect", True, "no route to the address"),
    "tcp.failed": ErrorType("CONNECTION_ERROR", "connect", True, "the connection failed in another way"),
    "proxy.unreachable": ErrorType(
        "PROXY_ERROR", "connect", True, "no connection to the proxy, or its name has no address"
    ),
    "proxy.timed_out": ErrorType(
        "PROXY_ERROR", "connect", True, "connected to the proxy, but it opened no connection to the target in time"
    ),
    "proxy.failed": ErrorType(
        "PROXY_ERROR",
        "connect",
        True,
        "the proxy failed to connect to the target (502, 503, 504), or closed the connection",
    ),
    "proxy.refused": ErrorType("PROXY_ERROR", "connect", False, "the proxy does not allow this target (403)"),
    "proxy.auth_required": ErrorType(
        "PROXY_ERROR", "connect", False, "the proxy requires a user and password, or does not accept those given (407)"
    ),
    "proxy.protocol.error": ErrorType(
        "PROXY_ERROR", "connect", False, "the server that answers is not a proxy of this kind"
    ),
    "proxy.tls.failed": ErrorType(
        "PROXY_ERROR", "connect", False, "no TLS with the proxy, or its certificate is not valid"
    ),
    "tls.cert.name_invalid": ErrorType("SSL_ERROR", "tls", False, "the certificate is for another name"),
    "tls.cert.date_invalid": ErrorType("SSL_ERROR", "tls", False, "the certificate is expired or not yet valid"),
    "tls.cert.authority_invalid": ErrorType(
        "SSL_ERROR", "tls", False, "self-signed, unknown authority, or the chain is incomplete"
    ),
    "tls.cert.invalid": ErrorType("SSL_ERROR", "tls", False, "the certificate is invalid in another way"),
    "tls.version_or_cipher_mismatch": ErrorType("SSL_ERROR", "tls", False, "no TLS version or cipher in common"),
    "tls.bad_client_auth_cert": ErrorType(
        "SSL_ERROR", "tls", False, "the server wants a client certificate, or another one (option cert)"
    ),
    "tls.unrecognized_name_alert": ErrorType("SSL_ERROR", "tls", False, "the server does not know the host name"),
    "tls.protocol.error": ErrorType(
        "SSL_ERROR", "tls", False, "the server does not speak TLS on this port, or speaks it wrongly"
    ),
    "tls.failed": ErrorType("SSL_ERROR", "tls", True, "the TLS handshake failed in another way"),
    "http.response.redirect_loop": ErrorType(
        "TOO_MANY_REDIRECTS", "http", False, "the redirects form a loop or are too many"
    ),
    "http.protocol.error": ErrorType("HTTP_ERROR", "http", False, "the response is not HTTP"),
    "http.response.invalid": ErrorType("HTTP_ERROR", "http", False, "the HTTP response is malformed"),
    "http.failed": ErrorType("HTTP_ERROR", "http", True, "the exchange failed in another way"),
    "url.invalid": ErrorType("INVALID_URL", "url", False, "the text is not a URL, or an ambiguous one"),
    "url.scheme": ErrorType("INVALID_URL", "url", False, "the scheme is neither http nor https"),
    "address.blocked": ErrorType("BLOCKED", "connect", False, "the address guard does not allow the address"),
    "robots.disallowed": ErrorType("BLOCKED", "url", False, "robots.txt does not allow it (option robots)"),
    "local.descriptors": ErrorType("LOCAL_ERROR", "connect", True, "this process ran out of file descriptors"),
    "local.ports": ErrorType("LOCAL_ERROR", "connect", True, "this machine ran out of local ports for the address"),
    "local.memory": ErrorType("LOCAL_ERROR", "connect", True, "this machine ran out of memory for connections"),
    "local.network": ErrorType("LOCAL_ERROR", "connect", True, "this machine's network is down or has no route"),
    "local.paused": ErrorType(
        "LOCAL_ERROR",
        "http",
        True,
        "this process stood still during each of the requests, so that the target could not be judged",
    ),
    "abandoned": ErrorType("ABANDONED", "http", True, "the probe was stopped before it had a result"),
    "unknown": ErrorType("UNKNOWN", "http", False, "a bug in this program; please report it"),
}
