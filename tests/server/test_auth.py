"""Access: tokens, owners of Tasks, and the requests that web pages of other origins cannot make."""

import asyncio
import hmac
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import ClientSession, web
from hypothesis import given
from hypothesis import strategies as st

import crawler
from crawler import InputError, OptionError, Options, ServiceOptions, run_service
from crawler.cli.main import main
from crawler.core.tokens import find_token, parse_tokens, read_tokens
from crawler.server.middleware.origin_check import is_local
from crawler.stores.sqlite.registry import SqliteRegistry
from tests.support.app_client import Client, check_problem, serving
from tests.support.served import SERVERS
from tests.support.tokens import ANN, BOB, NOBODY, READER, TOKENS, bearer, open_guarded_app, status_of

TASK = "/tasks/{task_id}"
V1 = "/api/v1" + TASK


@pytest.fixture(params=SERVERS)
async def client(request: pytest.FixtureRequest) -> AsyncIterator[Client]:
    async with serving(open_guarded_app(), SERVERS[request.param]) as client:
        yield client


async def submit(client: Client, secret: str, prefix: str = "") -> str:
    async with client.post(f"{prefix}/submit", data=b'{"urls": ["no url"]}', headers=bearer(secret)) as response:
        assert response.status == 200, await response.text()
        return str((await response.json())["task_id"])


async def seen(client: Client, secret: str) -> list[str]:
    """The ids in both lists of Tasks, which have to be equal."""
    async with client.get("/tasks", headers=bearer(secret)) as response:
        first = list(await response.json())
    async with client.get("/api/v1/tasks", headers=bearer(secret)) as response:
        versioned = [task["id"] for task in (await response.json())["tasks"]]
    assert sorted(first) == sorted(versioned)
    return first


# --- Tokens as they are written ---


@pytest.mark.parametrize(
    ("line", "name", "scope"),
    [
        ("ann:s3cret", "ann", "write"),
        ("ann:write:s3cret", "ann", "write"),
        ("ann:read:s3cret", "ann", "read"),
        ("read:s3cret", "read", "write"),
        ("a-n.n_1:s3cret", "a-n.n_1", "write"),
    ],
)
def test_a_token_says_who_has_it_and_what_for(line: str, name: str, scope: str) -> None:
    [token] = parse_tokens([line], "tokens")
    assert (token.name, token.scope) == (name, scope)
    assert find_token("s3cret", [token]) == token
    assert find_token("s3cre", [token]) is None
    assert "s3cret" not in repr(token)


def test_the_time_to_find_a_token_reveals_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append(one)
        return same(one, other)

    same = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", compare)
    tokens = parse_tokens(["one", "two", "three"], "tokens")
    for secret, expected in (("one", tokens[0]), ("three", tokens[2]), ("four", None)):
        assert find_token(secret, tokens) == expected
        assert compared == [token.digest for token in tokens]
        compared.clear()


def test_a_token_without_a_name_always_gets_the_same_name() -> None:
    [one], [again], [other] = (parse_tokens([secret], "tokens") for secret in ("one", "one", "other"))
    assert one == again
    assert one.name != other.name
    assert "one" not in one.name.removeprefix("token")


@pytest.mark.parametrize(
    "line",
    ["", " ", "a b", "ann:", ":s3cret", "ann:admin:s3cret", "ann:read:", "a b:s3cret", "s3crét", "s3cret\n", "=s"],
)
def test_a_malformed_token_is_refused_and_not_shown(line: str) -> None:
    with pytest.raises(OptionError, match=r"^tokens: number 2 is not SECRET, ") as caught:
        parse_tokens(["good", line], "tokens")
    assert not line.strip() or line not in str(caught.value)


def test_one_secret_cannot_be_two_tokens() -> None:
    with pytest.raises(OptionError, match=r"same secret \(1 and 2\)"):
        parse_tokens(["ann:same", "bob:same"], "tokens")


@given(st.text(max_size=40))
def test_any_text_is_a_token_or_refused(text: str) -> None:
    try:
        [token] = parse_tokens([text], "tokens")
    except OptionError:
        return
    assert find_token(text.rpartition(":")[2], [token]) == token


