"""A lock that keeps other processes from a registry's file."""

import asyncio
import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from crawler.core.errors import InputError

__all__ = ["FileLock", "acquire_lock"]

_POLL_SECONDS: Final = 0.05


class FileLock:
    """Locks a file against other processes; the kernel releases the lock when this process ends."""

    def __init__(self, path: Path) -> None:
        """Take the lock.

        Raises:
            InputError: Another process holds it, or the lock's file cannot be created.
        """
        lock_path = path.with_name(path.name + ".lock")
        try:
            self._descriptor = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise InputError(f"cannot be used: {error.strerror}", str(path)) from None
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = os.read(self._descriptor, 32).decode().strip() or "unknown"
            os.close(self._descriptor)
            raise InputError(f"is in use by another crawler, process {owner}", str(path)) from None
        os.ftruncate(self._descriptor, 0)
        os.write(self._descriptor, f"{os.getpid()}\n".encode())

    def release(self) -> None:
        """Release the lock."""
        os.close(self._descriptor)


async def acquire_lock(path: Path, timeout: float) -> FileLock:
    """Take the lock as soon as no other process holds it.

    Raises:
        InputError: Another process still holds it after `timeout` seconds, or the lock's file cannot be created.
    """
    deadline = asyncio.get_running_loop().time() + timeout
    while asyncio.get_running_loop().time() < deadline:
        with suppress(InputError):
            return FileLock(path)
        await asyncio.sleep(_POLL_SECONDS)
    return FileLock(path)
