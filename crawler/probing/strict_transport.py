"""HTTP Strict Transport Security (HSTS, RFC 6797), for the duration of one probe.

Some sites redirect from https to http and back. In a browser this loop ends: after the host's header
Strict-Transport-Security, the browser requests https in place of http.
"""

import re
from collections.abc import Iterable
from typing import Final

from crawler.core.results import ProbeError
from crawler.core.urls import Url, resolve_redirect

__all__ = ["StrictHost", "update_strict_hosts", "upgrade_to_https"]

StrictHost = tuple[str, bool]  # a host, and whether its subdomains are included

_HEADER: Final = "strict-transport-security"
_MAX_AGE: Final = re.compile(r'max-age[ \t]*=[ \t]*(?:"([0-9]+)"|([0-9]+))', re.IGNORECASE)
_ADDRESS: Final = re.compile(r"[0-9.]+|.*:.*")


def update_strict_hosts(
    hosts: tuple[StrictHost, ...], headers: Iterable[tuple[str, str]], url: Url
) -> tuple[StrictHost, ...]:
    """Return the hosts that require https, updated by a response.

    Args:
        hosts: The hosts before the response.
        headers: The headers of the response, with lower-case names.
        url: The URL that answered.
    """
    policy = next((value for name, value in headers if name == _HEADER), None)  # only the first counts (8.1)
    if policy is None or url.scheme != "https" or _ADDRESS.fullmatch(url.host):
        return hosts
    directives = [directive.strip(" \t") for directive in policy.split(";")]
    ages = [found for directive in directives if (found := _MAX_AGE.fullmatch(directive))]
    if len(ages) != 1:
        return hosts
    others = tuple(entry for entry in hosts if entry[0] != url.host)
    if int(ages[0][1] or ages[0][2]) == 0:
        return others
    return (*others, (url.host, any(directive.lower() == "includesubdomains" for directive in directives)))


def upgrade_to_https(url: Url, hosts: Iterable[StrictHost]) -> Url:
    """Return the URL with https if its host requires that. Port 80 becomes 443, other ports stay (8.3)."""
    if url.scheme == "https" or not any(_is_covered(url.host, *entry) for entry in hosts):
        return url
    strict = resolve_redirect(url, f"https{url.href.removeprefix('http')}")
    assert not isinstance(strict, ProbeError)  # the scheme alone cannot make it invalid
    return strict


def _is_covered(host: str, strict_host: str, includes_subdomains: bool) -> bool:
    return host == strict_host or (includes_subdomains and host.endswith(f".{strict_host}"))
