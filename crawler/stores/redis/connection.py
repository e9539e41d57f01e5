"""A process's connections to Redis, and what goes wrong with them."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Final

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import OutOfMemoryError, RedisError
from redis.exceptions import TimeoutError as NoAnswer

from crawler.core.errors import InputError, StoreError, StoreFull
from crawler.runtime.cancellation import end
from crawler.runtime.counters import CallCounter
from crawler.stores.redis.keys import common
from crawler.stores.redis.scripts import SCRIPTS

__all__ = ["ANSWER", "RedisConnection"]

log = logging.getLogger(__name__)

ANSWER: Final = 5.0  # seconds for Redis to answer
_TRIES: Final = 3  # of a command whose connection was lost; each is safe to repeat
_CONNECTIONS: Final = 64
_FREE: Final = 20.0  # seconds for one of them to be free
_LEAD: Final = 20.0  # seconds without a sign of life, after which another process leads


class RedisConnection:
    """Connections to one Redis.

    Args:
        url: As redis-py reads it.
        calls: Counts what is read and written.

    Attributes:
        location: The URL without its secrets.
        redis: redis-py's client; it types its answers as unions of all that there are.
        scripts: Those of `stores.scripts`, by name.
    """

    redis: Any
    scripts: dict[str, Any]

    def __init__(self, url: str, calls: CallCounter) -> None:
        self.location = _without_secrets(url)
        self._url = url
        self._calls = calls

    async def open(self) -> None:
        """Connect.

        Raises:
            InputError: The URL is none, or nothing answers there.
        """
        retry = Retry(ExponentialBackoff(cap=0.5, base=0.02), _TRIES)
        try:
            pool = BlockingConnectionPool.from_url(  # when all are in use, the next command waits for one
                self._url, max_connections=_CONNECTIONS, timeout=_FREE, socket_timeout=ANSWER,
                socket_connect_timeout=ANSWER, retry=retry, retry_on_error=[NoConnection, NoAnswer],
                health_check_interval=30,
            )  # fmt: skip
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
    def guarded(self, kind: str) -> Iterator[None]:
        """A call of a kind, `read` or `write`. What Redis cannot do now is a fault of the store."""
        with self._calls.timed(kind):
            try:
                yield
            except OutOfMemoryError as error:
                raise StoreFull(f"{self.location}: {error}") from None
            except (RedisError, OSError) as error:
                raise StoreError(f"{self.location}: {error}") from None

    @asynccontextmanager
    async def leadership(self) -> AsyncIterator[asyncio.Event]:
        """Wait until no other process leads; the event tells that this one does not any more."""
        lock = self.redis.lock(common("leader"), timeout=_LEAD, sleep=_LEAD / 4, thread_local=False)
        lost = asyncio.Event()
        with self.guarded("write"):
            await lock.acquire()
        renewing = asyncio.ensure_future(self._renew(lock, lost))
        try:
            yield lost
        finally:
            await end([renewing])
            with suppress(RedisError, OSError):
                await lock.release()

    async def _renew(self, lock: Any, lost: asyncio.Event) -> None:
        try:
            while True:
                await asyncio.sleep(_LEAD / 4)
                await lock.reacquire()
        except (RedisError, OSError) as error:
            log.warning("this process does not lead any more: %s", error)
            lost.set()


def _without_secrets(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    return scheme + separator + rest.rpartition("@")[2].partition("?")[0]
