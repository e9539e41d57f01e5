"""Webhooks: signed by the standard, repeated until they arrive, and never sent to forbidden addresses."""

import asyncio
import base64
import json
import logging
import time
from collections import Counter
from collections.abc import Collection
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import crawler
from crawler import InputError, MemoryRegistry, OptionError, Options, ProbeResult, Registry, ServiceOptions, Task
from crawler.core.errors import StoreFull
from crawler.core.option_syntax import parse_secret
from crawler.core.results import HopResult, ProbeError, Timings
from crawler.core.tasks import Webhook
from crawler.server.background.webhooks import new_webhook, next_state
from crawler.server.settings import ServerSettings, WebhookSettings
from crawler.stores.sqlite.registry import SqliteRegistry
from tests.support.api import REGISTRIES, Api, serving_api
from tests.support.app_client import serving
from tests.support.dns_server import DnsServer
from tests.support.exchange import Exchange
from tests.support.site import Site
from tests.support.webhook_receiver import (
    KEY,
    NO_URL,
    OTHER_KEY,
    OTHER_SECRET,
    SECRET,
    WITH_SECRET,
    answering,
    hook_at,
    hooks,
    until_webhook,
    verified,
)

# As many attempts as usual, without a delay between them.
AT_ONCE = ServerSettings(webhooks=WebhookSettings(retry_delays=(0.0,) * len(WebhookSettings().retry_delays)))


@pytest.fixture(params=REGISTRIES)
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Registry:
    return REGISTRIES[request.param](tmp_path)


# --- The request ---


async def test_a_ready_task_is_reported_once(registry: Registry, site: Site) -> None:
    site.on("/hook", answering())
    async with serving_api(registry) as api:
        task = await api.submit([site.url("/ok"), *NO_URL], label="nightly", webhook=hook_at(site))
        assert task["webhook"] == {"status": "waiting", "attempts": 0, "due": None, "last": None}
        await until_webhook(api.registry, task["id"], "delivered")
        task = await api.get(f"/tasks/{task['id']}")
    [request] = hooks(site)
    event = verified(request)
    assert list(event) == ["type", "timestamp", "data"]
    assert event["type"] == "task.ready"
    names = ["id", "label", "status", "total", "counts", "created", "finished", "detail"]
    assert event["data"] == {name: task[name] for name in names}
    assert (event["data"]["status"], event["data"]["counts"]["ok"], event["data"]["counts"]["invalid"]) == (
        "ready",
        1,
        1,
    )
    assert datetime.fromisoformat(event["timestamp"]).timestamp() == pytest.approx(task["finished"], abs=0.001)
    assert event["timestamp"].endswith("+00:00")
    assert request.header("webhook-id")
    assert task["webhook"] == {"status": "delivered", "attempts": 1, "due": None, "last": "HTTP 200"}


async def test_a_cancelled_task_is_reported(site: Site) -> None:
    async with serving_api(MemoryRegistry()) as api:
        task = await api.submit([site.url("/hang")], webhook=hook_at(site, "/ok"))
        await site.until(lambda: site.active == 1)
        assert not hooks(site, "/ok")
        await api.ask("POST", f"/tasks/{task['id']}/cancel")
        await until_webhook(api.registry, task["id"], "delivered")
    event = verified(hooks(site, "/ok")[0])
    assert (event["type"], event["data"]["status"], event["data"]["detail"]) == ("task.error", "error", "cancelled")


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_every_2xx_is_a_delivery(status: int, site: Site) -> None:
    site.on("/hook", answering(status))
    async with serving_api(MemoryRegistry()) as api:
        task = await api.submit(NO_URL, webhook=hook_at(site))
        assert (await until_webhook(api.registry, task["id"], "delivered")).last == f"HTTP {status}"


async def test_a_query_names_a_webhook_that_the_service_signs(site: Site) -> None:
    async with serving_api(MemoryRegistry(), WITH_SECRET) as api:
        query = {"webhook": site.url("/ok?a=1&b")}
        answer = await api.ask(
            "POST", "/tasks", 201, params=query, data="nonsense", headers={"Content-Type": "text/plain"}
        )
        await until_webhook(api.registry, answer.json["id"], "delivered")
        assert SECRET not in repr(api.registry.task(answer.json["id"]))
    verified(hooks(site, "/ok?a=1&b")[0], OTHER_KEY)


