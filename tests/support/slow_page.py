"""A page that takes a moment, and that refuses some hosts at first."""

import asyncio
from collections import defaultdict

from tests.support.exchange import Exchange
from tests.support.site import Site

__all__ = ["SlowPage"]


class SlowPage:
    """The path /page of a site: it answers after 40 ms, and counts the requests of each host.

    Args:
        site: Serves it.
        refuse_seconds: Seconds for which a host refuses, from its first request on.
        status: The status of a refusal.

    Attributes:
        crowd: For each host and request, how many requests were in flight then.
        times: For each host and request, the loop time at which it came.
    """

    def __init__(self, site: Site, refuse_seconds: dict[str, float] | None = None, status: int = 429) -> None:
        self.crowd: dict[str, list[int]] = defaultdict(list)
        self.times: dict[str, list[float]] = defaultdict(list)
        self._active: dict[str, int] = defaultdict(int)
        self._refuse_seconds = refuse_seconds or {}
        self._status = status
        self._site = site
        site.on("/page", self._answer)

    def urls(self, host: str, count: int) -> list[str]:
        return [self._site.url(f"/page?{number}", host=host) for number in range(count)]

    async def _answer(self, x: Exchange) -> None:
        host = x.request.host.partition(":")[0]
        self._active[host] += 1
        self.crowd[host].append(self._active[host])
        self.times[host].append(asyncio.get_running_loop().time())
        try:
            is_refused = asyncio.get_running_loop().time() < self.times[host][0] + self._refuse_seconds.get(host, 0.0)
            await asyncio.sleep(0.04)
        finally:
            self._active[host] -= 1
        await x.reply(self._status if is_refused else 200)
