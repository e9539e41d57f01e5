"""Web pages of others: what they can have a browser send to a service that asks for no token.

Such a service knows its user by being on his machine, and so is his browser, which runs the programs of strangers.
"""

import ipaddress
import re
from functools import lru_cache
from typing import Final

from aiohttp import web

__all__ = ["check_origin", "is_local"]

_AUTHORITY: Final = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[^:/@\[\]]+))(?::[0-9]{0,5})?")
_OWN: Final = frozenset({"same-origin", "none"})  # a page of ours, or no page but the user himself


def check_origin(request: web.Request, *, is_change: bool) -> None:
    """Refuse what comes from another machine, or what a page of somebody else may have sent.

    A name of his that leads here (DNS rebinding) is seen in Host; his page in Origin and Sec-Fetch-Site, which no
    script can change. Programs that are no browsers send neither, and whatever Host they like: so it does not say where
    they are.

    Raises:
        web.HTTPMisdirectedRequest: It is for another host than this machine.
        web.HTTPForbidden: It comes from another machine, or from another origin.
    """
    if not _is_here(request.remote):
        raise web.HTTPForbidden(text="without a token, other machines are not answered")
    hosts = request.headers.getall("Host", [])
    if len(hosts) != 1 or not is_local(hosts[0]):
        raise web.HTTPMisdirectedRequest(
            text="Host: without a token there are only names of this machine, such as localhost"
        )
    for origin in request.headers.getall("Origin", []):
        if origin.lower() not in (f"http://{hosts[0].lower()}", f"https://{hosts[0].lower()}"):
            raise web.HTTPForbidden(text="Origin: without a token, pages of other origins are not answered")
    for site in request.headers.getall("Sec-Fetch-Site", []):
        # A page at another port of this machine is of the same site. What it asks for it cannot read.
        if site.lower() not in _OWN and (is_change or site.lower() != "same-site"):
            raise web.HTTPForbidden(text="Sec-Fetch-Site: without a token, pages of other origins are not answered")


@lru_cache(64)  # clients say the same each time; a stranger can make it forget, and no more
def is_local(authority: str) -> bool:
    """Whether a `HOST[:PORT]` is a name or an address of this machine for itself."""
    spelt = _AUTHORITY.fullmatch(authority)
    if spelt is None:
        return False
    name = (spelt["v6"] or spelt["name"]).lower()
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        name = name.removesuffix(".")
        return name == "localhost" or name.endswith(".localhost")


def _is_here(remote: str | None) -> bool:
    """Whether a client is on this machine: its address says so, or it has none, for it came through a file's socket."""
    if not remote:
        return True
    try:
        address = ipaddress.ip_address(remote)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
