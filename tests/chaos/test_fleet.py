"""Hurt in each way while they work, services, workers and their Redis lose nothing; `make chaos` goes on longer."""

import pytest

from tests.chaos.fleet import chaos_fleet
from tests.support.redis_server import RedisServer


@pytest.mark.timeout(240)
async def test_what_is_acknowledged_survives_whatever_happens_to_a_fleet() -> None:
    with RedisServer(fsync="always") as server:
        report = await chaos_fleet(7, server, seed=1, lease=2.0)
    assert report.is_good(within=30.0), report
    assert (len(report.faults), report.tasks >= 5, report.lines >= 500) == (7, True, True), report
