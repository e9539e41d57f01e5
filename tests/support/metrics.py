"""Read the metrics of a service, as Prometheus does."""

from aiohttp import web
from aiohttp.test_utils import TestClient
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.support.described import check_described

Client = TestClient[web.Request, web.Application]


async def families(client: Client, path: str = "/metrics") -> dict[str, Metric]:
    """The metric families at a path, by name."""
    async with client.get(path) as response:
        assert response.status == 200
        if client.app is not None and path == "/metrics":
            check_described(client.app, "GET", response)
        text = await response.text()
    return {family.name: family for family in text_string_to_metric_families(text)}


async def value(client: Client, name: str, **labels: str) -> float:
    """The sum of the samples with this name and these labels; there has to be at least one."""
    samples = [sample for family in (await families(client)).values() for sample in family.samples]
    found = [each.value for each in samples if each.name == name and labels.items() <= each.labels.items()]
    assert found, (name, labels)
    return sum(found)
