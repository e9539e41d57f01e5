"""The metrics of an application, as Prometheus's own parser reads them."""

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.support.app_client import Client
from tests.support.described import check_described

__all__ = ["read_metrics", "sum_of"]


async def read_metrics(client: Client, path: str = "/metrics") -> dict[str, Metric]:
    """The metrics by name."""
    async with client.get(path) as response:
        assert response.status == 200
        if client.app is not None and path == "/metrics":
            check_described(client.app, "GET", response)
        text = await response.text()
    return {family.name: family for family in text_string_to_metric_families(text)}


async def sum_of(client: Client, name: str, **labels: str) -> float:
    """The sum of the samples that have this name and these labels; there has to be one."""
    samples = [sample for family in (await read_metrics(client)).values() for sample in family.samples]
    found = [each.value for each in samples if each.name == name and labels.items() <= each.labels.items()]
    assert found, (name, labels)
    return sum(found)
