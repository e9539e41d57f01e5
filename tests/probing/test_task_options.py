"""Tasks of one prober, each with options of its own."""

import asyncio
import ssl
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

import crawler
from crawler import Options, ProbeResult, Target
from crawler.core.results import HopResult
from crawler.core.task_options import apply_task_options
from crawler.core.urls import Url
from crawler.probing.prober import HttpProber, Prober
from tests.support.certs import Authority
from tests.support.dns_server import DnsServer
from tests.support.exchange import Exchange
from tests.support.probing import asking, probe_one, status_of
from tests.support.site import Site
from tests.support.spacing import assert_spaced


async def batch(prober: Prober, urls: Iterable[str], **choices: Any) -> list[ProbeResult]:
    """Probe URLs with the options of a Task; return the results in the order of the lines."""
    assert isinstance(prober, HttpProber)
    targets = [Target.of(seq, url) for seq, url in enumerate(urls)]
    found = [result async for result in prober.probe_many(targets, apply_task_options(prober.options, choices))]
    return sorted(found, key=lambda result: result.seq)


async def one(prober: Prober, url: str, **choices: Any) -> ProbeResult:
    [result] = await batch(prober, [url], **choices)
    return result


def now() -> float:
    return asyncio.get_running_loop().time()


# --- Statuses that count as ok ---


@pytest.mark.parametrize(
    ("path", "accept", "outcome", "asked"),
    [
        ("/ok", "200", "ok", ["HEAD"]),
        ("/ok", "404", "http_error", ["HEAD", "GET"]),
        ("/status/404", "404", "ok", ["HEAD"]),
        ("/status/404", "400-499", "ok", ["HEAD"]),
        ("/status/503", "500-599", "ok", ["HEAD"]),
        ("/status/204", "200", "http_error", ["HEAD", "GET"]),
        ("/no-location", "200-299", "http_error", ["HEAD", "GET"]),
        ("/no-location", "302", "ok", ["HEAD"]),
        ("/head/405", "200", "ok", ["HEAD", "GET"]),
        ("/head/405", "405", "ok", ["HEAD"]),
    ],
)
async def test_a_status_is_ok_if_it_was_accepted(
    path: str, accept: str, outcome: str, asked: list[str], site: Site
) -> None:
    result = await probe_one(site.url(path), accept=[accept], retries=0)
    assert (result.outcome, result.error) == (outcome, None)
    assert result.errors == ({} if outcome == "ok" else {"http": result.status})
    assert [request.method for request in site.requests] == asked


async def test_an_answer_that_is_not_accepted_is_retried_only_if_it_is_transient(site: Site) -> None:
    assert (await probe_one(site.url("/ok"), accept=["404"], retries=3)).attempts == 1
    assert (await probe_one(site.url("/status/500"), accept=["200"], retries=1)).attempts == 2


async def test_redirects_are_followed_and_the_last_answer_counts(site: Site) -> None:
    result = await probe_one(site.url("/redirect/1"), accept=["302"])
    assert (result.outcome, result.status, result.errors) == ("http_error", 200, {"http": 200})
    away = site.redirect_to(site.url("/status/404"))
    assert (await probe_one(away, accept=["404"])).outcome == "ok"


async def test_a_redirect_can_be_accepted_if_none_is_followed(site: Site) -> None:
    result = await probe_one(site.url("/redirect/1"), accept=["302"], max_redirects=0)
    assert (result.outcome, result.status, result.errors, len(result.hops)) == ("ok", 302, {}, 1)
    refused = await probe_one(site.url("/redirect/1"), accept=["200"], max_redirects=0)
    assert status_of(refused) == "http.response.redirect_loop"


async def test_a_failure_cannot_be_accepted(site: Site) -> None:
    result = await probe_one(site.url("/status/099"), accept=["100-999"], retries=0)
    assert status_of(result) == "http.response.invalid"


async def test_a_status_that_one_task_does_not_accept_teaches_nothing_about_head(site: Site) -> None:
    async with crawler.open_prober(Options()) as prober:
        picky = await batch(prober, [site.url(f"/ok?{number}") for number in range(20)], accept=["404"])
        assert {result.method for result in picky} == {"GET"}
        assert (await one(prober, site.url("/ok"))).method == "HEAD"


# --- Tasks with different options ---


