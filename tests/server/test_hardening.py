"""Hostile clients: malformed bodies, too many requests, slow clients; and secrets that must not leak."""

import asyncio
import gzip
import io
import json
import logging
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import ClientSession, web

import crawler
from crawler import Options, ServiceOptions
from crawler.server.app_keys import REGISTRY, TASK_MANAGER
from crawler.server.http.connection_limits import ConnectionLimiter
from crawler.server.http.site import ListeningSite
from tests.support.app_client import Client, check_problem, serving
from tests.support.site import Site as Target
from tests.support.tokens import bearer, status_of

# --- JSON ---

DEEP = 100_000
NUMBERS = (
    "1" * 5000,
    "-" + "9" * 5000,
    "1e400",
    "-1e400",
    "1." + "0" * 5000,
    "NaN",
    "Infinity",
    "-Infinity",
    "0x1",
    "01",
)
TEXTS = ('"\\ud800"', '"\\udc00\\ud800"', '"\\u0000"', '"\x00"', '"a', "'a'", '"\\x"', '"' + "a" * 2_000_000 + '"')
OTHERS = ("null", "true", "[]", "{}", "[[]]", '{"a": {}}', "1", "-1", "1.5", '""', '"x"')
PLACES = (
    '{"urls": %s}',
    '{"urls": [%s]}',
    '{"urls": ["x"], "options": %s}',
    '{"urls": ["x"], "options": {"timeout": %s}}',
    '{"urls": ["x"], "options": {"headers": %s}}',
    '{"urls": ["x"], "options": {"headers": {"A": %s}}}',
    '{"urls": ["x"], "options": {"accept": [%s]}}',
    '{"urls": ["x"], "options": {"match": %s}}',
    '{"urls": ["x"], "label": %s}',
    '{"urls": ["x"], "webhook": %s}',
    '{"urls": ["x"], "webhook": {"url": %s}}',
    '{"urls": ["x"], "webhook": {"url": "http://x", "secret": %s}}',
    '{"urls": ["x"], "unknown": %s}',
    '{"options": %s}',
    '{"options": {"retries": %s}}',
    '{"label": %s}',
    "%s",
)


def bodies() -> Iterator[tuple[str, bytes]]:
    """Bodies that are hard to parse as JSON, by a short name."""
    for place in PLACES:
        for value in (*NUMBERS, *TEXTS, *OTHERS):
            yield f"{place % value[:8]} {len(value)}", (place % value).encode()
    batch = '{"urls": ["x"]}'
    yield "empty", b""
    yield "white space", b" \n\t"
    yield "only a NUL", b"\0"
    yield "trailing bytes", batch.encode() + b"x"
    yield "trailing NUL", batch.encode() + b"\0"
    yield "two documents", batch.encode() * 2
    yield "cut off", batch.encode()[:-1]
    yield "a mark", b"\xef\xbb\xbf" + batch.encode()
    yield "UTF-16", batch.encode("utf-16")
    yield "UTF-32", batch.encode("utf-32-le")
    yield "no UTF-8", b'{"urls": ["\xff\xfe"], "label": "\xff"}'
    yield "a key that is no UTF-8", b'{"\xff": 1, "urls": ["x"]}'
    yield "overlong", b'{"label": "\xc0\xaf"}'
    yield "an encoded surrogate", b'{"label": "\xed\xa0\x80"}'
    yield "a comment", b'{/* */"urls": ["x"]}'
    yield "a comma too many", b'{"urls": ["x",],}'
    yield "duplicate keys", b'{"urls": ["x"], "urls": ["y"], "label": "a", "label": 1}'
    yield "many keys", b"{" + b",".join(b'"%d": 1' % number for number in range(20_000)) + b"}"
    for opening, closing in (("[", "]"), ('{"a":', "}"), ('{"urls":[', "]}"), ('{"options":{"headers":', "}}")):
        yield f"deep {opening}", (opening * DEEP).encode()
        yield f"deep {opening} {closing}", (opening * DEEP + "1" + closing * DEEP).encode()


