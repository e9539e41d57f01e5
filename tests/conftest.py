"""What every test may ask for. All run on uvloop, as the service does."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.support.certs import Authority
from tests.support.dns_server import DnsServer
from tests.support.loop_watchdog import no_hold, watched_loop
from tests.support.redis_server import RedisServer
from tests.support.site import Site

# How fast a busy machine draws examples says nothing of what they show.
settings.register_profile("any-machine", suppress_health_check=[HealthCheck.too_slow], deadline=None)
settings.load_profile("any-machine")


def pytest_asyncio_loop_factories(config: Any, item: Any) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": watched_loop}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run tests that may take long first, so that no process waits for another one at the end."""
    items.sort(key=lambda item: item.get_closest_marker("timeout") is None)


@pytest.fixture(scope="session", autouse=True)
def all_that_was_opened_is_closed() -> Iterator[None]:
    """Collect garbage at the end: an object that was never awaited or closed fails the last test.

    Without this, a worker process of pytest would end without a report of it.
    """
    yield
    gc.collect()


@pytest.fixture(autouse=True)
def nothing_holds_the_loop() -> Iterator[None]:
    """Fail a test in which the product holds the loop: see `tests.support.loop_watchdog`."""
    with no_hold():
        yield


@pytest.fixture(autouse=True)
def state_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each test its own state directory, where a service keeps its file by default."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "user-state"))


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with Site(host="0.0.0.0") as site:
        yield site


@pytest.fixture
async def names() -> AsyncIterator[DnsServer]:
    async with DnsServer() as names:
        yield names


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certs"))


@pytest.fixture(scope="session")
def redis_process() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis_server(redis_process: RedisServer) -> RedisServer:
    """An empty Redis, shared with the other tests. A test that stops a Redis starts its own."""
    redis_process.clear()
    return redis_process
