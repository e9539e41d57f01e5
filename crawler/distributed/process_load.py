"""How busy the processes are that probe for this one: asked of each when somebody wants to know."""

import asyncio
from typing import Final

from crawler.core.errors import ChildError
from crawler.distributed.messages import ChildReport, ChildRequest, encode_frame, receive_frame
from crawler.distributed.process_pool import ProcessPool
from crawler.probing.scheduler import Load

__all__ = ["load_of"]

_PATIENCE: Final = 1.0  # seconds


async def load_of(crew: ProcessPool) -> Load:
    """All of them together. One that does not say so at once, for it has just ended, does nothing."""
    loads = await asyncio.gather(*(_load(crew, index) for index in range(crew.size)))
    return Load(*(sum(numbers) for numbers in zip(*loads, strict=True)))


async def _load(crew: ProcessPool, index: int) -> Load:
    try:
        async with asyncio.timeout(_PATIENCE):
            reader, writer = await crew.connect(index)
            try:
                writer.write(encode_frame(ChildRequest(asks_load=True)))
                report = await receive_frame(reader, ChildReport)
            finally:
                writer.close()
    except (ChildError, ConnectionError, asyncio.IncompleteReadError, TimeoutError):
        return Load(0, 0, 0, 0)
    assert report.load is not None
    return report.load
