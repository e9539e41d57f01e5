"""Answers of a test site that wait until a test opens a gate."""

import asyncio
from typing import Final

from tests.support.exchange import Exchange
from tests.support.site import Site

__all__ = ["Gate"]

_OK: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class Gate:
    """Answers requests for a path of a site with 200 once `is_open` is set."""

    def __init__(self, site: Site, path: str = "/gate") -> None:
        self.is_open = asyncio.Event()
        site.on(path, self._answer)

    async def _answer(self, exchange: Exchange) -> None:
        await self.is_open.wait()
        await exchange.send(_OK)
