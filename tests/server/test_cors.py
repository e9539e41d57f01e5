"""Web pages of other origins, by the CORS protocol of the Fetch standard, and slashes at the end of paths."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

import crawler
from crawler import OptionError, Options, ServiceOptions
from tests.support.app_client import Client, check_problem, open_app, serving
from tests.support.served import SERVERS
from tests.support.tokens import ANN, bearer, open_guarded_app

PAGE = "https://page.example"
OTHER = "https://other.example"


@pytest.fixture(params=SERVERS)
async def client(request: pytest.FixtureRequest) -> AsyncIterator[Client]:
    async with serving(open_guarded_app(cors_origins=(PAGE, "http://[::1]:3000")), SERVERS[request.param]) as client:
        yield client


def preflight(origin: str, method: str = "POST") -> dict[str, str]:
    return {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "authorization,content-type",
    }


@pytest.mark.parametrize("path", ["/submit", "/api/v1/tasks", "/tasks/x", "/api/v1/tasks/x"])
async def test_a_preflight_of_a_named_origin_is_answered_without_a_token(path: str, client: Client) -> None:
    method = "POST" if path in ("/submit", "/api/v1/tasks") else "DELETE"
    async with client.options(path, headers=preflight(PAGE, method)) as response:
        assert (response.status, await response.read()) == (204, b"")
        assert response.headers["Access-Control-Allow-Origin"] == PAGE
        assert method in response.headers["Access-Control-Allow-Methods"].split(", ")
        allowed = response.headers["Access-Control-Allow-Headers"].lower().split(", ")
        assert {"authorization", "content-type"} <= set(allowed)
        assert "Access-Control-Allow-Credentials" not in response.headers  # no cookies here


async def test_a_preflight_of_another_origin_is_a_request_without_a_token(client: Client) -> None:
    async with client.options("/submit", headers=preflight(OTHER)) as response:
        await check_problem(response, 401)
        assert "Access-Control-Allow-Origin" not in response.headers


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/api/v1/tasks", bearer(ANN), 200),
        ("/tasks", bearer(ANN), 200),
        ("/nowhere", bearer(ANN), 404),
        ("/tasks", {}, 401),
        ("/tasks", bearer("wrong"), 401),
    ],
)
async def test_a_page_of_a_named_origin_may_read_answers_and_errors(
    path: str, headers: dict[str, str], status: int, client: Client
) -> None:
    for origin, allowed in ((PAGE, PAGE), ("http://[::1]:3000", "http://[::1]:3000"), (OTHER, None), (None, None)):
        sent = {**headers, **({"Origin": origin} if origin else {})}
        async with client.get(path, headers=sent) as response:
            assert response.status == status
            assert response.headers.get("Access-Control-Allow-Origin") == allowed
            assert "Origin" in ", ".join(response.headers.getall("Vary"))  # a cache keeps them apart


async def test_without_the_option_there_is_no_cors() -> None:
    async with serving(open_guarded_app()) as client:
        async with client.options("/submit", headers=preflight(PAGE)) as response:
            await check_problem(response, 401)
        async with client.get("/tasks", headers={**bearer(ANN), "Origin": PAGE}) as response:
            assert not {"Access-Control-Allow-Origin", "Vary"} & set(response.headers)


@pytest.mark.parametrize("origin", ["*", "page.example", PAGE + "/", PAGE + "/x", "null", "HTTPS://a", "ftp://a", ""])
def test_only_origins_as_browsers_write_them_can_be_named(origin: str) -> None:
    with pytest.raises(OptionError) as caught:
        ServiceOptions.of({"cors_origins": [PAGE, origin], "tokens": ["x" * 32]})
    assert caught.value.place == "cors_origins[1]"


def test_without_tokens_no_origin_can_be_named() -> None:
    with pytest.raises(OptionError, match="needs --token or --token-file"):
        ServiceOptions.of({"cors_origins": [PAGE]})


# --- Slashes at the end ---


@pytest.mark.parametrize("path", ["/submit/", "/tasks/", "/api/v1/tasks/", "/tasks/x/", "/docs/", "/api/v1/tasks//"])
async def test_a_path_with_a_slash_too_many_leads_to_the_one_without(path: str) -> None:
    """308 keeps the method and the body (RFC 9110, section 15.4.9)."""
    async with serving(open_app()) as client, client.post(f"{path}?a=1&b=2", allow_redirects=False) as response:
        assert (response.status, response.headers["Location"]) == (308, path.rstrip("/") + "?a=1&b=2")


@pytest.mark.parametrize("path", ["/nowhere/", "/", "//", "/%2Fother.example/", "/tasks/x/y/"])
async def test_a_path_that_leads_nowhere_is_not_redirected(path: str) -> None:
    async with serving(open_app()) as client, client.get(path, allow_redirects=False) as response:
        await check_problem(response, 404, "there is no /")


async def test_a_redirect_has_the_prefixes_of_a_proxy_and_of_a_mount() -> None:
    host = web.Application()
    inner = crawler.create_app(Options(guard="any"), service=ServiceOptions(root_path="/proxied"))
    host.add_subapp("/mounted", inner)
    async with serving(host) as client, client.get("/mounted/tasks/", allow_redirects=False) as response:
        assert (response.status, response.headers["Location"]) == (308, "/proxied/mounted/tasks")


# --- Answers in words ---


@pytest.mark.parametrize(
    ("method", "path", "more", "status", "words"),
    [
        ("GET", "/nowhere", {}, 404, ["there is no /nowhere", "/docs"]),
        ("PUT", "/tasks", {}, 405, ["PUT is not possible here, only GET, HEAD"]),
        ("POST", "/api/v1/tasks", {"data": {"a": "b"}}, 415, ["x-www-form-urlencoded", "curl", "text/plain"]),
        (
            "POST",
            "/api/v1/tasks",
            {"data": b"x", "headers": {"Content-Type": "image/png"}},
            415,
            ["is image/png, must"],
        ),
    ],
)
async def test_a_wrong_request_is_told_what_would_do(
    method: str, path: str, more: dict[str, Any], status: int, words: list[str]
) -> None:
    async with serving(open_app()) as client, client.request(method, path, **more) as response:
        await check_problem(response, status, *words)


@pytest.mark.parametrize("path", ["/tasks", "/api/v1/tasks", "/healthz", "/openapi.json", "/nowhere", "/tasks/x"])
async def test_json_ends_its_line(path: str) -> None:
    async with serving(open_app()) as client, client.get(path) as response:
        assert (await response.read()).endswith(b"}\n")