async def test_each_task_sends_its_own_headers(site: Site) -> None:
    async with crawler.open_prober(Options(user_agent="service/1", headers={"X-Of": "service"})) as prober:
        await asyncio.gather(
            batch(prober, [site.url(f"/ok?a{n}") for n in range(10)], user_agent="a/1", headers={"X-Of": "a"}),
            batch(prober, [site.url(f"/ok?b{n}") for n in range(10)], method="GET", headers={}),
            batch(prober, [site.url(f"/ok?c{n}") for n in range(10)]),
        )
    sent = {
        (request.path[4], request.method, request.header("User-Agent"), request.header("X-Of"))
        for request in site.requests
    }
    assert sent == {
        ("a", "HEAD", "a/1", "a"),
        ("b", "GET", "service/1", ""),
        ("c", "HEAD", "service/1", "service"),
    }


async def test_each_task_has_its_own_timeout_and_retries(site: Site) -> None:
    async with crawler.open_prober(Options.of({"timeout": 60})) as prober:
        hasty = await one(prober, site.url("/hang"), timeout=1)
        assert status_of(hasty) == "http.timed_out"
        assert status_of(await one(prober, site.url("/redirect/2"), max_redirects=1)) == "http.response.redirect_loop"
        failing = [await one(prober, site.url("/status/500"), retries=retries) for retries in range(2)]
        assert [result.attempts for result in failing] == [1, 2]


async def test_each_task_has_its_own_connect_timeout() -> None:
    async with (
        Site(on_accept="stall") as site,
        crawler.open_prober(Options.of({"timeout": 60, "connect_timeout": 30})) as prober,
    ):
        result = await one(prober, site.url("/").replace("http:", "https:"), connect_timeout=0.2, retries=0)
        assert result.errors == {"http": "TIMEOUT"}
        assert result.timings.total < 10_000


async def test_each_task_reads_as_much_of_a_body_as_it_asked_for(site: Site) -> None:
    async with crawler.open_prober(Options()) as prober:
        url = site.url("/title/Hello")
        titled = await one(prober, url, title=True)
        matching = await one(prober, url, match="H.llo")
        cut = await one(prober, url, match="H.llo", max_read=3)
        plain = await one(prober, url)
    assert [(result.title, result.matched) for result in (titled, matching, cut, plain)] == [
        ("Hello", None),
        (None, True),
        (None, None),  # the bytes after the third may match
        (None, None),
    ]


async def test_a_slow_expression_delays_no_other_task(site: Site) -> None:
    """Python's own regular expressions would take longer than the test may."""
    site.on("/aaa", b"HTTP/1.1 200 OK\r\nContent-Length: 100001\r\n\r\n" + b"a" * 100_000 + b"!")
    async with crawler.open_prober(Options()) as prober:
        results = await asyncio.gather(one(prober, site.url("/aaa"), match="(a+)+$"), one(prober, site.url("/ok")))
    assert [(status_of(result), result.matched) for result in results] == [(200, False), (200, None)]


async def test_options_of_the_service_cannot_be_set_by_a_task(site: Site) -> None:
    async with crawler.open_prober(Options(guard="public", per_host=2, timeout=5)) as prober:
        loose = Options(guard="any", allow=("127.0.0.0/8",), proxy="http://127.0.0.1:1")
        assert status_of(await prober.probe(Target.of(0, site.url("/ok")), loose)) == "address.blocked"
    assert site.requests == []
    async with crawler.open_prober(Options(max_read=3)) as prober:
        greedy = Options(max_read=2**20, match="H.llo")
        assert (await prober.probe(Target.of(0, site.url("/title/Hello")), greedy)).matched is None


async def test_options_out_of_bounds_are_refused_however_they_were_made(site: Site) -> None:
    async with crawler.open_prober(Options()) as prober:
        with pytest.raises(crawler.OptionError, match="per_host"):
            await prober.probe(Target.of(0, site.url("/ok")), Options(per_host=0))


# --- How many, how often ---


