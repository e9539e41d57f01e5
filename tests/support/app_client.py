"""An application in this process, and a client of it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

import crawler
from crawler import Options, Registry, ServiceOptions, Task
from crawler.server.app_keys import REGISTRY, TASK_MANAGER
from crawler.server.task_manager import TaskManager

__all__ = [
    "Client", "check_problem", "manager_of", "open_app", "registry_of", "serving", "until_done", "until_ended"
]  # fmt: skip

Client = TestClient[web.Request, web.Application]


@asynccontextmanager
async def serving(app: web.Application, by: type[TestServer] = TestServer) -> AsyncIterator[Client]:
    """Serve an application and give a client of it."""
    async with TestClient(by(app)) as client:
        yield client


def open_app(registry: crawler.Registry | None = None) -> web.Application:
    """An application that may probe the tests' site, which is on loopback."""
    service = ServiceOptions(max_body=32 * 2**20, drain=0)
    return crawler.create_app(Options(guard="any"), registry=registry, service=service)


async def check_problem(response: Any, status: int, *words: str) -> None:
    """The response is a problem of this status, with these words in its detail."""
    assert response.status == status
    assert response.content_type == "application/problem+json"
    problem = await response.json(content_type=None)
    assert problem["status"] == status
    assert problem["title"]
    for word in words:
        assert word in problem["detail"]


def manager_of(client: Client) -> TaskManager:
    assert client.app is not None
    return client.app[TASK_MANAGER]


def registry_of(client: Client) -> Registry:
    assert client.app is not None
    return client.app[REGISTRY]


async def until_done(registry: Registry, task: Task, done: int) -> None:
    """Return when `done` lines have a result."""
    while task.counts.done < done:
        await registry.wait_for_change(task.id)


async def until_ended(registry: Registry, task: Task) -> None:
    """Return when the Task has ended."""
    while task.status == "running":
        await registry.wait_for_change(task.id)
