"""A client of the versioned API, and the registries that its tests run with."""

import io
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestServer
from multidict import CIMultiDictProxy

import crawler
from crawler import MemoryRegistry, Options, Registry, ServiceOptions
from crawler.server.app_keys import REGISTRY, SETTINGS, TASK_MANAGER
from crawler.server.settings import ServerSettings
from crawler.server.task_manager import TaskManager
from crawler.stores.redis.registry import RedisRegistry
from crawler.stores.sqlite.registry import SqliteRegistry
from tests.support.app_client import Client, serving
from tests.support.described import check_described
from tests.support.fleet import working
from tests.support.served import SERVERS, AiohttpServer

REGISTRIES: dict[str, Callable[[Path], Registry]] = {
    "memory": lambda _: MemoryRegistry(),
    "sqlite": lambda folder: SqliteRegistry(folder / "tasks.db"),
}
WAYS = [*REGISTRIES, "asgi", "redis"]  # "asgi" has Tasks in memory; "redis" has a worker process
ROOT = "/api/v1"


class Answer(NamedTuple):
    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Api:
    """A client of one application."""

    def __init__(self, client: Client) -> None:
        self.client = client

    @property
    def app(self) -> web.Application:
        assert self.client.app is not None
        return self.client.app

    @property
    def manager(self) -> TaskManager:
        return self.app[TASK_MANAGER]

    @property
    def registry(self) -> Registry:
        return self.app[REGISTRY]

    async def ask(self, method: str, path: str, status: int = 200, **arguments: Any) -> Answer:
        """Send a request. The response must have this status, and match the OpenAPI document."""
        async with self.client.request(method, ROOT + path, **arguments) as response:
            answer = Answer(response.status, response.headers, await response.read())
        check_described(self.app, method, response)
        assert answer.status == status, answer.body
        return answer

    async def get(self, path: str, **query: str | int) -> Any:
        """The JSON at a path."""
        return (await self.ask("GET", path, params=query)).json

    async def submit(self, urls: list[str], **members: Any) -> Any:
        """Submit a new Task and return its summary."""
        body = io.BytesIO(json.dumps({"urls": urls, **members}).encode())
        headers = {"Content-Type": "application/json"}
        return (await self.ask("POST", "/tasks", 201, data=body, headers=headers)).json

    async def ended(self, urls: list[str], **members: Any) -> Any:
        """Submit a new Task and return its summary once it has ended."""
        task = await self.submit(urls, **members)
        return await self.get(f"/tasks/{task['id']}", wait=60)

    async def refuses(self, method: str, path: str, status: int, *words: str, **arguments: Any) -> Answer:
        """Send a request that is refused. The detail of the problem must have these words."""
        answer = await self.ask(method, path, status, **arguments)
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.json["status"] == status
        for word in words:
            assert word in answer.json["detail"]
        return answer


@asynccontextmanager
async def serving_api(
    registry: Registry,
    service: ServiceOptions | None = None,
    *,
    by: type[TestServer] = AiohttpServer,
    settings: ServerSettings | None = None,
    **options: Any,
) -> AsyncIterator[Api]:
    """Serve an application that may probe the tests' site, which is on loopback."""
    service = service or ServiceOptions(drain=0)
    app = crawler.create_app(Options(guard="any", **options), registry=registry, service=service)
    app[SETTINGS] = settings or app[SETTINGS]
    async with serving(app, by) as client:
        yield Api(client)


@asynccontextmanager
async def serving_as(
    request: pytest.FixtureRequest, service: ServiceOptions | None = None, settings: ServerSettings | None = None
) -> AsyncIterator[Api]:
    """Serve an application in the way that the fixture's parameter names, one of `WAYS`."""
    way = request.param
    if way == "redis":
        url = request.getfixturevalue("redis_server").url
        async with working(url), serving_api(RedisRegistry(url), service, settings=settings) as api:
            yield api
    else:
        registry = REGISTRIES.get(way, REGISTRIES["memory"])(request.getfixturevalue("tmp_path"))
        async with serving_api(registry, service, by=SERVERS.get(way, AiohttpServer), settings=settings) as api:
            yield api


class Event(NamedTuple):
    name: str
    id: int | None
    data: Any


async def read_events(response: ClientResponse) -> AsyncGenerator[Event, None]:
    """The events of a stream of server-sent events."""
    fields: dict[str, str] = {}
    async for line in response.content:
        text = line.decode().removesuffix("\n")
        if text:
            name, _, value = text.partition(": ")
            fields[name] = value
        elif "event" in fields:
            yield Event(fields["event"], int(fields["id"]) if "id" in fields else None, json.loads(fields["data"]))
            fields = {}
