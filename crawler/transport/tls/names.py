"""Match the host of a URL with the names of a certificate (RFC 9525, 6.3).

OpenSSL's own matching refuses a wildcard for a name with an underscore, which browsers accept. It accepts the common
name of a certificate without alternative names, which browsers refuse. So OpenSSL verifies only the chain.
"""

import ipaddress
from typing import Final

from crawler.transport.tls.certificates import SubjectNames

__all__ = ["describe_names", "matches_host", "server_name"]

_MAX_SHOWN_NAMES: Final = 3


def server_name(host: str) -> str:
    """Return the host as TLS names it: without the dot at the end of an absolute name (RFC 6066, 3)."""
    return host.removesuffix(".")


def matches_host(names: SubjectNames, host: str) -> bool:
    """Return whether a certificate with these names is for a host: a name in ASCII, or an IP address."""
    host = server_name(host).lower()
    try:
        return ipaddress.ip_address(host).packed in names.addresses
    except ValueError:
        return any(_matches(pattern.removesuffix("."), host) for pattern in names.dns)


def describe_names(names: SubjectNames) -> str:
    """Return the first few names, for a message."""
    all_names = [*names.dns, *(_show_address(packed) for packed in names.addresses)]
    shown = ", ".join(all_names[:_MAX_SHOWN_NAMES])
    more = len(all_names) - _MAX_SHOWN_NAMES
    return f"{shown} and {more} more" if more > 0 else shown or "no name"


def _matches(pattern: str, host: str) -> bool:
    if not pattern.startswith("*."):
        return pattern == host
    label, dot, domain = host.partition(".")
    # A wildcard is the whole first label. `*.com` would match the hosts of different owners.
    return bool(label and dot) and domain == pattern[2:] and "." in domain and "*" not in domain


def _show_address(packed: bytes) -> str:
    try:
        return str(ipaddress.ip_address(packed))
    except ValueError:
        return packed.hex()
