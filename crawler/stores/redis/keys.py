"""The names of the Redis keys, and what each key holds.

The names are stored in running installations, so they keep their spelling even where this package calls the thing by
another name. A key that changes its meaning needs a new name, and a step that copies the old one.

Shared by all Tasks, `crawler:NAME`:

    tasks        sorted set: the ids of all Tasks, by the number that `admit` gave them
    number       counter: the last number given
    keys         hash: idempotency key of a client -> Task id
    running      hash: id of each running Task -> its owner; empty if it has none
    coming       sorted set: ids whose chunks are stored without a running Task, by Unix time of the last change;
                 `drop_stale_batches` removes them
    bytes        counter: the size of all stored result blocks
    redelivered  counter: chunks that were started again after a crash
    leader       lock: held by the leader
    notes        hash: short texts that concern all Tasks (`Registry.write_note`)
    check        string: written by the health check
    changes      channel: a Task id, followed by its counts as JSON if only these have changed

Of one Task, `crawler:task:ID`, a hash of the Task's fields (see `task_hash`), and `crawler:task:ID:NAME`:

    bits         bitmap: the lines that have their result
    blocks       sorted set: offsets of the result blocks, in the order of recording
    records:N    hash: offset -> compressed block of results; a hash has `OFFSETS_PER_HASH` offsets
    chunks:N     hash: `SEQUENCE.INDEX` -> compressed chunk; a hash has `SEQUENCES_PER_HASH` sequences
    chains       hash: chunk sequence -> `INDEX/LENGTH` of its next chunk; finished sequences are removed
    starts       hash: `SEQUENCE.INDEX` -> `NUMBER/NAME`: how often the chunk was started without being completed or
                 released, and the name of the last start
    suspects     hash: `SEQUENCE.INDEX` -> the lines that were being probed in isolation when a worker process crashed

docket keeps the queues under `crawler-small:` and `crawler-big:`.
"""

from typing import Final, Literal

import msgspec

__all__ = [
    "OFFSETS_PER_HASH",
    "SEQUENCES_PER_HASH",
    "SHARED_TYPES",
    "TASK_TYPES",
    "SharedName",
    "chunks_key",
    "chunks_prefix",
    "idempotency_field",
    "results_key",
    "results_prefix",
    "shared_key",
    "task_key",
]

OFFSETS_PER_HASH: Final = 2**16
SEQUENCES_PER_HASH: Final = 64

SharedName = Literal[
    "tasks", "number", "keys", "coming", "running", "bytes", "redelivered", "leader", "notes", "check", "changes"
]
SHARED_TYPES: Final[dict[SharedName, str]] = {
    "tasks": "zset",
    "number": "string",
    "keys": "hash",
    "coming": "zset",
    "running": "hash",
    "bytes": "string",
    "redelivered": "string",
    "leader": "string",
    "notes": "hash",
}
"""The type of each key that all Tasks share, as Redis names it."""

TaskPart = Literal["bits", "blocks", "chains", "starts", "suspects"]
TASK_TYPES: Final[dict[TaskPart | None, str]] = {
    None: "hash",
    "bits": "string",
    "blocks": "zset",
    "chains": "hash",
    "starts": "hash",
    "suspects": "hash",
}
"""The type of each key of a Task; None is the Task's own. The numbered keys are hashes."""


def shared_key(name: SharedName) -> str:
    """Return a key that all Tasks share."""
    return f"crawler:{name}"


def task_key(task_id: str, part: TaskPart | None = None) -> str:
    """Return the key of a Task's hash, or of another part of the Task."""
    return f"crawler:task:{task_id}" if part is None else f"crawler:task:{task_id}:{part}"


def chunks_key(task_id: str, sequence: int) -> str:
    """Return the key of the hash that holds the chunks of a sequence."""
    return f"{chunks_prefix(task_id)}{sequence // SEQUENCES_PER_HASH}"


def chunks_prefix(task_id: str) -> str:
    """Return the prefix of the keys of a Task's chunk hashes; the number of the hash follows."""
    return f"crawler:task:{task_id}:chunks:"


def results_key(task_id: str, offset: int) -> str:
    """Return the key of the hash that holds the result block at an offset."""
    return f"{results_prefix(task_id)}{offset // OFFSETS_PER_HASH}"


def results_prefix(task_id: str) -> str:
    """Return the prefix of the keys of a Task's result hashes; the number of the hash follows."""
    return f"crawler:task:{task_id}:records:"


def idempotency_field(owner: str | None, key: str) -> str:
    """Return the field of the hash `keys` for a client's idempotency key: two clients may use the same key."""
    return msgspec.json.encode((owner, key)).decode()
