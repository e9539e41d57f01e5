"""Run two services behind each proxy with the files of deploy/: they work as one, also while they restart."""

import asyncio
import json
from asyncio import StreamReader, StreamWriter
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from tests.support.gate import Gate
from tests.support.process import field
from tests.support.proxied_fleet import (
    AUTHORIZATION,
    ProxiedFleet,
    fleet_behind,
    make_certificate,
    restart_under_load,
    wait_for_proxy,
)
from tests.support.redis_server import RedisServer
from tests.support.shipped import PROXIES, run_proxy
from tests.support.site import Site


async def test_a_restart_fails_no_request(redis_server: RedisServer, site: Site, tmp_path: Path) -> None:
    async with fleet_behind("nginx", tmp_path, redis_server.url) as fleet:  # `make harden` has the others
        await restart_under_load(fleet, site, rounds=2)


async def submit(fleet: ProxiedFleet, body: bytes, **headers: str) -> tuple[bytes, Any]:
    """Submit a body, and return the head of the answer and the Task."""
    reply = await fleet.ask("POST", "/api/v1/tasks", body, Content_Type="application/json", **headers)
    assert reply.status in (200, 201), reply
    return reply.head, json.loads(reply.body)


@pytest.mark.parametrize("name", PROXIES)
async def test_a_proxy_passes_bodies_keys_and_events(
    name: str, redis_server: RedisServer, site: Site, tmp_path: Path
) -> None:
    gate = Gate(site)
    async with fleet_behind(name, tmp_path, redis_server.url) as fleet:
        batch = json.dumps({"urls": ["no url", site.url("/gate")]}).encode()
        head, task = await submit(fleet, batch + b" " * 2_000_000, Idempotency_Key="once")  # nginx's own limit is 1 MB
        assert b"201" in head
        head, again = await submit(fleet, batch + b" " * 2_000_000, Idempotency_Key="once")
        assert (b"Idempotency-Replayed: true" in head, again["id"]) == (True, task["id"])

        port, trust = fleet.proxy
        async with (
            ClientSession(headers={"Authorization": AUTHORIZATION}) as session,
            session.get(f"https://localhost:{port}/api/v1/tasks/{task['id']}/events", ssl=trust) as events,
        ):
            async for line in events.content:
                if line.startswith(b"event: result"):  # it arrives while the other result is pending
                    break
            gate.is_open.set()
            assert (await events.text()).count("event: result") == 1

        assert (await fleet.ask("GET", "/metrics")).status == 404


@pytest.mark.parametrize("name", ["nginx", "caddy"])
async def test_a_proxy_repeats_a_request_with_the_same_key(name: str, tmp_path: Path) -> None:
    heads: list[bytes] = []

    async def answer_every_second_request(reader: StreamReader, writer: StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        if len(heads) % 2 == 0:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    certificate, trust = make_certificate(tmp_path)
    async with (
        await asyncio.start_server(answer_every_second_request, "127.0.0.1", 0) as one,
        await asyncio.start_server(answer_every_second_request, "127.0.0.1", 0) as other,
    ):
        ports = [server.sockets[0].getsockname()[1] for server in (one, other)]
        with run_proxy(name, tmp_path, ports, certificate) as port:
            await wait_for_proxy(port, trust)
            heads.clear()
            async with ClientSession() as session:
                for headers in ({}, {"Idempotency-Key": "mine"}):
                    url = f"https://localhost:{port}/api/v1/tasks"
                    async with session.post(url, data=b"a", headers=headers, ssl=trust) as response:
                        assert response.status == 200
    first, again, *theirs = [field(head, b"idempotency-key") for head in heads]
    assert (first, theirs) == (again, [b"mine", b"mine"])
    assert len(first) >= 32