@asynccontextmanager
async def with_a_failure() -> AsyncIterator[tuple[Client, str]]:
    """A service with a Task that has failures to recheck."""
    async with serving(crawler.create_app(Options(guard="public"))) as client:
        async with client.post("/submit", json={"urls": ["http://127.0.0.1/"]}) as response:
            task = (await response.json())["task_id"]
        async with client.get(f"/api/v1/tasks/{task}", params={"wait": 60}) as response:
            assert (await response.json())["counts"]["blocked"] == 1
        yield client, task


@pytest.mark.parametrize("path", ["/submit", "/api/v1/tasks", "/api/v1/tasks/{}/recheck"])
async def test_no_json_causes_a_500(path: str, caplog: pytest.LogCaptureFixture) -> None:
    headers = {"Content-Type": "application/json"}
    async with with_a_failure() as (client, task):
        for name, body in bodies():
            async with client.post(path.format(task), data=io.BytesIO(body), headers=headers) as response:
                assert response.status in (200, 201, 400, 413, 422), name
                if response.status >= 400:
                    await check_problem(response, response.status)
                    problem = await response.json(content_type=None)
                    assert len(problem["detail"]) < 1000, name
        assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize("path", ["/submit", "/api/v1/tasks", "/api/v1/tasks/{}/recheck"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "application/json; charset=bogus"},
        {"Content-Type": "application/json; charset=utf-16"},
        {"Content-Type": "application/json; charset"},
        {"Content-Type": "application/json;;;"},
        {"Content-Type": "\xff"},
        {"Content-Type": "application/" + "x" * 5000},
        {"Content-Encoding": "gzip"},
        {"Content-Encoding": "gzip, gzip"},
        {"Content-Encoding": "br"},
        {"Content-Encoding": "\xff"},
        {"Content-Language": "\xff"},
        {"Idempotency-Key": "\xff"},
        {"Accept": "\xff;q=x"},
        {"Cookie": "a=\xff; =; ;;"},
        {"Range": "bytes=9-1"},
        {"If-Modified-Since": "yesterday"},
        {"Expect": "something"},
    ],
    ids=str,
)
async def test_no_header_causes_a_500(path: str, headers: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    async with with_a_failure() as (client, task):
        headers = {"Content-Type": "application/json", **headers}
        async with client.post(path.format(task), data=b'{"urls": ["x"]}', headers=headers) as response:
            assert response.status < 500
            if response.status >= 400 and "Expect" not in headers:  # aiohttp answers these itself
                await check_problem(response, response.status)
        assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_decompressed_bytes_count_towards_max_body() -> None:
    async with serving(crawler.create_app(service=ServiceOptions(max_body=1000))) as client:
        for path in ("/submit", "/api/v1/tasks"):
            headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
            async with client.post(path, data=gzip.compress(b" " * 1_000_000), headers=headers) as response:
                await check_problem(response, 413, "1000 bytes")


# --- Quotas ---


def hanging(target: Target, count: int) -> bytes:
    """A batch of URLs that hang."""
    return json.dumps({"urls": [target.url(f"/hang?{number}") for number in range(count)]}).encode()


async def submitted(client: Client, body: bytes, secret: str = "", path: str = "/submit") -> Any:
    headers = {"Content-Type": "application/json", **(bearer(secret) if secret else {})}
    async with client.post(path, data=io.BytesIO(body), headers=headers) as response:
        answer = await response.json(content_type=None)
        return response.status, response.headers, answer


@pytest.mark.parametrize("path", ["/submit", "/api/v1/tasks"])
async def test_the_urls_of_a_task_are_limited(path: str) -> None:
    async with serving(crawler.create_app(service=ServiceOptions(max_urls=10))) as client:
        for count, expected in ((11, 413), (10, 200), (100_000, 413)):
            found, _, answer = await submitted(client, json.dumps({"urls": ["x"] * count}).encode(), path=path)
            assert found in ((200, 201) if expected == 200 else (413,)), answer
        async with client.get("/tasks") as response:
            assert len(await response.json()) == 1


async def test_the_running_tasks_are_limited(site: Target) -> None:
    app = crawler.create_app(Options(guard="any"), service=ServiceOptions(max_tasks=2, drain=0))
    async with serving(app) as client:
        for expected in (200, 200, 429):
            found, headers, answer = await submitted(client, hanging(site, 1))
            assert found == expected
        assert "running-tasks" in answer["detail"]
        assert headers["RateLimit-Policy"] == '"running-tasks";q=2'
        assert headers["RateLimit"] == '"running-tasks";r=0;t=30'
        assert headers["Retry-After"] == "30"
        async with client.get("/tasks") as response:
            first, _ = await response.json()
        assert await status_of(client, "DELETE", f"/tasks/{first}", "") == 204
        assert (await submitted(client, hanging(site, 1)))[0] == 200


@pytest.mark.parametrize(
    ("quota", "policy", "sizes"),
    [({"token_tasks": 2}, "token-tasks", (1, 1, 1)), ({"token_urls": 10}, "token-urls", (4, 5, 2))],
)
async def test_the_tasks_and_urls_of_a_token_are_limited(
    quota: dict[str, int], policy: str, sizes: tuple[int, int, int], site: Target
) -> None:
    service = ServiceOptions(tokens=("ann:anns-secret", "bob:bobs-secret"), drain=0, **quota)  # type: ignore[arg-type]
    async with serving(crawler.create_app(Options(guard="any"), service=service)) as client:
        for size, expected in zip(sizes, (200, 200, 429), strict=True):
            found, headers, _ = await submitted(client, hanging(site, size), "anns-secret")
            assert found == expected
        assert headers["RateLimit-Policy"].startswith(f'"{policy}";q=')
        assert (await submitted(client, hanging(site, sizes[2]), "bobs-secret"))[0] == 200


async def test_more_than_a_token_can_ever_have_is_too_large(site: Target) -> None:
    service = ServiceOptions(tokens=("ann:anns-secret",), token_urls=3, drain=0)
    async with serving(crawler.create_app(Options(guard="any"), service=service)) as client:
        assert (await submitted(client, hanging(site, 4), "anns-secret"))[0] == 413
        assert (await submitted(client, hanging(site, 3), "anns-secret"))[0] == 200


async def test_a_batch_that_is_being_received_counts(site: Target) -> None:
    app = crawler.create_app(Options(guard="any"), service=ServiceOptions(max_tasks=1, drain=0))
    async with serving(app) as client:
        _, writer = await asyncio.open_connection(client.host, client.port)
        writer.write(b'POST /submit HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"urls": [')
        while (await submitted(client, b'{"urls": 1}'))[0] != 429:  # until its handler runs
            pass
        writer.close()
        while (await submitted(client, hanging(site, 1)))[0] == 429:  # until the slow request has been cut off
            pass


@pytest.mark.parametrize("tokens", [("ann:anns-secret", "ann:again-ann", "bob:bobs-secret"), ()])
async def test_the_requests_in_progress_are_limited(tokens: tuple[str, ...], site: Target) -> None:
    app = crawler.create_app(Options(guard="any"), service=ServiceOptions(tokens=tokens, token_requests=2))
    ann = bearer("anns-secret") if tokens else {}
    again = bearer("again-ann") if tokens else {}
    async with serving(app) as client:
        _, headers, answer = await submitted(client, hanging(site, 1), "anns-secret" if tokens else "")
        assert '"token-requests";r=1' in headers["RateLimit"]
        task = f"/api/v1/tasks/{answer['task_id']}"
        events = await client.get(f"{task}/events", headers=ann)
        poll = asyncio.ensure_future(status_of(client, "GET", f"{task}?wait=60", "anns-secret"))
        while await status_of(client, "GET", "/tasks", "anns-secret") != 429:  # until both requests are under way
            pass
        for method, path in (("GET", "/tasks"), ("POST", "/submit"), ("GET", "/nowhere")):
            async with client.request(method, path, headers=again) as response:
                await check_problem(response, 429, "token-requests")
                assert response.headers["Retry-After"] == "1"
                assert response.headers["RateLimit-Policy"] == '"token-requests";q=2'
                assert response.headers["RateLimit"] == '"token-requests";r=0;t=1'
        assert await status_of(client, "GET", "/tasks", "bobs-secret") == (200 if tokens else 429)
        for path in ("/docs", "/openapi.json"):  # which need no token
            assert await status_of(client, "GET", path, "") == 200
        await app[TASK_MANAGER].delete(app[REGISTRY].task(answer["task_id"]))  # both requests wait for this
        assert await poll == 404
        await events.read()
        assert await status_of(client, "GET", "/tasks", "anns-secret") == 200


@pytest.mark.parametrize(("tokens", "expected"), [(("ann:anns-secret",), 429), ((), 200)])
async def test_bodies_that_do_not_end_use_up_only_the_quota_of_their_token(
    tokens: tuple[str, ...], expected: int
) -> None:
    service = ServiceOptions(tokens=tokens, token_requests=1)
    async with serving(crawler.create_app(service=service)) as client:
        reader, writer = await asyncio.open_connection(client.host, client.port)
        writer.write(HEAD + b"Authorization: Bearer anns-secret\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n")
        assert b"100" in await reader.readline()  # so its handler runs
        assert await status_of(client, "GET", "/tasks", "anns-secret") == expected
        writer.close()


@pytest.mark.parametrize("path", ["/submit", "/api/v1/tasks"])
async def test_the_answer_to_a_submit_shows_what_is_left(path: str, site: Target) -> None:
    service = ServiceOptions(
        tokens=("ann:anns-secret", "bob:bobs-secret"),
        max_tasks=9,
        token_tasks=5,
        token_urls=20,
        token_requests=3,
        drain=0,
    )
    async with serving(crawler.create_app(Options(guard="any"), service=service)) as client:
        for size, left in ((4, (8, 4, 16, 2)), (6, (7, 3, 10, 2))):
            found, headers, _ = await submitted(client, hanging(site, size), "anns-secret", path)
            assert found in (200, 201)
            assert headers["RateLimit-Policy"] == (
                '"running-tasks";q=9, "token-tasks";q=5, "token-urls";q=20, "token-requests";q=3'
            )
            assert headers["RateLimit"] == (
                '"running-tasks";r={}, "token-tasks";r={}, "token-urls";r={}, "token-requests";r={}'.format(*left)
            )
        found, headers, _ = await submitted(client, hanging(site, 1), "bobs-secret", path)
        assert headers["RateLimit"] == '"running-tasks";r=6, "token-tasks";r=4, "token-urls";r=19, "token-requests";r=2'


# --- Slow clients ---

SLOW = ServiceOptions(receive_timeout=0.5, max_connections=100, keep_alive=30)


@asynccontextmanager
async def listening(
    service: ServiceOptions, app: web.Application | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """A service with limited connections, as `run_service` serves it; gives its port."""
    app = app or crawler.create_app(Options(guard="any"), service=service)
    listener = ConnectionLimiter(service.receive_timeout, service.max_connections)
    app.middlewares.insert(0, listener.middleware)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    try:
        async with listener:
            site = ListeningSite(runner, listener, ("127.0.0.1", 0), keep_alive=service.keep_alive, ssl_context=tls)
            await site.start()
            yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
HEAD = b"POST /submit HTTP/1.1\r\nHost: localhost\r\n"
GET = b"GET /tasks HTTP/1.1\r\nHost: localhost\r\n"


async def opened(port: int, data: bytes) -> Connection:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    return reader, writer


async def asked(port: int) -> bytes:
    """The status line that a well-behaved client gets."""
    reader, writer = await opened(port, GET + b"Connection: close\r\n\r\n")
    try:
        return (await reader.read()).partition(b"\r\n")[0]
    finally:
        writer.close()


async def begun(port: int, size: int) -> Connection:
    """A request whose handler runs, with a part of its body sent."""
    reader, writer = await opened(port, HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % size)
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b'{"urls": [')
    return reader, writer


async def rest(connection: Connection) -> bytes:
    """All bytes until the service closes the connection."""
    reader, writer = connection
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


async def gone(connections: Iterable[Connection]) -> None:
    for _, writer in connections:
        writer.transport.abort()
    await asyncio.gather(*(writer.wait_closed() for _, writer in connections), return_exceptions=True)


@pytest.mark.parametrize("data", [b"", b"G", GET, HEAD + b"Content-Le"], ids=repr)
async def test_a_head_that_does_not_end_is_answered_408(data: bytes) -> None:
    async with listening(SLOW) as port:
        answer = await rest(await opened(port, data))
        assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["status"] == 408


async def dripping(writer: asyncio.StreamWriter, data: bytes) -> None:
    while not writer.is_closing():
        writer.write(data)
        await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("start", "drip"),
    [
        (GET, b"X: 1\r\n"),
        (HEAD + b"Content-Length: 100000\r\n\r\n", b" "),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    ],
    ids=["head", "body", "chunks"],
)
async def test_single_bytes_do_not_keep_a_connection_open(start: bytes, drip: bytes) -> None:
    async with listening(SLOW) as port:
        connection = await opened(port, start)
        drops = asyncio.ensure_future(dripping(connection[1], drip))
        answer = await rest(connection)
        assert (
            answer.startswith(b"HTTP/1.1 408 ") or not answer
        )  # a client that still sends may lose the response to a reset
        drops.cancel()
        await asyncio.gather(drops, return_exceptions=True)


