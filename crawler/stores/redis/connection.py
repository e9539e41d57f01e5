"""The connections of a process to Redis, the errors they may raise, and the leader lock."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Final

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from crawler.core.errors import InputError, StoreDamaged, StoreError, StoreFull, StoreReadOnly, TaskDamaged
from crawler.runtime.cancellation import in_background
from crawler.runtime.counters import CallCounters
from crawler.stores.redis.failover import NotMasterError, leave_replicas
from crawler.stores.redis.keys import (
    OFFSETS_PER_HASH,
    SEQUENCES_PER_HASH,
    SHARED_TYPES,
    TASK_TYPES,
    SharedName,
    chunks_prefix,
    results_prefix,
    shared_key,
    task_key,
)
from crawler.stores.redis.scripts import SCRIPTS

__all__ = ["RedisConnection"]

log = logging.getLogger(__name__)

_MAX_RETRIES: Final = 3  # after a lost connection; every command that this package sends can be repeated
_RETRY_SECONDS: Final = 0.02  # pause before the first retry; doubled each time
_MAX_RETRY_SECONDS: Final = 0.5
_MAX_CONNECTIONS: Final = 64
_POOL_WAIT_SECONDS: Final = 20.0  # how long a command waits for one of them
_CHECK_SECONDS: Final = 600  # how long the key of `check` is kept
_WRONG_TYPE: Final = "WRONGTYPE"  # begins the answer to a command for a key of another type
_IDLE_CHECK_SECONDS: Final = 30  # a connection that was idle for longer is tested before it is used


class RedisConnection:
    """A connection pool to one Redis.

    Args:
        url: As redis-py reads it.
        calls: Counts reads and writes.
        answer_seconds: How long Redis may take to answer a command.

    Attributes:
        location: The URL without its secrets.
        redis: redis-py's client. `Any`, because it types each answer as a union of all possible ones.
        scripts: The scripts of `crawler.stores.redis.scripts`, by name.
    """

    redis: Any
    scripts: dict[str, Any]

    def __init__(self, url: str, calls: CallCounters, answer_seconds: float) -> None:
        self.location = _without_secrets(url)
        self._url = url
        self._calls = calls
        self._answer_seconds = answer_seconds

    async def open(self) -> None:
        """Connect.

        Raises:
            InputError: The URL is wrong, or Redis does not answer there.
        """
        retry = Retry(ExponentialBackoff(cap=_MAX_RETRY_SECONDS, base=_RETRY_SECONDS), _MAX_RETRIES)
        try:
            pool = BlockingConnectionPool.from_url(
                self._url,
                max_connections=_MAX_CONNECTIONS,
                timeout=_POOL_WAIT_SECONDS,
                socket_timeout=self._answer_seconds,
                socket_connect_timeout=self._answer_seconds,
                retry=retry,
                retry_on_error=[RedisConnectionError, RedisTimeoutError],
                health_check_interval=_IDLE_CHECK_SECONDS,
            )
        except ValueError as error:
            raise InputError(str(error), self.location) from None
        await leave_replicas(pool)
        self.redis = Redis.from_pool(pool)
        self.scripts = {name: self.redis.register_script(text) for name, text in SCRIPTS.items()}
        try:
            await self.redis.ping()
        except (RedisError, OSError) as error:
            await self.close()
            raise InputError(f"cannot be used: {error}", self.location) from None

    async def close(self) -> None:
        """Disconnect."""
        with suppress(RedisError, OSError):
            await self.redis.aclose()

    @contextmanager
    def call(self, kind: str) -> Iterator[None]:
        """Time the calls in this context and raise their errors as `StoreError`.

        Args:
            kind: `read` or `write`.
        """
        with self._calls.timed(kind):
            try:
                yield
            except OutOfMemoryError as error:
                raise StoreFull(f"{self.location}: {error}") from None
            except NotMasterError as error:
                raise StoreReadOnly(f"{self.location}: {error}") from None
            except ResponseError as error:
                kind_of_error = StoreDamaged if _WRONG_TYPE in str(error) else StoreError
                raise kind_of_error(f"{self.location}: {error}") from None
            except (RedisError, OSError) as error:
                raise StoreError(f"{self.location}: {error}") from None

    @asynccontextmanager
    async def task_call(self, kind: str, task_id: str) -> AsyncIterator[None]:
        """As `call`, for the keys of one Task: if one of these has a wrong type, raise `TaskDamaged`."""
        try:
            with self.call(kind):
                yield
        except StoreDamaged:
            with self.call("read"):
                wrong = await self.scripts["find_wrong_type"](
                    keys=[task_key(task_id, part) for part in TASK_TYPES],
                    args=[
                        chunks_prefix(task_id), results_prefix(task_id), SEQUENCES_PER_HASH, OFFSETS_PER_HASH,
                        *TASK_TYPES.values(),
                    ],
                )  # fmt: skip
            if not wrong:
                raise
            key, found, wanted = (each.decode() for each in wrong)
            raise TaskDamaged(f"its stored data is damaged: {key} is a {found}, not a {wanted}") from None

    async def check(self) -> None:
        """Raise `StoreError` if nothing can be stored now, or if a key that all Tasks share has another type."""
        with self.call("write"):
            pipeline = self.redis.pipeline(transaction=False)
            pipeline.set(shared_key("check"), 1, ex=_CHECK_SECONDS)
            for name in SHARED_TYPES:
                pipeline.type(shared_key(name))
            _, *types = await pipeline.execute()
        for (name, wanted), found in zip(SHARED_TYPES.items(), types, strict=True):
            if found.decode() not in (wanted, "none"):
                raise StoreDamaged(f"{self.location}: {shared_key(name)} is a {found.decode()}, not a {wanted}")

    async def subscribe(self, name: SharedName) -> AsyncGenerator[dict[str, Any], None]:
        """Yield what is published on a channel, and a message of another type each time the subscription is (re)made.

        While nothing is published, the subscription must answer a ping, and the server must accept writes: a
        connection that has gone silent, or leads to a replica, looks the same as one without news.

        Raises:
            RedisError: The subscription is lost.
            StoreError: Redis cannot be written to.
        """
        async with self.redis.pubsub() as subscription:
            await subscription.subscribe(shared_key(name))
            is_asked = False
            while True:
                message = await subscription.get_message(timeout=self._answer_seconds)
                if message is not None:
                    is_asked = False
                    if message["type"] != "pong":
                        yield message
                elif is_asked:
                    raise RedisTimeoutError("the subscription does not answer")
                else:
                    is_asked = True
                    await self.check()
                    await subscription.ping()

    @asynccontextmanager
    async def leadership(self, lease_seconds: float) -> AsyncIterator[asyncio.Event]:
        """Wait until this process is the leader, and stay it while the context lasts.

        Args:
            lease_seconds: Another process becomes the leader if this one does not renew its lease for this time.

        Yields:
            An event that is set when this process is not the leader any more.
        """
        renewal_seconds = lease_seconds / 4
        lock = self.redis.lock(shared_key("leader"), timeout=lease_seconds, sleep=renewal_seconds, thread_local=False)
        lost = asyncio.Event()
        with self.call("write"):
            await lock.acquire()
        try:
            async with in_background(_renew(lock, renewal_seconds, lost)):
                yield lost
        finally:
            with suppress(RedisError, OSError):
                await lock.release()


async def _renew(lock: Any, pause_seconds: float, lost: asyncio.Event) -> None:
    try:
        while True:
            await asyncio.sleep(pause_seconds)
            await lock.reacquire()
    except (RedisError, OSError) as error:
        log.warning("this process is not the leader any more: %s", error)
        lost.set()


def _without_secrets(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    return scheme + separator + rest.rpartition("@")[2].partition("?")[0]
