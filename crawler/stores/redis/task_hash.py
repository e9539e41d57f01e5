"""A Task as a Redis hash: each field as JSON, and one number for each count.

The names of the hash fields are those of `Task` and `Counts`. A field of these records that gets another name has to
keep the stored one (`msgspec.field(name=...)`).
"""

from collections.abc import Collection, Mapping
from typing import Final, get_args

import msgspec

from crawler.core import tasks
from crawler.core.options import Options
from crawler.core.results import Outcome
from crawler.core.tasks import Counts, Task

__all__ = ["FIELDS", "decode_counts", "decode_options", "decode_task", "encode_fields", "merge_counts"]

FIELDS: Final = tuple(name for name in Task.__struct_fields__ if name != "counts")
_OUTCOMES: Final[tuple[Outcome, ...]] = get_args(Outcome)

decode_counts: Final = msgspec.json.Decoder(dict[Outcome, int]).decode
"""Counts by outcome, as the scripts publish them."""


def encode_fields(task: Task, names: Collection[str]) -> dict[str, str]:
    """Return some fields of a Task's hash."""
    return {name: msgspec.json.encode(getattr(task, name)).decode() for name in names}


def decode_task(fields: Mapping[bytes, bytes]) -> Task:
    """Return the Task of a hash.

    Raises:
        msgspec.MsgspecError: Another version wrote a field that this one cannot read.
        InputError: The same, for an option.
        ValueError: A count is not a number.
    """
    body = b",".join(b'"%s":%s' % (name.encode(), fields[name.encode()]) for name in FIELDS if name.encode() in fields)
    task = tasks.decode_task(b"{" + body + b"}")
    task.counts = Counts(**{outcome: int(fields.get(outcome.encode(), 0)) for outcome in _OUTCOMES})
    return task


def decode_options(body: bytes) -> Options:
    """Return the options of a hash's field; raises as `decode_task`."""
    return tasks.decode_task(b'{"id":"","options":%s}' % body).options


def merge_counts(task: Task, counts: Mapping[Outcome, int]) -> None:
    """Raise a Task's counts to these. Counts only grow, so a smaller one is older."""
    for outcome, count in counts.items():
        setattr(task.counts, outcome, max(count, getattr(task.counts, outcome)))
