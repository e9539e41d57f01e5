"""The objects that the parts of the application share, each with its own typed key.

A handler takes what it needs from its application: `request.app[REGISTRY]`.
"""

from typing import Final

from aiohttp import web

from crawler.core.options import Options
from crawler.core.service_options import ServiceOptions
from crawler.registry import Registry
from crawler.server.access import Authorizer
from crawler.server.health import HealthMonitor
from crawler.server.metrics import Metrics
from crawler.server.quotas import Quotas
from crawler.server.request_counters import RequestCounters
from crawler.server.settings import ServerSettings
from crawler.server.single_probes import SingleProbes
from crawler.server.task_manager import TaskManager

__all__ = [
    "AUTHORIZER",
    "HEALTH",
    "KEYS_IN_PROGRESS",
    "METRICS",
    "OPTIONS",
    "QUOTAS",
    "REGISTRY",
    "REQUEST_COUNTERS",
    "SERVICE_OPTIONS",
    "SETTINGS",
    "SINGLE_PROBES",
    "TASK_MANAGER",
]

OPTIONS: Final = web.AppKey("OPTIONS", Options)
"""The options of probing, which a Task can change."""

SERVICE_OPTIONS: Final = web.AppKey("SERVICE_OPTIONS", ServiceOptions)
"""The options of the service."""

SETTINGS: Final = web.AppKey("SETTINGS", ServerSettings)
"""Intervals and timeouts that are no options. They can be replaced until the application starts."""

REGISTRY: Final = web.AppKey("REGISTRY", Registry)
"""The registry, which keeps Tasks."""

TASK_MANAGER: Final = web.AppKey("TASK_MANAGER", TaskManager)
"""Begins and ends Tasks."""

SINGLE_PROBES: Final = web.AppKey("SINGLE_PROBES", SingleProbes)
"""Probes URLs that belong to no Task."""

AUTHORIZER: Final = web.AppKey("AUTHORIZER", Authorizer)
"""The access rules."""

QUOTAS: Final = web.AppKey("QUOTAS", Quotas)
"""The quotas."""

KEYS_IN_PROGRESS: Final[web.AppKey[set[tuple[str | None, str]]]] = web.AppKey("KEYS_IN_PROGRESS", set)
"""The owners and idempotency keys of the submits in progress."""

HEALTH: Final = web.AppKey("HEALTH", HealthMonitor)
"""Whether the service can do its work."""

METRICS: Final = web.AppKey("METRICS", Metrics)
"""The metrics of the service."""

REQUEST_COUNTERS: Final = web.AppKey("REQUEST_COUNTERS", RequestCounters)
"""The counters of requests, which the middleware raises."""
