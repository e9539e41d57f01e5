"""Protection of a service without tokens from other machines, and from web pages of other origins.

A service without tokens trusts the programs of this machine. But the user's browser is one of them, and it runs the
scripts of foreign web pages.
"""

import ipaddress
import re
from functools import lru_cache
from typing import Final

from aiohttp import web

__all__ = ["check_origin", "is_local"]

_AUTHORITY: Final = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[^:/@\[\]]+))(?::[0-9]{0,5})?")
_SAME_ORIGIN: Final = frozenset({"same-origin", "none"})  # "none": the user acted, for example in the address bar


def check_origin(request: web.Request, *, is_change: bool) -> None:
    """Refuse a request from another machine, and one that a page of another origin may have sent.

    A foreign name that resolves to this machine (DNS rebinding) shows in Host; a foreign page shows in Origin and
    Sec-Fetch-Site, which no script can change. Programs other than browsers send neither, and any Host they like: so
    Host does not prove where they run, and the address of the connection is checked too.

    Raises:
        web.HTTPForbidden: The request is from another machine, or from another origin.
        web.HTTPMisdirectedRequest: It is for another host than this machine.
    """
    if not _is_this_machine(request.remote):
        raise web.HTTPForbidden(text="without a token, other machines are not served")
    hosts = request.headers.getall("Host", [])
    if len(hosts) != 1 or not is_local(hosts[0]):
        raise web.HTTPMisdirectedRequest(
            text="Host: without a token, only names of this machine are served, such as localhost"
        )
    for origin in request.headers.getall("Origin", []):
        if origin.lower() not in (f"http://{hosts[0].lower()}", f"https://{hosts[0].lower()}"):
            raise web.HTTPForbidden(text="Origin: without a token, pages of other origins are not served")
    for site in request.headers.getall("Sec-Fetch-Site", []):
        # A page at another port of this machine is of the same site. It cannot read the responses.
        if site.lower() not in _SAME_ORIGIN and (is_change or site.lower() != "same-site"):
            raise web.HTTPForbidden(text="Sec-Fetch-Site: without a token, pages of other origins are not served")


@lru_cache(64)  # a client sends the same each time
def is_local(authority: str) -> bool:
    """Whether a `HOST[:PORT]` names this machine, by a loopback address or as localhost."""
    match = _AUTHORITY.fullmatch(authority)
    if match is None:
        return False
    name = (match["v6"] or match["name"]).lower()
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        name = name.removesuffix(".")
        return name == "localhost" or name.endswith(".localhost")


def _is_this_machine(remote: str | None) -> bool:
    """Whether a client is on this machine: it has a loopback address, or none because it came by a Unix socket."""
    if not remote:
        return True
    try:
        address = ipaddress.ip_address(remote)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
