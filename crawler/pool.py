"""Idle connections, kept a while for the next request to their origin."""

import asyncio
from collections import OrderedDict
from typing import Final

from crawler.connection import Connection

__all__ = ["Pool"]

_IDLE: Final = 10.0  # seconds; many servers close after 15

Origin = tuple[str, str, int]


class Pool:
    """At most `limit` idle connections; the one that is idle longest makes room."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._idle: OrderedDict[Connection, Origin] = OrderedDict()  # the longest idle first
        self._by_origin: dict[Origin, list[Connection]] = {}
        self._loop = asyncio.get_running_loop()
        self._sweep: asyncio.TimerHandle | None = None

    def take(self, origin: Origin) -> Connection | None:
        """A connection to this origin that is still good, the last used first."""
        while connections := self._by_origin.get(origin):
            connection = connections[-1]
            self._remove(connection)
            if connection.is_quiet:
                return connection
            connection.close()
        return None

    def put(self, origin: Origin, connection: Connection) -> None:
        """Keep a connection over which nothing is under way."""
        connection.idle_since = self._loop.time()
        self._idle[connection] = origin
        self._by_origin.setdefault(origin, []).append(connection)
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
        origin = self._idle.pop(connection)
        connections = self._by_origin[origin]
        connections.remove(connection)
        if not connections:
            del self._by_origin[origin]
