"""The interface of a transport: one HTTP exchange per call."""

import asyncio
from collections.abc import Callable
from typing import Literal, Protocol

from crawler.core.results import HopResult
from crawler.core.urls import Url

__all__ = ["OnLate", "Transport"]


OnLate = Callable[[], "asyncio.Future[None] | None"]


class Transport(Protocol):
    """Sends single requests."""

    async def hop(
        self,
        method: str,
        url: Url,
        headers: list[tuple[str, str]],
        timeout: float,
        *,
        connect_timeout: float,
        answer_share: float = 1.0,
        is_fresh: bool = False,
        max_body_bytes: int = 0,
        content: bytes = b"",
        http_version: Literal["1", "2"] = "1",
        on_late: OnLate | None = None,
    ) -> HopResult:
        """Send one request and read the response head. A failure is the result's `error`, never an exception.

        Args:
            method: The request method.
            url: The URL; this call follows no redirect.
            headers: The request's fields besides Host and Content-Length.
            timeout: Seconds for the whole exchange.
            connect_timeout: Seconds for connecting, and the same again for the TLS handshake.
            answer_share: Share, above 0 and at most 1, of the time left after connecting in which the head comes.
            is_fresh: Whether to open a new connection even if the pool has one.
            max_body_bytes: How much of the body of a 2xx response to read; 0 reads none of it.
            content: The request's body.
            http_version: 1 for HTTP/1.1. 2 offers HTTP/2 and HTTP/1.1 to the server of an https URL, on a new
                connection; the server chooses.
            on_late: Called if it is not there by then. It may take all of the time in that case, unless the future
                that is returned is done before.
        """

    async def close(self) -> None:
        """Close every open connection."""
