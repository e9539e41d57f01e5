"""A service as its own target: RFC 8586 (Loop Detection in Content Delivery Networks)."""

from urllib.parse import quote

import pytest

import crawler
from crawler import MemoryRegistry
from tests.support.api import ROOT, serving_api
from tests.support.site import Site
from tests.support.webhook_receiver import NO_URL, SECRET, until_webhook

# The first two are those of RFC 8586, section 2, of which the first two names are of other services.
OTHERS = [
    'foo123.foocdn.example, barcdn.example; trace="abcdef"',
    'AnotherCDN; abc=123; def="456"',
    "crawlers, my-crawler",
    "",
]
OWN = ["crawler", "Crawler", "foo123.foocdn.example, crawler", 'barcdn.example; trace="abcdef" , crawler; v=1']


@pytest.mark.parametrize("value", OWN)
async def test_a_request_that_a_service_has_sent_causes_no_others(value: str) -> None:
    async with serving_api(MemoryRegistry()) as api:
        headers = {"CDN-Loop": value}
        more = {"data": b'{"urls": ["no url"]}', "headers": {**headers, "Content-Type": "application/json"}}
        await api.refuses("POST", "/tasks", 508, "CDN-Loop", **more)
        await api.refuses("GET", "/probe", 508, "CDN-Loop", params={"url": "no url"}, headers=headers)
        await api.ask("GET", "/tasks", headers=headers)  # to read is no change


@pytest.mark.parametrize("value", OTHERS)
async def test_requests_of_other_services_are_answered(value: str) -> None:
    async with serving_api(MemoryRegistry()) as api:
        await api.ask("GET", "/probe", params={"url": "no url"}, headers={"CDN-Loop": value})


async def test_a_service_does_not_go_round(site: Site) -> None:
    """Three nested probes end at the first: the target is not asked."""
    async with serving_api(MemoryRegistry()) as api:
        url = site.url("/ok")
        for _ in range(3):
            url = str(api.client.make_url(f"{ROOT}/probe")) + "?url=" + quote(url, safe="")
        result = await api.get("/probe", url=url, retries=0)
        assert (result["outcome"], result["status"]) == ("http_error", 508)
    assert not site.requests


async def test_probes_and_webhooks_of_a_service_say_who_sends_them(site: Site) -> None:
    async with serving_api(MemoryRegistry()) as api:
        task = await api.submit([site.url("/ok")], webhook={"url": site.url("/ok?hook"), "secret": SECRET})
        await until_webhook(api.registry, task["id"], "delivered")
    assert {request.header("CDN-Loop") for request in site.requests} == {"crawler"}
    assert len(site.requests) == 2


async def test_the_library_is_no_service(site: Site) -> None:
    async for _ in crawler.probe([site.url("/ok"), *NO_URL]):
        pass
    assert [name for request in site.requests for name, _ in request.headers if name.lower() == "cdn-loop"] == []
