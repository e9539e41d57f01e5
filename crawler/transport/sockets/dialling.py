"""Connect to one of a host's addresses, by "happy eyeballs" (RFC 8305)."""

import asyncio
import errno
from typing import Final

from crawler.transport.sockets.address_order import AddressOrder
from crawler.transport.sockets.connection import Connection
from crawler.transport.sockets.poller import Poller
from crawler.transport.timing import HopTimer

__all__ = ["connect_to_any"]

_ATTEMPT_DELAY_SECONDS: Final = 0.25  # RFC 8305, 5
# Failures that another address would not avoid: the host has answered, or this machine is short of something.
_FINAL_ERRNOS: Final = frozenset(
    {errno.ECONNRESET, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL}
)
_NOT_THE_TARGETS: Final = frozenset({errno.ENETDOWN})  # no route for the address's family


async def connect_to_any(
    addresses: list[str],
    port: int,
    poller: Poller,
    timer: HopTimer,
    deadline: float,
    order: AddressOrder,
    attempt_delay: float = _ATTEMPT_DELAY_SECONDS,
) -> Connection:
    """Connect to the first address that answers. The next attempt starts after a failure or a short delay.

    Args:
        addresses: In the order to try them.
        port: Of all addresses.
        poller: Watches the sockets.
        timer: Gets the address of the connection; after a failure, that of the failure.
        deadline: For all attempts together.
        order: Learns which addresses answer.
        attempt_delay: Seconds until the next address is tried as well.

    Raises:
        OSError: No address could be connected to; this is the first failure that is the host's.
    """
    timer.ip = addresses[0]
    if len(addresses) == 1:
        return await Connection.open(addresses[0], port, poller, deadline)
    attempts: dict[asyncio.Task[Connection], str] = {}  # those that run
    failures: dict[str, OSError] = {}
    waiting = list(reversed(addresses))
    try:
        while waiting or attempts:
            if waiting:
                address = waiting.pop()
                attempts[asyncio.ensure_future(Connection.open(address, port, poller, deadline))] = address
            delay = attempt_delay if waiting else None
            done, _ = await asyncio.wait(attempts, timeout=delay, return_when=asyncio.FIRST_COMPLETED)
            for attempt in sorted(done, key=list(attempts).index):
                failure = attempt.exception()
                if failure is None:
                    timer.ip = attempts.pop(attempt)
                    order.connected(timer.ip, port)
                    for slower, address in attempts.items():
                        if not slower.done():
                            order.failed(address, port)
                    return attempt.result()
                address = attempts.pop(attempt)
                if not isinstance(failure, OSError):
                    raise failure
                failures[address] = failure
                order.failed(address, port)
                if failure.errno in _FINAL_ERRNOS:
                    waiting.clear()
        timer.ip, failure = _main_failure(failures)
        raise failure
    finally:
        for attempt in attempts:
            attempt.add_done_callback(_close_unused)
            attempt.cancel()


def _main_failure(failures: dict[str, OSError]) -> tuple[str, OSError]:
    """Return the first failure that the host is to blame for, with its address."""
    of_host = (item for item in failures.items() if item[1].errno not in _NOT_THE_TARGETS)
    return next(of_host, next(iter(failures.items())))


def _close_unused(attempt: "asyncio.Task[Connection]") -> None:
    # A cancelled attempt ends at once, but it can have connected just before.
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()
