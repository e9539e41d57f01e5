"""The records that a chunk consists of."""

import msgspec

from crawler.core.results import ProbeError
from crawler.core.urls import Target

__all__ = ["Chunk", "ChunkLine", "ChunkPosition"]


class ChunkPosition(msgspec.Struct, frozen=True, array_like=True):
    """Which chunk of a Task: its sequence, and its index there."""

    sequence: int
    index: int

    def __str__(self) -> str:
        return f"{self.sequence}.{self.index}"


class ChunkLine(msgspec.Struct, array_like=True, gc=False):
    """A line to probe, as it is stored in a chunk.

    Attributes:
        seq: Its position in the batch.
        text: As submitted.
        problem: Why it is not a URL.
        duplicates: Position and text of the later lines that ask for the same target; they get the same result.
    """

    seq: int
    text: str
    problem: ProbeError | None = None
    duplicates: list[tuple[int, str]] = []

    @property
    def target(self) -> Target:
        """The target that is probed for this line."""
        return Target.of(self.seq, self.text) if self.problem is None else Target(self.seq, self.text, self.problem)


class Chunk(msgspec.Struct, frozen=True):
    """Lines that one worker process probes, hosts alternating."""

    position: ChunkPosition
    lines: list[ChunkLine]
