"""A monitor of the service's health, whose other parts are ok."""

from typing import Any

from crawler import Registry
from crawler.server.health import HealthMonitor

__all__ = ["find_store_fault", "open_health"]


def open_health(registry: Registry, **other: Any) -> HealthMonitor:
    """Open a monitor where only the registry or `other` can have a fault."""
    well: dict[str, Any] = {
        "queues": _pass_on,
        "has_resolver": lambda: True,
        "lag": lambda: 0.0,
        "prober": lambda: None,
        "is_stopping": lambda: False,
    }
    return HealthMonitor(registry, **{**well, **other})


async def _pass_on() -> None:
    pass


async def find_store_fault(registry: Registry) -> str | None:
    """Return what is wrong with the registry; None if it works."""
    async with open_health(registry) as health:
        return (await health.find_faults())["store"]