class Crowd:
    """Answers after a moment, and counts how many requests of each Task (first letter of the query) are in flight."""

    def __init__(self, site: Site) -> None:
        self.most: dict[str, int] = defaultdict(int)
        self.times: dict[str, list[float]] = defaultdict(list)
        self._active: dict[str, int] = defaultdict(int)
        self._site = site
        site.on("/crowd", self._answer)

    def urls(self, name: str, count: int, *, host: str = "127.0.0.1") -> list[str]:
        return [self._site.url(f"/crowd?{name}{number}", host=host) for number in range(count)]

    async def _answer(self, x: Exchange) -> None:
        name = x.request.path.partition("?")[2][0]
        self.times[name].append(now())
        self._active[name] += 1
        self.most[name] = max(self.most[name], self._active[name])
        self.most["all"] = max(self.most["all"], sum(self._active.values()))
        await asyncio.sleep(0.01)
        self._active[name] -= 1
        await x.reply()


async def test_each_task_has_its_own_limit_at_a_host_within_that_of_the_service(site: Site) -> None:
    crowd = Crowd(site)
    async with crawler.open_prober(Options(per_host=6)) as prober:
        await asyncio.gather(
            batch(prober, crowd.urls("a", 40), per_host=1),
            batch(prober, crowd.urls("b", 60), per_host=3),
            batch(prober, crowd.urls("c", 100)),
        )
    assert (crowd.most["a"], crowd.most["b"], crowd.most["all"]) == (1, 3, 6)
    assert crowd.most["c"] >= 2


async def test_a_task_with_its_own_interval_delays_no_other(site: Site) -> None:
    crowd = Crowd(site)
    async with crawler.open_prober(Options()) as prober:
        started = now()
        await asyncio.gather(
            batch(prober, crowd.urls("a", 4), interval=0.2),
            batch(prober, crowd.urls("b", 100)),
        )
    assert_spaced(crowd.times["a"], 0.2, started)
    assert crowd.times["b"][-1] < crowd.times["a"][-1]


async def test_a_tasks_own_interval_spaces_the_requests_of_one_url_too(site: Site) -> None:
    async with crawler.open_prober(Options()) as prober:
        started = now()
        results = await batch(prober, [site.url("/redirect/2"), site.url("/head/405")], interval=0.2)
        assert {status_of(result) for result in results} == {200}
    assert len(site.requests) == 5
    assert now() - started >= 4 * 0.19


# --- Connections are shared only by Tasks that make them the same way ---


async def test_accepting_any_certificate_affects_no_other_task(authority: Authority) -> None:
    async with Site(tls=authority.self_signed()) as site:
        async with crawler.open_prober(Options()) as prober:
            url = site.url("/ok", host="localhost")
            found = [status_of(await one(prober, url, insecure=insecure)) for insecure in [True, False, True, False]]
        refused = "tls.cert.authority_invalid"
        assert found == [200, refused, 200, refused]
        kept = {request.connection for request in site.requests}
        assert len(kept) == 1


async def test_an_unverified_tls_session_is_resumed_by_no_verifying_task(authority: Authority) -> None:
    """In TLS 1.2 a resumed session shows no certificate."""
    context = authority.self_signed()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with Site(tls=context) as site:

        async def ending(x: Exchange) -> None:
            x.keeps_open = False
            await x.reply(200, [("Connection", "close")])

        site.on("/end", ending)
        async with crawler.open_prober(Options()) as prober:
            url = site.url("/end", host="localhost")
            assert status_of(await one(prober, url, insecure=True)) == 200
            assert status_of(await one(prober, url)) == "tls.cert.authority_invalid"


async def test_an_address_looked_up_for_one_family_is_not_used_for_another(site: Site, names: DnsServer) -> None:
    names.a("four.test", "127.0.0.1")
    names.aaaa("six.test", "::1")
    async with crawler.open_prober(Options.of({**asking(names), "retries": 0})) as prober:
        url = site.url("/ok", host="four.test")
        found = [
            status_of(await one(prober, url, **choices))
            for choices in [{"ipv6": True}, {}, {"ipv6": True}, {"ipv4": True}]
        ]
        assert found == ["dns.name_not_resolved", 200, "dns.name_not_resolved", 200]
        url = site.url("/ok", host="six.test")
        found = [status_of(await one(prober, url, **choices)) for choices in [{"ipv4": True}, {}, {"ipv4": True}]]
        assert found == ["dns.name_not_resolved", "tcp.refused", "dns.name_not_resolved"]


