"""Delete the rows of orphans in the background: of Tasks that were deleted, or whose intake did not end."""

import asyncio
import logging
import time
from collections import Counter
from functools import partial
from typing import Final

from crawler.core.errors import StoreError
from crawler.registry import READER_SECONDS
from crawler.runtime.cancellation import BackgroundJob
from crawler.stores.sqlite import queries
from crawler.stores.sqlite.database import Database

__all__ = ["Sweeper"]

log = logging.getLogger(__name__)

_SHARE_OF_RESERVE: Final = 0.5  # the rest is for deletions by clients, and for the next start


class Sweeper(BackgroundJob):
    """Deletes orphans' rows, a few in each transaction, and gives their space back to the disk.

    Args:
        database: Where.
        retry_seconds: Wait after an error of the store.
        reader_seconds: How long readers of a deleted Task can keep its rows.

    Attributes:
        incoming: Numbers of Tasks that are being taken in: their rows are not swept.
        readers: How many read the results of a Task, by its number: these rows are swept afterwards,
            or after `reader_seconds`; then the Task's readers are gone from here, and their next read has to fail.
    """

    def __init__(self, database: Database, retry_seconds: float, reader_seconds: float = READER_SECONDS) -> None:
        self.incoming: set[int] = set()
        self.readers: Counter[int] = Counter()
        self._database = database
        self._retry_seconds = retry_seconds
        self._reader_seconds = reader_seconds
        self._read_until: dict[int, float] = {}  # when readers of an orphan have had their time
        self._requested = asyncio.Event()
        self._swept = asyncio.Event()

    def request(self) -> None:
        """Sweep soon."""
        self._swept.clear()
        self._requested.set()

    async def wait_until_swept(self) -> None:
        """Wait until no orphan has rows."""
        await self._swept.wait()

    async def _run(self) -> None:
        self.request()  # orphans of the previous process
        while True:
            await self._requested.wait()
            self._requested.clear()
            try:
                is_all = await self._sweep()
            except StoreError as error:
                log.error("rows of deleted Tasks could not be deleted, which is tried again: %s", error)
                self._requested.set()
                await asyncio.sleep(self._retry_seconds)
                continue
            if is_all and not self._requested.is_set():
                self._swept.set()

    async def _sweep(self) -> bool:
        """Delete what can be deleted now; return whether that was all."""
        is_all = True
        for number in await self._database.call(queries.list_orphans):
            self._cut_off_readers(number)
            while number not in self.incoming and number not in self.readers:
                delete = partial(queries.delete_some_rows, number=number)
                if not await self._database.even_if_full(partial(self._database.write, delete), _SHARE_OF_RESERVE):
                    break
            else:
                is_all = is_all and number not in self.readers
        while await self._database.even_if_full(partial(self._database.call, queries.free_pages), _SHARE_OF_RESERVE):
            pass
        return is_all

    def _cut_off_readers(self, number: int) -> None:
        """Forget the readers of an orphan if they have had their time; else sweep again when they have had it."""
        if number not in self.readers:
            self._read_until.pop(number, None)
            return
        now = time.monotonic()
        if number not in self._read_until:
            self._read_until[number] = now + self._reader_seconds
        if (left := self._read_until[number] - now) > 0:  # also after a timer that fired a moment too early
            asyncio.get_running_loop().call_later(left, self.request)
        else:
            log.info("%d readers of a deleted Task are cut off: its rows are deleted", self.readers.pop(number))
            del self._read_until[number]
