"""The names of what is in Redis, and how a Task is written there: `stores.scripts` says what each is."""

from collections.abc import Collection, Mapping
from typing import Final, get_args

import msgspec

from crawler.core.results import Outcome
from crawler.core.tasks import Counts, Task
from crawler.stores.redis.scripts import CHAINS, SHARD

__all__ = [
    "FIELDS",
    "chunks_key",
    "common",
    "counted",
    "decoded",
    "encoded",
    "own",
    "owned",
    "records_key",
]

FIELDS: Final = tuple(name for name in Task.__struct_fields__ if name != "counts")
_OUTCOMES: Final[tuple[Outcome, ...]] = get_args(Outcome)


def common(name: str) -> str:
    """The key of what all Tasks have in common."""
    return f"crawler:{name}"


def own(id_: str, name: str = "") -> str:
    """The key of what a Task has."""
    return f"crawler:task:{id_}:{name}" if name else f"crawler:task:{id_}"


def chunks_key(id_: str, chain: int) -> str:
    """The key of the hash that has a chain's chunks."""
    return own(id_, f"chunks:{chain // CHAINS}")


def records_key(id_: str, place: int) -> str:
    """The key of the hash that has the block of records which begins at a place."""
    return own(id_, f"records:{place // SHARD}")


def owned(owner: str | None, key: str) -> str:
    """A client's key, which is known to who chose it, and to nobody else."""
    return msgspec.json.encode((owner, key)).decode()


def encoded(task: Task, names: Collection[str]) -> dict[str, str]:
    """Fields of a Task's hash."""
    return {name: msgspec.json.encode(getattr(task, name)).decode() for name in names}


def decoded(fields: dict[bytes, bytes]) -> Task:
    """A Task of its hash.

    Raises:
        msgspec.MsgspecError: Some of it is not as this version writes it.
        InputError: An option is not.
    """
    body = b",".join(b'"%s":%s' % (name.encode(), fields[name.encode()]) for name in FIELDS if name.encode() in fields)
    task = msgspec.json.decode(b"{" + body + b"}", type=Task)
    task.counts = Counts(**{outcome: int(fields.get(outcome.encode(), 0)) for outcome in _OUTCOMES})
    return task


def counted(task: Task, counts: Mapping[Outcome, int]) -> None:
    """Take counts over; they only grow, so what is less is older."""
    for outcome, count in counts.items():
        setattr(task.counts, outcome, max(count, getattr(task.counts, outcome)))
