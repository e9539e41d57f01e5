"""The service with TLS, and behind a proxy."""

import asyncio
import os
import ssl
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import trustme
from aiohttp import ClientSession, web

import crawler
from crawler import InputError, OptionError, ServiceOptions
from crawler.cli.main import main
from crawler.server.middleware.proxy_headers import ProxyHeaders
from tests.support.app_client import serving
from tests.support.certs import write_combined_pem


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


async def test_the_service_speaks_tls(authority: trustme.CA, tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "crawler", "--port", "0", "--tls-cert", write_combined_pem(authority, tmp_path)),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        words = (await process.stdout.readline()).decode().split()
        url = next(word for word in words if word.startswith("https://127.0.0.1:")).rstrip(".")
        trust = ssl.create_default_context()
        authority.configure_trust(trust)
        async with ClientSession() as session, session.get(f"{url}/tasks", ssl=trust) as response:
            assert await response.json() == {}
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        assert await process.wait() == 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--tls-cert", "/nowhere"], "/nowhere: cannot be read"),
        (["--tls-cert", "{pem}", "--tls-key", "/nowhere"], "/nowhere: cannot be read"),
        (["--tls-key", "{pem}"], "needs --tls-cert"),
        (["--tls-cert", os.devnull], "is not a certificate with its key"),
        (["--tls-cert", "{pem}", "--tls-key", "{other}"], "is not a certificate with its key"),
        (["--tls-cert", "{locked}"], "is not a certificate with its key"),
        (["--forwarded-allow", "x"], "'x' is not a network"),
        (["--root-path", "no/slash"], "root-path"),
    ],
)
def test_a_wrong_tls_file_is_reported_at_the_start(
    flags: list[str], words: str, authority: trustme.CA, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = write_combined_pem(authority, tmp_path)
    other, locked = tmp_path / "other.pem", tmp_path / "locked.pem"
    other.write_bytes(authority.issue_cert("localhost").private_key_pem.bytes())
    begin, _, text = Path(both).read_text().partition("KEY-----\n")
    locked.write_text(begin + "KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\n" + text)
    files = {"pem": both, "other": other, "locked": locked}
    assert main([*(flag.format(**files) for flag in flags), "--port", "0"]) == 2
    assert words in capsys.readouterr().err


async def seen(networks: tuple[str, ...], headers: list[tuple[str, str]]) -> tuple[str | None, str, str]:
    """What a handler sees of a client on loopback that sends these headers."""

    async def show(request: web.Request) -> web.Response:
        return web.json_response([request.remote, request.scheme, request.host])

    app = web.Application(middlewares=[ProxyHeaders(networks).middleware])
    app.add_routes([web.get("/", show)])
    async with serving(app) as client, client.get("/", headers=[("Host", "here"), *headers]) as response:
        remote, scheme, host = await response.json()
        return remote, scheme, host


FOR, PROTO, HOST = "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], ("127.0.0.1", "http", "here")),
        ([(FOR, "192.0.2.1"), (PROTO, "https"), (HOST, "there")], ("192.0.2.1", "https", "there")),
        ([(FOR, "1.1.1.1, 192.0.2.1, 10.1.2.3")], ("192.0.2.1", "http", "here")),
        ([(FOR, "1.1.1.1"), (FOR, "192.0.2.1")], ("192.0.2.1", "http", "here")),
        ([(FOR, "10.0.0.1, 10.0.0.2")], ("10.0.0.1", "http", "here")),
        ([(FOR, "1.1.1.1, nonsense")], ("nonsense", "http", "here")),
        ([(FOR, ""), (PROTO, "ftp"), (HOST, " , ")], ("127.0.0.1", "http", "here")),
    ],
)
async def test_a_trusted_proxy_is_believed(headers: list[tuple[str, str]], expected: tuple[str, str, str]) -> None:
    assert await seen(("127.0.0.0/8", "10.0.0.0/8"), headers) == expected


@pytest.mark.parametrize("networks", [(), ("10.0.0.0/8", "::1/128")])
async def test_an_untrusted_proxy_is_not_believed(networks: tuple[str, ...]) -> None:
    headers = [(FOR, "192.0.2.1"), (PROTO, "https"), (HOST, "there")]
    assert await seen(networks, headers) == ("127.0.0.1", "http", "here")


@pytest.mark.parametrize("network", ["", "x", "10.0.0.1/8", "10.0.0.0/33"])
def test_a_text_that_is_not_a_network_is_refused(network: str) -> None:
    with pytest.raises(OptionError, match="forwarded_allow"):
        crawler.create_app(service=ServiceOptions(forwarded_allow=(network,)))


async def test_links_lead_through_the_proxy() -> None:
    service = ServiceOptions(root_path="/crawler/here", forwarded_allow=("127.0.0.0/8",))
    async with serving(crawler.create_app(service=service)) as client:
        for _ in range(2):
            headers = {FOR: "192.0.2.1"}
            async with client.post("/api/v1/tasks", json={"urls": ["no url"]}, headers=headers) as response:
                task = await response.json()
                assert response.headers["Location"] == f"/crawler/here/api/v1/tasks/{task['id']}"
                assert task["links"]["results"].startswith("/crawler/here/api/v1/")
        async with client.get("/api/v1/tasks", params={"limit": 1}) as response:
            assert response.headers["Link"].startswith("</crawler/here/api/v1/tasks?")


def test_behind_a_proxy_the_guard_is_public() -> None:
    with pytest.raises(InputError, match="proxy"):  # a public guard excludes a proxy for probes
        crawler.run_service(
            options=crawler.Options(proxy="http://127.0.0.1:1"),
            service=ServiceOptions(forwarded_allow=("127.0.0.1/32",), registry="memory"),
        )
