"""Idle connections, kept for a while for the next request to their origin."""

import asyncio
from collections import OrderedDict
from collections.abc import Hashable
from typing import Final

from crawler.transport.sockets.connection import Connection

__all__ = ["ConnectionPool"]

_MAX_IDLE_SECONDS: Final = 10.0  # many servers close after 15


class ConnectionPool:
    """Keeps idle connections by key.

    Connections with one key can replace each other: they lead to one origin and were made with the same options.

    Args:
        max_connections: When one more comes, the connection that is idle longest is closed.
        max_idle_seconds: How long a connection may stay idle before it is closed.
    """

    def __init__(self, max_connections: int, max_idle_seconds: float = _MAX_IDLE_SECONDS) -> None:
        self._max_connections = max_connections
        self._max_idle_seconds = max_idle_seconds
        self._idle: OrderedDict[Connection, Hashable] = OrderedDict()  # with their keys, the longest idle first
        self._by_key: dict[Hashable, list[Connection]] = {}
        self._loop = asyncio.get_running_loop()
        self._expiry: asyncio.TimerHandle | None = None

    def take(self, key: Hashable) -> Connection | None:
        """Remove and return the last used connection of this key that is still good; None if there is none."""
        while connections := self._by_key.get(key):
            connection = connections[-1]
            self._remove(connection)
            if connection.is_reusable:
                return connection
            connection.close()
        return None

    def put(self, key: Hashable, connection: Connection) -> None:
        """Keep a connection that has no request or response in flight."""
        connection.idle_since = self._loop.time()
        self._idle[connection] = key
        self._by_key.setdefault(key, []).append(connection)
        if len(self._idle) > self._max_connections:
            self._drop(next(iter(self._idle)))
        if self._expiry is None:
            self._expiry = self._loop.call_later(self._max_idle_seconds, self._drop_expired)

    def close(self) -> None:
        """Close all connections in the pool."""
        if self._expiry is not None:
            self._expiry.cancel()
        for connection in list(self._idle):
            self._drop(connection)

    def _drop_expired(self) -> None:
        self._expiry = None
        limit = self._loop.time() - self._max_idle_seconds
        while self._idle and (oldest := next(iter(self._idle))).idle_since <= limit:
            self._drop(oldest)
        if self._idle:
            self._expiry = self._loop.call_at(oldest.idle_since + self._max_idle_seconds, self._drop_expired)

    def _drop(self, connection: Connection) -> None:
        self._remove(connection)
        connection.close()

    def _remove(self, connection: Connection) -> None:
        key = self._idle.pop(connection)
        connections = self._by_key[key]
        connections.remove(connection)
        if not connections:
            del self._by_key[key]
