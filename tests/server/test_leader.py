"""The leader's jobs go on after failures."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

import crawler
from crawler import MemoryRegistry, Options, ServiceOptions
from crawler.core.errors import StoreError
from crawler.core.tasks import Webhook
from crawler.server.app_keys import SETTINGS
from crawler.server.settings import ServerSettings
from crawler.worker import LocalEngine
from tests.support.app_client import manager_of, registry_of, serving, until_ended
from tests.support.site import Site

HASTY = ServerSettings(leader_retry_seconds=0.01)


class FailsAtFirst(MemoryRegistry):
    """A registry whose first two elections of a leader fail."""

    def __init__(self, fault: Exception) -> None:
        super().__init__()
        self._faults = [fault, fault]

    @asynccontextmanager
    async def leadership(self) -> AsyncIterator[asyncio.Event]:
        if self._faults:
            raise self._faults.pop()
        yield asyncio.Event()


@pytest.mark.parametrize("fault", [StoreError("away"), RuntimeError("ours")])
async def test_webhooks_are_sent_though_the_first_tries_failed(fault: Exception, site: Site) -> None:
    service = ServiceOptions(webhook_secret="whsec_" + 32 * "a", drain=0)
    app = crawler.create_app(Options(guard="any"), registry=FailsAtFirst(fault), service=service)
    app[SETTINGS] = HASTY
    async with serving(app) as client:
        webhook = Webhook(url=site.url("/ok"))
        task = await manager_of(client).submit([site.url("/count")], webhook=webhook)
        await until_ended(registry_of(client), task)
        await site.until(lambda: any(request.method == "POST" for request in site.requests))


async def test_stalled_tasks_are_queued_again_after_a_failed_search(monkeypatch: pytest.MonkeyPatch) -> None:
    faults, tended = [RuntimeError("ours")], asyncio.Event()

    async def requeue_stalled(_: LocalEngine) -> None:
        if faults:
            raise faults.pop()
        tended.set()

    monkeypatch.setattr(LocalEngine, "requeue_stalled", requeue_stalled)
    app = crawler.create_app(Options(guard="any"), registry=MemoryRegistry(), service=ServiceOptions(drain=0))
    app[SETTINGS] = HASTY
    async with serving(app), asyncio.timeout(10):
        await tended.wait()
