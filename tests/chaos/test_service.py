"""Killed twenty times while it works, the service loses nothing that it acknowledged; `make chaos` goes on longer."""

from pathlib import Path

import pytest

from tests.chaos.service import chaos


@pytest.mark.timeout(180)
async def test_what_is_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    report = await chaos(20, tmp_path, seed=1)
    assert report.is_good, report
    assert (report.kills, report.tasks >= 10, report.lines >= 500) == (20, True, True), report
