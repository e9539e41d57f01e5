"""Both services behind nginx are restarted twenty times in turn, under clients that never pause."""

from pathlib import Path

import pytest

from tests.redis_server import RedisServer
from tests.replicas import behind_nginx, restarted_under_load
from tests.site import Site


@pytest.mark.timeout(600)
async def test_no_restart_fails_a_request(
    redis_server: RedisServer, site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with behind_nginx(tmp_path, redis_server.url) as fleet:
        await restarted_under_load(fleet, site, rounds=20)
        with capsys.disabled():
            print(f"\n20 restarts: {fleet.asked.total():,} requests, {len(fleet.failures)} failures")
