"""Check lists of URLs: whether each answers, with which status, how long each phase took, and why it failed.

`probe` is the library, `create_app` and `run_service` are the service, `python -m crawler` is the command.
What is importable from here is public; the packages below are not.

The packages, each importing only those below it:

    gunicorn, asgi    the service for other servers
    cli               the command
    service           the service on aiohttp
    server            the parts of a running service
    compose           builds probers, registries and engines from options
    distributed       probing in child processes and on other machines
    worker            works on a Task until it is ready
    probing           which request comes next, and when
    stores            Tasks in memory, SQLite or Redis
    registry          the Tasks: the rules that every store keeps
    transport         one HTTP exchange on the wire
    formats           reads URL lists, writes results
    runtime           logs, counters, signals and limits of every process
    core              options, URLs, Tasks, results, errors
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from crawler.core.error_types import ERROR_TYPES
from crawler.core.errors import CrawlerError, InputError, OptionError, StoreError, TaskNotFound, TransitionError
from crawler.core.options import VERSION, Options
from crawler.core.results import Hop, ProbeError, ProbeResult, Timings, TLSInfo
from crawler.core.service_options import ServiceOptions
from crawler.core.tasks import Counts, Task
from crawler.core.urls import Target

if TYPE_CHECKING:
    from crawler.compose import open_prober, probe
    from crawler.registry import Registry
    from crawler.service import TASKS, create_app, run_service
    from crawler.stores.memory import MemoryRegistry
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

# Names that are imported at first use: the prober takes a tenth of a second to import and the aiohttp server a third,
# which not every program needs.
_LAZY_MODULES = {
    "MemoryRegistry": "crawler.stores.memory",
    "Registry": "crawler.registry",
    "SqliteRegistry": "crawler.stores.sqlite.registry",
    "TASKS": "crawler.service",
    "create_app": "crawler.service",
    "open_prober": "crawler.compose",
    "probe": "crawler.compose",
    "run_service": "crawler.service",
}


def __getattr__(name: str) -> Any:
    if (module := _LAZY_MODULES.get(name)) is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(module), name)
