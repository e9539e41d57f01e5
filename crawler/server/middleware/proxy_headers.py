"""What a proxy before the service says of a request's client: heard from those that are trusted, and nobody else."""

import ipaddress
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

from aiohttp import hdrs, web

from crawler.core.errors import OptionError
from crawler.core.service_options import ServiceOptions

__all__ = ["ROOT_PATH", "ProxyHeaders", "prefix"]

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

ROOT_PATH: Final = web.RequestKey("ROOT_PATH", str)  # where a host that is not aiohttp has mounted the application

_SCHEMES: Final = frozenset({"http", "https"})


class ProxyHeaders:
    """Shows handlers the client's own address, scheme and host.

    Args:
        networks: Of the proxies, as CIDRs.

    Raises:
        OptionError: One is no network.
    """

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = [_network(text) for text in networks]

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Hand a request on, as the client sent it to the first trusted proxy."""
        if not self._networks or not self._is_trusted(request.remote):
            return await handler(request)
        seen: dict[str, Any] = {}
        addresses = _values(request, hdrs.X_FORWARDED_FOR)
        if addresses:
            # Each proxy adds who spoke to it. The last that is none of ours is the client; before that anything can be.
            strangers = [address for address in addresses if not self._is_trusted(address)]
            seen["remote"] = (strangers or addresses[:1])[-1]
        for scheme in _values(request, hdrs.X_FORWARDED_PROTO)[-1:]:
            if scheme.lower() in _SCHEMES:
                seen["scheme"] = scheme.lower()
        for host in _values(request, hdrs.X_FORWARDED_HOST)[-1:]:
            seen["host"] = host
        return await handler(request.clone(**seen) if seen else request)

    def _is_trusted(self, address: str | None) -> bool:
        try:
            found = ipaddress.ip_address(address or "")
        except ValueError:
            return False
        return any(found in network for network in self._networks)


def prefix(request: web.Request, service: ServiceOptions) -> str:
    """What was taken off from the front of the path: by a proxy, and then by a host that is not aiohttp."""
    return f"{service.prefix}{request.get(ROOT_PATH, '')}"


def _values(request: web.Request, name: str) -> list[str]:
    """The members of a list that may stand in several headers."""
    members = ",".join(request.headers.getall(name, [])).split(",")
    return [member for each in members if (member := each.strip())]


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        raise OptionError(f"{text!r} is not a network, as 10.0.0.0/8", "forwarded_allow") from None