async def test_a_webhook_in_the_body_needs_no_secret_and_replaces_that_of_the_query(site: Site) -> None:
    async with serving_api(MemoryRegistry(), WITH_SECRET) as api:
        body = {"urls": NO_URL, "webhook": {"url": site.url("/ok")}}
        answer = await api.ask("POST", "/tasks", 201, params={"webhook": site.url("/hang")}, json=body)
        await until_webhook(api.registry, answer.json["id"], "delivered")
        assert not hooks(site, "/hang")
        own = await api.submit(NO_URL, webhook=hook_at(site, "/ok"))
        await until_webhook(api.registry, own["id"], "delivered")
    services, tasks = hooks(site, "/ok")
    verified(services, OTHER_KEY)
    verified(tasks, KEY)


async def test_a_recheck_has_a_webhook_of_its_own(site: Site) -> None:
    async with serving_api(MemoryRegistry()) as api:
        task = await api.ended([site.url("/status/404")])
        body = {"webhook": hook_at(site, "/ok")}
        again = (await api.ask("POST", f"/tasks/{task['id']}/recheck", 201, json=body)).json
        await until_webhook(api.registry, again["id"], "delivered")
    assert verified(hooks(site, "/ok")[0])["data"]["id"] == again["id"]


async def test_a_webhook_has_the_user_agent_and_no_headers_for_targets(site: Site) -> None:
    headers = {"X-For-Targets": "only"}
    async with serving_api(MemoryRegistry(), user_agent="test/1", headers=headers) as api:
        task = await api.submit(NO_URL, webhook=hook_at(site, "/ok"))
        await until_webhook(api.registry, task["id"], "delivered")
    [request] = hooks(site, "/ok")
    verified(request)
    assert request.header("User-Agent") == "test/1"
    assert not request.header("X-For-Targets")


async def test_user_information_in_the_url_becomes_credentials(site: Site) -> None:
    url = site.url("/ok").replace("http://", "http://name:pass@")
    async with serving_api(MemoryRegistry()) as api:
        task = await api.submit(NO_URL, webhook={"url": url, "secret": SECRET})
        await until_webhook(api.registry, task["id"], "delivered")
    assert hooks(site, "/ok")[0].header("Authorization") == "Basic " + base64.b64encode(b"name:pass").decode()


# --- Refused webhooks ---


@pytest.mark.parametrize(
    "url", ["", "nonsense", "ftp://a.example/", "file:///etc/passwd", "http://a b/", "http://a:0/"]
)
async def test_a_text_that_is_not_a_url_is_refused(url: str, site: Site) -> None:
    async with serving_api(MemoryRegistry(), WITH_SECRET) as api:
        body = {"urls": NO_URL, "webhook": {"url": url, "secret": SECRET}}
        await api.refuses("POST", "/tasks", 422, "$.webhook.url: ", json=body)
        await api.refuses("POST", "/tasks", 422, "webhook: ", params={"webhook": url}, json={"urls": NO_URL})
        assert not api.registry.tasks


@pytest.mark.parametrize(
    "secret",
    ["", "whsec_", KEY.decode(), SECRET.removeprefix("whsec_"), SECRET[:-1], SECRET + "\n", "whsec_é" + SECRET],
)
async def test_a_malformed_secret_is_refused_and_not_shown(secret: str) -> None:
    async with serving_api(MemoryRegistry(), WITH_SECRET) as api:
        body = {"urls": NO_URL, "webhook": {"url": "http://a.example/", "secret": secret}}
        answer = await api.refuses("POST", "/tasks", 422, "$.webhook.secret: ", json=body)
    assert not secret or json.dumps(secret)[1:-1].encode() not in answer.body.replace(b"whsec_ ", b"")
    with pytest.raises(OptionError, match="webhook_secret"):
        ServiceOptions(webhook_secret=secret)


async def test_a_webhook_that_nothing_can_sign_is_refused() -> None:
    async with serving_api(MemoryRegistry()) as api:
        body = {"urls": NO_URL, "webhook": {"url": "http://a.example/"}}
        await api.refuses("POST", "/tasks", 422, "$.webhook.url: ", "secret", json=body)
        query = {"webhook": "http://a.example/"}
        await api.refuses("POST", "/tasks", 422, "webhook: ", "secret", params=query, json={"urls": NO_URL})


@pytest.mark.parametrize("webhook", ["http://a.example/", [], {}, {"url": 1}, {"url": "http://a/", "secrets": SECRET}])
async def test_a_malformed_webhook_is_refused(webhook: Any) -> None:
    async with serving_api(MemoryRegistry(), WITH_SECRET) as api:
        await api.refuses("POST", "/tasks", 422, "$.webhook", json={"urls": NO_URL, "webhook": webhook})


