"""The shared fixtures work in pytest-xdist's worker processes too."""

import asyncio
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

FORGETFUL = """
import socket

def test_that_opens_a_socket():
    circle = [socket.socket()]
    circle.append(circle)  # only the garbage collector frees it
"""


async def test_an_unclosed_socket_fails_a_test_run_in_a_worker_process(tmp_path: Path) -> None:
    """This takes seconds, because it starts pytest."""
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
