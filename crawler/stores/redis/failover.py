"""Connections that leave a server which is no master any more, and that wait for an answer for a limited time.

After a failover the former master still answers: as a replica it refuses all writes, and what it publishes and returns
grows old. The name or proxy in the URL leads to the new master by then, but only new connections get there. So the
first refusal closes all connections of a pool, subscriptions included; redis-py then opens them again.
"""

import asyncio
import logging
from typing import Any, Final

from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    ConnectionPool,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

__all__ = ["NotMasterError", "leave_replicas"]

log = logging.getLogger(__name__)

_DEMOTED: Final = "UNBLOCKED"  # begins the answer to a blocking read while its server becomes a replica


class NotMasterError(RedisConnectionError):
    """The server is a replica. A connection error, because a new connection may lead to the master."""


class _MasterConnection(AbstractConnection):
    """Of one pool; `leave_replicas` adds it to the class of the pool's connections.

    Args:
        generation: That of the pool, shared by all its connections.
    """

    def __init__(self, *arguments: Any, generation: "_Generation", **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._current = generation
        self._generation = generation.number

    async def connect_check_health(self, *arguments: Any, **options: Any) -> None:
        if not self.is_connected:
            self._generation = self._current.number
        await super().connect_check_health(*arguments, **options)

    async def send_packed_command(self, *arguments: Any, **options: Any) -> None:
        """Send a command for at most `socket_timeout`.

        redis-py would use `asyncio.wait_for`, which before Python 3.12 swallows a cancellation that comes as the call
        completes (python/cpython#86296). docket cancels only once, so a stop would wait without end.
        """
        if not self.is_connected:
            await self.connect_check_health(check_health=False)
        seconds, self.socket_timeout = self.socket_timeout, None
        try:
            async with asyncio.timeout(seconds):
                await super().send_packed_command(*arguments, **options)
        except TimeoutError:
            raise RedisTimeoutError("the command could not be sent in time") from None
        finally:
            self.socket_timeout = seconds

    async def read_response(self, *arguments: Any, **options: Any) -> Any:
        try:
            return await super().read_response(*arguments, **options)
        except ReadOnlyError as error:
            reason = str(error)
        except ResponseError as error:
            if not str(error).startswith(_DEMOTED):
                raise
            reason = str(error)
        await self._current.end(self._generation)
        await self.disconnect(nowait=True)  # it may have been opened meanwhile, and to a replica again
        raise NotMasterError(f"it is a replica: {reason}")


class _TcpConnection(_MasterConnection, Connection):
    pass


class _TlsConnection(_MasterConnection, SSLConnection):
    pass


class _UnixConnection(_MasterConnection, UnixDomainSocketConnection):
    pass


_CLASSES: Final[dict[type[AbstractConnection], type[_MasterConnection]]] = {
    Connection: _TcpConnection,
    SSLConnection: _TlsConnection,
    UnixDomainSocketConnection: _UnixConnection,
}


class _Generation:
    """Numbers the connections of a pool by the times they were all closed together."""

    def __init__(self, pool: ConnectionPool) -> None:
        self.number = 0
        self._pool = pool

    async def end(self, number: int) -> None:
        """Close all connections, unless that has happened since those of this number were opened."""
        if number == self.number:
            self.number += 1
            log.warning("Redis has become a replica; all connections to it are opened again")
            await self._pool.disconnect()


async def leave_replicas(pool: ConnectionPool, **options: Any) -> None:
    """Make the connections of a pool leave a server that becomes a replica.

    Args:
        pool: Its connections are closed.
        options: More options of the connections that it opens from now on.
    """
    await pool.disconnect()
    pool.reset()  # type: ignore[no-untyped-call]
    pool.connection_class = _CLASSES[pool.connection_class]
    pool.update_connection_kwargs(generation=_Generation(pool), **options)