@given(st.binary(max_size=80))
def test_secrets_have_24_to_64_bytes(key: bytes) -> None:
    text = "whsec_" + base64.b64encode(key).decode()
    if 24 <= len(key) <= 64:
        assert parse_secret(text, "secret") == key
    else:
        with pytest.raises(OptionError):
            parse_secret(text, "secret")


@given(st.text(max_size=120) | st.text(max_size=120).map("whsec_".__add__))
def test_no_text_is_a_secret_by_accident(text: str) -> None:
    try:
        key = parse_secret(text, "secret")
    except OptionError as error:
        assert len(text) < 20 or text not in str(error)
    else:
        assert base64.b64encode(key).decode() == text.removeprefix("whsec_")


# --- Until it arrives ---


async def test_every_attempt_has_the_same_event_and_is_signed_anew(registry: Registry, site: Site) -> None:
    site.on("/hook", answering(500, 404, 302, 429, headers=[("Location", "/ok")]))
    async with serving_api(registry, settings=AT_ONCE) as api:
        task = await api.submit(NO_URL, webhook=hook_at(site))
        webhook = await until_webhook(api.registry, task["id"], "delivered")
    assert (webhook.attempts, webhook.last) == (5, "HTTP 200")
    assert len({json.dumps(verified(request)) for request in hooks(site)}) == 1
    assert len({request.header("webhook-id") for request in hooks(site)}) == 1
    assert not hooks(site, "/ok"), "a redirect is not followed"


async def test_two_tasks_have_events_of_their_own(site: Site) -> None:
    async with serving_api(MemoryRegistry()) as api:
        for _ in range(2):
            task = await api.submit(NO_URL, webhook=hook_at(site, "/ok"))
            await until_webhook(api.registry, task["id"], "delivered")
    assert len({request.header("webhook-id") for request in hooks(site, "/ok")}) == 2


async def test_a_webhook_fails_after_its_last_attempt(site: Site) -> None:
    async with serving_api(MemoryRegistry(), settings=AT_ONCE) as api:
        task = await api.submit(NO_URL, webhook=hook_at(site, "/status/503"))
        webhook = await until_webhook(api.registry, task["id"], "failed")
        assert (await api.get(f"/tasks/{task['id']}"))["status"] == "ready"
    assert (webhook.attempts, webhook.due, webhook.last) == (10, None, "HTTP 503")
    assert len(hooks(site, "/status/503")) == 10


@pytest.mark.parametrize(
    ("path", "last"), [("/reset", "tcp.reset"), ("/close", "tcp.closed"), ("/garbage", "http.protocol.error")]
)
async def test_an_attempt_without_an_answer_is_retried(path: str, last: str, site: Site) -> None:
    async with serving_api(MemoryRegistry(), settings=AT_ONCE) as api:
        task = await api.submit(NO_URL, webhook=hook_at(site, path))
        webhook = await until_webhook(api.registry, task["id"], "failed")
    assert (webhook.attempts, webhook.last) == (10, last)


async def test_after_410_no_attempt_follows(site: Site) -> None:
    async with serving_api(MemoryRegistry(), settings=AT_ONCE) as api:
        task = await api.submit(NO_URL, webhook=hook_at(site, "/status/410"))
        webhook = await until_webhook(api.registry, task["id"], "failed")
    assert (webhook.attempts, webhook.last) == (1, "HTTP 410")


async def test_a_receiver_that_does_not_answer_is_waited_for_until_the_timeout(site: Site) -> None:
    settings = ServerSettings(webhooks=msgspec.structs.replace(AT_ONCE.webhooks, timeout_seconds=0.05))
    async with serving_api(MemoryRegistry(), settings=settings) as api:
        task = await api.submit(NO_URL, webhook=hook_at(site, "/hang"))
        assert (await until_webhook(api.registry, task["id"], "pending", 2)).last == "http.timed_out"


