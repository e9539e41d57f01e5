"""The tests' own ground: that several processes at once see no less than one does."""

import asyncio
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

FORGETFUL = """
import socket

def test_that_opens_a_socket():
    circle = [socket.socket()]
    circle.append(circle)  # which only the garbage collector takes apart
"""


async def test_what_is_never_closed_is_a_failure_in_a_worker_too(tmp_path: Path) -> None:
    """It takes seconds, for it starts pytest."""
    file = tmp_path / "test_forgetful.py"
    file.write_text(FORGETFUL)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pytest", "-c", str(ROOT / "setup.cfg"), "-p", "tests.conftest", "-n", "1"),
        str(file),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert process.returncode == 1
    assert b"unclosed <socket.socket" in output
