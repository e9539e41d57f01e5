"""Which address of a host is connected to, and when the next one is tried."""

import asyncio

from crawler.transport.dialling import connect_to_any
from crawler.transport.poller_choice import open_poller
from crawler.transport.timing import HopTimer
from tests.support.site import Site

DEADLINE_SECONDS = 20.0


async def connected_address(addresses: list[str], port: int, attempt_delay: float) -> str:
    """Connect to one of the addresses; return which."""
    poller, deadline = open_poller(), asyncio.get_running_loop().time() + DEADLINE_SECONDS
    try:
        connection = await connect_to_any(addresses, port, poller, HopTimer(), deadline, attempt_delay)
        connection.close()
    finally:
        poller.close()
    return connection.ip


async def test_after_a_refusal_the_next_attempt_does_not_wait_for_the_delay() -> None:
    async with Site() as site:
        assert await connected_address(["::1", "127.0.0.1"], site.port, 2 * DEADLINE_SECONDS) == "127.0.0.1"


async def test_a_silent_address_does_not_stop_the_other_family() -> None:
    async with Site(host="::1", on_accept="full") as silent, Site(port=silent.port) as site:
        assert await connected_address(["::1", "127.0.0.1"], site.port, 0.1) == "127.0.0.1"


async def test_the_second_address_of_a_family_is_tried_after_a_refusal_of_the_first() -> None:
    async with Site(host="127.0.0.3") as site:
        addresses = ["127.0.0.2", "127.0.0.3"]
        assert await connected_address(addresses, site.port, 2 * DEADLINE_SECONDS) == "127.0.0.3"
