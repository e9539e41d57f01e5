"""Webhooks: when a Task has ended, a signed POST reports it to a URL, and is retried until it arrives.

Signature and retries are those of Standard Webhooks (https://www.standardwebhooks.com/). The state of a delivery is
stored with its Task before and after each attempt. So a delivery continues after a restart; it may then arrive twice,
with the same `webhook-id`.
"""

import asyncio
import base64
import hashlib
import hmac
import logging
import random
import time
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any, Final, Literal, Self

import msgspec

from crawler.core.errors import InputError, StoreError, TaskNotFound
from crawler.core.option_syntax import parse_secret
from crawler.core.results import HopResult, ProbeError, Timings
from crawler.core.service_options import ServiceOptions
from crawler.core.tasks import Counts, Status, Task, Webhook
from crawler.core.urls import Url, parse_url
from crawler.probing.scheduling.scheduler import Scheduler
from crawler.probing.scheduling.work_queue import WorkQueue
from crawler.registry import Registry
from crawler.runtime.cancellation import cancel_and_wait
from crawler.runtime.logs import log_fields
from crawler.server.settings import WebhookSettings
from crawler.transport.base import Transport

__all__ = ["WebhookEvent", "Webhooks", "choose_secret", "new_webhook", "next_state"]

log = logging.getLogger(__name__)

_DEFAULT: Final = WebhookSettings()
_MAX_JITTER: Final = 0.1  # share of a delay; it spreads the retries of deliveries that failed together
_GONE: Final = 410
_PERMANENT_GROUPS: Final = frozenset({"BLOCKED", "INVALID_URL"})  # groups of errors that no later attempt can avoid


class TaskEnded(msgspec.Struct):
    """The Task that has ended. Times are Unix seconds."""

    id: str
    label: str | None
    status: Status
    total: int
    counts: Counts
    created: float
    finished: float | None
    detail: str | None


class WebhookEvent(msgspec.Struct):
    """The body of the request; `timestamp` says when the Task ended (RFC 3339)."""

    type: Literal["task.ready", "task.error"]
    timestamp: str
    data: TaskEnded

    @classmethod
    def of(cls, task: Task) -> Self:
        """Return the event of a Task's end: the same at every attempt."""
        ended = TaskEnded(**{name: getattr(task, name) for name in TaskEnded.__struct_fields__})
        moment = datetime.fromtimestamp(task.finished or 0.0, UTC).isoformat(timespec="milliseconds")
        return cls("task.ready" if task.status == "ready" else "task.error", moment, ended)


def new_webhook(url: str, secret: str | None, service: ServiceOptions, place: str = "$.webhook.url") -> Webhook:
    """Return a new webhook of a client. Without its own secret, the service's secret signs it.

    Raises:
        InputError: The URL is not valid, or there is no secret; `place` says where the URL is.
    """
    if isinstance(reason := parse_url(url), ProbeError):
        raise InputError(reason.message, place)
    if secret is not None:
        parse_secret(secret, "$.webhook.secret")
    if choose_secret(secret, service) is None:
        raise InputError("needs a secret, because the service has none", place)
    return Webhook(url=url, secret=secret)


def choose_secret(own: str | None, service: ServiceOptions) -> str | None:
    """The secret that signs a webhook: its own, or else the service's at the time of signing; None without both."""
    return service.webhook_secret if own is None else own


