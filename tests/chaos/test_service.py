"""A short run of `tests.chaos.service`: twenty kills. `make chaos` runs longer."""

from pathlib import Path

import pytest

from tests.chaos.service import run_service_chaos


@pytest.mark.timeout(180)
async def test_no_kill_of_the_service_loses_what_was_acknowledged(tmp_path: Path) -> None:
    report = await run_service_chaos(20, tmp_path, seed=1, tasks=10)
    assert report.is_good, report
    assert report.lines >= 500, report
