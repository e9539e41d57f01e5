"""The service against its own OpenAPI document, as schemathesis reads it (https://schemathesis.readthedocs.io/)."""

from pathlib import Path

import pytest

from tests.support.dns_server import DnsServer
from tests.support.schemathesis_run import check_by_schemathesis


@pytest.mark.timeout(300)
async def test_schemathesis_finds_nothing(names: DnsServer, tmp_path: Path) -> None:
    await check_by_schemathesis(names, tmp_path)
