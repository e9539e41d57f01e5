"""Lines of a file or of standard input, as they come."""

import asyncio
import errno
import os
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO, Final

from crawler.targets import LONGEST

__all__ = ["count_lines", "read_lines"]

_LONGEST: Final = 2 * LONGEST
_CHUNK: Final = 64 * 1024


def count_lines(path: str) -> int | None:
    """How many lines `read_lines` will give; None for what can be read only once.

    Raises:
        OSError: The file cannot be read.
    """
    if path == "-" or not Path(path).is_file():
        return None
    count, rest = 0, b""
    with Path(path).open("rb") as file:
        while chunk := file.read(_CHUNK):
            *lines, rest = (rest + chunk).split(b"\n")
            count += sum(1 for line in lines if line.strip())
            rest = rest[:_LONGEST]
    return count + bool(rest.strip())


async def read_lines(path: str) -> AsyncIterator[bytes]:
    """The lines of a file (`-`: of standard input) without their ends; blank lines are left out.

    Raises:
        OSError: The file cannot be read.
    """
    rest = b""
    async for chunk in _chunks(path):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.strip():
                yield line.strip()
        rest = rest[:_LONGEST]  # input without an end of line must not fill the memory; as a URL it is none anyway
    if rest.strip():
        yield rest.strip()


def _open(path: str) -> IO[bytes]:
    if path != "-":
        return Path(path).open("rb")
    if sys.stdin is None:  # started with it closed
        raise OSError(errno.EBADF, os.strerror(errno.EBADF), "standard input")
    return os.fdopen(sys.stdin.fileno(), "rb", buffering=0)


async def _chunks(path: str) -> AsyncIterator[bytes]:
    with _open(path) as file:
        if not _may_wait(file):
            while chunk := file.read(_CHUNK):
                yield chunk
        else:  # it must not hold up the probes while it has nothing
            reader = asyncio.StreamReader()
            loop = asyncio.get_running_loop()
            descriptor = os.dup(file.fileno())
            transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), file)
            try:
                while chunk := await reader.read(_CHUNK):
                    yield chunk
            finally:
                transport.close()
                os.set_blocking(descriptor, True)  # a terminal is shared with whoever comes after us
                os.close(descriptor)


def _may_wait(file: IO[bytes]) -> bool:
    """Whether reading waits for somebody. Of the others (files, /dev/null) an event loop cannot be told."""
    mode = os.fstat(file.fileno()).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or file.isatty()
