"""A prober on aiohttp's client with its fastest settings: uvloop, bounded workers, no pool limit, no cookies.

It prints `STATUS URL` lines; status 0 means no answer.
"""

import argparse
import asyncio
import socket
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import uvloop
import yarl


def main() -> None:
    """Probe the URLs of a file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("--concurrency", type=int, default=256)
    parser.add_argument("--per-host", type=int, default=256)
    parser.add_argument("--redirects", type=int, default=0)
    parser.add_argument("--timeout", type=float, default=10.0)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--cafile")
    parser.add_argument("--dns", help="HOST:PORT of a DNS server to ask")
    uvloop.run(_probe_all(parser.parse_args()))


async def _probe_all(options: argparse.Namespace) -> None:
    connector = aiohttp.TCPConnector(
        limit=0,
        limit_per_host=options.per_host if options.per_host < options.concurrency else 0,
        force_close=not options.keep,
        family=socket.AF_INET,
        ttl_dns_cache=300,
        ssl=ssl.create_default_context(cafile=options.cafile),
        resolver=aiohttp.AsyncResolver(nameservers=[options.dns]) if options.dns else None,
    )
    session = aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=options.timeout),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
    )
    async with session:
        urls = iter(options.file.read_text().split())
        await asyncio.gather(*(_probe_urls(session, urls, options.redirects) for _ in range(options.concurrency)))


async def _probe_urls(session: aiohttp.ClientSession, urls: Iterator[str], redirects: int) -> None:
    for url in urls:
        try:
            async with session.head(
                yarl.URL(url, encoded=True), allow_redirects=redirects > 0, max_redirects=redirects
            ) as response:
                status = response.status
        except (aiohttp.ClientError, TimeoutError, ValueError):
            status = 0
        sys.stdout.write(f"{status} {url}\n")


if __name__ == "__main__":
    main()
