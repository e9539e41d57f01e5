"""The pollers tell when a socket can be read or written, on every event loop and selector of this machine."""

import asyncio
import selectors
import socket
from collections.abc import Callable, Coroutine

import pytest
import uvloop

from crawler.transport.sockets.connection import Connection
from crawler.transport.sockets.loop_poller import LoopPoller
from crawler.transport.sockets.poller import Poller
from crawler.transport.sockets.poller_choice import open_poller
from tests.support.certs import Authority
from tests.support.probing import probe_all
from tests.support.site import Site

DEADLINE_SECONDS = 20.0
"""Seconds within which everything on loopback happens, however busy the machine is."""

SELECTORS = ["SelectSelector", "PollSelector", "EpollSelector", "KqueueSelector"]
LOOPS = ["uvloop", *(name for name in SELECTORS if hasattr(selectors, name))]
Run = Callable[[Coroutine[object, object, None]], None]


def new_event_loop(name: str) -> asyncio.AbstractEventLoop:
    return uvloop.new_event_loop() if name == "uvloop" else asyncio.SelectorEventLoop(getattr(selectors, name)())


@pytest.fixture(params=LOOPS)
def run_on_loop(request: pytest.FixtureRequest, poller_kind: None) -> Run:
    """Run a coroutine on one of the loops."""

    def run(coroutine: Coroutine[object, object, None]) -> None:
        with asyncio.Runner(loop_factory=lambda: new_event_loop(request.param)) as runner:
            runner.run(coroutine)

    return run


def test_probes_end_as_they_should(run_on_loop: Run, authority: Authority) -> None:
    async def probe() -> None:
        async with Site() as http, Site(tls=authority.good()) as https:
            urls = [site.url(f"/ok?{number}") for number in range(20) for site in (http, https)]
            urls += [http.url("/reset"), https.url("/close"), http.url("/redirect/3"), http.url("/endless-body")]
            results = await probe_all(urls, cafile=str(authority.cafile), retries=0, timeout=DEADLINE_SECONDS)
        types = [result.error and result.error.type for result in results]
        assert types == [None] * 40 + ["tcp.reset", "tcp.closed", None, None]

    run_on_loop(probe())


def test_bytes_that_come_later_are_received(run_on_loop: Run) -> None:
    async def receive() -> None:
        loop, poller = asyncio.get_running_loop(), open_poller()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            deadline = loop.time() + DEADLINE_SECONDS
            connection = await Connection.open("127.0.0.1", listener.getsockname()[1], poller, deadline)
            peer, _ = listener.accept()
            with peer:
                for data in (b"one", b"two"):
                    receiving = asyncio.ensure_future(connection.receive(deadline))
                    await asyncio.sleep(0.01)
                    assert not receiving.done()
                    peer.send(data)
                    assert await receiving == data
                with pytest.raises(TimeoutError):
                    await connection.receive(loop.time() + 0.05)
            assert await connection.receive(deadline) == b""
            connection.close()
        poller.close()

    run_on_loop(receive())


def test_sending_waits_for_a_slow_reader(run_on_loop: Run) -> None:
    async def send() -> None:
        loop, poller = asyncio.get_running_loop(), open_poller()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            deadline = loop.time() + DEADLINE_SECONDS
            connection = await Connection.open("127.0.0.1", listener.getsockname()[1], poller, deadline)
            peer, _ = listener.accept()
            with peer:
                peer.setblocking(False)
                data = b"x" * 20_000_000  # more than the buffers of both sockets
                sending = asyncio.ensure_future(connection.send(data, deadline))
                await asyncio.sleep(0.01)
                assert not sending.done()
                received = 0
                while received < len(data):
                    received += len(await loop.sock_recv(peer, 1 << 20))
                await sending
            connection.close()
        poller.close()

    run_on_loop(send())


async def test_a_descriptor_that_is_used_again_is_watched_for_its_new_socket() -> None:
    """The old socket's wait ends after its descriptor has passed to another socket, and must not unwatch that one."""
    poller: Poller = LoopPoller()
    loop = asyncio.get_running_loop()
    deadline = loop.time() + DEADLINE_SECONDS
    old, old_peer = socket.socketpair()
    readiness = poller.watch(old.fileno())
    waiting = asyncio.ensure_future(readiness.until_readable(deadline))
    await asyncio.sleep(0)
    descriptor = old.fileno()
    poller.forget(descriptor, readiness)
    old.close()
    new, new_peer = socket.socketpair()
    assert descriptor in (new.fileno(), new_peer.fileno())
    if new.fileno() != descriptor:
        new, new_peer = new_peer, new
    new_readiness = poller.watch(descriptor)
    new_waiting = asyncio.ensure_future(new_readiness.until_readable(deadline))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting})
    new_peer.send(b"x")
    await new_waiting
    poller.forget(descriptor, new_readiness)
    poller.close()
    for sock in (old_peer, new, new_peer):
        sock.close()