async def test_a_body_without_end_is_not_read(site: Site) -> None:
    async def drip(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        await exchange.hang()

    site.on("/hook", drip)
    async with serving_api(MemoryRegistry()) as api:
        task = await api.submit(NO_URL, webhook=hook_at(site))
        await until_webhook(api.registry, task["id"], "delivered")


async def test_after_a_failure_it_waits(site: Site) -> None:
    async with serving_api(MemoryRegistry()) as api:
        before = time.time()
        task = await api.submit(NO_URL, webhook=hook_at(site, "/status/500"))
        webhook = await until_webhook(api.registry, task["id"], "pending")
        assert webhook.due is not None
        assert before + 5.0 <= webhook.due <= time.time() + 5.5
        assert (await api.get(f"/tasks/{task['id']}"))["webhook"]["due"] == webhook.due


@pytest.mark.parametrize(("asked", "wait"), [("3600", 3600.0), ("1", 5.0), ("9" * 30, 24 * 3600.0), ("soon", 5.0)])
def test_a_receiver_may_ask_for_more_time(asked: str, wait: float) -> None:
    answer = HopResult(Timings(), status=503, headers=[("retry-after", asked)])
    after = next_state(Webhook("http://a/", attempts=1), answer, 1000.0)
    assert after.due is not None
    assert wait <= after.due - 1000.0 <= wait + 0.5


def test_the_delays_are_those_of_the_standard() -> None:
    answer = HopResult(Timings(), error=ProbeError.of("tcp.refused", ""))
    waits = []
    for attempts in range(1, 10):
        after = next_state(Webhook("http://a/", attempts=attempts), answer, 0.0)
        assert after.due is not None
        waits.append(after.due)
    standard = [5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400]
    assert all(least <= wait <= least * 1.1 for least, wait in zip(standard, waits, strict=True))
    assert next_state(Webhook("http://a/", attempts=10), answer, 0.0).status == "failed"


async def test_a_fault_of_this_machine_does_not_count_as_an_attempt() -> None:
    async with DnsServer() as names:
        pass
    async with serving_api(MemoryRegistry(), dns=(names.address,)) as api:
        task = await api.submit(NO_URL, webhook={"url": "http://a.example/", "secret": SECRET})
        webhook = await until_webhook(api.registry, task["id"], "pending")
    assert (webhook.status, webhook.attempts, webhook.last) == ("pending", 0, "dns.unreachable")


# --- Over restarts ---


async def test_a_request_that_a_stop_cuts_off_is_made_again(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    async with serving_api(SqliteRegistry(path)) as api:
        task = await api.submit(NO_URL, webhook=hook_at(site, "/hang"))
        await site.until(lambda: site.active == 1)
    async with SqliteRegistry(path) as registry:
        webhook = registry.task(task["id"]).webhook
        assert webhook is not None
        assert (webhook.status, webhook.attempts, webhook.last) == ("pending", 1, None)
    site.on("/hang", answering())
    async with serving_api(SqliteRegistry(path)) as api:
        assert (await until_webhook(api.registry, task["id"], "delivered")).attempts == 2
    first, second = hooks(site, "/hang")
    assert verified(first) == verified(second)
    assert first.header("webhook-id") == second.header("webhook-id")


async def test_after_a_restart_due_times_and_final_states_are_kept(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    site.on("/later", answering(503, headers=[("Retry-After", "3600")]))
    ids = {}
    async with serving_api(SqliteRegistry(path)) as api:
        for name in ("/later", "/status/410", "/ok"):
            ids[name] = (await api.submit(NO_URL, webhook=hook_at(site, name)))["id"]
        later = await until_webhook(api.registry, ids["/later"], "pending")
        await until_webhook(api.registry, ids["/status/410"], "failed")
        await until_webhook(api.registry, ids["/ok"], "delivered")
    async with serving_api(SqliteRegistry(path)) as api:
        task = await api.submit(NO_URL, webhook=hook_at(site, "/ok?2"))
        await until_webhook(api.registry, task["id"], "delivered")
        assert api.registry.task(ids["/later"]).webhook == later
    assert Counter(request.path for request in site.requests) == dict.fromkeys([*ids, "/ok?2"], 1)


async def test_a_task_that_ended_just_before_a_crash_is_reported(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    async with SqliteRegistry(path) as registry:
        task = await registry.submit(NO_URL, Options(), webhook=Webhook(site.url("/ok"), SECRET))
        await registry.record(task.id, [ProbeResult(seq=0, url="nonsense", timestamp=1, outcome="invalid")])
        await registry.finish(task.id, "ready")
    async with serving_api(SqliteRegistry(path)) as api:
        await until_webhook(api.registry, task.id, "delivered")
    assert verified(hooks(site, "/ok")[0])["data"]["counts"]["invalid"] == 1


async def test_a_wrong_clock_delays_a_webhook_by_a_day_at_most(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    no_day = ServerSettings(webhooks=WebhookSettings(max_retry_after_seconds=0.0))  # a day by default
    async with SqliteRegistry(path) as registry:
        webhook = Webhook(site.url("/ok"), SECRET, status="pending", attempts=1, due=time.time() + 1e9)
        task = await registry.submit(NO_URL, Options(), webhook=webhook)
        await registry.record(task.id, [ProbeResult(seq=0, url="nonsense", timestamp=1, outcome="invalid")])
        await registry.finish(task.id, "ready")
    async with serving_api(SqliteRegistry(path), settings=no_day) as api:
        await until_webhook(api.registry, task.id, "delivered")


async def test_a_service_that_has_lost_its_secret_keeps_what_it_cannot_sign(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    async with SqliteRegistry(path) as registry:
        task = await registry.submit([site.url("/ok")], Options(), webhook=Webhook(site.url("/hook")))
    site.on("/hook", answering())
    async with serving_api(SqliteRegistry(path)) as api:
        await api.get(f"/tasks/{task.id}", wait=60)
    async with serving_api(SqliteRegistry(path), WITH_SECRET) as api:
        assert (await until_webhook(api.registry, task.id, "delivered")).attempts == 1
    [request] = hooks(site)
    verified(request, OTHER_KEY)


class FullAtTimes(MemoryRegistry):
    """A registry that stores nothing while the disk is full."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[str | None] = []
        self.full: set[int] = set()

    async def _save(self, task: Task, names: Collection[str]) -> None:
        self.kept.append(task.webhook.status if task.webhook else None)
        if len(self.kept) in self.full:
            raise StoreFull("no space left")
        await super()._save(task, names)


async def test_a_full_disk_neither_loses_nor_repeats_a_webhook(site: Site) -> None:
    site.on("/hook", answering())
    registry = FullAtTimes()
    registry.full = {2, 3, 5, 6}
    async with serving_api(registry, settings=ServerSettings(webhooks=WebhookSettings(local_retry_seconds=0.0))) as api:
        task = await api.submit(NO_URL, webhook=hook_at(site))
        webhook = await until_webhook(api.registry, task["id"], "delivered")
    assert webhook.attempts == 1
    assert len(hooks(site)) == 1
    assert registry.kept == ["waiting", *3 * ["pending"], *3 * ["delivered"]]


# --- Forbidden addresses, and secrets ---


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "169.254.169.254", "[::1]", "0x7f.1", "localhost.test", "metadata.test", "mixed.test"]
)
async def test_the_guard_holds_for_webhooks(host: str, site: Site, names: DnsServer) -> None:
    names.a("localhost.test", "127.0.0.1")
    names.a("metadata.test", "169.254.169.254")
    names.a("mixed.test", "93.184.216.34", "127.0.0.1")
    app = crawler.create_app(Options(dns=(names.address,)), service=WITH_SECRET)
    async with serving(app) as client:
        api = Api(client)
        task = await api.submit(NO_URL, webhook={"url": f"http://{host}:{site.port}/ok", "secret": SECRET})
        webhook = await until_webhook(api.registry, task["id"], "failed")
    assert (webhook.attempts, webhook.last) == (1, "address.blocked")
    assert site.connections == 0


async def test_a_redirect_of_a_receiver_is_not_followed(site: Site) -> None:
    async with serving_api(MemoryRegistry()) as api:
        task = await api.submit(NO_URL, webhook={"url": site.redirect_to(site.url("/ok")), "secret": SECRET})
        assert (await until_webhook(api.registry, task["id"], "pending")).last == "HTTP 302"
    assert len(site.requests) == 1


async def test_no_secret_is_logged_or_shown(registry: Registry, site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    site.on("/hook", answering(500, 503))
    service = ServiceOptions(webhook_secret=OTHER_SECRET)
    shown: list[str] = []
    async with serving_api(registry, service, settings=AT_ONCE) as api:
        for path in ("/hook?token=planted", "/status/410?token=planted", "/reset?token=planted"):
            url = site.url(path).replace("http://", "http://user:planted@")
            for secret in (SECRET, None):
                task = await api.submit(NO_URL, webhook={"url": url, "secret": secret})
                final = "delivered" if path.startswith("/hook") else "failed"
                webhook = await until_webhook(api.registry, task["id"], final)
                shown += [repr(webhook), str(api.registry.task(task["id"]))]
                for what in ("", "/results", "/events"):
                    shown.append((await api.ask("GET", f"/tasks/{task['id']}{what}")).body.decode())
                shown.append(repr(api.client.app["TASKS"][task["id"]] if api.client.app else None))
        shown.append((await api.ask("GET", "/tasks")).body.decode())
        async with api.client.get("/tasks") as response:
            shown.append(await response.text())
    for text in [caplog.text, *shown]:
        for hidden in (SECRET, OTHER_SECRET, KEY.decode(), "planted"):
            assert hidden.removeprefix("whsec_") not in text
    assert "delivered" in caplog.text


# --- Many ---


async def test_webhooks_of_a_thousand_tasks_are_sent_a_few_at_a_time(site: Site) -> None:
    served: Counter[str] = Counter()
    peak = active = 0

    async def receive(exchange: Exchange) -> None:
        nonlocal peak, active
        active += 1
        peak = max(peak, active)
        await asyncio.sleep(0.02)
        active -= 1
        served[verified(exchange.request)["data"]["id"]] += 1
        await exchange.reply()

    site.on("/hook", receive)
    async with serving_api(MemoryRegistry()) as api:
        state = api.manager
        hosts = [f"127.0.0.{number}" for number in range(1, 11)]
        tasks = [
            await state.submit(
                [site.url("/hang")], webhook=new_webhook(site.url("/hook", host=host), SECRET, WITH_SECRET)
            )
            for host in hosts
            for _ in range(100)
        ]
        await asyncio.gather(*(state.cancel(task) for task in tasks))
        await site.until(lambda: not site.active)
        for task in tasks:
            await until_webhook(api.registry, task.id, "delivered")
    assert served == dict.fromkeys([task.id for task in tasks], 1)
    assert 1 < peak <= 32
    assert site.peak_of("127.0.0.3") <= 8


async def test_a_receiver_that_hangs_delays_only_its_own_webhooks(site: Site) -> None:
    async with serving_api(MemoryRegistry()) as api:
        for _ in range(100):
            await api.manager.submit(NO_URL, webhook=Webhook(site.url("/hang", host="127.0.0.2"), SECRET))
        await site.until(lambda: site.active == 8)
        for _ in range(50):
            task = await api.manager.submit(NO_URL, webhook=Webhook(site.url("/ok"), SECRET))
            await until_webhook(api.registry, task.id, "delivered")
    assert site.peak_of("127.0.0.2") == 8


async def test_a_prober_without_free_slots_delays_no_webhook(site: Site) -> None:
    async with serving_api(MemoryRegistry(), concurrency=1) as api:
        await api.submit([site.url("/hang")])
        await site.until(lambda: site.active == 1)
        task = await api.submit(["also nonsense"], webhook=hook_at(site, "/ok"))
        await until_webhook(api.registry, task["id"], "delivered")


# --- Deleted ---


async def test_a_task_that_is_deleted_before_its_end_is_not_reported(site: Site) -> None:
    async with serving_api(MemoryRegistry()) as api:
        task = await api.submit([site.url("/hang")], webhook=hook_at(site))
        await site.until(lambda: site.active == 1)
        await api.ask("DELETE", f"/tasks/{task['id']}", 204)
        other = await api.submit(NO_URL, webhook=hook_at(site, "/ok"))
        await until_webhook(api.registry, other["id"], "delivered")
    assert not hooks(site)


async def test_a_task_that_is_deleted_during_its_delivery_is_not_reported_again(registry: Registry, site: Site) -> None:
    async with serving_api(registry, settings=AT_ONCE) as api:

        async def delete(exchange: Exchange) -> None:
            await api.ask("DELETE", f"/tasks/{json.loads(exchange.request.body)['data']['id']}", 204)
            await exchange.reply(500)

        site.on("/hook", delete)
        await api.submit(NO_URL, webhook=hook_at(site))
        await site.until(lambda: bool(hooks(site)) and not site.active)
        for _ in range(3):
            other = await api.submit(NO_URL, webhook=hook_at(site, "/ok"))
            await until_webhook(api.registry, other["id"], "delivered")
        assert len(hooks(site)) == 1
        assert len(api.registry.tasks) == 3


def test_a_wrong_webhook_raises_for_a_caller_of_the_library() -> None:
    with pytest.raises(InputError) as caught:
        new_webhook("ftp://a.example/", SECRET, ServiceOptions())
    assert caught.value.place == "$.webhook.url"
