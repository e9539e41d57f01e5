"""Middleware that takes the client's address from the headers of trusted proxies."""

import ipaddress
from collections.abc import Iterable
from typing import Any, Final

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from crawler.core.errors import OptionError
from crawler.server.app_keys import SERVICE_OPTIONS

__all__ = ["ROOT_PATH", "ProxyHeaders", "path_prefix"]

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

ROOT_PATH: Final = web.RequestKey("ROOT_PATH", str)  # the path under which an ASGI host has mounted the application

_SCHEMES: Final = frozenset({"http", "https"})


class ProxyHeaders:
    """Shows handlers the client's own address, scheme and host.

    Args:
        networks: The networks of the trusted proxies, as CIDRs.

    Raises:
        OptionError: One is not a network.
    """

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = [_parse_network(text) for text in networks]

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Pass the request on as the client sent it to the first trusted proxy."""
        if not self._networks or not self._is_trusted(request.remote):
            return await handler(request)
        changes: dict[str, Any] = {}
        addresses = _values(request, hdrs.X_FORWARDED_FOR)
        if addresses:
            # Each proxy appends the address that spoke to it. The client is the last that is not a trusted proxy;
            # The client can have invented the entries before it.
            untrusted = [address for address in addresses if not self._is_trusted(address)]
            changes["remote"] = (untrusted or addresses[:1])[-1]
        for scheme in _values(request, hdrs.X_FORWARDED_PROTO)[-1:]:
            if scheme.lower() in _SCHEMES:
                changes["scheme"] = scheme.lower()
        for host in _values(request, hdrs.X_FORWARDED_HOST)[-1:]:
            changes["host"] = host
        return await handler(request.clone(**changes) if changes else request)

    def _is_trusted(self, text: str | None) -> bool:
        try:
            address = ipaddress.ip_address(text or "")
        except ValueError:
            return False
        return any(address in network for network in self._networks)


def path_prefix(request: web.Request) -> str:
    """Return the prefix of the path that a proxy or an ASGI host has removed."""
    return f"{request.app[SERVICE_OPTIONS].prefix}{request.get(ROOT_PATH, '')}"


def _values(request: web.Request, name: str) -> list[str]:
    """Return the members of a list, which may be spread over several headers."""
    members = ",".join(request.headers.getall(name, [])).split(",")
    return [member for each in members if (member := each.strip())]


def _parse_network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        raise OptionError(f"{text!r} is not a network, such as 10.0.0.0/8", "forwarded_allow") from None
