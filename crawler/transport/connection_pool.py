"""Idle connections, kept a while for the next request that may use them."""

import asyncio
from collections import OrderedDict
from collections.abc import Hashable
from typing import Final

from crawler.transport.connection import Connection

__all__ = ["ConnectionPool"]

_IDLE: Final = 10.0  # seconds; many servers close after 15


class ConnectionPool:
    """At most `limit` idle connections; the one that is idle longest makes room.

    Those of a kind can stand for each other: they lead to one origin and were made in one way.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._idle: OrderedDict[Connection, Hashable] = OrderedDict()  # the longest idle first
        self._by_kind: dict[Hashable, list[Connection]] = {}
        self._loop = asyncio.get_running_loop()
        self._sweep: asyncio.TimerHandle | None = None

    def take(self, kind: Hashable) -> Connection | None:
        """A connection of this kind that is still good, the last used first."""
        while connections := self._by_kind.get(kind):
            connection = connections[-1]
            self._remove(connection)
            if connection.is_quiet:
                return connection
            connection.close()
        return None

    def put(self, kind: Hashable, connection: Connection) -> None:
        """Keep a connection over which nothing is under way."""
        connection.idle_since = self._loop.time()
        self._idle[connection] = kind
        self._by_kind.setdefault(kind, []).append(connection)
        if len(self._idle) > self._limit:
            self._drop(next(iter(self._idle)))
        if self._sweep is None:
            self._sweep = self._loop.call_later(_IDLE, self._drop_old)

    def close(self) -> None:
        """Close all."""
        if self._sweep is not None:
            self._sweep.cancel()
        for connection in list(self._idle):
            self._drop(connection)

    def _drop_old(self) -> None:
        self._sweep = None
        limit = self._loop.time() - _IDLE
        while self._idle and (oldest := next(iter(self._idle))).idle_since <= limit:
            self._drop(oldest)
        if self._idle:
            self._sweep = self._loop.call_at(oldest.idle_since + _IDLE, self._drop_old)

    def _drop(self, connection: Connection) -> None:
        self._remove(connection)
        connection.close()

    def _remove(self, connection: Connection) -> None:
        kind = self._idle.pop(connection)
        connections = self._by_kind[kind]
        connections.remove(connection)
        if not connections:
            del self._by_kind[kind]
