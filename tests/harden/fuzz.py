"""schemathesis with many more requests than `make check` has time for."""

from pathlib import Path

import pytest

from tests.support.dns_server import DnsServer
from tests.support.schemathesis_run import check_by_schemathesis


@pytest.mark.timeout(1800)
async def test_schemathesis_finds_nothing_for_long(names: DnsServer, tmp_path: Path) -> None:
    await check_by_schemathesis(names, tmp_path, "--max-examples", "200")
