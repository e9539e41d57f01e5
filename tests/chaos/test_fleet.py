"""A short run of `tests.chaos.fleet`: one fault of each kind. `make chaos` runs longer."""

import pytest

from tests.chaos.fleet import run_fleet_chaos
from tests.support.redis_server import RedisServer


@pytest.mark.timeout(240)
async def test_no_fault_in_a_fleet_loses_what_was_acknowledged() -> None:
    with RedisServer(fsync="always") as server:
        report = await run_fleet_chaos(7, server, seed=1, lease=2.0)
    assert report.is_good(within=30.0), report
    assert (len(report.faults), report.tasks >= 5, report.lines >= 500) == (7, True, True), report
