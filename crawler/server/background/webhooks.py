"""Webhooks: when a Task has ended, whoever wants to know is told by a signed POST, again and again until it arrives.

Signed, and repeated, as https://www.standardwebhooks.com/ says. What has become of one is kept with its Task: before
each attempt, and after it. So it goes on after a restart, and may arrive twice, with the same `webhook-id`.
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
from types import TracebackType
from typing import Any, Final, Literal, Self

import msgspec

from crawler.core.errors import InputError, StoreError, TaskNotFound
from crawler.core.option_syntax import parse_secret
from crawler.core.results import HopResult, ProbeError, Timings
from crawler.core.service_options import ServiceOptions
from crawler.core.tasks import Counts, Status, Task, Webhook
from crawler.core.urls import Url, parse_url
from crawler.probing.scheduler import Scheduler
from crawler.probing.work_queue import WorkQueue
from crawler.registry import Registry
from crawler.runtime.cancellation import end
from crawler.runtime.logs import log_fields
from crawler.transport.base import Transport

__all__ = ["WAITS", "WebhookEvent", "Webhooks", "judged", "new_webhook"]

log = logging.getLogger(__name__)

_MINUTE: Final = 60.0
_HOUR: Final = 3600.0

# Seconds from one attempt to the next. After the last of them it has failed.
WAITS: Final = (
    5.0, 5 * _MINUTE, 30 * _MINUTE, 2 * _HOUR, 5 * _HOUR, 10 * _HOUR, 14 * _HOUR, 20 * _HOUR, 24 * _HOUR
)  # fmt: skip
_JITTER: Final = 0.1  # of a wait, at most, is added, so that what failed together does not come together again
_LONGEST: Final = 24 * _HOUR  # that a Retry-After is heeded for
_LOCAL_WAIT: Final = _MINUTE  # after a fault of this machine, or of the store

_TIMEOUT: Final = 20.0
_CONNECT_TIMEOUT: Final = 10.0
_AT_ONCE: Final = 32  # requests
_PER_HOST: Final = 8

_GONE: Final = 410
_FINAL: Final = frozenset({"BLOCKED", "INVALID_URL"})  # groups of errors that no later attempt can mend


class TaskEnded(msgspec.Struct):
    """The Task of which an event tells. Times are unix seconds."""

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
        """That a Task has ended: the same at every attempt."""
        ended = TaskEnded(**{name: getattr(task, name) for name in TaskEnded.__struct_fields__})
        moment = datetime.fromtimestamp(task.finished or 0.0, UTC).isoformat(timespec="milliseconds")
        return cls("task.ready" if task.status == "ready" else "task.error", moment, ended)


def new_webhook(url: str, secret: str | None, service: ServiceOptions, place: str = "$.webhook.url") -> Webhook:
    """A webhook as somebody asks for it; without a secret of its own, the service's will sign it.

    Raises:
        InputError: The URL, which stands at `place`, is none, or there is nothing that could sign it.
    """
    if isinstance(reason := parse_url(url), ProbeError):
        raise InputError(reason.message, place)
    if secret is not None:
        parse_secret(secret, "$.webhook.secret")
    elif service.webhook_secret is None:
        raise InputError("needs a secret, for the service has none", place)
    return Webhook(url=url, secret=secret)


class Webhooks:
    """Delivers, while its context lasts, the webhooks of the Tasks that the registry has or gets.

    Args:
        registry: Where the Tasks are.
        transport: Makes the requests, and has a guard that judges whom it may dial.
        user_agent: What they say of us.
        service: Has the secret for webhooks without their own.
    """

    def __init__(self, registry: Registry, transport: Transport, user_agent: str, service: ServiceOptions) -> None:
        self._registry = registry
        self._transport = transport
        self._user_agent = user_agent
        self._service = service
        self._work: set[asyncio.Task[None]] = set()
        self._watched: set[str] = set()

    async def __aenter__(self) -> Self:
        # Slots of their own: a batch that keeps all of the prober's busy holds up no webhook.
        self._lane: WorkQueue[_Delivery] = WorkQueue(Scheduler(_AT_ONCE, _PER_HOST), self._turn)
        self._begin(self._drain())
        self._watched.clear()
        self._registry.submit_listeners.add(self.watch)
        for task in self._registry.tasks.values():
            self.watch(task)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._registry.submit_listeners.discard(self.watch)
        await end(self._work)
        await self._lane.__aexit__(kind, error, trace)

    def watch(self, task: Task) -> None:
        """Deliver a Task's webhook, if it has one, once the Task has ended; returns at once."""
        is_due = task.webhook is not None and task.webhook.status not in ("delivered", "failed")
        if is_due and task.id not in self._watched:
            self._watched.add(task.id)
            self._begin(self._wait(task.id))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    async def _wait(self, task_id: str) -> None:
        try:
            while (task := self._registry.task(task_id)).status == "running":
                await self._registry.wait_for_change(task_id)
            assert task.webhook is not None
            self._put(task_id, task.webhook)
        except TaskNotFound:
            self._watched.discard(task_id)

    def _put(self, task_id: str, webhook: Webhook) -> None:
        if webhook.secret is None and self._service.webhook_secret is None:
            with log_fields(task=task_id):
                log.warning("the webhook of task %s waits until this service has a secret again", task_id)
            return
        self._lane.put(_Delivery(task_id, webhook))

    async def _drain(self) -> None:
        async for delivery in self._lane:
            self._watched.discard(delivery.task_id)

    async def _turn(self, delivery: "_Delivery") -> bool:
        """Make an attempt; true when there will be no other."""
        with log_fields(task=delivery.task_id):
            return await self._try(delivery)

    async def _try(self, delivery: "_Delivery") -> bool:
        try:
            # What an attempt came to is kept here until it is in the store, so that a full disk repeats none.
            if delivery.came_to is None:
                delivery.came_to = await self._attempt(delivery)
            webhook = delivery.came_to
            await self._registry.update(delivery.task_id, webhook=webhook)
        except TaskNotFound:
            return True
        except StoreError as error:
            log.error("the webhook of task %s cannot be kept, which is tried again: %s", delivery.task_id, error)
            delivery.put_off(_LOCAL_WAIT)
            return False
        except Exception:
            log.exception("the webhook of task %s failed on our side, and is left for the next start", delivery.task_id)
            return True
        log.info(
            "the webhook of task %s, attempt %d: %s, %s",
            delivery.task_id, webhook.attempts, webhook.last, webhook.status,
        )  # fmt: skip
        delivery.came_to = None
        delivery.put_off((webhook.due or 0.0) - time.time())
        return webhook.status != "pending"

    async def _attempt(self, delivery: "_Delivery") -> Webhook:
        """Ask once; gives what has become of the webhook by that."""
        task = self._registry.task(delivery.task_id)
        assert task.webhook is not None
        webhook = msgspec.structs.replace(task.webhook, status="pending", attempts=task.webhook.attempts + 1)
        await self._registry.update(task.id, webhook=webhook)
        return judged(webhook, await self._send(task, webhook, delivery.url), time.time())

    async def _send(self, task: Task, webhook: Webhook, url: Url | ProbeError) -> HopResult:
        if isinstance(url, ProbeError):
            return HopResult(Timings(), error=url)
        secret = webhook.secret or self._service.webhook_secret
        assert secret is not None
        body = msgspec.json.encode(WebhookEvent.of(task))
        headers = [
            ("User-Agent", self._user_agent),
            ("Content-Type", "application/json"),
            *_signed(f"msg_{task.id}", int(time.time()), body, parse_secret(secret, "secret")),
        ]
        if url.authorization:
            headers.append(("Authorization", url.authorization))
        return await self._transport.hop("POST", url, headers, _TIMEOUT, connect_timeout=_CONNECT_TIMEOUT, content=body)