async def test_a_body_that_makes_progress_is_waited_for() -> None:
    async with listening(SLOW) as port:
        size = 30_000
        reader, writer = await opened(port, HEAD + b"Content-Length: %d\r\n\r\n" % size)
        body = (b'{"urls": ["x"' + b" " * size)[: size - 2] + b"]}"
        for start in range(0, size, 1_000):  # for three times the receive timeout
            writer.write(body[start : start + 1_000])
            await asyncio.sleep(0.05)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        writer.close()


async def test_bytes_that_arrive_during_a_delay_of_the_process_are_in_time() -> None:
    async with listening(ServiceOptions(receive_timeout=2)) as port:
        reader, writer = await begun(port, 1_015)
        loop, client = asyncio.get_running_loop(), writer.get_extra_info("socket").dup()
        mine, other = socket.socketpair()

        def hold_up() -> None:  # as another connection can do, while bytes of this one wait to be read
            mine.recv(1)
            client.send(b" " * 500)
            time.sleep(2.5)  # longer than the receive timeout

        loop.add_reader(mine, hold_up)
        for _ in range(2):
            await asyncio.sleep(0.2)
            other.send(b"x")
        await asyncio.sleep(0.2)
        client.send(b'"x"]}')
        assert b" 200 " in await reader.readline()
        loop.remove_reader(mine)
        for each in (mine, other, client, writer):
            each.close()


