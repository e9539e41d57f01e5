"""A process's copy of the Tasks in Redis, a kilobyte each. It follows the changes that Redis publishes."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing
from typing import Final

import msgspec
from redis.exceptions import RedisError, ResponseError

from crawler.core.errors import InputError, StoreDamaged, StoreError
from crawler.core.tasks import Task
from crawler.runtime.cancellation import cancel_and_wait
from crawler.runtime.logs import log_fields
from crawler.stores.redis.connection import RedisConnection
from crawler.stores.redis.keys import shared_key, task_key
from crawler.stores.redis.task_hash import FIELDS, decode_counts, decode_task, merge_counts

__all__ = ["TaskCache"]

log = logging.getLogger(__name__)

_RETRY_SECONDS: Final = 1.0  # pause before a lost subscription is made again
_MAX_TASKS_PER_PIPELINE: Final = 500


class TaskCache:
    """The Tasks that this process knows.

    Args:
        connection: To the Redis that holds the Tasks.
        on_change: Called with the id of a Task that has changed or was deleted.
        on_new: Called with each new Task.

    Attributes:
        tasks: By id, oldest first.
    """

    def __init__(
        self, connection: RedisConnection, on_change: Callable[[str], None], on_new: Callable[[Task], None]
    ) -> None:
        self.tasks: dict[str, Task] = {}
        self._connection = connection
        self._on_change = on_change
        self._on_new = on_new
        self._reads = 0  # started so far; the count numbers them
        self._reads_in_progress = 0
        self._last_read: dict[str, int] = {}  # by Task id: the latest read that was answered; empty without reads
        self._outdated: set[str] = set()
        self._has_outdated = asyncio.Event()
        self._is_subscribed = asyncio.Event()
        self._damage: StoreDamaged | None = None  # found by the first read of all Tasks

    async def open(self) -> None:
        """Read all Tasks, and follow their changes from then on.

        Raises:
            StoreDamaged: Redis does not hold Tasks where they should be.
        """
        self._following = [asyncio.ensure_future(each) for each in (self._follow_changes(), self._read_outdated())]
        await self._is_subscribed.wait()
        if self._damage is not None:
            await self.close()
            raise self._damage

    async def close(self) -> None:
        """Stop following changes."""
        await cancel_and_wait(*self._following)

    async def refresh(self) -> None:
        """Update `tasks` to what Redis has now."""
        before = set(self.tasks)
        with self._connection.call("read"):
            ids = [id_.decode() for id_ in await self._connection.redis.zrange(shared_key("tasks"), 0, -1)]
        for gone in before.difference(ids):
            self.forget(gone)
        # An ended Task changes no more, so the known ones need not be read.
        await self.read([id_ for id_ in ids if id_ not in self.tasks or self.tasks[id_].status == "running"])
        if list(self.tasks) != ids:  # messages about Tasks can arrive in another order
            ordered = {id_: self.tasks[id_] for id_ in ids if id_ in self.tasks}
            self.tasks = ordered | self.tasks  # Tasks that arrived meanwhile are the newest

    async def read(self, ids: list[str]) -> None:
        """Read Tasks. An answer that arrives after the answer of a later read is ignored: it is older."""
        self._reads += 1
        self._reads_in_progress += 1
        try:
            await self._read(ids, self._reads)
        finally:
            self._reads_in_progress -= 1
            if not self._reads_in_progress:
                self._last_read.clear()

    def forget(self, id_: str) -> None:
        """Drop a Task that has been deleted."""
        if self.tasks.pop(id_, None) is not None:
            self._on_change(id_)

    async def _read(self, ids: list[str], number: int) -> None:
        for start in range(0, len(ids), _MAX_TASKS_PER_PIPELINE):
            part = ids[start : start + _MAX_TASKS_PER_PIPELINE]
            with self._connection.call("read"):
                pipeline = self._connection.redis.pipeline(transaction=False)
                for id_ in part:
                    pipeline.hgetall(task_key(id_))
                hashes = await pipeline.execute(raise_on_error=False)
            for id_, fields in zip(part, hashes, strict=True):
                if self._last_read.get(id_, 0) <= number:
                    self._last_read[id_] = number
                    self._apply(id_, fields)

    async def _follow_changes(self) -> None:
        """Apply what other processes publish. After each (re)connection all Tasks are read: messages may be missing."""
        while True:
            try:
                async with aclosing(self._connection.subscribe("changes")) as messages:
                    async for message in messages:
                        if message["type"] == "message":
                            self._apply_message(message["data"])
                        else:  # subscribed
                            await self.refresh()
                            self._is_subscribed.set()
            except StoreDamaged as error:
                if self._is_subscribed.is_set():
                    log.error("Tasks cannot be read; trying again: %s", error)
                else:
                    self._damage = error
                    self._is_subscribed.set()
            except (RedisError, OSError, StoreError) as error:
                log.warning("%s does not answer; trying again: %s", self._connection.location, error)
            except Exception:  # for example a message in the format of a newer version
                log.exception("a change could not be decoded; all Tasks are read again")
            await asyncio.sleep(_RETRY_SECONDS)

    def _apply_message(self, message: bytes) -> None:
        """Apply the counts in a message. After a message without counts, the Task has to be read."""
        id_, brace, counts = message.decode().partition("{")
        task = self.tasks.get(id_)
        if brace and task is not None:
            merge_counts(task, decode_counts(brace + counts))
            self._on_change(id_)
        else:
            self._outdated.add(id_)
            self._has_outdated.set()

    async def _read_outdated(self) -> None:
        while True:
            await self._has_outdated.wait()
            self._has_outdated.clear()
            ids, self._outdated = self._outdated, set()
            try:
                await self.read(list(ids))
            except StoreError:  # the subscription is lost as well
                self._outdated |= ids
                await asyncio.sleep(_RETRY_SECONDS)
                self._has_outdated.set()
            except Exception:
                log.exception("the changes of %d Tasks could not be decoded", len(ids))

    def _apply(self, id_: str, fields: dict[bytes, bytes] | ResponseError) -> None:
        """Apply the hash of a Task; an empty hash means that the Task was deleted."""
        if not fields:
            self.forget(id_)
            return
        try:
            if isinstance(fields, ResponseError):  # its key has another type
                raise fields
            task = decode_task(fields)
        except (
            msgspec.MsgspecError,
            InputError,
            ResponseError,
            ValueError,
        ) as error:  # it stays in Redis for a version that can read it
            with log_fields(task=id_):
                log.error("Task %s cannot be read and is left out: %s", id_, error)
            if isinstance(error, ResponseError):  # no version can
                self.forget(id_)
            return
        if task.status != "running":
            task.options = task.options.without_header_values()  # `RedisRegistry.options` reads them again
        if (known := self.tasks.get(id_)) is None:
            self.tasks[id_] = task
            self._on_new(task)
        else:
            for name in FIELDS:
                setattr(known, name, getattr(task, name))
            if task.status == "running":
                merge_counts(known, dict(task.counts.by_outcome()))
            else:  # final; a Redis that lost its last second may have smaller counts than it published
                known.counts = task.counts
        self._on_change(id_)