def test_a_file_of_tokens(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text("# who may\n\nann:one\n  bob:read:two  \n")
    assert [(token.name, token.scope) for token in read_tokens(path)] == [("ann", "write"), ("bob", "read")]


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "No such file"), (b"\xff", "UTF-8"), (b"# none\n", "no token"), (b"\na b\n", "number 2")],
)
def test_a_file_that_has_no_tokens_is_refused(content: bytes | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=words):
        crawler.create_app(service=ServiceOptions(token_file=str(path)))


# --- Tokens of requests ---


def requests_of(app: web.Application) -> list[tuple[str, str]]:
    return [
        (route.method, route.resource.canonical)
        for route in app.router.routes()
        if route.resource is not None and route.method != "*"
    ]


OPEN = ("/openapi.json", "/docs", "/healthz", "/readyz")
REQUESTS = [(method, path) for method, path in requests_of(crawler.create_app()) if not path.startswith(OPEN)]
CHANGES = [(method, path) for method, path in REQUESTS if method not in ("GET", "HEAD") or path == "/api/v1/probe"]


@pytest.mark.parametrize(("method", "path"), [*REQUESTS, ("GET", "/nowhere"), ("PUT", "/tasks"), ("OPTIONS", "/tasks")])
async def test_every_request_needs_a_token(method: str, path: str, client: Client) -> None:
    async with client.request(method, path) as response:
        assert response.status == 401
        assert response.headers["WWW-Authenticate"] == 'Bearer realm="crawler"'
        if method != "HEAD":
            await check_problem(response, 401, "token")
    assert await status_of(client, method, path, NOBODY) == 401


@pytest.mark.parametrize(
    ("given", "expected", "error"),
    [
        ("Bearer " + NOBODY, 401, "invalid_token"),
        ("Bearer", 401, "invalid_token"),
        ("Bearer " + ANN + "x", 401, "invalid_token"),
        ("Bearer ann:" + ANN, 401, "invalid_token"),
        ("Bearer \xff", 401, "invalid_token"),
        ("Basic YTpi", 401, None),
        (ANN, 401, None),
        ("bearer  " + ANN, 200, None),
    ],
)
async def test_a_request_needs_a_known_token(given: str, expected: int, error: str | None, client: Client) -> None:
    async with client.get("/tasks", headers={"Authorization": given}) as response:
        assert response.status == expected
        challenge = response.headers.get("WWW-Authenticate", "")
        assert re.findall('error="(.*?)"', challenge) == ([error] if error else [])
        assert ANN not in await response.text()


async def test_two_tokens_in_one_request_are_refused(client: Client) -> None:
    headers = [("Authorization", "Bearer " + ANN), ("Authorization", "Bearer " + BOB)]
    async with client.get("/tasks", headers=headers) as response:
        await check_problem(response, 400, "twice")
        assert 'error="invalid_request"' in response.headers["WWW-Authenticate"]


async def test_a_token_in_the_query_is_ignored(client: Client) -> None:
    async with client.get("/tasks", params={"access_token": ANN}) as response:
        assert response.status == 401


@pytest.mark.parametrize(("method", "path"), CHANGES)
async def test_a_token_for_reading_changes_nothing(method: str, path: str, client: Client) -> None:
    task = await submit(client, ANN)
    async with client.request(method, path.format(task_id=task), headers=bearer(READER)) as response:
        assert response.status == 403
        assert 'error="insufficient_scope", scope="write"' in response.headers["WWW-Authenticate"]
        if method != "HEAD":
            await check_problem(response, 403, "read")
    assert await seen(client, READER) == [task]


