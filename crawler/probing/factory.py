"""Compose the prober of one process: its guard, scheduler, resolvers and transports."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import msgspec

from crawler.core.options import Options
from crawler.probing.prober import HttpProber
from crawler.probing.scheduler import Scheduler
from crawler.runtime.rlimits import within_descriptors
from crawler.transport.address_guard import AddressGuard
from crawler.transport.base import Transport
from crawler.transport.connection_pool import ConnectionPool
from crawler.transport.resolver import Resolver
from crawler.transport.socket_transport import SocketTransport

__all__ = ["open_http_prober"]


@asynccontextmanager
async def open_http_prober(options: Options) -> AsyncIterator[HttpProber]:
    """The prober of one process."""
    guard = AddressGuard(options.guard, options.allow)
    options = msgspec.structs.replace(options, concurrency=within_descriptors(options.concurrency))
    throttle = Scheduler(options.concurrency, options.per_host, options.interval)
    make = _transport(options)
    transports: dict[tuple[bool, ...], Transport] = {}
    async with AsyncExitStack() as stack:

        def transport_for(wanted: Options) -> Transport:
            """The one whose connections, TLS sessions and addresses were all made as these options want them."""
            insecure, ipv4, ipv6 = kind = wanted.insecure, wanted.ipv4, wanted.ipv6
            if kind not in transports:
                of_kind = msgspec.structs.replace(options, insecure=insecure, ipv4=ipv4, ipv6=ipv6)
                resolver = Resolver(of_kind)
                stack.push_async_callback(resolver.close)
                transports[kind] = make(of_kind, resolver, guard)
                stack.push_async_callback(transports[kind].close)
            return transports[kind]

        transport_for(options)  # at once, for it may find an option wrong
        yield HttpProber(options, transport_for, throttle)


def _transport(options: Options) -> Callable[[Options, Resolver, AddressGuard], Transport]:
    if options.transport == "socket" and options.proxy is None:
        return partial(SocketTransport, pool=ConnectionPool(options.concurrency))
    from crawler.transport.aiohttp_transport import (
        AiohttpTransport,  # aiohttp's client takes a third of a second to import
    )

    return AiohttpTransport