class Webhooks:
    """Delivers the webhooks of the registry's Tasks, present and new, while its context lasts.

    Args:
        registry: Where the Tasks are.
        transport: Makes the requests; its guard decides which addresses may be connected to.
        user_agent: The User-Agent of the requests.
        service: Has the secret for webhooks without their own.
        settings: Delays, timeouts and limits.

    Attributes:
        limit: Requests at once.
        refused: 0: a webhook waits for as long as it must.
    """

    refused = 0

    def __init__(
        self,
        registry: Registry,
        transport: Transport,
        user_agent: str,
        service: ServiceOptions,
        settings: WebhookSettings = _DEFAULT,
    ) -> None:
        self._registry = registry
        self._transport = transport
        self._user_agent = user_agent
        self._service = service
        self._settings = settings
        self.limit = settings.concurrency
        self._scheduler: Scheduler | None = None
        self._jobs: set[asyncio.Task[None]] = set()
        self._watched: set[str] = set()

    async def __aenter__(self) -> Self:
        # A scheduler of its own: a Task that uses all slots of the prober delays no webhook. Each owner has a queue, so
        # that the receivers of one owner, however slow, leave slots for those of another.
        settings = self._settings
        self._scheduler = Scheduler(settings.concurrency, settings.per_host, max_queue_share=settings.max_owner_share)
        self._queues: dict[str | None, WorkQueue[_Delivery]] = {}
        self._watched.clear()
        self._registry.submit_listeners.add(self.watch)
        for task in self._registry.tasks.values():
            self.watch(task)
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._registry.submit_listeners.discard(self.watch)
        await cancel_and_wait(*self._jobs)
        for queue in self._queues.values():
            await queue.__aexit__(None, None, None)

    @property
    def in_use(self) -> int:
        """Requests in flight."""
        return 0 if self._scheduler is None else self._scheduler.active

    def watch(self, task: Task) -> None:
        """Deliver a Task's webhook, if it has one, once the Task has ended; returns at once."""
        is_due = task.webhook is not None and task.webhook.status not in ("delivered", "failed")
        if is_due and task.id not in self._watched:
            self._watched.add(task.id)
            self._begin(self._wait_for_end(task.id))

    def _begin(self, coroutine: Coroutine[Any, Any, None]) -> None:
        job = asyncio.ensure_future(coroutine)
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)

    async def _wait_for_end(self, task_id: str) -> None:
        try:
            while (task := self._registry.task(task_id)).status == "running":
                await self._registry.wait_for_change(task_id)
            assert task.webhook is not None
            self._enqueue(task, task.webhook)
        except TaskNotFound:
            self._watched.discard(task_id)

    def _enqueue(self, task: Task, webhook: Webhook) -> None:
        if choose_secret(webhook.secret, self._service) is None:
            with log_fields(task=task.id):
                log.warning("the webhook of Task %s waits until this service has a secret again", task.id)
            return
        assert self._scheduler is not None
        if (queue := self._queues.get(task.owner)) is None:
            queue = self._queues[task.owner] = WorkQueue(self._scheduler, self._attempt_and_store)
            self._begin(self._forget_finished(queue))
        queue.put(_Delivery(task.id, webhook, self._settings))

    async def _forget_finished(self, queue: "WorkQueue[_Delivery]") -> None:
        async for delivery in queue:
            self._watched.discard(delivery.task_id)

    async def _attempt_and_store(self, delivery: "_Delivery") -> bool:
        """Make an attempt and store its outcome; true if no further attempt follows."""
        with log_fields(task=delivery.task_id):
            try:
                # The outcome is kept here until it is stored: while the disk is full, no attempt is repeated.
                if delivery.outcome is None:
                    delivery.outcome = await self._attempt(delivery)
                webhook = delivery.outcome
                await self._registry.update(delivery.task_id, webhook=webhook)
            except TaskNotFound:
                return True
            except StoreError as error:
                log.error("the webhook of Task %s cannot be stored, which is tried again: %s", delivery.task_id, error)
                delivery.delay(self._settings.local_retry_seconds)
                return False
            except Exception:
                log.exception("the webhook of Task %s failed because of a fault in this service", delivery.task_id)
                return True
            log.info(
                "the webhook of Task %s, attempt %d: %s, %s",
                delivery.task_id, webhook.attempts, webhook.last, webhook.status,
            )  # fmt: skip
            delivery.outcome = None
            delivery.delay((webhook.due or 0.0) - time.time())
            return webhook.status != "pending"

    async def _attempt(self, delivery: "_Delivery") -> Webhook:
        """Send the request once; returns the new state of the webhook."""
        task = self._registry.task(delivery.task_id)
        assert task.webhook is not None
        webhook = msgspec.structs.replace(task.webhook, status="pending", attempts=task.webhook.attempts + 1)
        await self._registry.update(task.id, webhook=webhook)
        return next_state(webhook, await self._send(task, webhook, delivery.url), time.time(), self._settings)

    async def _send(self, task: Task, webhook: Webhook, url: Url | ProbeError) -> HopResult:
        if isinstance(url, ProbeError):
            return HopResult(Timings(), error=url)
        secret = choose_secret(webhook.secret, self._service)
        assert secret is not None
        body = msgspec.json.encode(WebhookEvent.of(task))
        headers = [
            ("User-Agent", self._user_agent),
            ("Content-Type", "application/json"),
            *_sign(f"msg_{task.id}", int(time.time()), body, parse_secret(secret, "secret")),
        ]
        if url.authorization:
            headers.append(("Authorization", url.authorization))
        settings = self._settings
        return await self._transport.hop(
            "POST", url, headers, settings.timeout_seconds,
            connect_timeout=settings.connect_timeout_seconds, content=body,
        )  # fmt: skip


