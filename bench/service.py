"""Run the service as a process on the first core, with its store on disk."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Self

__all__ = ["Process", "cpu_of", "quantile", "service"]


class Process:
    """A Python program that prints a line with its URL when it is ready; terminated when its context ends.

    Args:
        arguments: For Python.
        cores: To run on, in the syntax of taskset.
    """

    def __init__(self, *arguments: str, cores: str = "0") -> None:
        self._command = ["taskset", "-c", cores, sys.executable, *arguments]

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(*self._command, stdout=asyncio.subprocess.PIPE)
        assert self._process.stdout is not None
        line = (await self._process.stdout.readline()).decode().split()
        self.url = next((word for word in line if word.startswith("http")), "").rstrip(".")
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._process.terminate()
        await self._process.wait()

    @property
    def cpu(self) -> float:
        """Seconds of CPU that it has used so far."""
        return cpu_of(self._process.pid)

    @property
    def rss(self) -> float:
        """Resident memory in MiB."""
        return int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def service(folder: Path, *flags: str) -> Process:
    """Return `python -m crawler serve` with its Tasks in a folder."""
    return Process("-m", "crawler", "serve", "--port", "0", "--registry", f"sqlite:///{folder}/tasks.db", *flags)


def cpu_of(pid: int) -> float:
    """Return the seconds of CPU that a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def quantile(values: list[float], part: float) -> float:
    """Return the value below which a part of all values lies."""
    return sorted(values)[min(len(values) - 1, int(part * len(values)))]
