"""The reserve: a file beside the registry's, whose space is given back when the disk is full.

Deleting rows from a full disk needs space first, for the write-ahead log. So a full disk would be a dead end: nothing
could be deleted, and the service could not even start. Databases call such a file a ballast file
(https://www.cockroachlabs.com/docs/stable/cluster-setup-troubleshooting#automatic-ballast-files).

New Tasks may not take the last bytes of the disk (`free_bytes`), which are for the results of running ones.
"""

import errno
import os
from pathlib import Path
from typing import Final

from crawler.core.errors import StoreFull

__all__ = ["Reserve"]

_MOST_BYTES: Final = 16 * 2**20
_LEAST_FREE_BYTES: Final = 2**20
_SHARE_OF_DISK: Final = 8  # the reserve takes at most this part of a small disk
_STEPS: Final = 8  # it is released in parts: other programs may take what is released
_FULL_BYTES: Final = 64 * 2**10  # SQLite needs half of this to open a file
_FULL_ERRNOS: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Reserve:
    """Space on the disk of a registry's file. Its methods block, so they run on the database's thread.

    Args:
        path: The registry's file.
        most_bytes: The size of the reserve, if the disk has at least eight times as much.
    """

    def __init__(self, path: Path, most_bytes: int = _MOST_BYTES) -> None:
        self._registry_path = path
        self._path = path.with_name(path.name + ".reserve")
        self._most_bytes = most_bytes

    def check(self) -> None:
        """Fill the reserve.

        Raises:
            StoreFull: There is no space for that, or none besides.
        """
        if not self.fill() or not self.free_bytes():
            raise StoreFull(
                f"{self._registry_path}: its disk has less than {self._kept_bytes() >> 10} KiB free besides "
                f"{self._path.name}; make room, or delete Tasks"
            )

    def free_bytes(self) -> int:
        """Return how many bytes new Tasks may take. What is in the log needs the same space once more, in the file."""
        log = self._registry_path.with_name(self._registry_path.name + "-wal")
        return max(0, _free_bytes(self._path.parent) - self._kept_bytes() - _size(log))

    def is_disk_full(self) -> bool:
        """Return whether SQLite may fail for want of space, whatever error it raises."""
        return _free_bytes(self._path.parent) < _FULL_BYTES

    def fill(self) -> bool:
        """Take as much space as there is, up to the size of the reserve; return whether it is full.

        If the file cannot be written for another reason, there is no reserve, and it counts as full.
        """
        wanted, size = self._wanted_bytes(), _size(self._path)
        possible = min(wanted, size + _free_bytes(self._path.parent) - _LEAST_FREE_BYTES)
        if possible <= size:
            return size >= wanted
        try:
            with self._path.open("ab") as file:
                _allocate(file.fileno(), size, possible)
        except OSError as error:
            return error.errno not in _FULL_ERRNOS
        return possible == wanted

    def release(self, share: float = 1.0) -> bool:
        """Give a part of the reserve back to the disk.

        Args:
            share: How much of the reserve may be released in all.

        Returns:
            Whether there was any left to release.
        """
        size, wanted = _size(self._path), self._wanted_bytes()
        least = int(wanted * (1.0 - share))
        if size <= least:
            return False
        os.truncate(self._path, max(least, size - max(1, wanted // _STEPS)))
        return True

    def _wanted_bytes(self) -> int:
        disk = os.statvfs(self._path.parent)
        return min(self._most_bytes, disk.f_blocks * disk.f_frsize // _SHARE_OF_DISK)

    def _kept_bytes(self) -> int:
        return max(_LEAST_FREE_BYTES, self._wanted_bytes())


def _free_bytes(folder: Path) -> int:
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _allocate(descriptor: int, start: int, end: int) -> None:
    """Give a file real space; a hole would take none. On an error it keeps its size."""
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, start, end - start)
        else:  # macOS
            os.pwrite(descriptor, bytes(end - start), start)
    except OSError:
        os.truncate(descriptor, start)
        raise
