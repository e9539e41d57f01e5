"""Reports about other checkers and clients, that a site which browsers open was called broken, replayed.

Each row names its report. Witness: Chromium 156 opened a server with the same bytes, and asked for the same paths.
"""

import pytest

from tests.support.exchange import Exchange
from tests.support.probing import probe_one, status_of
from tests.support.site import Site

HEADERS = {
    "louislam/uptime-kuma#23": b"Set-Cookie: ___utmvb=abc\n    def; path=/\r\nSet-Cookie: ___utmvm=a\x0bb",
    "louislam/uptime-kuma#4899": b"Content-Security-Policy: default-src *;\r\n   img-src *",
    "louislam/uptime-kuma#5912": b"Server: handle\x01\r\nX-A: b\r",
    "aio-libs/aiohttp#2624": b"X-XSS-Protection=1;",
    "aio-libs/aiohttp#1931": b"Content-Encoding: ",
    "golang/go#21290": b"Content-Disposition = attachment; filename=file.asc",
    "projectdiscovery/nuclei#7363": b"HTTP/1.0 200 OK",
    "bogdanfinn/tls-client#150": "Strict\u2010Transport\u2010Security: max\u2010age=63072000".encode(),
    "projectdiscovery/httpx#960": b'WWW-Authenticate: Basic realm="\r\nuser"',
    "PlaidWeb/Pushl#44": b"Upgrade: h2\r\nConnection: Upgrade",
    "seanmonstar/reqwest#1189": b"Set-Cookie: br_lgv_stat=grid; path=/; domain=\x7fwwom\x7fwo{s\x7f.com",
    "internetstandards/Internet.nl#1374": b"X-Name : value",
    "nodejs/node#27711": b"xx: \xff",
}
LOCATIONS = {
    "sbstp/attohttpc#93": ("/\u0627\u0644".encode(), "/%D8%A7%D9%84"),
    "ArchiveTeam/wpull#304": ("/p/\u77f3-nicole#_=_".encode(), "/p/%E7%9F%B3-nicole"),
    "aio-libs/aiohttp#10047": (b"/synspr\xf8ve", "/synspr%F8ve"),
    "aio-libs/aiohttp#1466": (b"/t?next=http%3A//example.com/", "/t?next=http%3A//example.com/"),
    "aio-libs/aiohttp#6626": (b"/wiki/A_%26_B:_(fly)", "/wiki/A_%26_B:_(fly)"),
    "aio-libs/aiohttp#4307": (b"/foo%27bar%2Etxt?S=%2B+", "/foo%27bar%2Etxt?S=%2B+"),
    "aio-libs/aiohttp#480": (b"/region:1/Leisure+Activities:golf", "/region:1/Leisure+Activities:golf"),
    "curl/curl#4445": (b"/ppart/Coutinho_7 0080S", "/ppart/Coutinho_7%200080S"),
    "JustinBeckwith/linkinator#364": (b"/y?a=1&amp;b=2", "/y?a=1&amp;b=2"),
}
HOST_LOCATIONS = {
    "scrapy/scrapy#4032": "///{host}/x",
    "curl/curl#791": "http:///{host}/x",
    "sqlpage/SQLPage#399": "//{host}/x",
    "another case": "HTTP://{host}/x",
    "backslashes": "http:\\\\{host}\\x",
    "the same scheme without slashes": "http:x",
}
URLS = {
    "dkhamsing/awesome_bot#64": ("/get?space= &breaks+things&comma=,", "/get?space=%20&breaks+things&comma=,"),
    "stevenvachon/broken-link-checker#53": ("/gj\u00f8r-det-selv/", "/gj%C3%B8r-det-selv/"),
    "tcort/markdown-link-check#158": ("/W%28c%2B%2B%29", "/W%28c%2B%2B%29"),
    "request/request#1385": ("/c_2015\u6b3e 2.5HQ E-CVT/", "/c_2015%E6%AC%BE%202.5HQ%20E-CVT/"),
}
INVALID_LOCATIONS = {"urllib3/urllib3#1556": b"http:///", "psf/requests#4746": b"http://127.0.0.1:-1/"}


@pytest.mark.parametrize("report", HEADERS)
async def test_an_odd_header_does_not_make_a_page_bad(report: str, site: Site) -> None:
    page = b"<title>fine</title>"
    site.on("/odd", b"HTTP/1.1 200 OK\r\n%b\r\nContent-Length: %d\r\n\r\n%b" % (HEADERS[report], len(page), page))
    result = await probe_one(site.url("/odd"), title=True)
    assert (status_of(result), result.title) == (200, "fine")


@pytest.mark.parametrize("report", LOCATIONS)
async def test_a_redirect_leads_to_the_path_of_a_browser(report: str, site: Site) -> None:
    location, path = LOCATIONS[report]
    site.on("/start", b"HTTP/1.1 302 Found\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n" % location)
    await probe_one(site.url("/start"), method="GET")
    assert [request.path for request in site.requests] == ["/start", path]


@pytest.mark.parametrize("report", HOST_LOCATIONS)
async def test_a_redirect_leads_to_the_host_of_a_browser(report: str, site: Site) -> None:
    location = HOST_LOCATIONS[report].format(host=site.url("").split("/")[2]).encode()
    site.on("/start", b"HTTP/1.1 302 Found\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n" % location)
    site.on("/x", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    result = await probe_one(site.url("/start"))
    assert (status_of(result), result.final_url) == (200, site.url("/x"))


@pytest.mark.parametrize("report", URLS)
async def test_a_url_is_asked_for_as_by_a_browser(report: str, site: Site) -> None:
    text, path = URLS[report]
    await probe_one(site.url(text), method="GET")
    assert [request.path for request in site.requests] == [path]


@pytest.mark.parametrize("report", INVALID_LOCATIONS)
async def test_a_redirect_that_no_browser_follows(report: str, site: Site) -> None:
    """ERR_INVALID_REDIRECT."""
    site.on("/start", b"HTTP/1.1 302 Found\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n" % INVALID_LOCATIONS[report])
    assert status_of(await probe_one(site.url("/start"))) == "http.response.invalid"


async def test_a_page_for_clients_that_want_html(site: Site) -> None:
    """louislam/uptime-kuma#1067: 404 with the hint to use `Accept: text/html`."""

    async def handle(x: Exchange) -> None:
        await x.reply(200 if "text/html" in x.request.header("Accept") else 404)

    site.on("/app", handle)
    assert status_of(await probe_one(site.url("/app"))) == 200


async def test_a_chunked_body_that_is_not_chunked(site: Site) -> None:
    """psf/requests#4248 and cisagov/pshtt#20: Chromium commits the page with its head."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    for path, body in {"/again": b"HTTP/1.1 200 OK\r\n\r\n<html>", "/nothing": b""}.items():
        site.on(path, head + body)
        assert status_of(await probe_one(site.url(path), method="GET")) == 200
