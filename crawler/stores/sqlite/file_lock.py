"""A lock that keeps other processes from a registry's file, under whichever name they know it."""

import asyncio
import fcntl
import os
import struct
from contextlib import suppress
from pathlib import Path
from typing import Final

from crawler.core.errors import InputError

__all__ = ["LOCK_HEAD_BYTES", "FileLock", "acquire_lock", "lock_path"]

LOCK_HEAD_BYTES: Final = 16  # of the lock file: the number of the process; `log_check` writes what follows

_POLL_SECONDS: Final = 0.05

# SQLite locks bytes from 2**30 on (https://sqlite.org/lockingv3.html); this one is beside them. The lock belongs to the
# open file, so that connections which are closed do not release it. Only Linux has such locks.
_LOCK_OF_OPEN_FILE: Final = getattr(fcntl, "F_OFD_SETLK", None)
_WRITE_LOCK_ON_BYTE: Final = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 2**30 - 1, 1, 0)


class FileLock:
    """Locks a file against other processes; the kernel releases the lock when this process ends.

    There are two locks: of a file beside it, which also names the process, and of the file itself. The second one also
    holds if the first file is removed, or if the other process knows the file by another name (a hard link).
    """

    def __init__(self, path: Path) -> None:
        """Take the locks; an empty file is created if there is none.

        Args:
            path: The file, without symbolic links.

        Raises:
            InputError: Another process holds one of them, or a file cannot be created.
        """
        try:
            self._descriptors = [_lock_companion(path)]
        except OSError as error:
            raise InputError(f"cannot be used: {error.strerror}", str(path)) from None
        try:
            # Only now: closing a file again would release the locks of SQLite in this process, if it has it open.
            self._descriptors.append(_lock_itself(path))
        except OSError as error:
            self.release()
            raise InputError(f"cannot be used: {error.strerror}", str(path)) from None
        except InputError:
            self.release()
            raise

    def release(self) -> None:
        """Release the locks."""
        while self._descriptors:
            os.close(self._descriptors.pop())


async def acquire_lock(path: Path, timeout: float) -> FileLock:
    """Take the lock as soon as no other process holds it.

    Raises:
        InputError: Another process still holds it after `timeout` seconds, or a file cannot be created.
    """
    deadline = asyncio.get_running_loop().time() + timeout
    while asyncio.get_running_loop().time() < deadline:
        with suppress(InputError):
            return FileLock(path)
        await asyncio.sleep(_POLL_SECONDS)
    return FileLock(path)


def lock_path(path: Path) -> Path:
    """Return the lock file of a registry's file."""
    return path.with_name(path.name + ".lock")


def _lock_companion(path: Path) -> int:
    """Lock the file beside it, and write the number of this process into it."""
    companion = lock_path(path)
    while True:
        descriptor = os.open(companion, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = os.read(descriptor, LOCK_HEAD_BYTES).decode(errors="replace").strip(" \n\0") or "unknown"
            os.close(descriptor)
            raise InputError(f"is in use by another crawler, process {owner}", str(path)) from None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), companion.stat()):
                break
        os.close(descriptor)  # it was removed before it was locked
    with suppress(OSError):  # for example because the disk is full; the lock holds anyway
        os.pwrite(descriptor, f"{os.getpid()}\n".ljust(LOCK_HEAD_BYTES).encode(), 0)
    return descriptor


def _lock_itself(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    if _LOCK_OF_OPEN_FILE is None:
        return descriptor
    try:
        fcntl.fcntl(descriptor, _LOCK_OF_OPEN_FILE, _WRITE_LOCK_ON_BYTE)
    except (BlockingIOError, PermissionError):
        os.close(descriptor)
        raise InputError("is in use by another crawler, which knows it by another name", str(path)) from None
    except OSError:
        pass  # a file system without such locks
    return descriptor
