"""Resources of this process: the limit of open files, cores, garbage collection."""

import gc
import os
import resource
from typing import Final, Literal

__all__ = [
    "limit_clients",
    "limit_concurrency",
    "limit_long_lists",
    "max_idle_connections",
    "process_count",
    "raise_open_files_limit",
    "tune_garbage_collector",
]

_MIN_DESCRIPTORS_PER_PROBE: Final = 2  # its connection, and an idle one or one that checks a certificate again
_IDLE_CONNECTIONS_PER_PROBE: Final = 4  # lists come back to their hosts: more would save little
_IDLE_SHARE: Final = 4  # idle connections beyond the least are at most one in so many descriptors
_OTHER_DESCRIPTORS: Final = 32  # files, DNS, the listeners of the service
_DESCRIPTORS_PER_LIST: Final = 8  # a database with its log, and the temporary files of a sort
_WEBHOOK_DESCRIPTORS: Final = 32
_MAX_DESCRIPTORS: Final = 2**16
_MIN_CLIENTS: Final = 16  # allowed even if there may be too few descriptors
_GC_THRESHOLD: Final = 50_000  # new objects between two runs of the collector


def limit_concurrency(concurrency: int) -> int:
    """Raise the limit of open files for `concurrency` probes at once, and return how many it allows.

    Returns:
        At least 1. A probe that still gets no descriptor is retried.
    """
    limit = _raise_limit(concurrency + max_idle_connections(concurrency) + _OTHER_DESCRIPTORS)
    if limit is None:
        return concurrency
    return max(1, min(concurrency, (limit - _OTHER_DESCRIPTORS) // _MIN_DESCRIPTORS_PER_PROBE))


def max_idle_connections(concurrency: int) -> int:
    """Return how many idle connections `concurrency` probes may keep; at least one each."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = concurrency * _IDLE_CONNECTIONS_PER_PROBE
    return wanted if hard == resource.RLIM_INFINITY else max(concurrency, min(wanted, hard // _IDLE_SHARE))


def limit_long_lists(lists: int, concurrency: int) -> int:
    """Raise the limit of open files for long lists that are received besides the probes; return how many it allows.

    Returns:
        At least 1, and so many that half of the descriptors are left for clients.
    """
    others = _of_service(concurrency)
    limit = _raise_limit(others + lists * _DESCRIPTORS_PER_LIST)
    return lists if limit is None else max(1, min(lists, (limit - others) // 2 // _DESCRIPTORS_PER_LIST))


def limit_clients(clients: int, concurrency: int, lists: int) -> int:
    """Raise the limit of open files for connections of clients besides the rest, and return how many it allows.

    Args:
        clients: How many connections are wanted.
        concurrency: Probes at once.
        lists: Long lists that are received at once.
    """
    others = _of_service(concurrency) + lists * _DESCRIPTORS_PER_LIST
    limit = _raise_limit(others + clients)
    return clients if limit is None else min(clients, max(_MIN_CLIENTS, limit - others))


def raise_open_files_limit() -> None:
    """Raise the limit of open files as far as the system allows and this project can use."""
    _raise_limit(_MAX_DESCRIPTORS)


def tune_garbage_collector() -> None:
    """Run the cyclic garbage collector less often.

    By default each 700 new objects start a run, and a full run over tens of thousands of waiting targets and results
    blocks the event loop for a tenth of a second. They form no cycles, so they are freed without it.
    """
    gc.set_threshold(_GC_THRESHOLD, 20, 100)


def process_count(processes: int | Literal["auto"]) -> int:
    """Return the number of processes to probe with; `auto` is one for each core this process may run on."""
    if processes != "auto":
        return processes
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _of_service(concurrency: int) -> int:
    return concurrency + max_idle_connections(concurrency) + _OTHER_DESCRIPTORS + _WEBHOOK_DESCRIPTORS


def _raise_limit(wanted: int) -> int | None:
    """Raise the soft RLIMIT_NOFILE to `wanted`, capped at the hard limit; return the soft limit, None for no limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return None if soft == resource.RLIM_INFINITY else soft
