"""When a probe asks over HTTP/2 too, and whose answer counts.

Witness: Chromium 156 (Debian 12), which offers HTTP/2 and HTTP/1.1 in each handshake, opened each server of `GOOD` over
HTTP/2 with status 200. `curl --http1.1` gets the bad answers here, and `curl --http2` the good ones.
"""

from pathlib import Path

import pytest
import trustme

from crawler import ProbeResult
from tests.support.certs import Authority, write_combined_pem
from tests.support.http2_server import Http2Server
from tests.support.probing import SHORT_BACKOFF, probe_all, probe_one, status_of
from tests.support.site import Site
from tests.support.webserver import running_nginx

NGINX_CONFIG = """
http {{
    access_log off;
    server {{
        listen {address} ssl http2;
        ssl_certificate "{pem}";
        ssl_certificate_key "{pem}";
        if ($server_protocol != HTTP/2.0) {{ {rule}; }}
        location / {{ return 200; }}
    }}
}}
"""


def answer(status: int) -> bytes:
    return f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()


GOOD = {
    "refused by ALPN (RFC 7301, 3.2)": "alert",
    "handshake failure": "handshake failure",
    "internal error": "internal error",
    "closed in the handshake (caddyserver/caddy#7402)": "closed handshake",
    "reset in the handshake (curl/curl#12259)": "reset handshake",
    "426 (RFC 9110, 15.5.22)": answer(426),
    "505 (RFC 9110, 15.6.6)": answer(505),
    "421 (RFC 9113, 9.1.2)": answer(421),
    "403": answer(403),
    "closed": b"",
    "reset": "reset",
    "HTTP/2 in answer to HTTP/1.1": b"\0\0\0\x04\0\0\0\0\0",
    "silent": "silence",
}


def steps(result: ProbeResult) -> list[tuple[str, int | str | None, str | None]]:
    """Return the requests of a probe: method, status or error, version."""
    return [(hop.method, hop.status or hop.error, hop.http_version) for hop in result.hops]


@pytest.mark.parametrize("method", ["auto", "GET"])
@pytest.mark.parametrize("http1", GOOD.values(), ids=GOOD)
async def test_what_http2_opens_is_alive(authority: Authority, http1: bytes | str, method: str) -> None:
    async with Http2Server(authority.http2(), http1=http1) as server:
        timeout = 4.0 if http1 == "silence" else 20.0
        result = await probe_one(
            server.url("/ok"), method=method, timeout=timeout, retries=0, cafile=str(authority.cafile)
        )
    assert status_of(result) == 200, result.error
    assert (result.hops[-1].http_version, result.tls and result.tls.alpn) == ("2", "h2")
    assert result.hops[0].http_version in ("1.1", None)
    assert result.attempts == 1


async def test_redirects_are_followed_over_http2(authority: Authority) -> None:
    async with Http2Server(authority.http2()) as server:
        result = await probe_one(server.url("/redirect"), cafile=str(authority.cafile))
    assert steps(result) == [("HEAD", "tls.protocol.error", None), ("HEAD", 302, "2"), ("HEAD", 200, "2")]
    assert result.final_url == server.url("/ok")


async def test_http2_is_asked_once_a_probe(authority: Authority) -> None:
    """403 over both versions stays 403, and the retry of 503 begins no second round."""
    async with Http2Server(authority.http2(), http1=answer(403)) as server:
        result = await probe_one(server.url("/missing"), retries=3, cafile=str(authority.cafile))
    assert steps(result) == [("HEAD", 403, "1.1"), ("GET", 403, "1.1"), ("GET", 404, "2")]
    assert (status_of(result), result.method) == (403, "GET")


async def test_an_answer_over_http2_replaces_none(authority: Authority) -> None:
    """Chromium shows the 404 of a server that speaks HTTP/2 only."""
    async with Http2Server(authority.http2()) as server:
        result = await probe_one(server.url("/missing"), cafile=str(authority.cafile))
    assert status_of(result) == 404
    assert result.tls is not None


