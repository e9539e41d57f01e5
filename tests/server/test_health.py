"""Health checks: whether the service answers, and whether it can do its work."""

import asyncio
import os
import sqlite3
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

import crawler
from crawler import MemoryRegistry, Options, ProbeResult, Registry, ServiceOptions
from crawler.core.errors import StoreDamaged
from crawler.runtime.loop_lag import LoopLag
from crawler.server.api.openapi import DOCUMENT
from crawler.server.app_keys import TASK_MANAGER
from crawler.stores.sqlite.registry import SqliteRegistry
from crawler.transport.dns.resolver import has_dns_servers
from tests.support.app_client import Client, check_problem, serving
from tests.support.described import check_described
from tests.support.health import find_store_fault, open_health
from tests.support.isolated_process import can_unshare, run_and_read

PATHS = pytest.mark.parametrize("path", ["/healthz", "/readyz"])


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[SqliteRegistry]:
    async with SqliteRegistry(tmp_path / "tasks.db") as registry:
        yield registry


async def all_on_disk(registry: Registry, path: Path) -> None:
    """Move everything from the write-ahead log into the file."""
    await registry.stored_bytes()  # waits for the background work of the store
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    connection.close()


# --- Access to the health checks ---


@PATHS
@pytest.mark.parametrize("headers", [{"Host": "192.0.2.7:7777"}, {"Host": ""}, {"Origin": "http://example.org"}])
async def test_health_checks_answer_every_host_name(headers: dict[str, str], path: str) -> None:
    async with (
        serving(crawler.create_app(Options(dns=("127.0.0.1",)), only_local=True)) as client,
        client.get(path, headers=headers) as response,
    ):
        assert response.status == 200


@PATHS
async def test_no_token_is_needed(path: str) -> None:
    app = crawler.create_app(Options(dns=("127.0.0.1",)), service=ServiceOptions(tokens=("secret",)))
    async with serving(app) as client, client.get(path) as response:
        assert response.status == 200


@PATHS
async def test_it_is_below_the_mount(path: str) -> None:
    root = web.Application()
    app = crawler.create_app(Options(dns=("127.0.0.1",)), service=ServiceOptions(tokens=("secret",)))
    root.add_subapp("/crawler", app)
    async with serving(root) as client, client.get(f"/crawler{path}") as response:
        assert response.status == 200


async def test_metrics_need_a_token_or_this_machine() -> None:
    async with serving(crawler.create_app(only_local=True)) as client:
        async with client.get("/metrics", headers={"Host": "192.0.2.7"}) as response:
            await check_problem(response, 421)
        async with client.get("/metrics") as response:
            assert response.status == 200
    app = crawler.create_app(service=ServiceOptions(tokens=("prometheus:read:secret",)))
    async with serving(app) as client:
        async with client.get("/metrics") as response:
            await check_problem(response, 401)
        async with client.get("/metrics", headers={"Authorization": "Bearer secret"}) as response:
            assert response.status == 200


# --- The answers ---


async def readiness(client: Client) -> tuple[int, Any]:
    async with client.get("/readyz") as response:
        assert client.app is not None
        check_described(client.app, "GET", response)
        assert response.headers["Cache-Control"] == "no-store"
        return response.status, await response.json(content_type=None)


async def test_a_service_that_works_is_ready() -> None:
    async with serving(crawler.create_app(Options(dns=("127.0.0.1",)))) as client:
        checks = dict.fromkeys(("store", "resolver", "loop", "prober", "service"), "ok")
        assert await readiness(client) == (200, {"ready": True, "checks": checks})


async def test_the_document_shows_the_answer_of_a_service_that_is_not_ready() -> None:
    document = crawler.create_app()[DOCUMENT].content
    content = document["paths"]["/readyz"]["get"]["responses"]["503"]["content"]
    assert content["application/problem+json"]["schema"] == {"$ref": "#/components/schemas/Unready"}
    assert document["components"]["schemas"]["Unready"]["required"][-2:] == ["ready", "checks"]


