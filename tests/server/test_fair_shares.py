"""Fair shares: what one client, token or Task holds leaves something for the next one.

The shares are those of the dynamic threshold of Choudhury and Hahne (IEEE/ACM Transactions on Networking 6 (2), 1998):
with the factor 1 an owner may have as much as is free, so one owner gets half, and two get a third each.
"""

import asyncio
import json
import subprocess
import sys
from contextlib import AsyncExitStack, ExitStack

import pytest

from crawler import MemoryRegistry, ServiceOptions
from crawler.core.errors import Overloaded, QuotaExceeded
from crawler.core.tasks import Webhook
from crawler.server.app_keys import SINGLE_PROBES
from crawler.server.places import Places
from crawler.server.quotas import Quotas
from tests.support.api import ROOT, Api, serving_api
from tests.support.app_client import serving
from tests.support.metrics import sum_of
from tests.support.site import Site
from tests.support.tokens import ANN, BOB, bearer, open_guarded_app
from tests.support.webhook_receiver import NO_URL, SECRET, until_webhook

ALL = "0.0.0.0"
LONG = 3_000
"""Lines of a long list."""


@pytest.mark.parametrize("name", ["timeout", "connect_timeout"])
async def test_no_client_may_wait_longer_than_the_service_does(name: str) -> None:
    async with serving_api(MemoryRegistry(), timeout=2, connect_timeout=2) as api:
        body = json.dumps({"urls": ["no url"], "options": {name: 3600}})
        headers = {"Content-Type": "application/json"}
        await api.refuses("POST", "/tasks", 422, name, "at most 2", data=body, headers=headers)
        await api.refuses("GET", "/probe", 422, name, "at most 2", params={"url": "no url", name: 3600})
        await api.ask("GET", "/probe", params={"url": "no url", name: 1})


async def test_a_task_leaves_slots_for_the_next_one() -> None:
    async with Site(host=ALL) as site, serving_api(MemoryRegistry(), concurrency=34) as api:
        await api.submit([site.url("/hang", host=f"127.0.1.{number}") for number in range(1, 50)])
        await site.until(lambda: site.active == 32)  # 16 times as many as are free
        task = await api.ended([site.url("/ok")])
        assert task["counts"]["ok"] == 1
        assert site.active == 32


async def test_a_token_leaves_places_for_single_probes_of_others() -> None:
    async with Site(host=ALL) as site, serving(open_guarded_app()) as client, AsyncExitStack() as held:
        places, host = client.app[SINGLE_PROBES].places, f"{client.host}:{client.port}"
        for number in range(50):
            _, writer = await asyncio.open_connection(client.host, client.port)
            held.callback(writer.close)
            query = site.url("/hang", host=f"127.0.1.{number + 1}")
            writer.write(
                f"GET {ROOT}/probe?url={query} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {ANN}\r\n\r\n".encode()
            )
        await site.until(lambda: site.active == 50)
        for secret, status in ((ANN, 429), (BOB, 200)):
            async with client.get(f"{ROOT}/probe", params={"url": site.url("/ok")}, headers=bearer(secret)) as answer:
                assert answer.status == status, await answer.text()
        assert places.refused == 1
        async with client.get("/metrics", headers=bearer(ANN)) as answer:
            shown = await answer.text()
        assert 'crawler_places_in_use{resource="single probes"} 50.0\n' in shown
        assert 'crawler_places_refused_total{resource="single probes"} 1.0\n' in shown


async def test_a_probe_ends_when_its_client_leaves(site: Site) -> None:
    """Like nginx, whose log has 499 for such a request. Its own timeout would end it after ten minutes."""
    async with serving_api(MemoryRegistry(), timeout=600) as api:
        await leave(api, f"/probe?url={site.url('/hang')}", site)
        await site.until(lambda: not site.active)  # long before the timeout
        while api.app[SINGLE_PROBES].places.in_use:
            await api.get("/tasks")


async def leave(api: Api, path: str, site: Site) -> None:
    """Send a request, and disconnect as soon as the site is asked."""
    host, port = api.client.host, api.client.port
    _, writer = await asyncio.open_connection(host, port)
    writer.write(f"GET {ROOT}{path} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
    await site.until(lambda: site.active == 1)
    writer.close()


async def test_receivers_of_one_token_leave_webhooks_for_another() -> None:
    async with Site(host=ALL) as site, serving_api(MemoryRegistry()) as api:
        for number in range(1, 41):
            hook = Webhook(site.url("/hang", host=f"127.0.1.{number}"), SECRET)
            await api.manager.submit(NO_URL, webhook=hook, owner="ann")
        await site.until(lambda: site.active == 16)
        task = await api.manager.submit(NO_URL, webhook=Webhook(site.url("/ok"), SECRET), owner="bob")
        await until_webhook(api.registry, task.id, "delivered")
        assert site.active == 16
        assert await sum_of(api.client, "crawler_places_in_use", resource="webhooks") == 16


async def test_long_lists_wait_for_a_place() -> None:
    quotas = Quotas(MemoryRegistry(), ServiceOptions(), wait_seconds=0.01)
    quotas.long_lists.limit = 2
    with ExitStack() as held:
        await held.enter_context(quotas.reserve_task("ann"))(LONG, 0)
        with pytest.raises(QuotaExceeded, match="long lists of a token"), quotas.reserve_task("ann") as count_lines:
            await count_lines(LONG, 0)
        await held.enter_context(quotas.reserve_task("bob"))(0, 2**20)
        with pytest.raises(Overloaded, match="2 long lists"), quotas.reserve_task("cid") as count_lines:
            await count_lines(LONG, 0)
        with quotas.reserve_task("cid") as count_lines:
            await count_lines(10, 1000)  # short lists need no place
        assert (quotas.long_lists.in_use, quotas.long_lists.refused) == (2, 2)
    assert quotas.long_lists.in_use == 0


async def test_a_place_goes_to_the_client_that_has_waited_longest() -> None:
    places, order = Places("things", 1), []

    async def use(owner: str) -> None:
        await places.take(owner, 60)
        order.append(owner)
        places.release(owner)

    await places.take("first", 60)
    users = [asyncio.ensure_future(use(name)) for name in ("a", "b", "c")]
    await asyncio.sleep(0)
    users[1].cancel()  # its client leaves
    await asyncio.sleep(0)
    places.release("first")
    await asyncio.gather(*users, return_exceptions=True)
    assert order == ["a", "c"]
    assert places.in_use == 0


def test_descriptors_are_counted_for_all_that_uses_them() -> None:
    """64 probes take 128; 32 are for webhooks, and 32 for others: half of the 64 that are left are for lists."""
    program = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256));"
        "from crawler.runtime.resources import limit_clients, limit_long_lists;"
        "lists = limit_long_lists(32, 64); print(lists, limit_clients(1000, 64, lists))"
    )
    assert (
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "4 32\n"
    )