async def test_every_connection_is_closed() -> None:
    choices = [{}, {"insecure": True}, {"ipv4": True}, {"ipv6": True}, {"ipv4": True, "insecure": True}]

    def sockets() -> int:
        return sum(descriptor.is_socket() for descriptor in Path("/proc/self/fd").iterdir())

    async def use() -> None:
        async with Site() as site, crawler.open_prober(Options()) as prober:
            for chosen in choices:
                await batch(prober, [site.url(f"/ok?{number}") for number in range(5)], **chosen)

    before = sockets()
    await use()
    assert sockets() == before


# --- robots.txt ---


def robots(site: Site, text: str) -> None:
    async def answer(x: Exchange) -> None:
        await x.reply(200, [("Content-Type", "text/plain")], body=text.encode())

    site.on("/robots.txt", answer)


async def test_obeying_robots_affects_no_other_task(site: Site) -> None:
    robots(site, "User-agent: *\nDisallow: /\n")
    async with crawler.open_prober(Options()) as prober:
        found = [status_of(await one(prober, site.url("/ok"), robots=robots)) for robots in [True, False, True]]
    assert found == ["robots.disallowed", 200, "robots.disallowed"]
    assert [request.path for request in site.requests].count("/robots.txt") == 1


async def test_rules_are_those_for_the_tasks_user_agent(site: Site) -> None:
    robots(site, "User-agent: good\nDisallow:\n\nUser-agent: *\nDisallow: /\n")
    async with crawler.open_prober(Options(robots=True)) as prober:
        found = [status_of(await one(prober, site.url("/ok"), user_agent=agent)) for agent in ["good/1", "bad/1"] * 2]
    assert found == [200, "robots.disallowed"] * 2


async def test_a_task_without_time_for_robots_hides_its_rules_from_no_other(site: Site) -> None:
    async def slow(x: Exchange) -> None:
        await asyncio.sleep(0.3)
        await x.reply(body=b"User-agent: *\nDisallow: /\n")

    site.on("/robots.txt", slow)
    async with crawler.open_prober(Options(robots=True)) as prober:
        assert status_of(await one(prober, site.url("/ok"), timeout=0.2)) == 200, "where there is none, all is allowed"
        assert status_of(await one(prober, site.url("/ok"))) == "robots.disallowed"


async def test_the_number_of_remembered_user_agents_is_bounded(site: Site) -> None:
    robots(site, "User-agent: *\nDisallow: /\n")
    async with crawler.open_prober(Options(robots=True)) as prober:
        assert isinstance(prober, HttpProber)
        for number in range(40):
            assert status_of(await one(prober, site.url("/ok"), user_agent=f"a{number}")) == "robots.disallowed"
        assert len(prober._robots) == 16


# --- Requests with content ---


async def post(prober: Prober, url: str, content: bytes) -> HopResult:
    assert isinstance(prober, HttpProber)
    where = Target.of(0, url).url
    assert isinstance(where, Url)
    transport = prober.transport_for(prober.options)
    return await transport.hop("POST", where, [("X-Signature", "s")], 5.0, connect_timeout=5.0, content=content)


@pytest.mark.parametrize("content", [b'{"id": "x"}', b"x" * 500_000, b""], ids=["short", "long", "empty"])
async def test_a_request_may_have_content(content: bytes, site: Site) -> None:
    async with crawler.open_prober(Options()) as prober:
        answer = await post(prober, site.url("/ok"), content)
    assert (answer.status, answer.error) == (200, None)
    [request] = site.requests
    assert (request.method, request.body) == ("POST", content)
    assert [value for name, value in request.headers if name.lower() == "content-length"] == [str(len(content))]
    assert {name.lower() for name, _ in request.headers} - {"connection"} == {"host", "x-signature", "content-length"}


async def test_a_request_that_must_not_be_repeated_gets_a_new_connection(site: Site) -> None:
    """The server may close an idle connection just as it is used, and the request would be sent again."""
    async with crawler.open_prober(Options()) as prober:
        await one(prober, site.url("/ok"))
        await post(prober, site.url("/ok"), b"x")
        await one(prober, site.url("/ok?again"))
    first, second, third = [request.connection for request in site.requests]
    assert first != second
    assert third in (first, second)


async def test_content_to_a_blocked_address_is_not_sent(site: Site) -> None:
    async with crawler.open_prober(Options(guard="public")) as prober:
        answer = await post(prober, site.url("/ok"), b"x")
    assert answer.error is not None
    assert answer.error.type == "address.blocked"
    assert site.requests == []
