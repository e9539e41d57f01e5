"""The API's OpenAPI document and its page: complete, correct, and without files of other servers."""

import asyncio
import hashlib
import io
import json
import random
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
import pytest
from aiohttp import web

import crawler
from crawler import Options, ServiceOptions
from crawler.core.patterns import has_match
from crawler.server.api import swagger_ui
from crawler.server.api.openapi import DOCUMENT
from crawler.server.api.operation import Media
from crawler.server.http.problem import PROBLEM_TYPE
from tests.support.app_client import Client, serving
from tests.support.served import SERVERS

STATIC = swagger_ui.FOLDER
OPERATIONS = crawler.create_app()[DOCUMENT].operations

# Digests of the files in npm's swagger-ui-dist, of the version in `VERSION`.
HASHES = {
    "swagger-ui-bundle.js": "e6a898692f2d768e807c3ba4626068a69a2c5dd960dd6c76f3e4d3a3de180af2",
    "swagger-ui.css": "5ed08757e53da3e026d6cbecc61fe5d43585c9560b302d534ad56692519a273d",
}
LEGAL = {"VERSION", "LICENSE", "NOTICE", "swagger-ui-bundle.js.LICENSE.txt"}


@pytest.fixture(params=SERVERS)
async def client(request: pytest.FixtureRequest) -> AsyncIterator[Client]:
    async with serving(crawler.create_app(Options(guard="any")), SERVERS[request.param]) as client:
        yield client


def described(app: web.Application) -> Any:
    """The document, as a client gets it."""
    return json.loads(msgspec.json.encode(app[DOCUMENT].content))


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    """Every object in the document."""
    if isinstance(value, dict):
        yield value
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from nodes(child)


def media_of(kind: str) -> list[Any]:
    """Every media type with an example, of requests or of responses."""
    found: list[Any] = []
    for (method, path), operation in OPERATIONS.items():
        contents = [operation.body] if kind == "body" else [reply.content for reply in operation.replies.values()]
        for content in contents:
            found += [
                pytest.param(method, path, media_type, media, id=f"{operation.id} {media_type}")
                for media_type, media in content.items()
                if media.example is not None and media.type is not None
            ]
    return found


# --- The document ---


async def test_it_has_every_route_and_no_other(client: Client) -> None:
    async with client.get("/openapi.json") as response:
        assert (response.status, response.content_type) == (200, "application/json")
        document = await response.json()
    assert client.app is not None
    routes = {
        (route.method, route.resource.canonical)
        for route in client.app.router.routes()
        if route.resource is not None and route.method != "HEAD"  # aiohttp answers HEAD as GET without the body
    }
    paths = document["paths"]
    assert {(method.upper(), path) for path, methods in paths.items() for method in methods} == routes
    assert set(OPERATIONS) == routes
    assert all(operation["summary"] for methods in paths.values() for operation in methods.values())


def test_every_reference_in_the_document_resolves() -> None:
    document = described(crawler.create_app())
    assert document["openapi"].startswith("3.1.")
    operations = [operation for methods in document["paths"].values() for operation in methods.values()]
    ids = [operation["operationId"] for operation in operations]
    assert len(ids) == len(set(ids))
    assert {tag for operation in operations for tag in operation["tags"]} == {tag["name"] for tag in document["tags"]}
    references = {node["$ref"] for node in nodes(document) if "$ref" in node}
    for reference in references:
        place = document
        for name in reference.removeprefix("#/").split("/"):
            place = place[name]
    links = {
        id_ for operation in operations for each in operation["responses"].values() for id_ in each.get("links", ())
    }
    assert links == {"task", "delete", "results", "events", "cancel", "recheck", "firstTask", "firstDelete"}
    unused = {
        f"#/components/{kind}/{name}"
        for kind in ("schemas", "headers", "parameters", "responses")
        for name in document["components"][kind]
    } - references
    assert unused == set()


def test_path_parameters_are_described() -> None:
    for path, methods in described(crawler.create_app())["paths"].items():
        for operation in methods.values():
            named = [each["name"] for each in operation.get("parameters", ()) if each.get("in") == "path"]
            assert named == re.findall(r"\{(\w+)\}", path)


def test_a_task_may_choose_no_more_than_the_service_has() -> None:
    document = described(crawler.create_app(Options(per_host=3, interval=2, max_read=1000)))
    options = document["components"]["schemas"]["OptionsChoice"]["properties"]
    assert options["per_host"]["maximum"] == 3
    assert options["interval"]["minimum"] == 2
    assert options["max_read"]["maximum"] == 1000
    assert "concurrency" not in options
    shown = {each["name"]: each["schema"] for each in document["paths"]["/api/v1/probe"]["get"]["parameters"]}
    assert shown["per_host"]["maximum"] == 3
    assert shown["headers"]["type"] == "array"


@pytest.mark.parametrize("tokens", [(), ("xyzzy",)])
async def test_it_says_whether_a_token_is_needed_and_is_read_without(tokens: tuple[str, ...]) -> None:
    async with serving(crawler.create_app(service=ServiceOptions(tokens=tokens))) as client:
        async with client.get("/openapi.json") as response:
            document = await response.json()
        for path in ("/docs", "/docs/swagger-ui.css"):
            async with client.get(path) as response:
                assert response.status == 200
        assert ({} in document["security"]) == (not tokens)
        assert document["paths"]["/docs"]["get"]["security"] == []
        assert b"xyzzy" not in msgspec.json.encode(document)


# --- Examples ---


