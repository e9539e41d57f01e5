"""A service that stops and starts again continues its Tasks where they stopped."""

from pathlib import Path

from aiohttp import web

import crawler
from crawler import Options, ServiceOptions
from crawler.core.task_options import apply_task_options
from crawler.server.app_keys import OPTIONS
from crawler.stores.sqlite.registry import SqliteRegistry
from tests.support.app_client import manager_of, registry_of, serving, until_done, until_ended
from tests.support.site import Site


def on(path: Path, **options: object) -> web.Application:
    probing = Options(guard="any", **options)  # type: ignore[arg-type]
    return crawler.create_app(probing, registry=SqliteRegistry(path), service=ServiceOptions(drain=0))


async def test_a_task_continues_after_a_restart_and_probes_nothing_again(site: Site, tmp_path: Path) -> None:
    urls = [site.url(f"/ok?{number}") for number in range(100)]
    slow = [site.url(f"/hang?{number}", host="127.0.0.2") for number in range(20)]
    async with serving(on(tmp_path / "tasks.db")) as client:
        task = await manager_of(client).submit([*urls, *slow])
        await until_done(registry_of(client), task, 100)
        assert task.status == "running"
    before = len(site.requests)
    site.on("/hang", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    async with serving(on(tmp_path / "tasks.db")) as client:
        task = registry_of(client).task(task.id)
        assert task.counts.done == 100
        await until_ended(registry_of(client), task)
        assert (task.status, task.counts.ok) == ("ready", 120)
        results = [result async for result in registry_of(client).results(task.id)]
    assert sorted(result.seq for result in results) == list(range(120))
    assert {request.path for request in site.requests[before:]} == {f"/hang?{number}" for number in range(20)}


async def test_after_a_restart_a_task_keeps_its_options_under_the_new_ones_of_the_service(
    site: Site, tmp_path: Path
) -> None:
    async with serving(on(tmp_path / "tasks.db")) as client:
        chosen = apply_task_options(client.app[OPTIONS], {"headers": {"X-Task": "this"}, "retries": 0})
        task = await manager_of(client).submit([site.url("/hang")], chosen)
        await site.until(lambda: site.active == 1)
    site.on("/hang", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    async with serving(on(tmp_path / "tasks.db", concurrency=7)) as client:
        task = registry_of(client).task(task.id)
        assert (task.options.retries, task.options.concurrency) == (0, 7)
        await until_ended(registry_of(client), task)
    assert task.counts.ok == 1
    assert site.requests[-1].header("X-Task") == "this"


async def test_a_task_that_has_ended_is_not_started_again(site: Site, tmp_path: Path) -> None:
    async with serving(on(tmp_path / "tasks.db")) as client:
        ready = await manager_of(client).submit([site.url("/ok")])
        stopped = await manager_of(client).submit([site.url("/hang")])
        await until_ended(registry_of(client), ready)
        await site.until(lambda: site.active == 1)
        await manager_of(client).cancel(stopped)
    before = len(site.requests)
    async with serving(on(tmp_path / "tasks.db")) as client:
        registry = registry_of(client)
        assert (registry.task(ready.id).status, registry.task(stopped.id).status) == ("ready", "error")
        assert registry.task(stopped.id).detail == "cancelled"
        assert manager_of(client).engine.workers(ready.id) == []
    assert len(site.requests) == before
