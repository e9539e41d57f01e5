"""What can go wrong: our own faults as exceptions, a target's failures as a table.

A target that fails is an ordinary result of probing, so it is never raised; `ERROR_TYPES` names every way
in which that can happen. What is raised is ours or the caller's doing:

    CrawlerError
    ├── ChildError          the processes that probe for this one do not start
    ├── InputError          somebody handed us something we cannot use; carries the place
    │   └── OptionError     ... in the options
    ├── IdempotencyKeyTaken another request with that idempotency key was faster
    ├── ServiceStopping     the service is stopping, and begins nothing more
    ├── StoreError          the store of Tasks cannot do what is asked of it now
    │   ├── StoreDamaged    ... nor later, for what it has kept is damaged
    │   └── StoreFull       ... for want of space
    ├── TaskNotFound        no Task has that id
    └── TransitionError     a Task cannot go from its status to that one
"""

from typing import Final, NamedTuple

__all__ = [
    "ERROR_TYPES",
    "ChildError",
    "CrawlerError",
    "ErrorType",
    "IdempotencyKeyTaken",
    "InputError",
    "OptionError",
    "ServiceStopping",
    "StoreDamaged",
    "StoreError",
    "StoreFull",
    "TaskNotFound",
    "TransitionError",
]


class CrawlerError(Exception):
    """Base of everything that this package raises on purpose."""


class ChildError(CrawlerError):
    """The processes that probe for this one do not start."""


class InputError(CrawlerError):
    """Input that cannot be used.

    Args:
        message: What is wrong, for a person.
        place: Where it is wrong: a JSON path (`$.urls[3]`), a line, an option's name.
    """

    def __init__(self, message: str, place: str = "") -> None:
        super().__init__(f"{place}: {message}" if place else message)
        self.message = message
        self.place = place


class OptionError(InputError):
    """An option with a value outside of what it may be."""


class IdempotencyKeyTaken(CrawlerError):
    """Another request with that idempotency key was faster."""


class ServiceStopping(CrawlerError):
    """The service is stopping, and begins nothing more."""


class StoreError(CrawlerError):
    """The store of Tasks cannot do what is asked of it now; nothing of it is half done."""


class StoreDamaged(StoreError):
    """What it has kept cannot be read, or not as it was written."""


class StoreFull(StoreError):
    """There is no space left for it."""


class TaskNotFound(CrawlerError):
    """No Task has this id (or not any more)."""

    def __init__(self, task_id: str) -> None:
        super().__init__(f"no task {task_id!r}")
        self.task_id = task_id


class TransitionError(CrawlerError):
    """The table of task states has no such step."""


class ErrorType(NamedTuple):
    """One row of the table of failures.

    Attributes:
        group: What stands in `errors.http` of the first contract.
        phase: Where in the probe it happens: url, dns, connect, tls or http.
        transient: Whether trying again may give another answer.
        meaning: One line for the user's documentation.
    """

    group: str
    phase: str
    transient: bool
    meaning: str


# Names are those of W3C Network Error Logging (https://www.w3.org/TR/network-error-logging/#predefined-network-error-types)
# where it has one; `dns.timed_out`, `tls.timed_out`, `http.timed_out` and the groups `url.`, `address.`,
# `robots.` and `local.` are ours, for what a browser's report does not tell apart.
ERROR_TYPES: Final[dict[str, ErrorType]] = {
    "dns.name_not_resolved": ErrorType("DNS_ERROR", "dns", False, "the name does not exist, or has no address"),
    # Ours, unlike the other failures of DNS: it says nothing of the name.
    "dns.unreachable": ErrorType("LOCAL_ERROR", "dns", True, "no DNS server could be reached"),
    "dns.failed": ErrorType(
        "DNS_ERROR", "dns", True, "the DNS server failed or refused (SERVFAIL, REFUSED, bad answer)"
    ),
    "dns.timed_out": ErrorType("TIMEOUT", "dns", True, "no DNS answer in time"),
    "tcp.timed_out": ErrorType("TIMEOUT", "connect", True, "no TCP connection in time"),
    "tls.timed_out": ErrorType("TIMEOUT", "tls", True, "the TLS handshake did not end in time"),
    "http.timed_out": ErrorType("TIMEOUT", "http", True, "connected, but no whole response head in time"),
    "tcp.refused": ErrorType("CONNECTION_ERROR", "connect", True, "nobody listens on the port"),
    "tcp.reset": ErrorType("CONNECTION_ERROR", "http", True, "the server reset the connection"),
    "tcp.closed": ErrorType("CONNECTION_ERROR", "http", True, "the server closed the connection without an answer"),
    "tcp.aborted": ErrorType("CONNECTION_ERROR", "connect", True, "the connection was aborted before it stood"),
    "tcp.address_unreachable": ErrorType("CONNECTION_ERROR", "connect", True, "no route to the address"),
    "tcp.failed": ErrorType("CONNECTION_ERROR", "connect", True, "the connection failed in another way"),
    "tls.cert.name_invalid": ErrorType("SSL_ERROR", "tls", False, "the certificate is for another name"),
    "tls.cert.date_invalid": ErrorType("SSL_ERROR", "tls", False, "the certificate is expired or not yet valid"),
    "tls.cert.authority_invalid": ErrorType(
        "SSL_ERROR", "tls", False, "self-signed, unknown authority, or the chain is incomplete"
    ),
    "tls.cert.invalid": ErrorType("SSL_ERROR", "tls", False, "the certificate is invalid in another way"),
    "tls.version_or_cipher_mismatch": ErrorType("SSL_ERROR", "tls", False, "no TLS version or cipher in common"),
    "tls.protocol.error": ErrorType("SSL_ERROR", "tls", False, "the server does not speak TLS on this port"),
    "tls.failed": ErrorType("SSL_ERROR", "tls", True, "the TLS handshake failed in another way"),
    "http.response.redirect_loop": ErrorType(
        "TOO_MANY_REDIRECTS", "http", False, "redirects went round or on too long"
    ),
    "http.protocol.error": ErrorType("HTTP_ERROR", "http", False, "what came back is not HTTP/1"),
    "http.response.invalid": ErrorType("HTTP_ERROR", "http", False, "an HTTP response that cannot be understood"),
    "http.failed": ErrorType("HTTP_ERROR", "http", True, "the exchange failed in another way"),
    "url.invalid": ErrorType("INVALID_URL", "url", False, "the text cannot be normalised to one URL"),
    "url.scheme": ErrorType("INVALID_URL", "url", False, "a scheme other than http and https"),
    "address.blocked": ErrorType("BLOCKED", "connect", False, "the guard does not allow the address"),
    "robots.disallowed": ErrorType("BLOCKED", "url", False, "robots.txt does not allow it, and was to be obeyed"),
    "local.descriptors": ErrorType("LOCAL_ERROR", "connect", True, "this process ran out of file descriptors"),
    "local.ports": ErrorType("LOCAL_ERROR", "connect", True, "this machine ran out of ports towards the address"),
    "local.memory": ErrorType("LOCAL_ERROR", "connect", True, "this machine ran out of memory for connections"),
    "local.network": ErrorType("LOCAL_ERROR", "connect", True, "this machine's network is down, or leads nowhere"),
    "abandoned": ErrorType("ABANDONED", "http", True, "the probe was stopped before it had a verdict"),
    "unknown": ErrorType("UNKNOWN", "http", False, "a fault in this program; please report it"),
}