@pytest.mark.parametrize(("method", "path", "media_type", "media"), media_of("body"))
async def test_examples_of_bodies_are_accepted(method: str, path: str, media_type: str, media: Media) -> None:
    example = media.example if isinstance(media.example, str) else json.dumps(media.example)
    async with serving(crawler.create_app(Options(dns=("127.0.0.1:9",), retries=0))) as client:
        async with client.post("/api/v1/tasks", json={"urls": ["http://127.0.0.1/"]}) as response:
            task_id = (await response.json())["id"]  # its URL is blocked, so there is something to recheck
        async with client.get(f"/api/v1/tasks/{task_id}", params={"wait": 60}) as response:
            assert (await response.json())["status"] == "ready"
        headers = {"Content-Type": media_type}
        data = io.BytesIO(example.encode())
        async with client.request(method, path.format(task_id=task_id), data=data, headers=headers) as response:
            assert response.status in (200, 201), await response.text()


@pytest.mark.parametrize(("method", "path", "media_type", "media"), media_of("answer"))
def test_examples_of_answers_are_of_their_types(method: str, path: str, media_type: str, media: Media) -> None:
    plain = msgspec.convert(media.example, media.type)
    assert msgspec.to_builtins(plain) == media.example  # the example has every member


# --- Answers of the service ---


async def test_errors_are_as_described(client: Client) -> None:
    async with client.get("/api/v1/tasks?limit=0") as response:
        problem = await response.json(content_type=PROBLEM_TYPE)
    assert client.app is not None
    schema = described(client.app)["components"]["schemas"]["Problem"]
    assert list(problem) == list(schema["properties"]) == schema["required"]


@pytest.mark.parametrize("query", ["status=null", "limit=NULL", "cursor=null"])
async def test_the_word_null_in_a_query_is_refused(query: str, client: Client) -> None:
    async with client.get(f"/api/v1/tasks?{query}") as response:
        assert response.status == 422


async def test_a_label_may_be_the_word_null(client: Client) -> None:
    async with client.post("/api/v1/tasks?label=null", data=b"x", headers={"Content-Type": "text/plain"}) as response:
        assert (response.status, (await response.json())["label"]) == (201, "null")
    async with client.get("/api/v1/tasks?label=null") as response:
        assert len((await response.json())["tasks"]) == 1


# --- The page ---


def test_the_files_are_those_of_the_distribution() -> None:
    for name, digest in HASHES.items():
        assert hashlib.sha256((STATIC / name).read_bytes()).hexdigest() == digest, name
    assert re.fullmatch(r"swagger-ui-dist 5\.\d+\.\d+\n", (STATIC / "VERSION").read_text())
    assert "Apache License" in (STATIC / "LICENSE").read_text()
    assert {path.name for path in STATIC.iterdir()} == {*swagger_ui.FILES, "index.html", *LEGAL}


async def test_the_page_has_its_files_beside_it_and_no_script_of_its_own(client: Client) -> None:
    async with client.get("/docs") as response:
        assert (response.status, response.content_type) == (200, "text/html")
        policy = response.headers["Content-Security-Policy"]
        page = await response.text()
    # One document does not replace the others.
    for directive in ("default-src", "base-uri", "form-action", "frame-ancestors"):
        assert f"{directive} 'none'" in policy.split("; ")
    assert "unsafe" not in policy
    assert "http" not in policy
    scripts = re.findall(r"<script([^>]*)>(.*?)</script>", page, re.S)
    assert [body for _, body in scripts] == ["", ""]
    assert not re.search(r"<style|\sstyle=|\son\w+=", page)
    names = [name for name in re.findall(r'(?:src|href)="([^"]*)"', page) if name != "data:,"]
    assert sorted(names) == sorted(f"docs/{name}" for name in swagger_ui.FILES)


async def test_files_are_sent_once(client: Client) -> None:
    for name, media_type in swagger_ui.FILES.items():
        async with client.get(f"/docs/{name}") as response:
            assert response.status == 200
            assert response.headers["Content-Type"] == media_type
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert await response.read() == (STATIC / name).read_bytes()
            etag = response.headers["ETag"]
        async with client.get(f"/docs/{name}", headers={"If-None-Match": etag}) as response:
            assert response.status == 304
        async with client.head(f"/docs/{name}") as response:
            assert (response.status, await response.read()) == (200, b"")


async def test_the_page_does_not_wait_behind_long_searches() -> None:
    """aiohttp reads files in asyncio's own threads, `min(32, cpu_count + 4)` of them (`ThreadPoolExecutor`)."""
    chance = random.Random(1)
    text = "".join(chance.choice("ab") for _ in range(2**20))
    async with serving(crawler.create_app()) as client:
        searches = [asyncio.ensure_future(has_match("(a|b)*a(a|b){50}c", text)) for _ in range(40)]
        await asyncio.sleep(0)
        async with client.get("/docs") as response:
            assert response.status == 200
        done = sum(search.done() for search in searches)
        for search in searches:
            search.cancel()
    assert done < 8


@pytest.mark.parametrize("name", ["VERSION", "index.html", "..%2Fdocs.py", "nothing"])
async def test_no_other_file_is_sent(name: str, client: Client) -> None:
    async with client.get(f"/docs/{name}") as response:
        assert (response.status, response.content_type) == (404, PROBLEM_TYPE)


async def test_the_document_and_its_page_work_under_a_prefix() -> None:
    root = web.Application()
    root.add_subapp("/some/where", crawler.create_app(Options(guard="any")))
    async with serving(root) as client:
        async with client.get("/some/where/openapi.json") as response:
            document = await response.json()
        assert document["servers"] == [{"url": "."}]
        assert set(document["paths"]) == {path for _, path in OPERATIONS}
        for name in ("", *(f"/{name}" for name in swagger_ui.FILES)):
            async with client.get(f"/some/where/docs{name}") as response:
                assert response.status == 200