class _Delivery:
    """The delivery of one webhook: an item of the work queue."""

    wants_deferral = False
    wants_host_alone = False

    def __init__(self, task_id: str, webhook: Webhook, settings: WebhookSettings) -> None:
        self.task_id = task_id
        self.url = parse_url(webhook.url)
        self.host = self.url.host if isinstance(self.url, Url) else ""
        self.outcome: Webhook | None = None  # of the latest attempt, until it is stored
        # If the clock was wrong when `due` was stored, it could be years ahead.
        longest = (1.0 + _MAX_JITTER) * settings.max_retry_after_seconds
        self.delay(min((webhook.due or 0.0) - time.time(), longest))

    def delay(self, seconds: float) -> None:
        """Make no attempt for `seconds` from now."""
        self.not_before = asyncio.get_running_loop().time() + max(0.0, seconds)


def _sign(id_: str, timestamp: int, body: bytes, key: bytes) -> list[tuple[str, str]]:
    """Return the headers that prove the sender and the time of the request."""
    signature = hmac.digest(key, f"{id_}.{timestamp}.".encode() + body, hashlib.sha256)
    return [
        ("webhook-id", id_),
        ("webhook-timestamp", str(timestamp)),
        ("webhook-signature", "v1," + base64.b64encode(signature).decode()),
    ]


def next_state(webhook: Webhook, answer: HopResult, now: float, settings: WebhookSettings = _DEFAULT) -> Webhook:
    """Return the state of a webhook after the answer to its latest attempt; `now` is in Unix seconds."""
    error = answer.error
    last = f"HTTP {answer.status}" if error is None else error.type
    attempts, wait = webhook.attempts, None
    if error is not None and error.group == "LOCAL_ERROR":  # a fault of this machine does not count as an attempt
        attempts, wait = attempts - 1, settings.local_retry_seconds
    elif error is None and answer.status is not None and 200 <= answer.status < 300:
        return msgspec.structs.replace(webhook, status="delivered", due=None, last=last)
    elif (
        attempts <= len(settings.retry_delays)
        and answer.status != _GONE
        and (error is None or error.group not in _PERMANENT_GROUPS)
    ):
        wait = settings.retry_delays[attempts - 1] * random.uniform(1.0, 1.0 + _MAX_JITTER)
        wait = max(wait, min(answer.retry_after or 0.0, settings.max_retry_after_seconds))
    status: Literal["pending", "failed"] = "failed" if wait is None else "pending"
    due = None if wait is None else now + wait
    return msgspec.structs.replace(webhook, status=status, attempts=attempts, due=due, last=last)
