"""Notices that a registry's file is not the one any more that this process opened.

SQLite goes on with files that have lost their names: what it writes then is gone when the process ends. And a second
connection would open other files beside those of the first one, which damages both
(https://sqlite.org/howtocorrupt.html, 2.4 and 4).
"""

from pathlib import Path
from typing import Final

from crawler.core.errors import StoreReplaced

__all__ = ["FileGuard"]

_COMPANIONS: Final = ("-wal", "-shm")  # the write-ahead log, and its index


class FileGuard:
    """Compares the files with those that were opened.

    Args:
        path: The registry's file.
    """

    def __init__(self, path: Path) -> None:
        self._paths = [path, *(path.with_name(path.name + suffix) for suffix in _COMPANIONS)]
        self._opened: list[tuple[int, int] | None] | None = None

    def remember(self) -> None:
        """Take the files that are there now for those that are open. At least one connection has to stay open."""
        self._opened = [_identity(path) for path in self._paths]

    def check(self) -> None:
        """Raise `StoreReplaced` if a file was removed or replaced since `remember`."""
        if self._opened is None:
            return
        for path, opened in zip(self._paths, self._opened, strict=True):
            if _identity(path) != opened:
                raise StoreReplaced(f"{path}: was removed or replaced while it was in use")


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