@pytest.mark.parametrize("name", ["reset", "settings-flood"])
async def test_the_first_result_stands_if_http2_fails(authority: Authority, name: str) -> None:
    async with Http2Server(authority.http2(), http1=answer(426)) as server:
        result = await probe_one(server.url(f"/{name}"), cafile=str(authority.cafile))
    assert status_of(result) == 426
    assert result.tls is not None
    assert (result.error, result.tls.alpn, result.final_url) == (None, "http/1.1", server.url(f"/{name}"))


async def test_a_transient_first_result_is_tried_again(authority: Authority) -> None:
    """After HTTP/2 has failed, a closed connection has its retry as without HTTP/2."""
    async with Http2Server(authority.http2(), http1=b"") as server:
        result = await probe_one(server.url("/reset"), cafile=str(authority.cafile), settings=SHORT_BACKOFF)
    assert (status_of(result), result.attempts) == ("tcp.closed", 2)
    assert [request.version for request in server.requests] == [1, 1, 2, 1]


async def test_a_refused_request_over_http2_is_tried_again(authority: Authority) -> None:
    """RFC 9113, 8.7; each attempt has two connections."""
    async with Http2Server(authority.http2()) as server:
        result = await probe_one(server.url("/refused-always"), cafile=str(authority.cafile), settings=SHORT_BACKOFF)
    assert result.error is not None
    assert (result.error.type, result.error.transient, result.attempts) == ("http.failed", True, 2)


@pytest.mark.parametrize("status", [400, 401, 404, 410, 429, 500, 503])
async def test_other_statuses_do_not_ask_for_http2(authority: Authority, status: int) -> None:
    async with Http2Server(authority.http2(), http1=answer(status)) as server:
        result = await probe_one(server.url("/ok"), retries=0, cafile=str(authority.cafile))
    assert steps(result) == [("HEAD", status, "1.1"), ("GET", status, "1.1")]


async def test_plain_http_is_never_asked_over_http2() -> None:
    async with Site() as site:
        result = await probe_one(site.url("/status/426"), retries=0)
    assert [hop.method for hop in result.hops] == ["HEAD", "GET"]


async def test_a_host_that_declines_http2_is_offered_it_once(authority: Authority) -> None:
    async with Site(tls=authority.good()) as site:
        urls = [site.url(f"/status/403?{number}") for number in range(3)]
        results = await probe_all(urls, per_host=1, retries=0, cafile=str(authority.cafile))
    assert [status_of(result) for result in results] == [403, 403, 403]
    assert sorted(len(result.hops) for result in results) == [2, 2, 3]


async def test_the_option_http(authority: Authority) -> None:
    async with Http2Server(authority.http2(), http1=answer(426)) as server:
        urls, cafile = [server.url("/ok")], str(authority.cafile)
        [first] = await probe_all(urls, http="1", cafile=cafile)
        [second] = await probe_all(urls, http="2", cafile=cafile)
    assert (status_of(first), status_of(second)) == (426, 200)
    assert steps(second) == [("HEAD", 200, "2")]


async def test_robots_txt_of_an_http2_server_is_read(authority: Authority) -> None:
    async with Http2Server(authority.http2()) as server:
        result = await probe_one(server.url("/ok"), robots=True, cafile=str(authority.cafile))
        assert [request.path for request in server.requests] == ["/robots.txt", "/ok"]
    assert status_of(result) == 200


@pytest.mark.parametrize("rule", ["return 426", "return 505", "return 444", "return 403"])
async def test_nginx_that_wants_http2(tmp_path: Path, rule: str) -> None:
    """nginx closes the connection for 444."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    config = NGINX_CONFIG.format(address="{address}", pem=write_combined_pem(authority, tmp_path), rule=rule)
    with running_nginx(tmp_path, config) as address:
        result = await probe_one(f"https://{address}/", cafile=str(tmp_path / "ca.pem"))
    assert status_of(result) == 200, result.error
    assert [hop.http_version for hop in result.hops] == [None if "444" in rule else "1.1"] * 2 + ["2"]