async def test_a_service_that_is_stopping_is_not_ready_but_healthy() -> None:
    async with serving(crawler.create_app(Options(dns=("127.0.0.1",)))) as client:
        assert client.app is not None
        assert (await readiness(client))[0] == 200
        client.app[TASK_MANAGER].stop()
        status, problem = await readiness(client)
        assert (status, problem["status"], problem["ready"]) == (503, 503, False)
        assert problem["detail"] == "service: is stopping"
        assert problem["checks"] == {
            "store": "ok",
            "resolver": "ok",
            "loop": "ok",
            "prober": "ok",
            "service": "is stopping",
        }
        async with client.get("/healthz") as response:
            assert (response.status, await response.json()) == (200, {"healthy": True})


async def test_the_answer_does_not_reveal_the_path_of_the_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "tasks.db"
    async with serving(crawler.create_app(registry=SqliteRegistry(path))) as client:
        path.unlink()
        status, problem = await readiness(client)
        assert (status, problem["checks"]["store"]) == (503, "was removed or replaced while in use")
        assert str(tmp_path) not in str(problem)
    assert str(path) in caplog.text
    assert not path.exists(), "nothing is made in its place"


# --- The store ---


async def test_a_store_in_memory_is_ok() -> None:
    assert await find_store_fault(MemoryRegistry()) is None


async def test_a_file_is_ok_before_and_after_it_is_used(registry: SqliteRegistry) -> None:
    assert await find_store_fault(registry) is None
    await registry.submit([f"http://a/{number}" for number in range(5_000)], Options())
    assert await find_store_fault(registry) is None


async def test_a_file_that_became_something_else_is_damaged(registry: SqliteRegistry, tmp_path: Path) -> None:
    await all_on_disk(registry, tmp_path / "tasks.db")
    with (tmp_path / "tasks.db").open("r+b") as file:
        file.write(b"no database")
    assert await find_store_fault(registry) == "is damaged"


async def test_a_file_is_damaged_after_a_failed_read(registry: SqliteRegistry, tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    urls = [f"http://a/{number}" for number in range(3_000)]
    task = await registry.submit(urls, Options())
    found = [ProbeResult(seq=seq, url=url, timestamp=1, outcome="ok") for seq, url in enumerate(urls)]
    await registry.record(task.id, found)
    await all_on_disk(registry, path)
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))  # everything but the first page
    with pytest.raises(StoreDamaged):
        [result async for result in registry.results(task.id)]
    assert await find_store_fault(registry) == "is damaged"


FULL = """
import asyncio, os, sys, uvloop
from pathlib import Path
from crawler import Options
from crawler.stores.sqlite.registry import SqliteRegistry
from tests.support.health import find_store_fault

async def main():
    folder = Path(sys.argv[1])
    async with SqliteRegistry(folder / "tasks.db") as registry:
        assert await find_store_fault(registry) is None
        with open(folder / "ballast", "wb", buffering=0) as ballast:
            try:
                while True:
                    ballast.write(bytes(4096))
            except OSError:
                pass
        assert await find_store_fault(registry) == "has no space left"
        os.truncate(folder / "ballast", os.stat(folder / "ballast").st_size - 2**19)
        assert await find_store_fault(registry) == "has no space left", "what is left is not enough"
        (folder / "ballast").unlink()
        assert await find_store_fault(registry) is None
    print('"as it should be"')

uvloop.run(main())
"""
NO_QUOTA = """
import asyncio, resource, sys, uvloop
from pathlib import Path
from crawler.stores.sqlite.registry import SqliteRegistry
from tests.support.health import find_store_fault

async def main():
    path = Path(sys.argv[1], "tasks.db")
    async with SqliteRegistry(path) as registry:
        for _ in range(10):
            assert await find_store_fault(registry) is None
        size = Path(f"{path}-wal").stat().st_size
        assert size > 2**15, "or other files would be too long first"
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        assert await find_store_fault(registry) in ("cannot be written to", "has no space left")
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert await find_store_fault(registry) is None
    print('"as it should be"')

uvloop.run(main())
"""
READ_ONLY = """
import asyncio, os, sys, uvloop
from pathlib import Path
from crawler.stores.sqlite.registry import SqliteRegistry
from tests.support.health import find_store_fault

async def main():
    async with SqliteRegistry(Path(sys.argv[1], "tasks.db")) as registry:
        assert await find_store_fault(registry) is None
        assert os.system('mount --bind "$1" "$1" && mount -o remount,bind,ro "$1"'.replace("$1", sys.argv[1])) == 0
        assert await find_store_fault(registry) == "cannot be written to"
        assert os.system('mount -o remount,bind,rw "$1"'.replace("$1", sys.argv[1])) == 0
        assert await find_store_fault(registry) is None
    print('"as it should be"')

uvloop.run(main())
"""


