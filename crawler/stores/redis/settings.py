"""Sizes and times that should be the same in all processes of a fleet."""

import msgspec

from crawler.registry import READER_SECONDS

__all__ = ["FleetSettings"]


class FleetSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How Tasks are cut into chunks, and how long processes wait for one another.

    Attributes:
        answer_seconds: How long Redis may take to answer a command. A subscription that has been quiet for this time
            is tested.
        targets_per_chunk: The size of a chunk: what one worker process probes before it asks Redis for more.
        lines_per_slice: Lines that are sorted in memory, or read from the temporary file, at once. A batch with fewer
            lines is sorted in memory.
        leader_lease_seconds: Another process becomes the leader if the leader does not renew its lease for this time.
        unadmitted_batch_seconds: A batch that has not become a Task after this time is dropped.
        chunk_lease_seconds: A chunk goes to another worker process if its lease is not renewed for this time. docket
            looks for expired leases every 5/16 of it. It misses one look if the process that looks crashes as well: a
            chunk then waits 41 s at worst by default.
        chunk_poll_seconds: How long docket waits for a new chunk. Its own default is a quarter of a second.
        reconnect_seconds: Pause before a worker process takes chunks again after an error.
        stalled_check_seconds: Pause between two searches for stalled Tasks.
        stalled_after_seconds: A Task without a new result for this time has its chunks queued again. Doubled each time.
        max_stalled_after_seconds: The bound of this doubling.
        reader_seconds: How long readers of a deleted Task can still read its results.
        drain_seconds: At shutdown, time for the results to be recorded, and again for the chunks to be released.
    """

    answer_seconds: float = 5.0
    targets_per_chunk: int = 200
    lines_per_slice: int = 2_000
    leader_lease_seconds: float = 20.0
    unadmitted_batch_seconds: float = 86_400.0
    chunk_lease_seconds: float = 25.0
    chunk_poll_seconds: float = 0.05
    reconnect_seconds: float = 1.0
    stalled_check_seconds: float = 15.0
    stalled_after_seconds: float = 60.0
    max_stalled_after_seconds: float = 3_600.0
    reader_seconds: float = READER_SECONDS
    drain_seconds: float = 5.0
