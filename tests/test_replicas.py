"""Two services behind a real nginx with the shipped configuration are one, also while they are restarted."""

import json
from pathlib import Path
from typing import Any

from aiohttp import ClientSession

from tests.redis_server import RedisServer
from tests.replicas import AUTHORIZATION, Fleet, behind_nginx, restarted_under_load
from tests.site import Site
from tests.test_stop import Gate


async def test_a_restart_fails_no_request(redis_server: RedisServer, site: Site, tmp_path: Path) -> None:
    async with behind_nginx(tmp_path, redis_server.url) as fleet:
        await restarted_under_load(fleet, site, rounds=2)


async def submitted(fleet: Fleet, body: bytes, **headers: str) -> tuple[bytes, Any]:
    """The head of the answer to a batch, and the Task."""
    reply = await fleet.ask("POST", "/api/v1/tasks", body, Content_Type="application/json", **headers)
    assert reply.status in (200, 201), reply
    return reply.head, json.loads(reply.body)


async def test_nginx_lets_through_what_the_service_has(redis_server: RedisServer, site: Site, tmp_path: Path) -> None:
    gate = Gate(site)
    async with behind_nginx(tmp_path, redis_server.url) as fleet:
        batch = json.dumps({"urls": ["no url", site.url("/gate")]}).encode()
        head, task = await submitted(
            fleet, batch + b" " * 2_000_000, Idempotency_Key="once"
        )  # nginx's own limit is 1 MB
        assert b"201" in head
        head, again = await submitted(fleet, batch + b" " * 2_000_000, Idempotency_Key="once")
        assert (b"Idempotency-Replayed: true" in head, again["id"]) == (True, task["id"])

        port, trust = fleet.proxy
        async with (
            ClientSession(headers={"Authorization": AUTHORIZATION}) as session,
            session.get(f"https://localhost:{port}/api/v1/tasks/{task['id']}/events", ssl=trust) as events,
        ):
            async for line in events.content:
                if line.startswith(b"event: result"):  # it comes while the other one is still to come
                    break
            gate.is_open.set()
            assert (await events.text()).count("event: result") == 1

        assert (await fleet.ask("GET", "/metrics")).status == 404
        assert b"Strict-Transport-Security: " in head
