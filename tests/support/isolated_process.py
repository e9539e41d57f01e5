"""Run a program in its own process, optionally in its own namespace."""

import asyncio
import functools
import json
import os
import subprocess
from typing import Any

__all__ = ["can_unshare", "run_and_read"]


@functools.cache
def can_unshare() -> bool:
    """Whether this machine lets a test have a network or mounts of its own."""
    try:
        return subprocess.run(["unshare", "-rn", "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


async def run_and_read(command: list[str], urls: list[str]) -> tuple[int, list[Any], str]:
    """Run a command with URLs on its standard input; return its exit code, its output's JSON lines, its errors."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CRAWLER_")}
    process = await asyncio.create_subprocess_exec(
        *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    try:
        out, err = await process.communicate("\n".join(urls).encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, [json.loads(line) for line in out.splitlines()], err.decode()
