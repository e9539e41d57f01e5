"""Print what each URL given as an argument answers: python examples/library.py URL..."""

import asyncio
import sys

import crawler


async def main(urls: list[str]) -> None:
    """Probe the URLs, each for 5 seconds at most, and print results as they come."""
    async for result in crawler.probe(urls, timeout=5):
        why = f"{result.error.type}: {result.error.message}" if result.error else result.status
        print(f"{result.url}  {result.outcome}  {why}")


asyncio.run(main(sys.argv[1:]))