async def test_tokens_come_from_a_file_too(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text("zoe:from-a-file\n")
    async with serving(open_guarded_app(token_file=str(path))) as client:
        await submit(client, "from-a-file")
        await submit(client, ANN)


async def test_documentation_and_health_need_no_token(client: Client) -> None:
    assert client.app is not None
    for method, path in requests_of(client.app):
        if path in OPEN:
            async with client.request(method, path) as response:
                assert response.status not in (401, 403)


async def test_tokens_hold_where_the_application_is_mounted() -> None:
    root = web.Application()
    root.add_subapp("/crawler", open_guarded_app())
    async with serving(root) as client:
        async with client.get("/crawler/tasks") as response:
            await check_problem(response, 401)
        async with client.get("/crawler/api/v1/probe", params={"url": "x"}, headers=bearer(READER)) as response:
            await check_problem(response, 403)
        task = await submit(client, ANN, "/crawler")
        assert await status_of(client, "DELETE", f"/crawler/tasks/{task}", BOB) == 404
        assert await status_of(client, "DELETE", f"/crawler/tasks/{task}", ANN) == 204


# --- Owners of Tasks ---


OF_A_TASK = [(method, path) for method, path in REQUESTS if "{task_id}" in path]


@pytest.mark.parametrize(("method", "path"), OF_A_TASK)
async def test_a_task_exists_only_for_its_owner(method: str, path: str, client: Client) -> None:
    task = await submit(client, ANN)
    path = path.format(task_id=task)
    assert await status_of(client, method, path, BOB) == 404
    assert await status_of(client, method, path, ANN) < 300 or path.endswith("/recheck")  # there is nothing to recheck


async def test_lists_have_only_the_tasks_of_the_owner(client: Client) -> None:
    ann, bob = await submit(client, ANN), await submit(client, BOB)
    assert await seen(client, ANN) == await seen(client, READER) == [ann]
    assert await seen(client, BOB) == [bob]


async def test_tasks_can_be_shared() -> None:
    async with serving(open_guarded_app(share_tasks=True)) as client:
        tasks = [await submit(client, ANN), await submit(client, BOB)]
        assert await seen(client, READER) == await seen(client, BOB) == tasks
        assert await status_of(client, "DELETE", f"/tasks/{tasks[0]}", BOB) == 204


async def test_each_owner_has_its_own_idempotency_keys(client: Client) -> None:
    found: dict[str, str] = {}
    for secret in (ANN, BOB, ANN):
        headers = bearer(secret) | {"Idempotency-Key": "1"}
        async with client.post("/api/v1/tasks", json={"urls": ["no url"]}, headers=headers) as response:
            task = (await response.json())["id"]
            assert response.status == (200 if secret in found else 201)
            assert found.setdefault(secret, task) == task
    assert found[ANN] != found[BOB]


async def test_a_recheck_has_the_owner_of_the_request(client: Client) -> None:
    async with client.post("/submit", json={"urls": ["http://127.0.0.1:1/"]}, headers=bearer(ANN)) as response:
        task = (await response.json())["task_id"]
    async with client.get(f"/api/v1/tasks/{task}", params={"wait": 30}, headers=bearer(ANN)) as response:
        assert (await response.json())["status"] == "ready"
    assert await status_of(client, "POST", f"/api/v1/tasks/{task}/recheck", ANN) == 201
    assert len(await seen(client, ANN)) == 2
    assert await seen(client, BOB) == []


async def test_tasks_are_their_owners_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    async with (
        serving(crawler.create_app(registry=SqliteRegistry(path))) as client,
        client.post("/submit", json={"urls": ["no url"]}) as response,
    ):
        before = (await response.json())["task_id"]
    async with serving(open_guarded_app(SqliteRegistry(path))) as client:
        ann = await submit(client, ANN)
    async with serving(open_guarded_app(SqliteRegistry(path))) as client:
        assert await seen(client, ANN) == [ann]
        assert await seen(client, BOB) == []
        assert await status_of(client, "GET", f"/tasks/{before}", ANN) == 404
    app = crawler.create_app(registry=SqliteRegistry(path))
    async with serving(app) as client, client.get("/tasks") as response:
        assert list(await response.json()) == [before, ann]


async def test_the_client_commands_send_their_token() -> None:
    async with serving(open_guarded_app()) as client:
        task = await submit(client, ANN)
        for name, token, expected in (
            ("CRAWLER_TOKEN", "ann:" + ANN, 0),
            ("CRAWLER_TOKEN", ANN, 0),
            ("CRAWLER_TOKEN", BOB, 2),
            ("CRAWLER_TOKEN", NOBODY, 2),
            ("CRAWLER_TOKEN", "", 2),
            ("CRAWLER_TOKENS", f"ann:{ANN}, {BOB}", 0),
        ):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "crawler", "results", task, "--url", str(client.make_url("/"))),
                env={**os.environ, name: token},
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
            )
            _, errors = await process.communicate()
            assert process.returncode == expected, errors
            assert not token or token not in errors.decode()


