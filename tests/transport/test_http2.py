"""A request over HTTP/2, and what a server can send against the rules.

Witness: Chromium 156.0.8078.108 (Debian 12), which trusted the same authority, opened every URL of `http2_server.ROWS`.
"""

from collections.abc import AsyncIterator

import pytest

from tests.support.certs import Authority
from tests.support.http2_server import DISPOSITIONS, LOCATIONS, OK, PROTOCOL, REFUSED, ROWS, Http2Server
from tests.support.probing import SHORT_BACKOFF, probe_one, status_of
from tests.support.site import Site

INVALID = "http.response.invalid"
TYPES = {OK: 200, "404": 404, PROTOCOL: INVALID, LOCATIONS: INVALID, DISPOSITIONS: INVALID, REFUSED: "http.failed"}


@pytest.fixture
async def server(authority: Authority) -> AsyncIterator[Http2Server]:
    async with Http2Server(authority.http2()) as started:
        yield started


@pytest.mark.parametrize("tls", ["auto", "openssl"])
@pytest.mark.parametrize("name", ROWS)
async def test_answers_get_the_verdict_of_chromium(
    server: Http2Server, authority: Authority, name: str, tls: str
) -> None:
    result = await probe_one(
        server.url(f"/{name}"), http="2", tls=tls, cafile=str(authority.cafile), settings=SHORT_BACKOFF
    )
    assert status_of(result) == TYPES[ROWS[name]], result.error
    assert result.tls is not None
    assert result.tls.alpn == "h2"
    assert result.tls.engine == ("rustls" if tls == "auto" else "openssl")
    assert {hop.http_version for hop in result.hops} == ({"2"} if result.error is None else {None})


@pytest.mark.parametrize("name", [name for name in ROWS if name.startswith("length-")])
async def test_the_length_means_nothing_in_http2(server: Http2Server, authority: Authority, name: str) -> None:
    """Chromium commits the page. With GET the length is not the one of a body that was left out."""
    cafile = str(authority.cafile)
    result = await probe_one(server.url(f"/{name}"), http="2", method="GET", retries=0, cafile=cafile, title=True)
    assert status_of(result) == 200


@pytest.mark.parametrize("method", ["HEAD", "GET"])
@pytest.mark.parametrize(
    "name", ["body-shorter-than-its-length", "body-longer-than-its-length", "reset-after-the-head"]
)
async def test_the_head_stands_whatever_comes_with_it(
    server: Http2Server, authority: Authority, name: str, method: str
) -> None:
    """Chromium commits the page when it has the head."""
    result = await probe_one(
        server.url(f"/{name}"), http="2", method=method, retries=0, cafile=str(authority.cafile), title=method == "GET"
    )
    assert status_of(result) == 200


async def test_title_and_alt_svc(server: Http2Server, authority: Authority) -> None:
    result = await probe_one(server.url("/ok"), http="2", title=True, cafile=str(authority.cafile))
    assert (result.title, result.headers["alt-svc"]) == ("Two", 'h3=":443"')


async def test_fields_of_a_request(server: Http2Server, authority: Authority) -> None:
    """RFC 9113, 8.2 and 8.3: names are in lower case, and no field is about the connection. Bytes above 127 stay."""
    headers = {"X-Name": "caf\xe9"}
    await probe_one(server.url("/ok?a=b"), http="2", headers=headers, cafile=str(authority.cafile))
    [request] = server.requests
    fields = dict(request.headers)
    assert [fields[name] for name in (":method", ":scheme", ":path")] == ["HEAD", "https", "/ok?a=b"]
    assert fields[":authority"] == server.url("").removeprefix("https://")
    assert fields["x-name"] == "caf\xe9"
    assert not fields.keys() & {"host", "connection", "keep-alive"}


FLOODS = {
    "continuation-flood": "http.response.invalid",
    "settings-flood": "http.response.invalid",
    "ping-flood": "http.response.invalid",
    "window-flood": "http.response.invalid",
    "interim-flood": "http.response.invalid",
    "endless-body": 200,
    "empty-body-flood": 200,
}


@pytest.mark.parametrize("name", FLOODS)
async def test_floods_end_at_a_limit(server: Http2Server, authority: Authority, name: str) -> None:
    """CVE-2019-9511 to 9518 and CVE-2024-27316 describe these floods; none may cost the client much."""
    result = await probe_one(
        server.url(f"/{name}"),
        http="2",
        title=True,
        max_read=50_000,
        timeout=60,
        retries=0,
        cafile=str(authority.cafile),
    )
    assert status_of(result) == FLOODS[name], result.error
    assert result.timings.total < 30_000
    assert server.received_bytes < 200_000


async def test_a_silent_server_is_left_at_the_deadline(server: Http2Server, authority: Authority) -> None:
    result = await probe_one(
        server.url("/silence"), http="2", method="GET", timeout=1.5, retries=0, cafile=str(authority.cafile)
    )
    assert status_of(result) == "http.timed_out"


@pytest.mark.parametrize("name", ["http1-required", "goaway-http1-required"])
async def test_http_1_1_required(authority: Authority, name: str) -> None:
    """RFC 9113, 7 and 8.1: the same request is sent over HTTP/1.1. Chromium does it too."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    async with Http2Server(authority.http2(), http1=answer) as server:
        result = await probe_one(server.url(f"/{name}"), http="2", cafile=str(authority.cafile))
    assert status_of(result) == 200
    assert [request.version for request in server.requests] == [2, 1]
    assert result.hops[0].http_version == "1.1"


async def test_an_error_in_goaway_is_named(server: Http2Server, authority: Authority) -> None:
    result = await probe_one(server.url("/goaway-error"), http="2", retries=0, cafile=str(authority.cafile))
    assert result.error is not None
    assert (result.error.type, result.error.phase) == ("http.response.invalid", "http")
    assert "ENHANCE_YOUR_CALM" in result.error.message


async def test_a_server_can_choose_http1(authority: Authority) -> None:
    async with Site(tls=authority.good()) as site:
        result = await probe_one(site.url("/ok"), http="2", cafile=str(authority.cafile))
    assert status_of(result) == 200
    assert result.tls is not None
    assert (result.hops[0].http_version, result.tls.alpn) == ("1.1", "http/1.1")


async def test_plain_http_is_http1(authority: Authority) -> None:
    async with Site() as site:
        result = await probe_one(site.url("/ok"), http="2")
    assert (status_of(result), result.hops[0].http_version) == (200, "1.1")
