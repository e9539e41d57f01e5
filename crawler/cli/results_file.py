"""The file that results go to. A run destroys nothing: neither the list that it reads nor older results."""

import errno
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self, TextIO

from crawler.core.errors import InputError
from crawler.core.tasks import Counts

__all__ = ["ResultsFile", "find_unfinished", "refuse_own_list"]

_PARTIAL_SUFFIX: Final = ".part"


class ResultsFile:
    """A results file while a run writes it. Leaving its context closes it.

    Attributes:
        path: Where the results stand now.
        stream: Where to write them.
    """

    def __init__(self, path: Path, stream: TextIO, final_path: Path, counts: Counts) -> None:
        self.path = path
        self.stream = stream
        self._final_path = final_path
        self._counts = counts

    @classmethod
    def create(cls, path: Path, counts: Counts) -> Self:
        """Begin new results: beside `path`, whose place they take when the run is complete.

        Args:
            path: The file to make.
            counts: Those of the run: one that fails without a result leaves no file.

        Raises:
            OSError: The file cannot be written.
            InputError: A run that did not end has left results, which would be lost.
        """
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if path.exists() and not path.is_file():  # /dev/null or a pipe, whose place a file must not take
            return cls(path, _open(path, "w"), path, counts)
        real = path.resolve()  # a symbolic link stays one
        partial = _partial(real)
        if partial.exists() and partial.stat().st_size:
            message = f"{partial} has the results of a run that did not end; go on with --resume {path}, or remove it"
            raise InputError(message, "--output")
        try:
            stream = _open(partial, "w")
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from None
        if real.exists():
            shutil.copymode(real, partial)
        return cls(partial, stream, real, counts)

    @classmethod
    def extend(cls, path: Path, counts: Counts) -> Self:
        """Open results to add others at their end; the file is made if it does not exist.

        Results that a run has left beside `path` take its place when this run is complete.

        Raises:
            OSError: The file cannot be written.
        """
        current = find_unfinished(path)
        stream = _open(current, "a")
        if not _ends_in_newline(current):
            stream.write("\n")
        return cls(current, stream, path if current == path else path.resolve(), counts)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stream.close()
        if self.path == self._final_path:
            return
        if exc is None:
            self.path = self.path.replace(self._final_path)
        elif self._counts.done == 0:
            self.path.unlink(missing_ok=True)


def find_unfinished(path: Path) -> Path:
    """Return where a run that did not end has left its results; `path` itself if there is no such run."""
    partial = _partial(path.resolve())
    return partial if partial.exists() else path


def refuse_own_list(output: Path | None, lists: Iterable[str]) -> None:
    """Refuse to write results over a list that is read.

    Raises:
        InputError: One of the lists is the output.
    """
    if output is None or not output.is_file():
        return
    for each in lists:
        if each != "-" and output.samefile(each):
            raise InputError(f"{output} is the list to read; name another file", "--output")


def _partial(path: Path) -> Path:
    return path.with_name(path.name + _PARTIAL_SUFFIX)


def _open(path: Path, mode: Literal["a", "w"]) -> TextIO:
    return path.open(mode, encoding="utf-8", newline="")


def _ends_in_newline(path: Path) -> bool:
    with path.open("rb") as file:
        if not file.seekable() or file.seek(0, os.SEEK_END) == 0:
            return True
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"
