"""Print the result of each URL given as an argument: python examples/library.py URL..."""

import asyncio
import sys

import crawler


async def main(urls: list[str]) -> None:
    """Probe the URLs, each for at most 5 seconds, and print the results as they come."""
    async for result in crawler.probe(urls, timeout=5):
        answer = f"{result.error.type}: {result.error.message}" if result.error else result.status
        print(f"{result.url}  {result.outcome}  {answer}")


asyncio.run(main(sys.argv[1:]))
