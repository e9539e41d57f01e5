"""A process's copy of the Tasks that are in Redis: a kilobyte each, and it changes as Redis publishes changes."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

import msgspec
from redis.exceptions import RedisError

from crawler.core.errors import InputError, StoreError
from crawler.core.results import Outcome
from crawler.core.tasks import Task
from crawler.runtime.cancellation import end
from crawler.runtime.logs import about
from crawler.stores.redis.connection import RedisConnection
from crawler.stores.redis.keys import FIELDS, common, counted, decoded, own

__all__ = ["TaskCache"]

log = logging.getLogger(__name__)

_AGAIN: Final = 1.0  # seconds until a lost subscription is made again
_AT_ONCE: Final = 500  # commands of one pipeline

_counts: Final = msgspec.json.Decoder(dict[Outcome, int])


class TaskCache:
    """The Tasks, as far as this process has heard of them.

    Args:
        link: The connections.
        changed: Called with the id of a Task that has changed, or is gone.
        welcome: Called with each Task that is new.

    Attributes:
        tasks: By id, oldest first.
    """

    def __init__(self, link: RedisConnection, changed: Callable[[str], None], welcome: Callable[[Task], None]) -> None:
        self.tasks: dict[str, Task] = {}
        self._link = link
        self._changed = changed
        self._welcome = welcome
        self._looks = 0  # begun so far
        self._under_way = 0
        self._told: dict[str, int] = {}  # while some are under way, of which Tasks the latest one that told was which
        self._stale: set[str] = set()
        self._is_stale = asyncio.Event()
        self._subscribed = asyncio.Event()

    async def open(self) -> None:
        """Read what Tasks there are, and listen from then on."""
        self._listening = [asyncio.ensure_future(work) for work in (self._listen(), self._follow_stale())]
        await self._subscribed.wait()

    async def close(self) -> None:
        """Listen no more."""
        await end(self._listening)

    async def refresh(self) -> None:
        """Have in `tasks` those that are in Redis now."""
        before = set(self.tasks)
        with self._link.guarded("read"):
            ids = [id_.decode() for id_ in await self._link.redis.zrange(common("tasks"), 0, -1)]
        for gone in before.difference(ids):
            self.forget(gone)
        wanted = [id_ for id_ in ids if id_ not in self.tasks or self.tasks[id_].status == "running"]
        await self.look(wanted)
        if list(self.tasks) != ids:  # as many as one gets to know in another order than they were made
            known = {id_: self.tasks[id_] for id_ in ids if id_ in self.tasks}
            self.tasks = known | self.tasks  # last are those that one has heard of meanwhile

    async def look(self, ids: list[str]) -> None:
        """Read Tasks. An answer that comes after that to a later question tells nothing."""
        self._looks += 1
        self._under_way += 1
        try:
            await self._look(ids, self._looks)
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._told.clear()

    async def _look(self, ids: list[str], number: int) -> None:
        for start in range(0, len(ids), _AT_ONCE):
            some = ids[start : start + _AT_ONCE]
            with self._link.guarded("read"):
                pipeline = self._link.redis.pipeline(transaction=False)
                for id_ in some:
                    pipeline.hgetall(own(id_))
                all_fields = await pipeline.execute()
            for id_, fields in zip(some, all_fields, strict=True):
                if self._told.get(id_, 0) <= number:
                    self._told[id_] = number
                    self._know(id_, fields)

    async def _listen(self) -> None:
        """Hear what others change; what was missed while nobody listened is read."""
        while True:
            try:
                async with self._link.redis.pubsub() as subscription:
                    await subscription.subscribe(common("changes"))
                    async for message in subscription.listen():
                        if message["type"] == "message":
                            self._hear(message["data"])
                        else:  # it is made, or made again after the connection was lost
                            await self.refresh()
                            self._subscribed.set()
            except (RedisError, OSError, StoreError) as error:
                log.warning("%s does not answer, which is tried again: %s", self._link.location, error)
            except Exception:  # of a newer version, say, which has words that this one does not know
                log.exception("a change could not be understood; all tasks are read again")
            await asyncio.sleep(_AGAIN)

    def _hear(self, message: bytes) -> None:
        """A Task has changed: these are its counts, or it has to be looked at."""
        id_, brace, counts = message.decode().partition("{")
        task = self.tasks.get(id_)
        if brace and task is not None:
            counted(task, _counts.decode(brace + counts))
            self._changed(id_)
        else:
            self._stale.add(id_)
            self._is_stale.set()

    async def _follow_stale(self) -> None:
        while True:
            await self._is_stale.wait()
            self._is_stale.clear()
            ids, self._stale = self._stale, set()
            try:
                await self.look(list(ids))
            except StoreError:
                self._stale |= ids  # the subscription is lost too; they are read when it is made again
                await asyncio.sleep(_AGAIN)
                self._is_stale.set()
            except Exception:
                log.exception("what has changed of %d tasks could not be understood", len(ids))

    def _know(self, id_: str, fields: dict[bytes, bytes]) -> None:
        if not fields:
            self.forget(id_)
            return
        try:
            task = decoded(fields)
        except (msgspec.MsgspecError, InputError) as error:  # it stays where it is, for a version that can
            with about(task=id_):
                log.error("task %s cannot be read and is left out: %s", id_, error)
            return
        if (known := self.tasks.get(id_)) is None:
            self.tasks[id_] = task
            self._welcome(task)
        else:
            for name in FIELDS:
                setattr(known, name, getattr(task, name))
            if task.status == "running":
                counted(known, dict(task.counts.by_outcome()))
            else:  # these change no more, and a Redis that was lost may have fewer than one had heard of
                known.counts = task.counts
        self._changed(id_)

    def forget(self, id_: str) -> None:
        """Take note that there is no such Task any more."""
        if self.tasks.pop(id_, None) is not None:
            self._changed(id_)