# --- Where it listens ---


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.0.2.1", "example.org"])
def test_without_a_token_it_does_not_listen_on_other_addresses(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--host", host, "--port", "0"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch("crawler: .*--token.*--allow-anonymous\n", err)
    with pytest.raises(InputError, match="--allow-anonymous"):
        run_service(host, 0)


@pytest.mark.parametrize("flags", [["--token", "b@d"], ["--token", ""], ["--token-file", "/nowhere"]])
def test_a_wrong_token_stops_it_at_once(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*flags, "--port", "0"]) == 2
    assert "b@d" not in "".join(capsys.readouterr())


@pytest.mark.parametrize("more", [["--token", "ann:" + ANN], ["--allow-anonymous"]])
async def test_with_tokens_or_allow_anonymous_it_listens_on_other_addresses(more: list[str]) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "crawler", "--host", "0.0.0.0", "--port", "0", *more, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        port = int((await process.stdout.readline()).split(b":")[2].split(b".")[0])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /tasks HTTP/1.1\r\nHost: crawler.example\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 401" if "--token" in more else b"HTTP/1.1 200")
        writer.close()
    finally:
        process.terminate()
        assert await process.wait() == 0


def test_tokens_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(os.environ, "CRAWLER_TOKEN", "ann:one\nb@d")
    assert main(["--port", "0"]) == 2
    assert "number 2" in capsys.readouterr().err


@pytest.mark.parametrize("tokens", [f"ann:{ANN},bob:{BOB}", f" ann:{ANN}\n\tbob:{BOB} ", f"ann:{ANN}, bob:{BOB},"])
async def test_several_tokens_come_from_one_variable(tokens: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "crawler", "--port", "0", "--registry", "memory"),
        env={**os.environ, "CRAWLER_TOKENS": tokens, "CRAWLER_TOKEN": f"ann:{ANN}"},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        url = (await process.stdout.readline()).split()[3].decode().rstrip(".")
        async with ClientSession(url) as session:
            for secret, expected in ((ANN, 200), (BOB, 200), (NOBODY, 401)):
                async with session.get("/tasks", headers=bearer(secret)) as response:
                    assert response.status == expected
    finally:
        process.terminate()
        await process.wait()


# --- Browsers ---


@pytest.fixture(params=SERVERS)
async def local(request: pytest.FixtureRequest) -> AsyncIterator[Client]:
    app = crawler.create_app(Options(guard="any"), only_local=True)
    async with serving(app, SERVERS[request.param]) as client:
        yield client


OURS = [
    "localhost", "LOCALHOST", "localhost:7777", "localhost.", "crawler.localhost:1", "127.0.0.1", "127.0.0.1:80",
    "127.255.0.9:7777", "[::1]", "[::1]:7777", "[0:0:0:0:0:0:0:1]:7777",
]  # fmt: skip
FOREIGN = [
    "", "example.org", "example.org:7777", "127.0.0.1.example.org", "localhost.example.org", "notlocalhost",
    "localhost@example.org", "192.168.0.1", "0.0.0.0", "128.0.0.1", "[::]", "[::2]", "::1", "127.1", "2130706433",
    "localhost:7777:1", "localhost:x", "[localhost]", "[::1", "127.0.0.1,example.org", "localhost/x", "0x7f.0.0.1",
]  # fmt: skip


@pytest.mark.parametrize("host", OURS)
async def test_names_of_this_machine_are_answered(host: str, local: Client) -> None:
    assert is_local(host)
    async with local.get("/tasks", headers={"Host": host}) as response:
        assert response.status == 200


@pytest.mark.parametrize("host", FOREIGN)
@pytest.mark.parametrize(("method", "path"), [("GET", "/tasks"), ("POST", "/submit"), ("GET", "/nowhere")])
async def test_names_of_other_machines_are_refused(method: str, path: str, host: str, local: Client) -> None:
    assert not is_local(host)
    async with local.request(method, path, headers={"Host": host}) as response:
        await check_problem(response, 421, "Host")


