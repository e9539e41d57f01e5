"""What waits for workers on other machines, and who they are."""

import msgspec

__all__ = ["FleetStatus", "QueueStatus"]


class QueueStatus(msgspec.Struct, frozen=True):
    """One queue: chunks that wait, chunks that workers have, and the seconds since the oldest of all was queued."""

    waiting: int = 0
    running: int = 0
    oldest: float = 0.0


class FleetStatus(msgspec.Struct, frozen=True):
    """What there is.

    Attributes:
        queues: By name.
        workers: By name, each with when it gave its last sign of life, in unix seconds.
        redelivered: How often a chunk was begun again because a worker had fallen silent.
    """

    queues: dict[str, QueueStatus]
    workers: dict[str, float]
    redelivered: int
