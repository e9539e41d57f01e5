"""Connect to one of a host's addresses, by "happy eyeballs" (RFC 8305)."""

import asyncio
import errno
from typing import Final

from crawler.transport.connection import Connection
from crawler.transport.poller import Poller
from crawler.transport.timing import HopTimer

__all__ = ["connect_to_any"]

_ATTEMPT_DELAY_SECONDS: Final = 0.25  # RFC 8305, 5
# Failures after which the next address of the same family is tried.
_RETRYABLE_ERRNOS: Final = frozenset({errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH})


async def connect_to_any(
    addresses: list[str],
    port: int,
    poller: Poller,
    timer: HopTimer,
    deadline: float,
    attempt_delay: float = _ATTEMPT_DELAY_SECONDS,
) -> Connection:
    """Connect to the first address that answers. The next attempt starts after a failure or a short delay.

    Args:
        addresses: In the order to try them.
        port: Of all addresses.
        poller: Watches the sockets.
        timer: Gets the address of the connection; after a failure, the first address.
        deadline: Loop time, for all attempts together.
        attempt_delay: Seconds until the other family's address is tried as well.

    Raises:
        OSError: No address could be connected to; this is the first failure.
    """
    timer.ip = addresses[0]
    if len(addresses) == 1:
        return await Connection.open(addresses[0], port, poller, deadline)
    failures: list[BaseException] = []
    running: set[asyncio.Task[Connection]] = set()
    address_of: dict[asyncio.Task[Connection], str] = {}
    failed_families: set[bool] = set()  # IPv6 or not: an address of it failed in a way that the next would share
    try:
        for place, address in enumerate(addresses):
            if (":" in address) in failed_families:
                continue
            attempt = asyncio.ensure_future(Connection.open(address, port, poller, deadline))
            address_of[attempt] = address
            running.add(attempt)
            # The two families race. Another address of the same family is tried only when the others have failed.
            is_race = place == 0 and (":" in address) != (":" in addresses[1])
            delay = attempt_delay if is_race else None
            while running:
                done, running = await asyncio.wait(running, timeout=delay, return_when=asyncio.FIRST_COMPLETED)
                connected = [attempt for attempt in done if attempt.exception() is None]
                if connected:
                    running.update(connected[1:])
                    timer.ip = connected[0].result().ip
                    return connected[0].result()
                for attempt in done:
                    failure = attempt.exception()
                    assert failure is not None
                    failures.append(failure)
                    if getattr(failure, "errno", None) not in _RETRYABLE_ERRNOS:
                        failed_families.add(":" in address_of[attempt])
                if is_race:
                    break
        raise failures[0]
    finally:
        for attempt in running:
            attempt.add_done_callback(_close_unused)
            attempt.cancel()


def _close_unused(attempt: "asyncio.Task[Connection]") -> None:
    # A cancelled attempt ends at once, but it can have connected just before.
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()