async def test_the_services_own_work_is_not_the_clients_delay(site: Target) -> None:
    async with listening(SLOW) as port:
        reader, writer = await opened(
            port,
            f"GET /api/v1/probe?url={site.url('/delay/1.5')} HTTP/1.1\r\nHost: localhost\r\n"
            "Connection: close\r\n\r\n".encode(),
        )
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        writer.close()


async def test_a_connection_is_kept_between_requests_for_longer() -> None:
    async with listening(SLOW) as port:
        reader, writer = await opened(port, GET + b"\r\n")
        assert (await reader.readuntil(b"\r\n0\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        await asyncio.sleep(1.5)
        writer.write(GET + b"\r\n")
        assert (await reader.readuntil(b"\r\n0\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        writer.write(GET)  # and half of a third request
        assert b"408" in await reader.readline()
        writer.close()


async def test_a_connection_without_requests_is_closed_in_the_end() -> None:
    service = ServiceOptions(receive_timeout=30, keep_alive=0.2)
    async with listening(service) as port:
        assert b"\r\n{}\r\n" in await rest(await opened(port, GET + b"\r\n"))


async def test_a_thousand_slow_heads_do_not_block_other_clients() -> None:
    service = ServiceOptions(receive_timeout=60, max_connections=1000)  # so long that no slow client is cut off
    async with listening(service) as port:
        slow = [await opened(port, GET) for _ in range(1_100)]
        for _ in range(50):
            assert await asked(port) == b"HTTP/1.1 200 OK"
        await gone(slow)


@pytest.fixture(scope="module")
def secured() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """TLS contexts for a service and for its clients."""
    authority = trustme.CA()
    context, trust = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(trust)
    return context, trust


def connected(port: int) -> int:
    """How many connections the kernel has at a port."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(line[1].endswith(f":{port:04X}") and line[3] == "01" for line in lines)


async def shaken(port: int, trust: ssl.SSLContext) -> bytes:
    """The status line that a well-behaved client gets over TLS."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust)
    writer.write(GET + b"Connection: close\r\n\r\n")
    try:
        return (await reader.read()).partition(b"\r\n")[0]
    finally:
        writer.close()


async def test_silent_tls_connections_do_not_block_other_clients(
    secured: tuple[ssl.SSLContext, ssl.SSLContext], caplog: pytest.LogCaptureFixture
) -> None:
    service, trust = ServiceOptions(receive_timeout=60, max_connections=50), secured[1]
    async with listening(service, tls=secured[0]) as port:
        slow = [await opened(port, b"\x16\x03\x01"[: number % 4]) for number in range(200)]
        for _ in range(10):
            assert await shaken(port, trust) == b"HTTP/1.1 200 OK"
        assert connected(port) <= 50
        await gone(slow)
    assert not caplog.records


async def test_a_handshake_is_waited_for_as_long_as_a_head(secured: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    async with listening(SLOW, tls=secured[0]) as port:
        assert await rest(await opened(port, b"\x16")) == b""


async def test_a_tls_client_with_a_request_is_not_replaced_by_handshakes(
    secured: tuple[ssl.SSLContext, ssl.SSLContext], site: Target
) -> None:
    async with listening(ServiceOptions(max_connections=2), tls=secured[0]) as port:
        busy = [await asyncio.open_connection("127.0.0.1", port, ssl=secured[1]) for _ in range(2)]
        for _, writer in busy:
            writer.write(f"GET /api/v1/probe?url={site.url('/delay/1')} HTTP/1.1\r\nHost: localhost\r\n".encode())
            writer.write(b"Connection: close\r\n\r\n")
        await site.until(lambda: site.active == 2)
        with pytest.raises(OSError):  # cut off: without TLS there can be no response
            await shaken(port, secured[1])
        for reader, writer in busy:
            assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
            writer.close()


async def test_a_thousand_slow_bodies_do_not_block_other_clients_for_long() -> None:
    service = ServiceOptions(receive_timeout=60, max_connections=1000)  # so long that no slow client is cut off
    async with listening(service) as port:
        slow = [await begun(port, 1000) for _ in range(1_000)]
        answers = set()
        async with asyncio.timeout(30):
            for _ in range(20):
                while (answer := await asked(port)) != b"HTTP/1.1 200 OK":
                    answers.add(answer)
                slow.append(await begun(port, 1000))  # it takes the place that became free
        assert answers <= {b"HTTP/1.1 503 Service Unavailable"}
        await gone(slow)


async def test_a_connection_whose_body_makes_progress_is_not_replaced() -> None:
    service = ServiceOptions(receive_timeout=60, max_connections=1)
    async with listening(service) as port:
        reader, writer = await begun(port, 100_010)
        body = b'"x"' + b" " * 99_995 + b"]}"
        for start in range(0, 100_000, 5_000):  # for longer than a client without progress may take
            assert b" 503 " in await asked(port)
            writer.write(body[start : start + 5_000])
            await asyncio.sleep(0.08)
        assert b" 200 " in (await reader.readuntil(b"}"))
        writer.close()


async def test_a_slow_body_is_replaced_before_a_new_connection(caplog: pytest.LogCaptureFixture) -> None:
    async with listening(ServiceOptions(receive_timeout=60, max_connections=2)) as port:
        slow = await begun(port, 1000)
        await asyncio.sleep(1.1)
        reader, writer = await opened(port, b"")
        assert await asked(port) == b"HTTP/1.1 200 OK"
        assert await rest(slow) == b""
        writer.write(GET + b"\r\n")
        assert b" 200 " in await reader.readline()
        writer.close()
    assert not caplog.records  # clients that leave are no error


async def test_a_client_that_disconnects_before_its_answer_causes_no_error_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with listening(ServiceOptions()) as port:
        await gone([await opened(port, GET + b"\r\n") for _ in range(100)])
        assert await asked(port) == b"HTTP/1.1 200 OK"
    assert not caplog.records


def unsent(port: int) -> int:
    """How many unsent bytes the kernel has for the clients of a port."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(int(line[4].partition(":")[0], 16) for line in lines if line[1].endswith(f":{port:04X}"))


async def test_the_kernel_buffers_little_of_a_response() -> None:
    async with listening(ServiceOptions()) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        writer.write(b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: localhost\r\n\r\n")  # more than a megabyte
        while unsent(port) < 100_000:
            await asked(port)
        for _ in range(50):
            await asked(port)
        assert unsent(port) < 500_000
        await gone([(reader, writer)])


async def test_one_connection_too_many_is_answered_503(site: Target) -> None:
    service = ServiceOptions(receive_timeout=60, max_connections=2, drain=0)
    app = crawler.create_app(Options(guard="any"), service=service)
    async with listening(service, app) as port:
        task = await app[TASK_MANAGER].submit([site.url("/hang")])
        busy = []
        for _ in range(2):
            wait = f"GET /api/v1/tasks/{task.id}?wait=60 HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n"
            reader, writer = await opened(port, wait.encode())
            assert b"100" in await reader.readline()  # so its handler runs
            busy.append(writer)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert b"\r\nRetry-After: 5\r\n" in head
        assert json.loads(body)["status"] == 503
        for each in (*busy, writer):
            each.close()
        while await asked(port) != b"HTTP/1.1 200 OK":  # until the service sees that they have left
            pass


async def test_a_client_that_reads_nothing_is_replaced() -> None:
    service = ServiceOptions(receive_timeout=0.5, max_connections=1)
    app = crawler.create_app(Options(guard="any"), service=service)
    async with listening(service, app) as port:
        async with ClientSession(f"http://127.0.0.1:{port}") as session:
            urls = [
                f"no url {number:01000}" for number in range(10_000)
            ]  # more than the buffers between client and service hold
            async with session.post("/submit", data=io.BytesIO(json.dumps({"urls": urls}).encode())) as response:
                task = (await response.json())["task_id"]
            async with session.get(f"/api/v1/tasks/{task}", params={"wait": 60}) as response:
                assert (await response.json())["status"] == "ready"
        reader, writer = await opened(port, f"GET /tasks/{task} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        async with asyncio.timeout(30):
            while await asked(port) != b"HTTP/1.1 200 OK":
                pass
        await gone([(reader, writer)])


# --- Secrets ---

SECRET = "pl4nted-s3cret"


async def test_a_secret_is_in_no_log_and_no_error(caplog: pytest.LogCaptureFixture, site: Target) -> None:
    caplog.set_level(logging.DEBUG)
    service = ServiceOptions(tokens=(f"ann:{SECRET}-token",))
    urls = [
        site.url("/ok").replace("//", f"//user:{SECRET}@"),
        site.url(f"/reset?key={SECRET}"),
        f"http://user:{SECRET}@no.such.invalid/?key={SECRET}",
        f"http://user:{SECRET}@[/",
        f"https://user:{SECRET}@127.0.0.1:1/",
    ]
    errors = []
    async with serving(crawler.create_app(Options(guard="any", retries=0), service=service)) as client:
        headers = bearer(f"{SECRET}-token")
        body = {"urls": urls, "options": {"headers": {"Authorization": SECRET}}}
        async with client.post("/api/v1/tasks", json=body, headers=headers) as response:
            task = await response.json()
        assert SECRET not in json.dumps(task)
        async with client.get(f"/api/v1/tasks/{task['id']}", params={"wait": 60}, headers=headers) as response:
            errors.append(await response.text())
        async with client.get(f"/api/v1/tasks/{task['id']}/results", headers=headers) as response:
            errors += [json.dumps(result["error"]) for result in (await response.json())["results"]]
        for wrong in (
            {"urls": urls, "options": {"headers": {"X": f"{SECRET}\n"}}},
            {"urls": urls, "webhook": {"url": urls[3]}},
            {"urls": urls, "webhook": {"url": site.url("/ok"), "secret": SECRET}},
            {"urls": urls, "options": {"proxy": f"http://user:{SECRET}@127.0.0.1:1"}},
        ):
            async with client.post("/api/v1/tasks", json=wrong, headers=headers) as response:
                assert response.status == 422
                errors.append(await response.text())
        async with client.get("/tasks", headers=bearer(f"{SECRET}-tokem")) as response:
            assert response.status == 401
            errors.append(await response.text())
    for text in (*errors, caplog.text, *(str(record.__dict__) for record in caplog.records)):
        assert SECRET not in text


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (f"GET /{SECRET} nonsense", 400),
        (f"{SECRET}", 400),
        (f"GET / HTTP/1.1\r\nAuthorization: {SECRET}\0", 400),
        (f"GET / HTTP/1.1\r\n{SECRET}", 400),
        (f"GET / HTTP/1.1\r\nHost: a\r\nX: {SECRET}{'x' * 20_000}", 431),
        (f"GET /{SECRET}{'x' * 20_000} HTTP/1.1\r\nHost: a", 431),
        ("GET / HTTP/1.1\r\nHost: a\r\n" + f"X: {SECRET}\r\n" * 1000, 400),
        (f"POST /submit HTTP/1.1\r\nHost: a\r\nContent-Length: {SECRET}", 400),
        (f"POST /submit HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{SECRET}", 400),
    ],
    ids=range(9),
)
async def test_a_request_that_is_not_http_is_answered_and_not_logged(
    data: str, expected: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with listening(ServiceOptions()) as port:
        answer = await rest(await opened(port, data.encode() + b"\r\n\r\n"))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert int(head.split()[1]) == expected
    assert b"application/problem+json" in head
    assert json.loads(body)["status"] == expected
    assert SECRET not in answer.decode()
    assert SECRET not in caplog.text
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize(
    ("version", "codings", "expected"),
    [
        ("1.0", ["chunked"], 400),
        ("1.0", ["gzip, chunked"], 400),
        ("1.1", ["gzip, chunked"], 501),
        ("1.1", ["gzip", "chunked"], 501),
        ("1.1", ["identity"], 501),
        ("1.1", ["x-unknown, chunked"], 501),
    ],
)
@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_a_request_whose_end_is_not_certain_closes_the_connection(
    method: str, version: str, codings: list[str], expected: int
) -> None:
    """RFC 9112, 6.1: 501 for unknown codings; with HTTP/1.0 the framing is faulty, and the connection has
    to be closed. nginx 1.22 answers 400 and 501 to the same bytes, and closes.
    """
    fields = "".join(f"Transfer-Encoding: {coding}\r\n" for coding in codings)
    head = f"{method} /submit HTTP/{version}\r\nHost: localhost\r\nConnection: keep-alive\r\n{fields}\r\n"
    hidden = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with listening(ServiceOptions()) as port:
        answer = await rest(await opened(port, f"{head}0\r\n\r\n{hidden}".encode()))
    assert answer.count(b"HTTP/1.0 ") + answer.count(b"HTTP/1.1 ") == 1, "the request in the body is not answered"
    status = int(answer.split()[1])
    assert status in (expected, 400)
    if status == 501 or version == "1.0":
        assert b"Transfer-Encoding" in answer.partition(b"\r\n\r\n")[2]


async def test_chunked_is_read_in_any_case() -> None:
    body = '14\r\n{"urls": ["http://a"\r\n2\r\n]}\r\n0\r\n\r\n'
    head = "POST /submit HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: Chunked\r\n\r\n"
    async with listening(ServiceOptions()) as port:
        answer = await rest(await opened(port, (head + body).encode()))
    assert answer.split()[1] == b"200"


@pytest.mark.parametrize("value", [f"{SECRET} {SECRET}", f"ann:admin:{SECRET}"])
def test_a_wrong_token_is_in_no_error(value: str) -> None:
    with pytest.raises(crawler.OptionError) as caught:
        ServiceOptions.of({"tokens": [value]})
    assert SECRET not in str(caught.value)
