"""Passwords, users and TLS of Redis, and the message when a Redis cannot be used."""

import pytest

from crawler.stores.redis.registry import RedisRegistry
from tests.support.api import serving_api
from tests.support.certs import Authority
from tests.support.commands import end_of, started
from tests.support.fleet import working
from tests.support.redis_proxy import proxy_to
from tests.support.redis_server import RedisServer
from tests.support.site import Site

PERMISSIONS = ("~crawler*", "&*", "+@all", "-@admin", "-@dangerous")
"""What services and worker processes need."""


async def _probes(site: Site, url: str) -> None:
    async with serving_api(RedisRegistry(url)) as api, working(url):
        assert (await api.ended([site.url("/ok")]))["counts"]["ok"] == 1


async def test_a_password(site: Site) -> None:
    with RedisServer() as server:
        with server.client() as client:
            client.config_set("requirepass", "s3:cr/et")
        await _probes(site, server.url.replace("unix://", "unix://:s3%3Acr%2Fet@"))


async def test_a_user_with_access_to_our_keys_only(site: Site) -> None:
    with RedisServer() as server:
        with server.client() as client:
            client.execute_command("ACL", "SETUSER", "crawler", "on", ">secret", *PERMISSIONS)
        await _probes(site, server.url.replace("unix://", "unix://crawler:secret@"))


async def test_tls(site: Site, authority: Authority, redis_server: RedisServer) -> None:
    async with proxy_to(redis_server.url, authority.good()) as proxy:
        await _probes(site, f"{proxy.url}?ssl_ca_certs={authority.cafile}")


@pytest.mark.parametrize("command", ["serve", "worker"])
async def test_a_wrong_password_is_one_clear_line(command: str) -> None:
    with RedisServer() as server:
        with server.client() as client:
            client.config_set("requirepass", "secret")
        wrong = server.url.replace("unix://", "unix://:wr0ng@")
        ended = await _error_line(command, "--redis", wrong)
    assert ended.startswith(f"crawler: {server.url}: cannot be used: ")
    assert "password" in ended
    assert "wr0ng" not in ended


async def test_an_untrusted_certificate_is_one_clear_line(authority: Authority, redis_server: RedisServer) -> None:
    async with proxy_to(redis_server.url, authority.good()) as proxy:
        assert "certificate verify failed" in await _error_line("worker", "--redis", proxy.url)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "--redis: is required"),
        (["--redis", "redis://127.0.0.1:1/0"], "redis://127.0.0.1:1/0: cannot be used: "),
        (["--redis", "unix:///nowhere/redis.sock"], "unix:///nowhere/redis.sock: cannot be used: "),
        (["--redis", "http://127.0.0.1/"], "http://127.0.0.1/: "),
    ],
)
async def test_a_worker_without_a_redis_says_so(flags: list[str], words: str) -> None:
    assert words in await _error_line("worker", *flags)


async def _error_line(command: str, *flags: str) -> str:
    """The one line that a failing command prints."""
    async with started(command, *flags) as process:
        ended = await end_of(process)
    assert ended.code == 2, ended
    assert ended.out == ""
    [line] = ended.err.splitlines()
    return line
