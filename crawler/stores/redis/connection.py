"""The connections of a process to Redis, the errors they may raise, and the leader lock."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Final

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from crawler.core.errors import InputError, StoreError, StoreFull
from crawler.runtime.cancellation import in_background
from crawler.runtime.counters import CallCounters
from crawler.stores.redis.keys import shared_key
from crawler.stores.redis.scripts import SCRIPTS

__all__ = ["ANSWER_SECONDS", "RedisConnection"]

log = logging.getLogger(__name__)

ANSWER_SECONDS: Final = 5.0
"""How long Redis may take to answer a command."""

_MAX_RETRIES: Final = 3  # after a lost connection; every command that this package sends can be repeated
_RETRY_SECONDS: Final = 0.02  # pause before the first retry; doubled each time
_MAX_RETRY_SECONDS: Final = 0.5
_MAX_CONNECTIONS: Final = 64
_POOL_WAIT_SECONDS: Final = 20.0  # how long a command waits for one of them
_IDLE_CHECK_SECONDS: Final = 30  # a connection that was idle for longer is tested before it is used


class RedisConnection:
    """A connection pool to one Redis.

    Args:
        url: As redis-py reads it.
        calls: Counts reads and writes.

    Attributes:
        location: The URL without its secrets.
        redis: redis-py's client. `Any`, because it types each answer as a union of all possible ones.
        scripts: The scripts of `crawler.stores.redis.scripts`, by name.
    """

    redis: Any
    scripts: dict[str, Any]

    def __init__(self, url: str, calls: CallCounters) -> None:
        self.location = _without_secrets(url)
        self._url = url
        self._calls = calls

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
                socket_timeout=ANSWER_SECONDS,
                socket_connect_timeout=ANSWER_SECONDS,
                retry=retry,
                retry_on_error=[RedisConnectionError, RedisTimeoutError],
                health_check_interval=_IDLE_CHECK_SECONDS,
            )
        except ValueError as error:
            raise InputError(str(error), self.location) from None
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
            except (RedisError, OSError) as error:
                raise StoreError(f"{self.location}: {error}") from None

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
