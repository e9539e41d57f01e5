"""Two services behind a proxy are restarted twenty times in turn, under constant load."""

from pathlib import Path

import pytest

from tests.support.proxied_fleet import fleet_behind, restart_under_load
from tests.support.redis_server import RedisServer
from tests.support.shipped import PROXIES
from tests.support.site import Site


@pytest.mark.timeout(600)
@pytest.mark.parametrize("proxy", PROXIES)
async def test_no_restart_fails_a_request(
    proxy: str, redis_server: RedisServer, site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with fleet_behind(proxy, tmp_path, redis_server.url) as fleet:
        await restart_under_load(fleet, site, rounds=20)
        with capsys.disabled():
            print(f"\n20 restarts behind {proxy}: {fleet.requests.total():,} requests, {len(fleet.failures)} failures")
