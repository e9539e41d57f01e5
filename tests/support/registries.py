"""What tests put into a registry and read from it."""

from crawler import ProbeResult, Registry
from crawler.core.results import Outcome


def make_result(seq: int, url: str = "", outcome: Outcome = "ok") -> ProbeResult:
    """The result of the line at a position."""
    return ProbeResult(seq=seq, url=url, timestamp=1, outcome=outcome, status=200)


async def pending_seqs(registry: Registry, task_id: str) -> list[int]:
    """The positions of the lines that are left to probe, in the order of probing."""
    return [target.seq async for target in registry.pending(task_id)]
