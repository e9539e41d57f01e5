"""Refuse requests that go round: a service whose target or webhook is a service."""

from typing import Final

from aiohttp import web

from crawler.core.errors import LoopDetected
from crawler.probing.settings import CDN_ID

__all__ = ["check_loop"]

_CDN_LOOP: Final = "CDN-Loop"


def check_loop(request: web.Request) -> None:
    """Refuse a request if one of its senders is a service, as `CDN-Loop` says (RFC 8586).

    Only for requests that make the service send others. A service may still read what another one shows.

    Raises:
        LoopDetected: A service has sent it.
    """
    senders = ",".join(request.headers.getall(_CDN_LOOP, [])).split(",")
    if any(sender.partition(";")[0].strip().lower() == CDN_ID for sender in senders):
        raise LoopDetected(f"{_CDN_LOOP}: a crawler service has sent this request, so it could go round for ever")
