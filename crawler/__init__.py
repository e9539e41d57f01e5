"""Probe URLs in batches: does each answer, what, how fast in each phase, and if not, why.

`probe` is the library, `create_app` and `run_service` are the service, `python -m crawler` is the command.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from crawler.compose import open_prober, probe
from crawler.core.errors import (
    ERROR_TYPES,
    CrawlerError,
    InputError,
    OptionError,
    StoreError,
    TaskNotFound,
    TransitionError,
)
from crawler.core.options import VERSION, Options
from crawler.core.results import Hop, ProbeError, ProbeResult, Timings, TLSInfo
from crawler.core.service_options import ServiceOptions
from crawler.core.tasks import Counts, Task
from crawler.core.urls import Target
from crawler.registry import Registry
from crawler.stores.memory import MemoryRegistry

if TYPE_CHECKING:
    from crawler.service import TASKS, create_app, run_service
    from crawler.stores.sqlite.registry import SqliteRegistry

__version__ = VERSION

__all__ = [
    "ERROR_TYPES",
    "TASKS",
    "Counts",
    "CrawlerError",
    "Hop",
    "InputError",
    "MemoryRegistry",
    "OptionError",
    "Options",
    "ProbeError",
    "ProbeResult",
    "Registry",
    "ServiceOptions",
    "SqliteRegistry",
    "StoreError",
    "TLSInfo",
    "Target",
    "Task",
    "TaskNotFound",
    "Timings",
    "TransitionError",
    "__version__",
    "create_app",
    "open_prober",
    "probe",
    "run_service",
]

_LATER = {
    "SqliteRegistry": "crawler.stores.sqlite.registry",
    "TASKS": "crawler.service",
    "create_app": "crawler.service",
    "run_service": "crawler.service",
}


def __getattr__(name: str) -> Any:
    # aiohttp's server takes a third of a second to import, which who only probes need not spend.
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LATER[name]), name)
