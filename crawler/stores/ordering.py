"""Which lines of a Task are equal, and in which order its targets are probed. Pure: no I/O, no state.

Two lines are equal if one probe serves both: the same normalised URL, requested with the same credentials. Equal lines
have equal keys, and the first of them is probed. Targets are probed by rank within their host, then by position, so
that hosts take turns. All stores and the library's `Deduplicator` take both rules from here.
"""

from collections.abc import Callable, Hashable, Iterable
from typing import Final, TypeVar

import msgspec

from crawler.core.results import ProbeError
from crawler.core.urls import Target, find_plain_host

__all__ = ["SQL_FIRST_EQUAL", "SQL_RANK_IN_HOST", "LineKey", "PreparedLine", "interleave", "line_key", "prepare_line"]

T = TypeVar("T")

LineKey = tuple[int, int]

# The same two rules in SQL, over the columns id (the position), key and key2 (the two halves of a key), and host.
SQL_FIRST_EQUAL: Final = "first_value(id) OVER (PARTITION BY key, key2 ORDER BY id)"
SQL_RANK_IN_HOST: Final = "row_number() OVER (PARTITION BY host ORDER BY id)"


class PreparedLine(msgspec.Struct, frozen=True, gc=False):
    """A line as stores take it in.

    Attributes:
        key: Equal for equal lines.
        host: Equal for lines of one host; lines that are no URL share one too.
        problem: JSON of the `ProbeError` that says why the line is no URL; None for a URL.
        text: The line as submitted.
    """

    key: LineKey
    host: int
    problem: str | None
    text: str


def prepare_line(line: str | bytes) -> PreparedLine:
    """Parse a line; bytes have to be UTF-8."""
    text = line if isinstance(line, str) else line.decode("latin-1")
    if (host := find_plain_host(text)) is not None:  # such a text is ASCII
        return PreparedLine(_digest(text), hash(host), None, text)
    target = Target.of(0, line)
    problem = msgspec.json.encode(target.url).decode() if isinstance(target.url, ProbeError) else None
    return PreparedLine(line_key(target), hash(target.host), problem, target.text)


def line_key(target: Target) -> LineKey:
    """Return 128 bits that are equal for equal lines; valid within this process."""
    url, credentials = target.dedupe_key
    return _digest(f"{url}\n{credentials}" if credentials else url)


def interleave(items: Iterable[T], host_of: Callable[[T], Hashable]) -> list[T]:
    """Order items, which come in the order of their positions, by rank within their host, then by position."""
    next_ranks: dict[Hashable, int] = {}
    ranks: list[list[T]] = []  # not one list to sort: a sort of a million items keeps the interpreter's lock
    for item in items:
        host = host_of(item)
        rank = next_ranks.get(host, 0)
        next_ranks[host] = rank + 1
        if rank == len(ranks):
            ranks.append([])
        ranks[rank].append(item)
    return [item for rank in ranks for item in rank]


def _digest(text: str) -> LineKey:
    # `hash` is SipHash with a secret of this process: collisions cannot be constructed. SQLite sorts integers fast.
    return hash(text), hash(text + "\n")
