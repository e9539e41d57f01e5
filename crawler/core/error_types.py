"""The table of the ways in which a probe can fail. A failure is in the result of its target, and never raised."""

from typing import Final, NamedTuple

__all__ = ["ERROR_TYPES", "ErrorType"]


class ErrorType(NamedTuple):
    """One row of the table of failures.

    Attributes:
        group: The word in `errors.http` of the first contract.
        phase: The phase of the probe in which it happens: url, dns, connect, tls or http.
        transient: Whether a retry may have another result.
        meaning: What it means, in a line for the user's documentation.
        advice: What a person can try, in a sentence.
    """

    group: str
    phase: str
    transient: bool
    meaning: str
    advice: str


# Names are those of W3C Network Error Logging (https://www.w3.org/TR/network-error-logging/#predefined-network-error-types)
# where it has one; `tls.unrecognized_name_alert` is Chromium's addition. `dns.timed_out`, `tls.timed_out`,
# `http.timed_out` and the groups `url.`, `proxy.`, `address.`, `robots.` and `local.` are ours: NEL does not
# distinguish these failures.
ERROR_TYPES: Final[dict[str, ErrorType]] = {
    "dns.name_not_resolved": ErrorType(
        "DNS_ERROR",
        "dns",
        False,
        "the name does not exist, or has no address",
        "Check the spelling of the host; if it is right, the site has gone or lost its name.",
    ),
    # A local fault, unlike the other failures of DNS: the name may be fine.
    "dns.unreachable": ErrorType(
        "LOCAL_ERROR",
        "dns",
        True,
        "no DNS server could be reached",
        "Check this machine's network and its DNS servers, or name others with `--dns`.",
    ),
    "dns.failed": ErrorType(
        "DNS_ERROR",
        "dns",
        True,
        "the DNS server failed or refused (SERVFAIL, REFUSED, bad answer)",
        "Try again later; if it stays, the zone's DNS servers or its DNSSEC are broken.",
    ),
    "dns.timed_out": ErrorType(
        "TIMEOUT",
        "dns",
        True,
        "no DNS answer in time",
        "Try again, with other servers by `--dns`, or with a longer `--timeout`.",
    ),
    "tcp.timed_out": ErrorType(
        "TIMEOUT",
        "connect",
        True,
        "no TCP connection in time",
        "Try again later; if it stays, the host is down or a firewall drops the packets.",
    ),
    "tls.timed_out": ErrorType(
        "TIMEOUT",
        "tls",
        True,
        "the TLS handshake took too long",
        "Try again with a longer `--connect-timeout`; the server is overloaded, or speaks no TLS on this port.",
    ),
    "http.timed_out": ErrorType(
        "TIMEOUT",
        "http",
        True,
        "connected, but no complete response head in time",
        "Try again with a longer `--timeout`, or with a lower `--per-host`: the server is slow or overloaded.",
    ),
    "tcp.refused": ErrorType(
        "CONNECTION_ERROR", "connect", True, "no server listens on the port", "Check the port; the server may be down."
    ),
    "tcp.reset": ErrorType(
        "CONNECTION_ERROR",
        "http",
        True,
        "the server reset the connection",
        "Try again with a lower `--per-host`; some firewalls and bot walls reset connections.",
    ),
    "tcp.closed": ErrorType(
        "CONNECTION_ERROR",
        "http",
        True,
        "the server closed the connection without an answer",
        "Try again with a lower `--per-host`; the server may be overloaded, or may expect another protocol.",
    ),
    "tcp.aborted": ErrorType(
        "CONNECTION_ERROR",
        "connect",
        True,
        "the connection was aborted while it was opened",
        "Try again; if it stays, something between this machine and the host breaks connections.",
    ),
    "tcp.address_unreachable": ErrorType(
        "CONNECTION_ERROR",
        "connect",
        True,
        "no route to the address",
        "Check the address that the name has; a network on the way may be down.",
    ),
    "tcp.failed": ErrorType(
        "CONNECTION_ERROR",
        "connect",
        True,
        "the connection failed in another way",
        "Read the message; a local firewall may forbid the connection.",
    ),
    "proxy.unreachable": ErrorType(
        "PROXY_ERROR",
        "connect",
        True,
        "no connection to the proxy, or its name has no address",
        "Check the address of `--proxy`, and that the proxy runs.",
    ),
    "proxy.timed_out": ErrorType(
        "PROXY_ERROR",
        "connect",
        True,
        "connected to the proxy, but it opened no connection to the target in time",
        "Check that the proxy runs and reaches the internet; try a longer `--connect-timeout`.",
    ),
    "proxy.failed": ErrorType(
        "PROXY_ERROR",
        "connect",
        True,
        "the proxy failed to connect to the target (502, 503, 504), or broke off",
        "Read the message, and the log of the proxy.",
    ),
    "proxy.refused": ErrorType(
        "PROXY_ERROR",
        "connect",
        False,
        "the proxy does not allow this target (403)",
        "Ask who runs the proxy whether its rules allow this target.",
    ),
    "proxy.auth_required": ErrorType(
        "PROXY_ERROR",
        "connect",
        False,
        "the proxy requires a user and password, or does not accept those given (407)",
        "Put the user name and the password into the URL of `--proxy`.",
    ),
    "proxy.protocol.error": ErrorType(
        "PROXY_ERROR",
        "connect",
        False,
        "what answers is not a proxy of this kind",
        "Check the scheme and the port of `--proxy`: what answers there is another kind of server.",
    ),
    "proxy.tls.failed": ErrorType(
        "PROXY_ERROR",
        "connect",
        False,
        "no TLS with the proxy, or its certificate is not valid",
        "Check the certificate of the proxy, or use `http://` for `--proxy`.",
    ),
    "tls.cert.name_invalid": ErrorType(
        "SSL_ERROR",
        "tls",
        False,
        "the certificate is for another name",
        "Use the host name that the certificate has, or have the certificate issued for this one.",
    ),
    "tls.cert.date_invalid": ErrorType(
        "SSL_ERROR",
        "tls",
        False,
        "the certificate is expired or not yet valid",
        "Have the certificate renewed; check the clock of this machine if many sites fail.",
    ),
    "tls.cert.authority_invalid": ErrorType(
        "SSL_ERROR",
        "tls",
        False,
        "self-signed, unknown authority, or the chain is incomplete",
        "Have the server send its whole chain; trust an authority of your own with `--cafile`.",
    ),
    "tls.cert.invalid": ErrorType(
        "SSL_ERROR",
        "tls",
        False,
        "the certificate is invalid in another way",
        "Read the message; the certificate has to be issued again.",
    ),
    "tls.version_or_cipher_mismatch": ErrorType(
        "SSL_ERROR",
        "tls",
        False,
        "no TLS version or cipher in common",
        "Have the server support TLS 1.2 or later with the ciphers of today's browsers.",
    ),
    "tls.bad_client_auth_cert": ErrorType(
        "SSL_ERROR",
        "tls",
        False,
        "the server wants a client certificate, or another one (option cert)",
        "Give the certificate that the server wants, with `--cert` and `--key`.",
    ),
    "tls.unrecognized_name_alert": ErrorType(
        "SSL_ERROR",
        "tls",
        False,
        "the server does not know the host name",
        "Check the host name; the server has no site of this name.",
    ),
    "tls.protocol.error": ErrorType(
        "SSL_ERROR",
        "tls",
        False,
        "the server does not speak TLS on this port, or speaks it wrongly",
        "Check the scheme and the port: perhaps the server speaks http here.",
    ),
    "tls.failed": ErrorType(
        "SSL_ERROR",
        "tls",
        True,
        "the TLS handshake failed in another way",
        "Try again; if it stays, compare with `--tls openssl` and read the message.",
    ),
    "http.response.redirect_loop": ErrorType(
        "TOO_MANY_REDIRECTS",
        "http",
        False,
        "the redirects form a loop or are too many",
        "Open the URL in a browser; the site may need cookies, or redirects for ever.",
    ),
    "http.protocol.error": ErrorType(
        "HTTP_ERROR",
        "http",
        False,
        "the response is not HTTP",
        "Check the port: the message shows what the server speaks.",
    ),
    "http.response.invalid": ErrorType(
        "HTTP_ERROR",
        "http",
        False,
        "the HTTP response is malformed",
        "Read the message; the server, or a program in front of it, is broken.",
    ),
    "http.failed": ErrorType(
        "HTTP_ERROR", "http", True, "the exchange failed in another way", "Try again, and read the message."
    ),
    "url.invalid": ErrorType(
        "INVALID_URL",
        "url",
        False,
        "the text is not a URL, or an ambiguous one",
        "Correct the URL in the list; the message names the place.",
    ),
    "url.scheme": ErrorType(
        "INVALID_URL",
        "url",
        False,
        "the scheme is neither http nor https",
        "Only http and https are probed; take the line off the list.",
    ),
    "address.blocked": ErrorType(
        "BLOCKED",
        "connect",
        False,
        "the address guard does not allow the address",
        "If the address may be probed, open its network with `--allow`.",
    ),
    "robots.disallowed": ErrorType(
        "BLOCKED", "url", False, "robots.txt does not allow it (option robots)", "Leave out `--robots`, if you may."
    ),
    "local.descriptors": ErrorType(
        "LOCAL_ERROR",
        "connect",
        True,
        "this process ran out of file descriptors",
        "Raise `ulimit -n`, or lower `--concurrency`.",
    ),
    "local.ports": ErrorType(
        "LOCAL_ERROR",
        "connect",
        True,
        "this machine ran out of local ports for the address",
        "Lower `--concurrency`, or use more than one address of this machine.",
    ),
    "local.memory": ErrorType(
        "LOCAL_ERROR",
        "connect",
        True,
        "this machine ran out of memory for connections",
        "Lower `--concurrency`, or give the process more memory.",
    ),
    "local.network": ErrorType(
        "LOCAL_ERROR",
        "connect",
        True,
        "this machine's network is down or has no route",
        "Check the network of this machine; without IPv6, hosts that only have IPv6 cannot be reached.",
    ),
    "local.paused": ErrorType(
        "LOCAL_ERROR",
        "http",
        True,
        "this process stood still during each of the requests, so that the target could not be judged",
        "Give the process more CPU; look for what stops it or suspends its machine.",
    ),
    "abandoned": ErrorType(
        "ABANDONED",
        "http",
        True,
        "the probe was stopped before it had a result",
        "Probe it again; the Task was stopped.",
    ),
    "unknown": ErrorType(
        "UNKNOWN", "http", False, "a bug in this program; please report it", "Report it, with the message and the log."
    ),
}
