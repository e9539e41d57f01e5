"""A slow DNS server is waited for, as the C library does: getaddrinfo keeps its socket open, and takes late answers."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiodns.error import ARES_ENODATA, ARES_ENOTFOUND, ARES_ESERVFAIL, ARES_ETIMEOUT, DNSError

from crawler.transport.dns.fallback_client import FallbackClient
from crawler.transport.dns.messages import Question
from tests.support.dns_server import DnsServer


@asynccontextmanager
async def fallback(*servers: DnsServer) -> AsyncIterator[FallbackClient]:
    client = FallbackClient([(server.host, server.port) for server in servers], 2**16)
    try:
        yield client
    finally:
        await client.close()


async def ask(client: FallbackClient, host: str, seconds: float = 20.0) -> list[str]:
    deadline = asyncio.get_running_loop().time() + seconds
    return (await client.ask(Question(host, socket.AF_INET), lambda: deadline)).addresses


async def status(client: FallbackClient, host: str, seconds: float = 20.0) -> int:
    with pytest.raises(DNSError) as failure:
        await ask(client, host, seconds)
    return int(failure.value.args[0])


async def test_many_questions_share_a_socket(names: DnsServer) -> None:
    for number in range(50):
        names.a(f"{number}.test", f"127.0.1.{number}")
    async with fallback(names) as client:
        found = await asyncio.gather(*(ask(client, f"{number}.test") for number in range(50)))
    assert found == [[f"127.0.1.{number}"] for number in range(50)]
    assert len(names.queries) == 50


async def test_a_long_answer_comes_over_tcp(names: DnsServer) -> None:
    """RFC 7766, 5: TCP is required, and a truncated answer is asked for again over it."""
    names.a("long.test", *(f"127.0.0.{number}" for number in range(1, 100)))
    names.truncated("long.test")
    async with fallback(names) as client:
        assert len(await ask(client, "long.test")) == 99
    assert len(names.queries) == 2


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("nxdomain", ARES_ENOTFOUND), ("no_data", ARES_ENODATA), ("servfail", ARES_ESERVFAIL)],
)
async def test_a_failure_ends_the_wait(rule: str, expected: int, names: DnsServer) -> None:
    getattr(names, rule)("bad.test")
    async with fallback(names) as client:
        assert await status(client, "bad.test") == expected


@pytest.mark.parametrize("how", ["name", "id"])
async def test_a_forged_answer_is_ignored(how: str, names: DnsServer) -> None:
    names.forged("good.test", how)  # type: ignore[arg-type]
    async with fallback(names) as client:
        assert await status(client, "good.test", 0.3) == ARES_ETIMEOUT


@pytest.mark.parametrize("rule", ["servfail", "refused", "silent"])
async def test_a_server_that_fails_leaves_the_answer_to_the_other(rule: str, names: DnsServer) -> None:
    names.a("good.test", "127.0.0.9")
    names.delay("good.test", 0.1)
    async with DnsServer() as other:
        getattr(other, rule)("good.test")
        async with fallback(other, names) as client:
            assert await ask(client, "good.test") == ["127.0.0.9"]


async def test_all_servers_have_to_fail(names: DnsServer) -> None:
    names.servfail("bad.test")
    async with DnsServer() as other:
        other.servfail("bad.test")
        async with fallback(other, names) as client:
            assert await status(client, "bad.test") == ARES_ESERVFAIL


async def test_what_a_server_said_outweighs_the_silence_of_another(names: DnsServer) -> None:
    names.servfail("bad.test")
    async with DnsServer() as other:
        other.silent("bad.test")
        async with fallback(other, names) as client:
            assert await status(client, "bad.test", 0.3) == ARES_ESERVFAIL


async def test_a_server_that_refuses_now_is_asked_again() -> None:
    async with DnsServer() as names:
        port = names.port
    client = FallbackClient([("127.0.0.1", port)], 2**16)
    asking = asyncio.ensure_future(ask(client, "good.test"))
    await asyncio.sleep(0.1)  # the first query is refused
    async with DnsServer(port=port) as names:
        names.a("good.test", "127.0.0.9")
        assert await asking == ["127.0.0.9"]
    await client.close()


async def test_the_deadline_may_move(names: DnsServer) -> None:
    names.a("slow.test", "127.0.0.9")
    names.delay("slow.test", 0.5)
    loop = asyncio.get_running_loop()
    deadlines = [loop.time() + 0.1]
    async with fallback(names) as client:
        asking = asyncio.ensure_future(client.ask(Question("slow.test", socket.AF_INET), lambda: deadlines[-1]))
        await asyncio.sleep(0)
        deadlines.append(loop.time() + 20)
        assert (await asking).addresses == ["127.0.0.9"]
