"""A receiver of webhooks on the tests' site."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

from crawler import Registry, ServiceOptions
from crawler.core.tasks import Webhook
from tests.support.exchange import Exchange, Request
from tests.support.site import Site

KEY = b"0123456789abcdef01234567"
SECRET = "whsec_" + base64.b64encode(KEY).decode()
OTHER_KEY = bytes(range(64))
OTHER_SECRET = "whsec_" + base64.b64encode(OTHER_KEY).decode()
WITH_SECRET = ServiceOptions(webhook_secret=OTHER_SECRET)
NO_URL = ["nonsense"]
"""A batch that ends at once."""


def verified(request: Request, key: bytes = KEY) -> Any:
    """Verify the signature of a request and return its event. Written from the standard, not from the tested code."""
    id_, timestamp = request.header("webhook-id"), request.header("webhook-timestamp")
    assert abs(time.time() - int(timestamp)) < 300
    expected = hmac.new(key, b".".join([id_.encode(), timestamp.encode(), request.body]), hashlib.sha256)
    version, _, signature = request.header("webhook-signature").partition(",")
    assert version == "v1"
    assert hmac.compare_digest(base64.b64decode(signature, validate=True), expected.digest())
    assert request.method == "POST"
    assert request.header("Content-Type") == "application/json"
    return json.loads(request.body)


def answering(*statuses: int, headers: list[tuple[str, str]] | None = None) -> Callable[[Exchange], Any]:
    """A receiver that gives these statuses, one after the other, and then 200."""
    left: Iterator[int] = iter(statuses)

    async def receive(exchange: Exchange) -> None:
        await exchange.reply(next(left, 200), headers or [])

    return receive


def hooks(site: Site, path: str = "/hook") -> list[Request]:
    """What a receiver was sent."""
    return [request for request in site.requests if request.path == path]


def hook_at(site: Site, path: str = "/hook", **more: Any) -> dict[str, Any]:
    return {"url": site.url(path), "secret": SECRET, **more}


async def until_webhook(registry: Registry, task_id: str, status: str, attempts: int = 0) -> Webhook:
    """Return the webhook of a Task once it has this status and at least this number of attempts."""
    while True:
        webhook = registry.task(task_id).webhook
        assert webhook is not None
        is_under_way = webhook.status == "pending" and webhook.due is None
        if webhook.status == status and webhook.attempts >= attempts and not is_under_way:
            return webhook
        await registry.wait_for_change(task_id)
