"""Short runs of `tests.chaos.pauses`: five seconds for each kind of process. `make chaos` stops them for longer."""

from typing import get_args

import pytest

from tests.chaos.pauses import Stopped, run_pause


@pytest.mark.parametrize("stopped", get_args(Stopped))
@pytest.mark.timeout(120)
async def test_no_healthy_target_is_blamed_for_a_stop(stopped: Stopped) -> None:
    report = await run_pause(stopped, 5.0, hosts=20)
    assert (report.verdicts, report.doubled) == ({"ok": 60}, 0), report
