"""Composes the prober of one process: address guard, scheduler, resolvers and transports."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec

from crawler.core.options import Options
from crawler.probing.prober import HttpProber
from crawler.probing.scheduling.scheduler import Scheduler
from crawler.probing.settings import DEFAULT_SETTINGS, ProberSettings
from crawler.runtime.awake_clock import AwakeClock
from crawler.runtime.resources import limit_concurrency, max_idle_connections
from crawler.transport.address_guard import AddressGuard
from crawler.transport.base import Transport
from crawler.transport.dns.resolver import Resolver
from crawler.transport.socket_transport import SocketTransport
from crawler.transport.sockets.connection_pool import ConnectionPool

__all__ = ["open_http_prober"]


@asynccontextmanager
async def open_http_prober(options: Options, settings: ProberSettings = DEFAULT_SETTINGS) -> AsyncIterator[HttpProber]:
    """Open the prober of one process.

    Raises:
        OptionError: A value cannot be used, for example a certificate file.
    """
    guard = AddressGuard(options.guard, options.allow)
    options = msgspec.structs.replace(options, concurrency=limit_concurrency(options.concurrency))
    scheduler = Scheduler(
        options.concurrency,
        options.per_host,
        options.interval,
        settings.retry,
        max_queue_share=settings.max_queue_share,
    )
    pool = ConnectionPool(max_idle_connections(options.concurrency))
    transports: dict[tuple[bool, ...], Transport] = {}
    async with AsyncExitStack() as stack:
        clock = stack.enter_context(AwakeClock())

        def transport_for(wanted: Options) -> Transport:
            """Return the transport whose connections, TLS sessions and addresses suit these options."""
            insecure, ipv4, ipv6 = key = wanted.insecure, wanted.ipv4, wanted.ipv6
            if key not in transports:
                suited = msgspec.structs.replace(options, insecure=insecure, ipv4=ipv4, ipv6=ipv6)
                resolver = Resolver(suited, clock)
                stack.push_async_callback(resolver.close)
                transports[key] = SocketTransport(suited, resolver, guard, pool, clock, settings.cdn_loop)
                stack.push_async_callback(transports[key].close)
            return transports[key]

        transport_for(options)  # reports a wrong option now, not at the first probe
        yield HttpProber(options, transport_for, scheduler, settings, clock)
