"""What this machine allows one process, and what this process needs of Python."""

import gc
import os
import resource
from typing import Final, Literal

__all__ = ["clients_within_descriptors", "collect_rarely", "many_descriptors", "process_count", "within_descriptors"]

_OTHERS: Final = 32  # descriptors for all that is not a probe: files, DNS, the service's own listeners
_COLLECT_AFTER: Final = 50_000  # objects more than there were

_FEW: Final = 16  # clients that are served even so
_MANY: Final = 2**16  # descriptors
_SHARE: Final = 2  # descriptors of a probe: its connection, and an idle one or a second look at a certificate


def within_descriptors(concurrency: int) -> int:
    """Raise this process's limit of open files as far as it may be, and give the concurrency that it then allows.

    At least one, for there is no fewer: what the limit refuses even so is waited out and tried again.
    """
    limit = _raised(concurrency * _SHARE + _OTHERS)
    return concurrency if limit is None else max(1, min(concurrency, (limit - _OTHERS) // _SHARE))


def clients_within_descriptors(clients: int, concurrency: int) -> int:
    """The same for the connections of so many clients, beside what the probes may take."""
    others = concurrency * _SHARE + _OTHERS
    limit = _raised(others + clients)
    return clients if limit is None else min(clients, max(_FEW, limit - others))


def many_descriptors() -> None:
    """Raise this process's limit of open files as far as it may be, and as anybody needs."""
    _raised(_MANY)


def collect_rarely() -> None:
    """Look for cyclic garbage less often: by Python's default, every 700 objects, all that wait are looked at again.

    Tens of thousands of targets and results wait. Looking at them all takes a tenth of a second, in which nothing else
    happens; they are in no cycles, and are freed without it.
    """
    gc.set_threshold(_COLLECT_AFTER, 20, 100)


def process_count(processes: int | Literal["auto"]) -> int:
    """Return the number of processes to probe with; `auto` is one for each core this process may run on."""
    if processes != "auto":
        return processes
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _raised(wanted: int) -> int | None:
    """The limit of open files, raised as far as is wanted and it may be; None if there is none."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return None if soft == resource.RLIM_INFINITY else soft
