"""Items for a work queue whose runs a test controls."""

import asyncio

__all__ = ["GatedItem", "settle"]


class GatedItem:
    """An item of a work queue that runs until a test opens its gate."""

    def __init__(self, host: str, not_before: float = 0.0) -> None:
        self.host = host
        self.not_before = not_before
        self.wants_deferral = False
        self.wants_host_alone = False
        self.gate = asyncio.Event()
        self.runs_left = 1


async def settle() -> None:
    """Let everything happen that needs no time to pass."""
    for _ in range(20):
        await asyncio.sleep(0)