@pytest.mark.skipif(not can_unshare(), reason="needs `unshare --mount`")
@pytest.mark.parametrize(
    "program",
    [
        pytest.param(FULL, id="full"),
        pytest.param(NO_QUOTA, id="no bytes allowed"),
        pytest.param(READ_ONLY, id="read-only"),
    ],
)
async def test_a_fault_of_the_disk_is_reported_until_it_has_passed(program: str, tmp_path: Path) -> None:
    script = 'mount -t tmpfs -o size=4m none "$1" && exec "$2" -c "$3" "$1"'
    command = ["unshare", "-rm", "sh", "-c", script, "sh", str(tmp_path), sys.executable, program]
    code, out, err = await run_and_read(command, [])
    assert (code, out) == (0, ["as it should be"]), err


class Slow(MemoryRegistry):
    """A registry that answers when the test allows it."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.asked = 0

    async def check_writable(self) -> None:
        self.asked += 1
        await self.gate.wait()


async def test_a_store_that_does_not_answer_is_waited_for_once() -> None:
    registry = Slow()
    async with open_health(registry, timeout_seconds=0.01, cache_seconds=0.0) as health:
        for _ in range(3):
            assert (await health.find_faults())["store"] == "does not answer"
            await asyncio.sleep(0.01)
        assert registry.asked == 1


async def test_checks_at_the_same_time_share_one_answer() -> None:
    registry = Slow()
    async with open_health(registry) as health:
        asking = [asyncio.ensure_future(health.find_faults()) for _ in range(100)]
        await asyncio.sleep(0)
        registry.gate.set()
        assert {answer["store"] for answer in await asyncio.gather(*asking)} == {None}
        assert (await health.find_faults())["store"] is None
        assert registry.asked == 1


async def test_an_answer_is_not_cached_for_ever() -> None:
    registry = Slow()
    registry.gate.set()
    async with open_health(registry, cache_seconds=0.0) as health:
        await health.find_faults()
        await asyncio.sleep(0.01)
        await health.find_faults()
        assert registry.asked == 2


async def test_a_cancelled_check_does_not_cancel_the_check_of_others() -> None:
    registry = Slow()
    async with open_health(registry) as health:
        first, second = (asyncio.ensure_future(health.find_faults()) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        registry.gate.set()
        assert (await second)["store"] is None


# --- The rest ---


@pytest.mark.parametrize(
    ("other", "name"),
    [
        ({"has_resolver": lambda: False}, "resolver"),
        ({"lag": lambda: 10.0}, "loop"),
        ({"is_stopping": lambda: True}, "service"),
    ],
)
async def test_each_part_has_its_own_fault(other: dict[str, Any], name: str) -> None:
    async with open_health(MemoryRegistry(), **other) as health:
        faults = await health.find_faults()
    assert [part for part, fault in faults.items() if fault is not None] == [name]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("nameserver 192.0.2.1\n", True),
        ("search a\n nameserver\t::1 # ours\n", True),
        ("# nameserver 192.0.2.1\nsearch nameserver\n", False),
        ("", False),
        (None, False),
    ],
)
def test_the_resolver_check_needs_a_configured_dns_server(content: str | None, expected: bool, tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    if content is not None:
        path.write_text(content)
    assert has_dns_servers(Options(), path) is expected
    assert has_dns_servers(Options(dns=("192.0.2.1",)), path)


async def test_a_blocked_event_loop_is_reported() -> None:
    async with LoopLag(every=0.01) as lag:
        await asyncio.sleep(0.03)
        os.system("sleep 0.2")  # noqa: ASYNC221 - which is what must not be done
        await asyncio.sleep(0.03)
        assert lag.worst > 0.1
        assert lag.seconds.sum >= lag.worst
