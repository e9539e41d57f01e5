"""Lines that ask for the same, as long as they come: the first is probed, all get its result."""

import asyncio
import hashlib
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import Final

from crawler.core.results import ProbeResult
from crawler.core.urls import Target
from crawler.runtime.iteration import iterate
from crawler.stores.finding_store import SeenResults

__all__ = ["Deduplicator"]

_HELD: Final = 50_000  # lines that wait for the result of an equal one
_SLICE: Final = 1_000


class Deduplicator:
    """Lines that ask for the same: the first is probed, all get its result."""

    def __init__(self) -> None:
        self._found = SeenResults()
        self._waiting: dict[bytes, list[Target]] = {}
        self._wanted: dict[int, bytes] = {}
        self._held = 0
        self._freed = asyncio.Event()

    async def firsts(self, urls: Iterable[str | bytes] | AsyncIterable[str | bytes]) -> AsyncIterator[Target]:
        """The targets to probe, and those of which the result is known by now."""
        seq = 0
        async for line in iterate(urls):
            target = Target.of(seq, line)
            wanted = _key(target)
            seq += 1
            if (result := self._found.get(wanted)) is not None:
                target.known_result = result
            elif wanted in self._waiting:
                self._waiting[wanted].append(target)
                self._held += 1
                await self._room()
                continue
            else:
                self._waiting[wanted] = []
                self._wanted[target.seq] = wanted
            yield target

    def of(self, result: ProbeResult) -> list[Target]:
        """The lines that have waited for this result."""
        wanted = self._wanted.pop(result.seq, None)
        if wanted is None:
            return []
        self._found.add(wanted, result)
        waiting = self._waiting.pop(wanted)
        self._held -= len(waiting)
        self._freed.set()
        return waiting

    def close(self) -> None:
        """Drop what was found."""
        self._found.close()

    async def _room(self) -> None:
        """Hold no more lines than that, however many ask for the same; and let others work in between."""
        if self._held % _SLICE == 0:
            await asyncio.sleep(0)
        while self._held >= _HELD:
            self._freed.clear()
            await self._freed.wait()


def _key(target: Target) -> bytes:
    """Equal for targets of which one probe serves all; so many bits that others never have the same."""
    url, credentials = target.dedupe_key
    return hashlib.blake2b(f"{url}\n{credentials or ''}".encode(), digest_size=16).digest()
