"""A monitor of the service's health, whose other parts are well."""

from typing import Any

from crawler import Registry
from crawler.server.health import HealthMonitor

__all__ = ["find_store_trouble", "open_health"]


def open_health(registry: Registry, **other: Any) -> HealthMonitor:
    """All is well but for what the registry says, or `other`."""
    well: dict[str, Any] = {"has_resolver": lambda: True, "lag": lambda: 0.0, "is_stopping": lambda: False}
    return HealthMonitor(registry, **{**well, **other})


async def find_store_trouble(registry: Registry) -> str | None:
    """What is wrong with the registry; None if nothing is."""
    async with open_health(registry) as health:
        return (await health.find_faults())["store"]
