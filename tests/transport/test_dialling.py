"""Which address of a host is connected to, when the next one is tried, and what is remembered (RFC 8305, 4 and 5)."""

import asyncio
import errno
import socket
from contextlib import suppress

import pytest

from crawler.transport.sockets.address_order import AddressOrder
from crawler.transport.sockets.dialling import connect_to_any
from crawler.transport.sockets.poller_choice import open_poller
from crawler.transport.timing import HopTimer
from tests.support.probing import probe_one
from tests.support.site import Site

DEADLINE_SECONDS = 20.0


async def connected_address(
    addresses: list[str],
    port: int,
    attempt_delay: float,
    order: AddressOrder | None = None,
    seconds: float = DEADLINE_SECONDS,
) -> str:
    """Connect to one of the addresses; return which."""
    poller, deadline = open_poller(), asyncio.get_running_loop().time() + seconds
    order = order or AddressOrder()
    try:
        connection = await connect_to_any(addresses, port, poller, HopTimer(), deadline, order, attempt_delay)
        connection.close()
    finally:
        poller.close()
    assert connection.ip is not None
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


async def test_a_silent_address_is_left_for_the_next_of_its_family_after_the_attempt_delay() -> None:
    """RFC 8305, 5: connection attempts over the whole list, each 250 ms after the one before."""
    loop = asyncio.get_running_loop()
    async with (
        Site(host="127.0.0.2", on_accept="full") as silent,
        Site(host="127.0.0.3", port=silent.port, on_accept="full"),
        Site(host="127.0.0.4", port=silent.port),
    ):
        started = loop.time()
        addresses = ["127.0.0.2", "127.0.0.3", "127.0.0.4"]
        assert await connected_address(addresses, silent.port, 0.1) == "127.0.0.4"
        assert 0.19 < loop.time() - started < DEADLINE_SECONDS / 2


async def test_an_address_that_was_silent_is_not_taken_first_again() -> None:
    """RFC 8305, 5: a client that keeps track of which addresses it used "SHOULD" prefer those."""
    order = AddressOrder()
    addresses = ["127.0.0.2", "127.0.0.3"]
    async with Site(host="127.0.0.2", on_accept="full") as silent, Site(host="127.0.0.3", port=silent.port) as site:
        assert await connected_address(addresses, site.port, 0.1, order) == "127.0.0.3"
        assert order.select(addresses, site.port) == ["127.0.0.3", "127.0.0.2"]
        assert order.select(addresses, site.port + 1) == addresses


async def test_a_failure_of_the_host_outweighs_a_family_that_this_machine_lacks() -> None:
    """curl says "Connection refused" for such a host: the route that is missing is not the host's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(OSError, match="refused") as failure:
        await connected_address(["2001:db8::1", "127.0.0.1"], port, 0.1, seconds=1)
    assert failure.value.errno == errno.ECONNREFUSED


async def test_a_reset_is_an_answer_of_the_host_and_other_addresses_are_left_alone() -> None:
    order = AddressOrder()
    addresses = [f"127.0.0.{number}" for number in range(2, 6)]
    async with Site(host="0.0.0.0", on_accept="reset") as dead:
        with suppress(ConnectionResetError):  # the reset may come before or after the connection is seen
            await connected_address(addresses, dead.port, 2 * DEADLINE_SECONDS, order)
        assert dead.connections == 1


# --- The order of addresses ---


async def test_families_alternate_and_ipv6_begins() -> None:
    """RFC 8305, 4: "the first address family ... followed by ... the second", one of each in turn."""
    addresses = ["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2", "2001:db8::3"]
    assert AddressOrder().select(addresses, 80) == ["2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2"]


async def test_a_retry_goes_on_with_the_next_addresses() -> None:
    order = AddressOrder()
    addresses = [f"192.0.2.{number}" for number in range(10)]
    tried = []
    for _ in range(5):
        selected = order.select(addresses, 80)
        tried.append(selected)
        for address in selected:
            order.failed(address, 80)
    assert tried[0] + tried[1] + tried[2][:2] == addresses
    assert tried[2][2:] == addresses[:2]  # those whose failure is oldest
    assert order.select(addresses, 443) == addresses[:4]


async def test_a_failure_is_forgotten_after_a_success_and_with_time() -> None:
    order = AddressOrder(memory_seconds=0.05)
    addresses = ["192.0.2.1", "192.0.2.2"]
    order.failed("192.0.2.1", 80)
    order.connected("192.0.2.1", 80)
    assert order.select(addresses, 80) == addresses
    order.failed("192.0.2.1", 80)
    assert order.select(addresses, 80) == addresses[::-1]
    async with asyncio.timeout(5):
        while order.select(addresses, 80) != addresses:  # noqa: ASYNC110 - time passes, and nothing else happens
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("host", "kind"),
    [("224.0.0.1", "multicast"), ("239.255.255.250", "multicast"), ("[ff02::1]", "multicast"),
     ("[ff0e::1]", "multicast"), ("255.255.255.255", "broadcast"), ("127.255.255.255", "broadcast")],
)  # fmt: skip
async def test_an_address_that_is_no_hosts_is_the_targets_fault_at_once(host: str, kind: str) -> None:
    """Chromium: ERR_ADDRESS_UNREACHABLE at once; curl: exit code 7 after 0 ms."""
    result = await probe_one(f"http://{host}/", retries=3)
    assert result.error is not None
    assert (result.error.type, result.error.transient, result.attempts) == ("tcp.address_unreachable", False, 1)
    assert f"is a {kind} address" in result.error.message


@pytest.mark.parametrize(
    ("options", "url", "reason"),
    [
        ({"ipv4": True}, "http://[::1]:{port}/", "::1 is an IPv6 address, and the options allow IPv4 only"),
        ({"ipv6": True}, "http://127.0.0.1:{port}/", "127.0.0.1 is an IPv4 address, and the options allow IPv6 only"),
        ({"ipv4": True, "resolve": ["a.test:{port}:::1"]}, "http://a.test:{port}/", "allow IPv4 only"),
    ],
)
async def test_an_address_of_an_excluded_family_is_not_dialled(
    options: dict[str, object], url: str, reason: str
) -> None:
    """wget -4 and -6 refuse such a URL too ("Address family for hostname not supported")."""
    async with Site(host="::1") as six, Site(port=six.port) as four:
        if "resolve" in options:
            options = {**options, "resolve": [f"a.test:{six.port}:::1"]}
        result = await probe_one(url.format(port=six.port), **options)
        assert (six.connections, four.connections) == (0, 0)
    assert result.error is not None
    assert (result.error.type, result.attempts) == ("dns.name_not_resolved", 1)
    assert reason in result.error.message