@given(st.text(max_size=30))
def test_any_host_is_local_or_not(text: str) -> None:
    assert is_local(text) in (True, False)


async def test_a_request_without_a_host_or_with_two_is_refused(local: Client) -> None:
    for hosts in ("", "Host: localhost\r\nHost: localhost\r\n"):
        reader, writer = await asyncio.open_connection(local.host, local.port)
        writer.write(f"GET /tasks HTTP/1.0\r\n{hosts}\r\n".encode())
        assert re.match(rb"HTTP/1.[01] (400|421) ", await reader.read())
        writer.close()


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "OPTIONS"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://example.org"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "http://localhost:3000"},
        {"Origin": "http://127.0.0.1:7777.example.org"},
        {"Origin": "ftp://127.0.0.1:7777"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "something-new"},
        {"Origin": "http://127.0.0.1:7777", "Sec-Fetch-Site": "cross-site"},
    ],
    ids=str,
)
async def test_pages_of_other_origins_are_refused(method: str, headers: dict[str, str], local: Client) -> None:
    async with local.request(method, "/submit", headers={"Host": "127.0.0.1:7777", **headers}) as response:
        await check_problem(response, 403, "other origins")


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://127.0.0.1:7777"},
        {"Origin": "https://127.0.0.1:7777"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
    ],
    ids=str,
)
async def test_its_own_pages_are_answered(headers: dict[str, str], local: Client) -> None:
    headers = {"Host": "127.0.0.1:7777", "Content-Type": "application/json", **headers}
    async with local.post("/submit", data=b'{"urls": ["no url"]}', headers=headers) as response:
        assert response.status == 200


@pytest.mark.parametrize("type_", ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data", None])
async def test_a_form_of_another_origin_changes_nothing(type_: str | None, local: Client) -> None:
    headers = {"Sec-Fetch-Site": "same-site", **({"Content-Type": type_} if type_ else {})}
    async with local.post("/submit", data=b'{"urls": ["no url"]}', headers=headers) as response:
        await check_problem(response, 403)
    async with local.get("/api/v1/probe", params={"url": "x"}, headers={"Sec-Fetch-Site": "same-site"}) as response:
        await check_problem(response, 403)
    async with local.get("/tasks", headers={"Sec-Fetch-Site": "same-site"}) as response:
        assert await response.json() == {}


@pytest.mark.parametrize("address", ["192.0.2.7", "10.0.0.1", "::ffff:192.0.2.7", "fe80::1", "unknown"])
async def test_other_machines_need_a_token_with_any_host_header(address: str) -> None:
    service = ServiceOptions(forwarded_allow=("127.0.0.1/32",))
    headers = {"Host": "localhost", "X-Forwarded-For": address}
    async with serving(crawler.create_app(service=service, only_local=True)) as client:
        for method, path in (("GET", "/tasks"), ("POST", "/submit"), ("GET", "/metrics"), ("GET", "/docs")):
            async with client.request(method, path, headers=headers) as response:
                await check_problem(response, 403, "other machines")
        async with client.get("/healthz", headers=headers) as response:
            assert response.status == 200
        for here in ("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"):
            async with client.get("/tasks", headers=headers | {"X-Forwarded-For": here}) as response:
                assert response.status == 200


async def test_curl_without_a_token_is_answered_on_this_machine(local: Client) -> None:
    process = await asyncio.create_subprocess_exec(
        "curl", "-s", str(local.make_url("/submit")), "-d", '{"urls": ["no url"]}', stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert list(json.loads(out)) == ["task_id"]


async def test_create_app_leaves_access_to_the_outer_application() -> None:
    async with serving(crawler.create_app()) as client:
        headers = {"Host": "example.org", "Origin": "http://example.com", "Sec-Fetch-Site": "cross-site"}
        async with client.get("/tasks", headers=headers) as response:
            assert response.status == 200


async def test_a_token_is_enough_from_any_page() -> None:
    app = crawler.create_app(service=ServiceOptions(tokens=TOKENS), only_local=True)
    async with serving(app) as client, client.get("/tasks", headers=bearer(ANN) | {"Host": "example.org"}) as response:
        assert response.status == 200