class _Delivery:
    """A webhook on its way: what waits for its turn."""

    wants_deferral = False

    def __init__(self, task_id: str, webhook: Webhook) -> None:
        self.task_id = task_id
        self.url = parse_url(webhook.url)
        self.host = self.url.host if isinstance(self.url, Url) else ""
        self.came_to: Webhook | None = None
        # A clock that was wrong when this was kept must not put it off for years.
        self.put_off(min((webhook.due or 0.0) - time.time(), (1.0 + _JITTER) * _LONGEST))

    def put_off(self, seconds: float) -> None:
        """Have its next turn after so long, at the earliest."""
        self.not_before = asyncio.get_running_loop().time() + max(0.0, seconds)


def _signed(id_: str, timestamp: int, body: bytes, key: bytes) -> list[tuple[str, str]]:
    """The headers by which the receiver knows who sent it, and that it is no old one."""
    signature = hmac.digest(key, f"{id_}.{timestamp}.".encode() + body, hashlib.sha256)
    return [
        ("webhook-id", id_),
        ("webhook-timestamp", str(timestamp)),
        ("webhook-signature", "v1," + base64.b64encode(signature).decode()),
    ]


def judged(webhook: Webhook, answer: HopResult, now: float) -> Webhook:
    """What has become of a webhook by the answer to its latest attempt."""
    error = answer.error
    last = f"HTTP {answer.status}" if error is None else error.type
    attempts, wait = webhook.attempts, None
    if error is not None and error.group == "LOCAL_ERROR":  # the attempt was none
        attempts, wait = attempts - 1, _LOCAL_WAIT
    elif error is None and answer.status is not None and 200 <= answer.status < 300:
        return msgspec.structs.replace(webhook, status="delivered", due=None, last=last)
    elif attempts <= len(WAITS) and answer.status != _GONE and (error is None or error.group not in _FINAL):
        wait = WAITS[attempts - 1] * random.uniform(1.0, 1.0 + _JITTER)
        wait = max(wait, min(answer.retry_after or 0.0, _LONGEST))
    status: Literal["pending", "failed"] = "failed" if wait is None else "pending"
    due = None if wait is None else now + wait
    return msgspec.structs.replace(webhook, status=status, attempts=attempts, due=due, last=last)
